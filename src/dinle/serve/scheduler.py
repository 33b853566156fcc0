"""Who runs when: a bounded number of inferences side by side, a bounded number of requests that wait, the rest refused."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from dinle.serve.errors import ClientGoneError, ServiceBusyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

Result = TypeVar("Result")

# The hint in Retry-After: never nothing, never so long that a client gives up.
MIN_RETRY_S = 1
MAX_RETRY_S = 60
# Weight of the newest request in the running mean of working times.
MEAN_WEIGHT = 0.2


class Scheduler:
    """Runs blocking work in threads, off the event loop. All methods belong to the event loop.

    Args:
        workers: how many run side by side.
        max_queue: how many more may wait.
    """

    def __init__(self, workers: int, max_queue: int) -> None:
        self.workers = workers
        self.places = workers + max_queue
        self.taken = 0
        self._limiter = anyio.CapacityLimiter(workers)
        self._mean_s = 1.0

    def admit(self) -> None:
        """Raise :class:`ServiceBusyError` when every place is taken."""
        if self.taken >= self.places:
            wait_s = math.ceil(self._mean_s * (self.taken - self.workers + 1) / self.workers)
            raise ServiceBusyError(min(MAX_RETRY_S, max(MIN_RETRY_S, wait_s)))

    async def run(
        self, work: Callable[[Callable[[float], None]], Result], wait_until_gone: Callable[[], Awaitable[None]]
    ) -> Result:
        """Wait for a worker, then run ``work`` in its thread.

        Args:
            work: blocking; calls its argument (with any number) now and then, which ends it when the client has left.
            wait_until_gone: returns when the client has left. Its place in the queue is free at once; a worker is free
                when the thread comes to its next call.

        Raises:
            ServiceBusyError: no place, at once.
            ClientGoneError: the client left.
        """
        gone = threading.Event()

        def check_client(_progress: float) -> None:
            if gone.is_set():
                raise ClientGoneError

        with self._take_place(), anyio.CancelScope() as scope:

            async def watch() -> None:
                await wait_until_gone()
                gone.set()
                scope.cancel()

            watcher = asyncio.create_task(watch())
            try:
                return await anyio.to_thread.run_sync(self._time, work, check_client, limiter=self._limiter)
            finally:
                watcher.cancel()
        raise ClientGoneError

    @contextmanager
    def _take_place(self) -> Iterator[None]:
        self.admit()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def _time(self, work: Callable[[Callable[[float], None]], Result], check_client: Callable[[float], None]) -> Result:
        started = time.perf_counter()
        result = work(check_client)
        self._mean_s += MEAN_WEIGHT * (time.perf_counter() - started - self._mean_s)
        return result
