"""``WS /v1/realtime``: OpenAI's realtime transcription events (https://platform.openai.com/docs/guides/realtime-transcription).

Both forms of the session are understood: ``session.update`` with ``audio.input`` and the older ``transcription_session.update``.
A session can be changed until its first sound. What cannot be followed is answered by an ``error`` event, and the stream goes on.

With turn detection each stretch of speech is an item. Without it an item is all that came between two commits.
"""

from __future__ import annotations

import base64
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
from dinle.serve.live import Command, Setup, run_dialect, send_text
from dinle.serve.live_plain import PcmRate, parse_message, receive_message
from dinle.serve.openai_api import check_language
from dinle.serve.options import Options, read_hot_words
from dinle.serve.security import choose_subprotocol
from dinle.serve.service import get_service

if TYPE_CHECKING:
    from dinle.serve.service import Service

router = APIRouter()

OPENAI_RATE_HZ = 24_000
G711_RATE_HZ = 8_000
MIN_SILENCE_S, MAX_SILENCE_S = 0.1, 5.0


class AudioFormat(BaseModel):
    """What ``input_audio_buffer.append`` holds. OpenAI takes PCM at 24 kHz alone; other rates work here too."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: PcmRate | None = Field(default=None, description="of PCM (default: 24000)")


class TurnDetection(BaseModel):
    """When speech has ended; ``server_vad`` and ``semantic_vad`` are the same here."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    silence_duration_ms: int = Field(default=500, ge=0)


class TranscriptionChoice(BaseModel):
    """Which model hears, which language, and what is to be expected."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = Field(default=None, exclude_if=lambda prompt: prompt is None)


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
    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] = "pcm16"
    input_audio_transcription: TranscriptionChoice | None = None
    turn_detection: TurnDetection | None = Field(default_factory=TurnDetection)


class ClientEvent(BaseModel):
    """Any event of a client."""

    type: str
    event_id: str | None = None
    audio: str = ""
    session: Session | None = None


class InputAudioBufferCommitEmptyError(ProtocolError):
    """A commit where turn detection found no speech since the last one; the name is the code of OpenAI's error."""

    def __init__(self) -> None:
        super().__init__("no speech is open to be committed; with turn detection a commit is not needed")


OLDER_FORMATS: dict[str, AudioFormat] = {
    "pcm16": AudioFormat(),
    "g711_ulaw": AudioFormat(type="audio/pcmu"),
    "g711_alaw": AudioFormat(type="audio/pcma"),
}
ENCODINGS: dict[str, Literal["pcm16", "g711_ulaw", "g711_alaw"]] = {
    "audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw",
}  # fmt: skip
COMMANDS: dict[str, Command] = {"input_audio_buffer.commit": "commit", "input_audio_buffer.clear": "clear"}
UPDATE, OLDER_UPDATE = "session.update", "transcription_session.update"


