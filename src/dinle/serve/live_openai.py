"""``WS /v1/realtime``: OpenAI's realtime transcription events (https://platform.openai.com/docs/guides/realtime-transcription).

Both forms of the session are understood: ``session.update`` with ``audio.input`` and the older ``transcription_session.update``.
A session can be changed until its first sound. What cannot be followed is answered by an ``error`` event, and the stream goes on.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, Field

from dinle.errors import DinleError
from dinle.recognize.live_audio import PcmDecoder
from dinle.recognize.stream import Final, SpeechStarted, StreamEvent
from dinle.serve.errors import Problem, ProtocolError, ValueRefusedError, describe_error, to_openai
from dinle.serve.live import Command, Setup, run_dialect
from dinle.serve.live_plain import parse_message, receive_message
from dinle.serve.openai_api import check_language
from dinle.serve.security import choose_subprotocol
from dinle.serve.service import get_service

if TYPE_CHECKING:
    from dinle.serve.service import Service

router = APIRouter()

OPENAI_RATE_HZ = 24_000
G711_RATE_HZ = 8_000
MANUAL_SILENCE_S = 5.0  # without turn detection only a commit, or so long a silence, ends a turn
MIN_SILENCE_S, MAX_SILENCE_S = 0.1, 5.0


class AudioFormat(BaseModel):
    """What ``input_audio_buffer.append`` holds. OpenAI takes PCM at 24 kHz alone; other rates work here too."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int = Field(default=OPENAI_RATE_HZ, ge=8_000, le=192_000)


