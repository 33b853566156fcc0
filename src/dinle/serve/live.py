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
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from starlette.websockets import WebSocketDisconnect, WebSocketState

from dinle.errors import EmptyAudioError
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.live_audio import LiveDecoder
from dinle.recognize.stream import Final, LiveStream, StreamEvent, StreamRules
from dinle.serve.errors import ERROR_CODE_KEY, IdleError, Problem, StreamsBusyError, describe_error
from dinle.serve.scheduler import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from starlette.websockets import WebSocket

    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer
    from dinle.serve.service import Service

logger = logging.getLogger(__name__)

# Close codes of RFC 6455, section 7.4.1, and IANA's registry.
NORMAL, UNSUPPORTED, BAD_REQUEST, INTERNAL, TRY_AGAIN = 1000, 1003, 1008, 1011, 1013
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

Command = Literal["commit", "clear", "stop"]


@dataclass(frozen=True)
class Setup:
    """What a client wants of its stream.

    Attributes:
        decoder: makes what turns its bytes into sound.
        model: name of a model (``None``: the default).
        silence_s: silence that ends speech.
        piece_bytes: no more is decoded at once. A container may hold minutes in a few bytes.
    """

    decoder: Callable[[], LiveDecoder]
    model: str | None
    silence_s: float
    piece_bytes: int = MAX_AHEAD_BYTES


class Dialect(Protocol):
    """How one kind of client speaks."""

    async def open(self, socket: WebSocket, service: Service) -> Setup:
        """Greet, and read messages until it is clear what the client wants; raises a :class:`DinleError` for nonsense."""
        ...

    async def receive(self, socket: WebSocket) -> bytes | Command:
        """The next sound or command; raises :class:`WebSocketDisconnect` when the client leaves."""
        ...

    async def send(self, socket: WebSocket, event: StreamEvent) -> None:
        """Tell what was heard."""
        ...

    async def done(self, socket: WebSocket, command: Command) -> None:
        """Tell that everything before a command has been heard and told."""
        ...

    async def fail(self, socket: WebSocket, problem: Problem) -> None:
        """Tell what went wrong; the connection is closed after it."""
        ...