class OpenAIDialect:
    """See :class:`dinle.serve.live.Dialect`.

    Args:
        model: name of a model from the address; the session's own wins.
    """

    def __init__(self, model: str | None) -> None:
        self._id = uuid.uuid4().hex
        self._input = AudioInput(transcription=TranscriptionChoice(model=model))
        self._pending: bytes | Command | None = None  # what came when the session was complete
        self._item = OpenItem(0)
        self._last_item: str | None = None
        self._committed = 0  # items since the last commit of the client
        self._events = 0

    async def open(self, socket: WebSocket, service: Service) -> Setup:
        """Greet, take updates until the first sound."""
        await self._send(socket, "session.created", session=self._describe())
        while self._pending is None:
            event = await self._receive_event(socket)
            if event is None:
                continue
            if event.type in (UPDATE, OLDER_UPDATE) and event.session is not None:
                await self._update(socket, service, event, event.session)
            else:
                self._pending = await self._read(socket, event)
        choice = self._input.transcription or TranscriptionChoice()
        turns = self._input.turn_detection
        # Without turns the pauses part what is heard all the same, and the parts are joined.
        silence_s = turns.silence_duration_ms / 1000 if turns is not None else service.settings.live_silence_s
        silence_s = min(MAX_SILENCE_S, max(MIN_SILENCE_S, silence_s))
        options = Options(read_hot_words(prompt=choice.prompt or ""))
        return Setup(partial(make_decoder, self._input.format), choice.model, silence_s, options)

    async def _update(self, socket: WebSocket, service: Service, event: ClientEvent, session: Session) -> None:
        """Change what the update names; the rest stays as it is."""
        if event.type == OLDER_UPDATE:
            names = {"input_audio_transcription": "transcription", "turn_detection": "turn_detection"}
            wanted = {new: getattr(session, old) for old, new in names.items() if old in session.model_fields_set}
            if "input_audio_format" in session.model_fields_set:
                wanted["format"] = OLDER_FORMATS[session.input_audio_format]
        else:
            wanted = {name: getattr(session.audio.input, name) for name in session.audio.input.model_fields_set}
        now = self._input.model_copy(update=wanted)
        choice = now.transcription or TranscriptionChoice()
        if choice.model is None and self._input.transcription is not None:
            choice = choice.model_copy(update={"model": self._input.transcription.model})
        try:
            check_language(choice.language or "")
            service.models.find(choice.model)
        except DinleError as error:
            await self._complain(socket, error, event)
            return
        self._input = now.model_copy(update={"transcription": choice})
        session_now = self._describe_older() if event.type == OLDER_UPDATE else self._describe()
        await self._send(socket, f"{event.type}d", session=session_now)

    def _describe(self) -> dict[str, Any]:
        form: dict[str, Any] = {"type": self._input.format.type}
        if self._input.format.type == "audio/pcm":
            form["rate"] = find_rate(self._input.format)
        return {
            "id": f"sess_{self._id}",
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {"input": {**self._input.model_dump(), "format": form, "noise_reduction": None}},
        }

    def _describe_older(self) -> dict[str, Any]:
        known = self._input.model_dump()
        return {
            "id": f"sess_{self._id}",
            "object": "realtime.transcription_session",
            "input_audio_format": ENCODINGS[self._input.format.type],
            "input_audio_transcription": known["transcription"],
            "turn_detection": known["turn_detection"],
        }

    async def start(self, socket: WebSocket) -> None:
        """Nothing: sound has come already."""

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
        error = ValueRefusedError("type", f"there is no event {event.type[:80]!r} in a transcription session")
        if event.type == "input_audio_buffer.append":
            try:
                return base64.b64decode(event.audio, validate=True)
            except ValueError:  # binascii's own error, or letters beyond ASCII
                error = ValueRefusedError("audio", "audio is not base64; expected samples in base64")
        elif event.type in (UPDATE, OLDER_UPDATE) and event.session is None:
            error = ValueRefusedError("session", "the update has no session; expected what is to change")
        elif event.type in (UPDATE, OLDER_UPDATE):
            message = "the session cannot be changed after its first sound; open another connection"
            error = ValueRefusedError("session", message)
        await self._complain(socket, error, event)
        return None

    async def send(self, socket: WebSocket, event: StreamEvent) -> None:
        """Speech started; deltas of committed words; speech stopped, committed, completed."""
        turns = self._input.turn_detection is not None
        if isinstance(event, SpeechStarted):
            if turns:
                await self._send_about_item(socket, "speech_started", audio_start_ms=round(event.start_s * 1000))
            return
        words = [word.text for word in event.words]
        if not isinstance(event, Final):
            await self._send_delta(socket, words[: event.stable])
            return
        if not turns:
            await self._send_delta(socket, words)
            self._item.end_part(words, event.end_s - event.start_s)
            return
        await self._send_about_item(socket, "speech_stopped", audio_end_ms=round(event.end_s * 1000))
        await self._commit(socket, words, event.end_s - event.start_s)

    async def done(self, socket: WebSocket, command: Command) -> None:
        """The item of a commit, or ``input_audio_buffer.cleared``."""
        if command == "clear":
            self._item = OpenItem(self._item.number + 1)
            await self._send(socket, "input_audio_buffer.cleared")
            return
        if self._input.turn_detection is None:
            await self._commit(socket, [], 0.0)
        elif not self._committed:
            await self._complain(socket, InputAudioBufferCommitEmptyError())
        self._committed = 0

    async def _commit(self, socket: WebSocket, words: list[str], seconds: float) -> None:
        """End the open item with these words."""
        await self._send_about_item(socket, "committed", previous_item_id=self._last_item)
        await self._send_delta(socket, words)
        item = self._item
        item.end_part(words, seconds)
        await self._send(
            socket,
            "conversation.item.input_audio_transcription.completed",
            item_id=self._name_item(),
            content_index=0,
            transcript=" ".join(item.words),
            usage={"type": "duration", "seconds": round(item.seconds, 3)},
        )
        self._last_item = self._name_item()
        self._item = OpenItem(item.number + 1)
        self._committed += 1

    async def _send_delta(self, socket: WebSocket, words: list[str]) -> None:
        """The words of the open speech that were not told yet, where the told ones are their beginning."""
        delta = self._item.take_delta(words)
        if delta:
            kind = "conversation.item.input_audio_transcription.delta"
            await self._send(socket, kind, item_id=self._name_item(), content_index=0, delta=delta)

    async def _send_about_item(self, socket: WebSocket, kind: str, **fields: Any) -> None:
        await self._send(socket, f"input_audio_buffer.{kind}", item_id=self._name_item(), **fields)

    def _name_item(self) -> str:
        return f"item_{self._id[:16]}_{self._item.number}"

    async def fail(self, socket: WebSocket, problem: Problem) -> None:
        """``error``."""
        await self._send_error(socket, problem, None)

    async def _complain(self, socket: WebSocket, error: DinleError, event: ClientEvent | None = None) -> None:
        await self._send_error(socket, describe_error(error), event.event_id if event is not None else None)

    async def _send_error(self, socket: WebSocket, problem: Problem, event_id: str | None) -> None:
        await self._send(socket, "error", error={**to_openai(problem).model_dump(), "event_id": event_id})

    async def _send(self, socket: WebSocket, kind: str, **fields: Any) -> None:
        self._events += 1
        message = {"type": kind, "event_id": f"event_{self._id[:16]}_{self._events}", **fields}
        await send_text(socket, json.dumps(message, ensure_ascii=False))


