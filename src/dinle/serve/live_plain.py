"""``WS /stream``: the plain dialect of live recognition: JSON to set up, binary sound, JSON events."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketDisconnect

from dinle.recognize.live_audio import PcmDecoder, PushDecoder
from dinle.recognize.stream import Final, SpeechStarted, StreamEvent
from dinle.serve.errors import REQUEST_ID_KEY, ProtocolError
from dinle.serve.live import MAX_PIECE_S, Command, Setup, run_dialect, send_text
from dinle.serve.options import Options, read_hot_words
from dinle.serve.security import choose_subprotocol
from dinle.serve.service import get_service
from dinle.serve.transcribe import TimedWord, time_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dinle.recognize.audio import AudioLimits
    from dinle.serve.errors import Problem
    from dinle.serve.service import Service

router = APIRouter()
Message = TypeVar("Message", bound=BaseModel)

Format = Literal["pcm16", "g711_ulaw", "g711_alaw", "container"]
PcmRate = Literal[8_000, 16_000, 24_000, 44_100, 48_000]  # PCM_RATES_HZ, as pydantic reads it


class StreamConfig(BaseModel):
    """The first message of a client."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["config"] = "config"
    format: Format = Field(
        default="pcm16", description="what the binary messages hold: samples, or a webm, ogg or mp4 file piece by piece"
    )
    rate: PcmRate = Field(default=16_000, description="samples a second; containers tell it themselves")
    channels: int = Field(default=1, ge=1, le=8)
    model: str | None = Field(default=None, description="name of a model (default: the default model)")
    silence: float | None = Field(
        default=None, ge=0.1, le=5, description="seconds of silence that end speech (default: ASR_LIVE_SILENCE_S)"
    )
    partials: bool = Field(default=True, description="send partial texts")
    hotwords: list[str] = Field(default=[], description="names and terms to be expected, at most 1000")
    written: bool = Field(default=False, description="write numbers in finals as people do")


class StreamCommand(BaseModel):
    """A later message: end the open speech now, or end the stream."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["commit", "stop"]


class Ready(BaseModel):
    """The stream is set up; sound may come."""

    type: Literal["ready"] = "ready"
    model: str
    silence: float


class Started(BaseModel):
    """Somebody began to speak."""

    type: Literal["speech_started"] = "speech_started"
    segment: int
    start: float = Field(description="seconds from the start of the stream")


class Text(BaseModel):
    """What a segment says: so far (`partial`), or for good (`final`)."""

    type: Literal["partial", "final"]
    segment: int
    text: str
    stable: str | None = Field(default=None, description="how `text` begins in every later partial")
    words: list[TimedWord]
    start: float | None = None
    end: float | None = None


class Committed(BaseModel):
    """All that came before a `commit` has been told."""

    type: Literal["committed"] = "committed"


class Done(BaseModel):
    """All has been told; the connection closes."""

    type: Literal["done"] = "done"


class Failed(BaseModel):
    """Something is wrong; the connection closes."""

    type: Literal["error"] = "error"
    code: str
    message: str
    request_id: str = Field(description="the service's log knows it")


class PlainDialect:
    """See :class:`dinle.serve.live.Dialect`."""

    def __init__(self) -> None:
        self._partials = True
        self._ready = Ready(model="", silence=0)

    async def open(self, socket: WebSocket, service: Service) -> Setup:
        """Read the configuration.

        Raises:
            ProtocolError: it does not fit.
            HotWordsRefusedError: too many hot words, or too long ones.
        """
        config = parse_message(StreamConfig, await receive_text(socket))
        self._partials = config.partials
        silence_s = config.silence if config.silence is not None else service.settings.live_silence_s
        self._ready = Ready(model=service.models.find(config.model), silence=silence_s)
        # A stream may go on for hours: only what bounds each of its pieces holds.
        limits = replace(service.limits, max_bytes=None, max_seconds=None, max_decode_s=None)
        options = Options(read_hot_words(*config.hotwords), config.written)
        return Setup(partial(make_decoder, config, limits), config.model, silence_s, options)

    async def start(self, socket: WebSocket) -> None:
        """``ready``."""
        await _send(socket, self._ready)

    async def receive(self, socket: WebSocket) -> bytes | Command:
        """Sound, or a command."""
        message = await receive_message(socket)
        data = message.get("bytes")
        if data is not None:
            return bytes(data)
        return parse_message(StreamCommand, str(message.get("text"))).type

    async def send(self, socket: WebSocket, event: StreamEvent) -> None:
        """One JSON message an event."""
        if isinstance(event, SpeechStarted):
            await _send(socket, Started(segment=event.segment, start=round(event.start_s, 3)))
            return
        words = time_words(event.words)
        text = " ".join(word.word for word in words)
        if isinstance(event, Final):
            start, end = round(event.start_s, 3), round(event.end_s, 3)
            await _send(socket, Text(type="final", segment=event.segment, text=text, words=words, start=start, end=end))
        elif self._partials:
            stable = " ".join(word.word for word in words[: event.stable])
            await _send(socket, Text(type="partial", segment=event.segment, text=text, stable=stable, words=words))

    async def done(self, socket: WebSocket, command: Command) -> None:
        """``committed`` or ``done``."""
        await _send(socket, Done() if command == "stop" else Committed())

    async def fail(self, socket: WebSocket, problem: Problem) -> None:
        """``error``."""
        request_id = str(socket.scope.get(REQUEST_ID_KEY, ""))
        await _send(socket, Failed(code=problem.code, message=problem.detail, request_id=request_id))


def make_decoder(config: StreamConfig, limits: AudioLimits) -> PcmDecoder | PushDecoder:
    """What turns a client's bytes into sound."""
    if config.format == "container":
        return PushDecoder(limits, max_push_s=MAX_PIECE_S)
    return PcmDecoder(config.rate, config.channels, encoding=config.format, limits=limits)


async def receive_message(socket: WebSocket) -> Mapping[str, Any]:
    """The next message; raises :class:`WebSocketDisconnect` when there is none."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    return message


async def receive_text(socket: WebSocket) -> str:
    """The next message, which must be text.

    Raises:
        ProtocolError: it is binary.
        WebSocketDisconnect: the client left.
    """
    text = (await receive_message(socket)).get("text")
    if text is None:
        raise ProtocolError("the first message is binary; expected JSON that says what the sound is, such as {}")
    return str(text)


def parse_message(kind: type[Message], text: str) -> Message:
    """A JSON message as its model.

    Raises:
        ProtocolError: it is not JSON, or does not fit.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'message'}: {problem['msg']}" for problem in error.errors()
        )
        raise ProtocolError(f"the message does not fit: {problems[:400]}") from error


async def _send(socket: WebSocket, message: BaseModel) -> None:
    await send_text(socket, json.dumps(message.model_dump(exclude_none=True), ensure_ascii=False))


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Sound in, events out; see docs/streaming.md."""
    await run_dialect(socket, get_service(socket), PlainDialect(), choose_subprotocol(socket.scope["subprotocols"]))