class TurnDetection(BaseModel):
    """When speech has ended; ``server_vad`` and ``semantic_vad`` are the same here."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    silence_duration_ms: int = Field(default=500, ge=0)


class TranscriptionChoice(BaseModel):
    """Which model hears, and which language."""

    model: str | None = None
    language: str | None = None


class AudioInput(BaseModel):
    """``session.audio.input``."""

    format: AudioFormat = Field(default_factory=AudioFormat)
    transcription: TranscriptionChoice | None = Field(default_factory=TranscriptionChoice)
    turn_detection: TurnDetection | None = Field(default_factory=TurnDetection)


class Audio(BaseModel):
    """``session.audio``."""

    input: AudioInput = Field(default_factory=AudioInput)


class Session(BaseModel):
    """``session`` in both forms; the older one has its fields at the top."""

    audio: Audio = Field(default_factory=Audio)
    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | None = None
    input_audio_transcription: TranscriptionChoice | None = None
    turn_detection: TurnDetection | None = Field(default_factory=TurnDetection)


class ClientEvent(BaseModel):
    """Any event of a client."""

    type: str
    audio: str = ""
    session: Session | None = None


OLDER_FORMATS: dict[str, AudioFormat] = {
    "pcm16": AudioFormat(),
    "g711_ulaw": AudioFormat(type="audio/pcmu", rate=G711_RATE_HZ),
    "g711_alaw": AudioFormat(type="audio/pcma", rate=G711_RATE_HZ),
}
ENCODINGS: dict[str, Literal["pcm16", "g711_ulaw", "g711_alaw"]] = {
    "audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw",
}  # fmt: skip
COMMANDS: dict[str, Command] = {"input_audio_buffer.commit": "commit", "input_audio_buffer.clear": "clear"}
UPDATES = ("session.update", "transcription_session.update")


class OpenAIDialect:
    """See :class:`dinle.serve.live.Dialect`.

    Args:
        model: name of a model from the address; the session's own wins.
    """

    def __init__(self, model: str | None) -> None:
        self._id = uuid.uuid4().hex
        self._input = AudioInput(transcription=TranscriptionChoice(model=model))
        self._pending: bytes | Command | None = None  # what came when the session was complete
        self._told: list[str] = []  # words of the open item that were sent as deltas
        self._last_item: str | None = None
        self._events = 0

    async def open(self, socket: WebSocket, service: Service) -> Setup:
        """Greet, take updates until the first sound."""
        await self._send(socket, "session.created", session=self._describe())
        while self._pending is None:
            event = await self._receive_event(socket)
            if event is None:
                continue
            if event.type in UPDATES and event.session is not None:
                await self._update(socket, service, event)
            else:
                self._pending = await self._read(socket, event)
        transcription = self._input.transcription or TranscriptionChoice()
        return Setup(partial(make_decoder, self._input.format), transcription.model, self._find_silence())

    def _find_silence(self) -> float:
        if self._input.turn_detection is None:
            return MANUAL_SILENCE_S
        return min(MAX_SILENCE_S, max(MIN_SILENCE_S, self._input.turn_detection.silence_duration_ms / 1000))

    async def _update(self, socket: WebSocket, service: Service, event: ClientEvent) -> None:
        session = event.session or Session()
        wanted = session.audio.input
        if event.type == "transcription_session.update":
            form = OLDER_FORMATS[session.input_audio_format or "pcm16"]
            choice = session.input_audio_transcription or TranscriptionChoice()
            wanted = AudioInput(format=form, transcription=choice, turn_detection=session.turn_detection)
        choice = wanted.transcription or TranscriptionChoice()
        if choice.model is None and self._input.transcription is not None:
            choice = choice.model_copy(update={"model": self._input.transcription.model})
        try:
            check_language(choice.language or "")
            service.models.find(choice.model)
        except DinleError as error:
            await self._complain(socket, error)
            return
        self._input = wanted.model_copy(update={"transcription": choice})
        await self._send(socket, f"{event.type}d", session=self._describe())

    def _describe(self) -> dict[str, Any]:
        return {
            "id": f"sess_{self._id}",
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {"input": {**self._input.model_dump(), "noise_reduction": None}},
        }

    async def receive(self, socket: WebSocket) -> bytes | Command:
        """Sound, or a command."""
        item, self._pending = self._pending, None
        while item is None:
            event = await self._receive_event(socket)
            if event is not None:
                item = await self._read(socket, event)
        return item

    async def _receive_event(self, socket: WebSocket) -> ClientEvent | None:
        """The next event; ``None`` after one that could not be understood, which the client has been told."""
        text = (await receive_message(socket)).get("text")
        try:
            if text is None:
                raise ProtocolError("the message is binary; expected JSON with sound in base64")  # noqa: TRY301
            return parse_message(ClientEvent, str(text))
        except ProtocolError as error:
            await self._complain(socket, error)
            return None

    async def _read(self, socket: WebSocket, event: ClientEvent) -> bytes | Command | None:
        if event.type in COMMANDS:
            return COMMANDS[event.type]
        if event.type == "input_audio_buffer.append":
            try:
                return base64.b64decode(event.audio, validate=True)
            except binascii.Error:
                await self._complain(
                    socket, ValueRefusedError("audio", "audio is not base64; expected samples in base64")
                )
                return None
        if event.type in UPDATES:
            message = "the session cannot be changed after its first sound; open another connection"
            await self._complain(socket, ValueRefusedError("session", message))
        else:
            message = f"there is no event {event.type[:80]!r} in a transcription session"
            await self._complain(socket, ValueRefusedError("type", message))
        return None

    async def send(self, socket: WebSocket, event: StreamEvent) -> None:
        """Speech started; deltas of committed words; speech stopped, committed, completed."""
        item = f"item_{self._id[:16]}_{event.segment}"
        if isinstance(event, SpeechStarted):
            self._told = []
            start_ms = round(event.start_s * 1000)
            await self._send(socket, "input_audio_buffer.speech_started", item_id=item, audio_start_ms=start_ms)
        elif isinstance(event, Final):
            await self._send_final(socket, event, item)
        else:
            await self._send_delta(socket, item, [word.text for word in event.words[: event.stable]])

    async def _send_delta(self, socket: WebSocket, item: str, words: list[str]) -> None:
        """The words that were not told yet, where the told ones are their beginning."""
        if words[: len(self._told)] != self._told or len(words) == len(self._told):
            return
        delta = " ".join(words[len(self._told) :])
        delta = f" {delta}" if self._told else delta
        self._told = words
        await self._send(
            socket, "conversation.item.input_audio_transcription.delta", item_id=item, content_index=0, delta=delta
        )

    async def _send_final(self, socket: WebSocket, event: Final, item: str) -> None:
        end_ms = round(event.end_s * 1000)
        await self._send(socket, "input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end_ms)
        await self._send(socket, "input_audio_buffer.committed", item_id=item, previous_item_id=self._last_item)
        words = [word.text for word in event.words]
        await self._send_delta(socket, item, words)
        await self._send(
            socket,
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript=" ".join(words),
            usage={"type": "duration", "seconds": round(event.end_s - event.start_s, 3)},
        )
        self._last_item = item

    async def done(self, socket: WebSocket, command: Command) -> None:
        """``input_audio_buffer.cleared``; a commit is told by its items."""
        if command == "clear":
            await self._send(socket, "input_audio_buffer.cleared")

    async def fail(self, socket: WebSocket, problem: Problem) -> None:
        """``error``."""
        await self._send(socket, "error", error={**to_openai(problem).model_dump(), "event_id": None})

    async def _complain(self, socket: WebSocket, error: DinleError) -> None:
        await self.fail(socket, describe_error(error))

    async def _send(self, socket: WebSocket, kind: str, **fields: Any) -> None:
        self._events += 1
        message = {"type": kind, "event_id": f"event_{self._id[:16]}_{self._events}", **fields}
        await socket.send_text(json.dumps(message, ensure_ascii=False))


def make_decoder(form: AudioFormat) -> PcmDecoder:
    """What turns a client's bytes into sound."""
    rate_hz = form.rate if form.type == "audio/pcm" else G711_RATE_HZ
    return PcmDecoder(rate_hz, encoding=ENCODINGS[form.type])


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """OpenAI's events in and out; the query may hold ``model``. See docs/streaming.md."""
    dialect = OpenAIDialect(socket.query_params.get("model"))
    await run_dialect(socket, get_service(socket), dialect, choose_subprotocol(socket.scope["subprotocols"]))