class OpenItem:
    """What is known of an item that is not completed yet.

    Args:
        number: of the item in its session.

    Attributes:
        words: of the speech that has ended.
        seconds: of that speech.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.words: list[str] = []
        self.seconds = 0.0
        self._told: list[str] = []  # words of the open speech that were given out as deltas
        self._begun = False

    def take_delta(self, words: list[str]) -> str:
        """What these words of the open speech add to those told before; nothing where they contradict them."""
        if words[: len(self._told)] != self._told or len(words) == len(self._told):
            return ""
        delta = " ".join(words[len(self._told) :])
        delta = f" {delta}" if self._begun else delta
        self._told, self._begun = words, True
        return delta

    def end_part(self, words: list[str], seconds: float) -> None:
        """The open speech has ended with these words."""
        self.words += words
        self.seconds += seconds
        self._told = []


def find_rate(form: AudioFormat) -> int:
    """Samples a second of a format."""
    return (form.rate or OPENAI_RATE_HZ) if form.type == "audio/pcm" else G711_RATE_HZ


def make_decoder(form: AudioFormat) -> PcmDecoder:
    """What turns a client's bytes into sound."""
    return PcmDecoder(find_rate(form), encoding=ENCODINGS[form.type])


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """OpenAI's events in and out; the query may hold ``model``. See docs/streaming.md."""
    dialect = OpenAIDialect(socket.query_params.get("model"))
    await run_dialect(socket, get_service(socket), dialect, choose_subprotocol(socket.scope["subprotocols"]))
