"""Live recognition over a WebSocket: what both dialects share.

A dialect reads a client's messages as sound and commands, and writes what was heard as its own messages. Between the two a
:class:`LiveSession` hears the sound in the order in which it came, one job at a time: while a job runs, sound gathers, and
the next job hears all of it. A client that sends faster than it is heard is slowed down by its own connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
from starlette.websockets import WebSocketDisconnect, WebSocketState

from dinle.errors import AudioError, AudioLimitError, EmptyAudioError
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.live_audio import LiveDecoder
from dinle.recognize.stream import Final, LiveStream, Partial, SpeechStarted, StreamEvent, StreamRules
from dinle.serve.errors import ERROR_CODE_KEY, REQUEST_ID_KEY, IdleError, Problem, describe_error
from dinle.serve.options import Options
from dinle.serve.scheduler import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Sequence

    from starlette.websockets import WebSocket

    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer
    from dinle.recognize.written import WrittenForm
    from dinle.serve.service import Service

logger = logging.getLogger(__name__)

# Close codes of RFC 6455, section 7.4.1, and IANA's registry.
NORMAL, GONE, UNSUPPORTED, BAD_REQUEST, INTERNAL, TRY_AGAIN = 1000, 1006, 1003, 1008, 1011, 1013
CLOSE_CODES = {
    400: BAD_REQUEST,
    404: BAD_REQUEST,
    408: NORMAL,
    413: BAD_REQUEST,
    415: UNSUPPORTED,
    422: UNSUPPORTED,
    503: TRY_AGAIN,
}

MAX_AHEAD_BYTES = 1_000_000  # half a minute of PCM at 16 kHz: so much may wait to be heard
ITEM_BYTES = 64  # what a message costs beside its sound: empty ones must not pile up either
SEND_S = 30.0  # a client that does not read its messages for so long has left
# A draft each time that so much is new: with pieces of 100 ms and a draft of 0.2 s it comes every 0.4 to 0.6 s.
PARTIAL_S = 0.4
# Decoded at once. FLAC makes minutes of silence of so little, hours of what a client sends in a second.
PIECE_BYTES = 1_024
MAX_PIECE_S = 120.0  # silence in opus has 16 bytes a second or more
HEARD_AT_ONCE_S = 30.0  # of sound that waits: its finals come one by one, and then one draft
MAX_SILENT_BYTES = 8 * 1024 * 1024  # a container that gave no sound for so long will give none
MAX_ARRIVALS = 4_096  # minutes of sound in the usual pieces

Command = Literal["commit", "clear", "stop"]
Told = tuple[StreamEvent, float]  # an event, and for a final when its last word had come, on time.perf_counter's clock


@dataclass(frozen=True)
class Setup:
    """What a client wants of its stream.

    Attributes:
        decoder: makes what turns its bytes into sound.
        model: name of a model (``None``: the default).
        silence_s: silence that ends speech.
        options: what it asks for besides; the written form is that of finals.
    """

    decoder: Callable[[], LiveDecoder]
    model: str | None
    silence_s: float
    options: Options = field(default_factory=Options)


class Dialect(Protocol):
    """How one kind of client speaks."""

    async def open(self, socket: WebSocket, service: Service) -> Setup:
        """Greet, and read messages until it is clear what the client wants; raises a :class:`DinleError` for nonsense."""

    async def start(self, socket: WebSocket) -> None:
        """Tell that what the client wants is there: sound may come."""

    async def receive(self, socket: WebSocket) -> bytes | Command:
        """The next sound or command; raises :class:`WebSocketDisconnect` when the client leaves."""

    async def send(self, socket: WebSocket, event: StreamEvent) -> None:
        """Tell what was heard."""

    async def done(self, socket: WebSocket, command: Command) -> None:
        """Tell that everything before a command has been heard and told."""

    async def fail(self, socket: WebSocket, problem: Problem) -> None:
        """Tell what went wrong; the connection is closed after it."""


async def run_dialect(socket: WebSocket, service: Service, dialect: Dialect, subprotocol: str | None) -> None:
    """One connection from its first message to its close. Every error is told in the dialect, then the connection closes."""
    request_id = str(socket.scope.get(REQUEST_ID_KEY, ""))
    code = NORMAL
    try:
        await socket.accept(subprotocol, headers=[(b"x-request-id", request_id.encode())])
        with service.streams.take():
            async with _limit_idle(service.settings.live_idle_s):
                setup = await dialect.open(socket, service)
            async with service.models.use(setup.model) as model:
                recognizer, form = await setup.options.prepare_aside(model)
                await LiveSession(service, Ear(recognizer, setup, form), dialect, socket).run()
    except WebSocketDisconnect:
        return
    except Exception as error:  # noqa: BLE001 - the one place where a stream's errors end
        code = await _tell_error(socket, dialect, error)
    if socket.application_state is not WebSocketState.DISCONNECTED:
        with suppress(RuntimeError, WebSocketDisconnect):  # the client may be faster
            await socket.close(code)


async def _tell_error(socket: WebSocket, dialect: Dialect, error: Exception) -> int:
    problem = describe_error(error)
    if problem.code == "internal":
        logger.error("a live stream failed", exc_info=error)
    socket.scope[ERROR_CODE_KEY] = problem.code
    with suppress(WebSocketDisconnect):
        await dialect.fail(socket, problem)
    return CLOSE_CODES.get(problem.status, INTERNAL)


async def send_text(socket: WebSocket, text: str) -> None:
    """Send a message; raises :class:`WebSocketDisconnect` where the client has left or does not read."""
    try:
        async with asyncio.timeout(SEND_S):
            await socket.send_text(text)
    except (RuntimeError, TimeoutError) as error:  # RuntimeError: the server has closed the connection meanwhile
        raise WebSocketDisconnect(GONE) from error


async def _catch_error(work: Coroutine[None, None, None]) -> Exception | None:
    """Do the work; how it failed."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - it is raised again where both tasks have ended
        return error
    return None