class StreamCounter:
    """Counts the open live streams, and refuses more than ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """A place for one stream; raises :class:`StreamsBusyError` when there is none."""
        if self.open >= self.limit:
            raise StreamsBusyError(self.limit)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


async def run_dialect(socket: WebSocket, service: Service, dialect: Dialect, subprotocol: str | None) -> None:
    """One connection from its first message to its close. Every error is told in the dialect, then the connection closes."""
    await socket.accept(subprotocol)
    code = NORMAL
    try:
        with service.streams.take():
            async with asyncio.timeout(service.settings.live_idle_s):
                setup = await dialect.open(socket, service)
            async with service.models.use(setup.model) as recognizer:
                await LiveSession(service, recognizer, setup, dialect, socket).run()
    except WebSocketDisconnect:
        return
    except TimeoutError:
        code = await _tell_error(socket, dialect, IdleError(service.settings.live_idle_s))
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
    with suppress(RuntimeError, WebSocketDisconnect):
        await dialect.fail(socket, problem)
    return CLOSE_CODES.get(problem.status, INTERNAL)


class Inbox:
    """Sound and commands of one client in the order in which they came, bounded in bytes."""

    def __init__(self) -> None:
        self._items: deque[bytes | Command] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def put(self, item: bytes | Command) -> None:
        """Add an item; waits while too much sound is there already."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < MAX_AHEAD_BYTES)
            self._items.append(item)
            self._bytes += len(item) if isinstance(item, bytes) else 0
            self._changed.notify_all()

    async def take(self) -> bytes | Command:
        """All sound up to the next command, or that command; waits for one of them."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._items))
            first = self._items.popleft()
            if not isinstance(first, bytes):
                return first
            parts = [first]
            while self._items and isinstance(part := self._items[0], bytes):
                parts.append(part)
                self._items.popleft()
            sound = b"".join(parts)
            self._bytes -= len(sound)
            self._changed.notify_all()
            return sound


class LiveSession:
    """One client's stream, after it is clear what is wanted.

    Args:
        service: gives workers, and is told how long finals took.
        recognizer: hears.
        setup: what the client wants.
        dialect: how it speaks.
        socket: the connection.
    """

    def __init__(
        self, service: Service, recognizer: Recognizer, setup: Setup, dialect: Dialect, socket: WebSocket
    ) -> None:
        self._service = service
        self._recognizer = recognizer
        self._dialect = dialect
        self._socket = socket
        self._rules = StreamRules(silence_s=setup.silence_s)
        self._stream = LiveStream(recognizer, self._rules)
        self._decoder = setup.decoder()
        self._piece_bytes = setup.piece_bytes
        self._inbox = Inbox()
        self._samples = 0
        self._arrivals: deque[tuple[float, float]] = deque()  # seconds of sound, and when they had come

    async def run(self) -> None:
        """Hear until the client stops or leaves.

        Raises:
            WebSocketDisconnect: it left.
            TimeoutError: nothing came for too long.
            DinleError: its sound cannot be decoded, or an inference failed.
        """
        reader = asyncio.ensure_future(self._read())
        hearer = asyncio.ensure_future(self._hear())
        try:
            await asyncio.wait({reader, hearer}, return_when=asyncio.FIRST_COMPLETED)
            if hearer.done():
                hearer.result()
            elif reader.exception() is not None:
                raise reader.exception() or AssertionError
            await hearer  # what has come before the stop is heard
        finally:
            for task in (reader, hearer):
                task.cancel()
            await asyncio.wait({reader, hearer})
            self._decoder.close()

    async def _read(self) -> None:
        item: bytes | Command = b""
        while item != "stop":
            async with asyncio.timeout(self._service.settings.live_idle_s):
                item = await self._dialect.receive(self._socket)
            await self._inbox.put(item)

    async def _hear(self) -> None:
        item: bytes | Command = b""
        while item != "stop":
            item = await self._inbox.take()
            now = time.perf_counter()
            steps = self._take_steps(item, now)
            async for event in self._service.scheduler.stream(steps, live=True):
                if not isinstance(event, Outcome):
                    await self._tell(event)
            if not isinstance(item, bytes):
                await self._dialect.done(self._socket, item)

    def _take_steps(self, item: bytes | Command, now: float) -> Generator[StreamEvent, None, None]:
        """The work that an item makes, an event at a time; runs in a worker."""
        if isinstance(item, bytes):
            for start in range(0, len(item), self._piece_bytes):
                yield from self._hear_blocks(self._decoder.push(item[start : start + self._piece_bytes]), now)
            return
        if item == "clear":
            self._stream = LiveStream(self._recognizer, self._rules)
            self._samples, self._arrivals = 0, deque()
        elif item == "commit":
            yield from self._stream.cut()
        else:
            yield from self._hear_blocks(self._finish_decoder(), now)
            yield from self._stream.finish()

    def _hear_blocks(self, blocks: Sequence[Waveform], now: float) -> Iterator[StreamEvent]:
        """Hear blocks all at once: at most one draft is written of them."""
        sound = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
        self._samples += len(sound)
        self._arrivals.append((self._samples / SAMPLE_RATE_HZ, now))
        yield from self._stream.push(sound)

    def _finish_decoder(self) -> list[Waveform]:
        try:
            return self._decoder.finish()
        except EmptyAudioError:  # nothing was sent
            return []

    async def _tell(self, event: StreamEvent) -> None:
        await self._dialect.send(self._socket, event)
        if isinstance(event, Final) and event.words:
            spoken_s = event.words[-1].end_s
            while len(self._arrivals) > 1 and self._arrivals[0][0] < spoken_s:
                self._arrivals.popleft()
            self._service.metrics.observe_live_final(time.perf_counter() - self._arrivals[0][1])
