"""Who runs when: a bounded number of jobs side by side, a bounded number that wait, the rest refused at once.

A job is a generator: each ``next`` is a step of work, at most one call of an engine. A worker goes on with its job for a
slice of time; when others wait by then, the job queues again behind them. So a short clip is done in one slice, and an hour
of sound shares the workers with those who came later. Live streams, bounded in number by themselves, go first, but leave
every third turn to the others.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from dinle.serve.errors import ClientGoneError, DeadlineError, ServiceBusyError, StreamsBusyError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

# The hint in Retry-After: never nothing, never so long that a client gives up.
MIN_RETRY_S = 1
MAX_RETRY_S = 60
# Weight of the newest job in the running mean of working times.
MEAN_WEIGHT = 0.2
LIVE_IN_A_ROW = 2
STOP_S = 5.0


class Meter(Protocol):
    """What the scheduler tells about itself; see :class:`dinle.serve.metrics.Metrics`."""

    def observe_wait(self, seconds: float) -> None:
        """A job has waited so long for its first turn."""
        ...


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What a job returned, the seconds that it waited for its turns, and those that its steps took."""

    value: Result
    wait_s: float
    work_s: float


@dataclass(eq=False)
class Job:
    """A generator on its way through the queue. Only one thread has it at a time; ``left`` is the one field others set."""

    steps: Generator[Any, None, Any]
    future: asyncio.Future[Any]
    live: bool
    deliver: Callable[[Any], object] | None = None
    queued_at: float = field(default_factory=time.perf_counter)
    wait_s: float = 0.0
    work_s: float = 0.0
    turns: int = 0
    left: bool = False

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        """Pass the end of the job on to the event loop; who has left is told nothing."""

        def resolve() -> None:
            if self.future.done():
                return
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(Outcome(value, self.wait_s, self.work_s))

        if not self.left:
            with suppress(RuntimeError):  # the loop has been closed
                self.future.get_loop().call_soon_threadsafe(resolve)