@asynccontextmanager
async def _limit_idle(limit_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise IdleError(limit_s) from None


@dataclass(frozen=True)
class Part:
    """One message with sound, and when it came, on ``time.perf_counter``'s clock."""

    data: bytes
    came_at: float


class Inbox:
    """Sound and commands of one client in the order in which they came, bounded in bytes."""

    def __init__(self) -> None:
        self._items: deque[Part | Command] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def put(self, item: bytes | Command) -> None:
        """Add an item; waits while too much sound is there already."""
        came_at = time.perf_counter()
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < MAX_AHEAD_BYTES)
            self._items.append(Part(item, came_at) if isinstance(item, bytes) else item)
            self._bytes += ITEM_BYTES + len(item)
            self._changed.notify_all()

    async def take(self) -> list[Part] | Command:
        """All sound up to the next command, or that command; waits for one of them."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._items))
            parts: list[Part] = []
            while self._items and isinstance(part := self._items[0], Part):
                parts.append(part)
                self._bytes -= ITEM_BYTES + len(part.data)
                self._items.popleft()
            if parts:
                self._changed.notify_all()
                return parts
            command = cast("Command", self._items.popleft())
            self._bytes -= ITEM_BYTES + len(command)
            self._changed.notify_all()
            return command


class Ear:
    """Hears the sound of one client. Its generators are jobs: they run in workers, one of them at a time.

    Args:
        recognizer: hears.
        setup: what the client wants.
        form: writes the finals, where that is wanted.
    """

    def __init__(self, recognizer: Recognizer, setup: Setup, form: WrittenForm | None = None) -> None:
        self._recognizer, self._form = recognizer, form
        self._rules = StreamRules(silence_s=setup.silence_s, partial_s=PARTIAL_S)
        self._stream = LiveStream(recognizer, self._rules)
        self._decoder = setup.decoder()
        self._silent_bytes = 0
        self._samples = self._heard = 0  # decoded, and given to the stream
        self._first_sample = self._first_segment = self._next_segment = 0  # where the present LiveStream began
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=MAX_ARRIVALS)  # end of a part in seconds, its arrival

    def hear(self, parts: Sequence[Part]) -> Generator[Told | None, None, None]:
        """Hear parts together, so that at most one draft is written for each half minute of them.

        Raises:
            AudioError: the sound cannot be decoded, or is too much for its bytes.
        """
        held: list[Waveform] = []
        try:
            for part in parts:
                for at in range(0, len(part.data), PIECE_BYTES):
                    held += self._decode(part.data[at : at + PIECE_BYTES])
                    self._note_arrival(part.came_at)
                    if self._samples - self._heard >= HEARD_AT_ONCE_S * SAMPLE_RATE_HZ:
                        yield from self._push(held)
                        held = []
                        yield None
        except AudioError:  # what came before it is told first
            yield from self._push(held)
            raise
        yield from self._push(held)

    def obey(self, command: Command) -> Generator[Told | None, None, None]:
        """Follow a command; raises as :meth:`hear`."""
        if command == "clear":
            self._stream = LiveStream(self._recognizer, self._rules)
            self._first_sample, self._first_segment = self._samples, self._next_segment
        elif command == "commit":
            yield from self._tell(self._stream.cut())
        else:
            with suppress(EmptyAudioError):  # nothing was sent
                yield from self._push(self._count(self._decoder.finish()))
            yield from self._tell(self._stream.finish())

    def close(self) -> None:
        """Let the decoder go, also while a job is inside it. May wait for what it is decoding."""
        self._decoder.close()

    def _decode(self, data: bytes) -> list[Waveform]:
        blocks = self._count(self._decoder.push(data))
        self._silent_bytes = 0 if blocks else self._silent_bytes + len(data)
        if self._silent_bytes > MAX_SILENT_BYTES:
            raise AudioLimitError(f"{self._silent_bytes} bytes held no sound; expected some in {MAX_SILENT_BYTES}")
        return blocks

    def _count(self, blocks: list[Waveform]) -> list[Waveform]:
        self._samples += sum(map(len, blocks))
        return blocks

    def _note_arrival(self, came_at: float) -> None:
        if self._arrivals and self._arrivals[-1][1] == came_at:
            self._arrivals.pop()
        self._arrivals.append((self._samples / SAMPLE_RATE_HZ, came_at))

    def _push(self, blocks: Sequence[Waveform]) -> Iterator[Told]:
        self._heard = self._samples
        sound = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
        yield from self._tell(self._stream.push(sound))

    def _tell(self, events: Iterator[StreamEvent]) -> Iterator[Told]:
        """The events, counted from the start of the connection also after a clear."""
        for event in events:
            shifted = shift_event(event, self._first_segment, self._first_sample / SAMPLE_RATE_HZ)
            self._next_segment = shifted.segment + 1
            if self._form is not None and isinstance(shifted, Final):
                shifted = replace(shifted, words=self._form.write_words(shifted.words))
            yield shifted, self._find_arrival(_find_end(shifted))

    def _find_arrival(self, at_s: float) -> float:
        """When the sound up to a place in the stream had come."""
        while len(self._arrivals) > 1 and self._arrivals[0][0] < at_s:
            self._arrivals.popleft()
        return self._arrivals[0][1] if self._arrivals else time.perf_counter()


def shift_event(event: StreamEvent, segments: int, seconds: float) -> StreamEvent:
    """An event of a stream that began so many segments and seconds later."""
    number = event.segment + segments
    if isinstance(event, SpeechStarted):
        return SpeechStarted(number, event.start_s + seconds)
    words = tuple(replace(word, start_s=word.start_s + seconds, end_s=word.end_s + seconds) for word in event.words)
    if isinstance(event, Partial):
        return replace(event, segment=number, words=words)
    return Final(number, words, event.start_s + seconds, event.end_s + seconds)


def _find_end(event: StreamEvent) -> float:
    """The end of a final's last word in the stream, in seconds; 0 for what has none."""
    return event.words[-1].end_s if isinstance(event, Final) and event.words else 0.0