class Lanes:
    """The queue: a lane of live jobs and one of others, both first come, first served. Safe for threads."""

    def __init__(self) -> None:
        self.running = 0
        self._lanes: dict[bool, deque[Job]] = {True: deque(), False: deque()}
        self._live_in_row = 0
        self._closed = False
        self._ready = threading.Condition()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def put(self, job: Job) -> None:
        """Queue a job at the end of its lane."""
        job.queued_at = time.perf_counter()
        with self._ready:
            self._lanes[job.live].append(job)
            self._ready.notify()

    def take(self) -> Job | None:
        """The next job, waiting for one; ``None`` when the queue is closed."""
        with self._ready:
            while not self._closed and not len(self):
                self._ready.wait()
            if self._closed:
                return None
            live = bool(self._lanes[True]) and (self._live_in_row < LIVE_IN_A_ROW or not self._lanes[False])
            self._live_in_row = self._live_in_row + 1 if live else 0
            self.running += 1
            return self._lanes[live].popleft()

    def give_back(self, job: Job, *, goes_on: bool) -> None:
        """End a job's turn; where it goes on and nobody has left, it queues again."""
        with self._ready:
            self.running -= 1
            if goes_on and not job.left:
                self.put(job)
                return
        job.steps.close()

    def leave(self, job: Job) -> None:
        """Mark a job as left, and take it out where it waits; one that is running ends after its step."""
        with self._ready:
            job.left = True
            if job not in self._lanes[job.live]:
                return
            self._lanes[job.live].remove(job)
        job.steps.close()

    def close(self) -> None:
        """Let every :meth:`take` return, now and later."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()


class Scheduler:
    """Runs jobs in worker threads, off the event loop. Its methods belong to the event loop.

    Args:
        workers: how many jobs run side by side.
        max_queue: how many more may wait.
        slice_s: seconds a job may keep its worker while others wait.
        meter: is told how long jobs wait.
    """

    def __init__(self, workers: int, max_queue: int, *, slice_s: float = 1.0, meter: Meter | None = None) -> None:
        self.workers = workers
        self.places = workers + max_queue
        self.taken = 0
        self._slice_s = slice_s
        self._meter = meter
        self._mean_s = 1.0
        self._lanes = Lanes()
        self._threads: list[threading.Thread] = []

    @property
    def waiting(self) -> int:
        """Jobs that wait for a turn."""
        return len(self._lanes)

    @property
    def running(self) -> int:
        """Jobs that have a worker."""
        return self._lanes.running

    def admit(self) -> None:
        """Raise :class:`ServiceBusyError` when every place is taken."""
        if self.taken >= self.places:
            wait_s = math.ceil(self._mean_s * (self.taken - self.workers + 1) / self.workers)
            raise ServiceBusyError(min(MAX_RETRY_S, max(MIN_RETRY_S, wait_s)))

    async def run(
        self,
        steps: Generator[object, None, Result],
        wait_until_gone: Callable[[], Awaitable[None]] | None = None,
        *,
        deadline_s: float | None = None,
        live: bool = False,
    ) -> Outcome[Result]:
        """Run a job to its end.

        Args:
            steps: the work; what it yields is dropped, what it returns is the outcome's value.
            wait_until_gone: returns when the client has left: its place is free at once, its worker after the present step.
            deadline_s: seconds within which the job must be done, waiting included.
            live: goes before others and needs no place; for jobs that are bounded in number in another way.

        Raises:
            ServiceBusyError: no place, at once.
            ClientGoneError: the client left.
            DeadlineError: the time is over.
        """
        with self._take_place(live=live):
            job = self._submit(steps, live=live)
            gone = asyncio.ensure_future(wait_until_gone()) if wait_until_gone is not None else None
            try:
                waited = {job.future} if gone is None else {job.future, gone}
                done, _ = await asyncio.wait(waited, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
                if job.future not in done:
                    raise ClientGoneError if done else DeadlineError
                outcome: Outcome[Result] = job.future.result()
            finally:
                if gone is not None:
                    gone.cancel()
                self._withdraw(job)
        self._mean_s += MEAN_WEIGHT * (outcome.work_s - self._mean_s) * (not live)
        return outcome

    async def stream(
        self, steps: Generator[Item, None, Result], *, deadline_s: float | None = None, live: bool = False
    ) -> AsyncGenerator[Item | Outcome[Result], None]:
        """As :meth:`run`, giving what the job yields as it comes, and its outcome last. Closing it is leaving.

        Raises:
            ServiceBusyError, DeadlineError: see :meth:`run`; with the first item that is asked for.
        """
        items: asyncio.Queue[Item] = asyncio.Queue()
        with self._take_place(live=live):
            loop = asyncio.get_running_loop()
            job = self._submit(steps, live=live, deliver=lambda item: loop.call_soon_threadsafe(items.put_nowait, item))
            ends_at = None if deadline_s is None else loop.time() + deadline_s
            try:
                while (item := await _wait_for_item(items, job.future, ends_at)) is not None:
                    yield item
                outcome: Outcome[Result] = await job.future
            finally:
                self._withdraw(job)
        yield outcome

    async def close(self) -> None:
        """Stop the workers after their present step; jobs that still wait are dropped."""
        self._lanes.close()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(STOP_S)

    @contextmanager
    def _take_place(self, *, live: bool) -> Iterator[None]:
        if live:
            yield
            return
        self.admit()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def _submit(
        self, steps: Generator[Any, None, Any], *, live: bool, deliver: Callable[[Any], object] | None = None
    ) -> Job:
        if not self._threads:
            names = [f"dinle-worker-{number}" for number in range(self.workers)]
            self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
            for thread in self._threads:
                thread.start()
        job = Job(steps, asyncio.get_running_loop().create_future(), live, deliver)
        self._lanes.put(job)
        return job

    def _withdraw(self, job: Job) -> None:
        """Who asked has an answer, or does not want one any more."""
        job.future.cancel()
        self._lanes.leave(job)

    def _work(self) -> None:
        while (job := self._lanes.take()) is not None:
            waited = time.perf_counter() - job.queued_at
            if not job.turns and self._meter is not None:
                self._meter.observe_wait(waited)
            job.wait_s += waited
            job.turns += 1
            self._lanes.give_back(job, goes_on=self._take_turn(job))
            del job  # a worker without work holds no recording

    def _take_turn(self, job: Job) -> bool:
        """Run a job for a slice of time; whether it is to queue again."""
        started = time.perf_counter()
        try:
            while not job.left:
                item = next(job.steps)
                if job.deliver is not None and item is not None:
                    job.deliver(item)
                if time.perf_counter() - started >= self._slice_s and self.waiting:
                    job.work_s += time.perf_counter() - started
                    return True
        except StopIteration as end:
            job.work_s += time.perf_counter() - started
            job.settle(end.value)
        except Exception as error:  # noqa: BLE001 - it is the asker's to handle; the worker must live on
            job.settle(error=error)
        except BaseException as error:  # noqa: BLE001 - raised in the event loop, SystemExit and its like would end that
            job.settle(error=RuntimeError(f"the job was ended by {error!r}"))
        return False


async def _wait_for_item(items: asyncio.Queue[Item], done: asyncio.Future[Any], ends_at: float | None) -> Item | None:
    """The next item; ``None`` once ``done`` and none is left. The deadline is the loop's time: any task may come to ask."""
    if items.empty() and not done.done():
        waiting = asyncio.ensure_future(items.get())
        now = asyncio.get_running_loop().time()
        left_s = None if ends_at is None else max(0.0, ends_at - now)
        try:
            await asyncio.wait({waiting, done}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
        if not done.done():
            raise DeadlineError
    return None if items.empty() else items.get_nowait()


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