class LiveSession:
    """One client's stream, after it is clear what is wanted.

    Args:
        service: gives workers, and is told how long finals took.
        ear: hears.
        dialect: how it speaks.
        socket: the connection.
    """

    def __init__(self, service: Service, ear: Ear, dialect: Dialect, socket: WebSocket) -> None:
        self._service = service
        self._dialect = dialect
        self._socket = socket
        self._ear = ear
        self._inbox = Inbox()

    async def run(self) -> None:
        """Hear until the client stops or leaves.

        Raises:
            WebSocketDisconnect: it left.
            IdleError: nothing came for too long.
            DinleError: its sound cannot be decoded, or an inference failed.
        """
        tasks = [asyncio.ensure_future(_catch_error(work)) for work in (self._hear(), self._read())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            # In a thread, and nobody waits for it: a worker may still be inside the decoder.
            asyncio.get_running_loop().run_in_executor(None, self._ear.close)
            await asyncio.wait(tasks)
        errors = [None if task.cancelled() else task.result() for task in tasks]
        for error in filter(None, errors):  # what happened to the sound says more than that the client left
            raise error

    async def _read(self) -> None:
        """Put what comes into the inbox; after the client's stop wait for its leaving. Ends by an error only."""
        item: bytes | Command = b""
        while item != "stop":
            async with _limit_idle(self._service.settings.live_idle_s):
                item = await self._dialect.receive(self._socket)
            await self._inbox.put(item)
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass
        raise WebSocketDisconnect(GONE)

    async def _hear(self) -> None:
        await self._dialect.start(self._socket)
        item: list[Part] | Command = []
        while item != "stop":
            item = await self._inbox.take()
            steps = self._ear.hear(item) if isinstance(item, list) else self._ear.obey(item)
            async with aclosing(self._service.scheduler.stream(steps, live=True)) as told:
                async for one in told:
                    if one is not None and not isinstance(one, Outcome):
                        await self._tell(*one)
            if not isinstance(item, list):
                await self._dialect.done(self._socket, item)

    async def _tell(self, event: StreamEvent, came_at: float) -> None:
        await self._dialect.send(self._socket, event)
        if isinstance(event, Final) and event.words:
            self._service.metrics.observe_live_final(time.perf_counter() - came_at)
