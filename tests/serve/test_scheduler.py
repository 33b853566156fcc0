from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from dinle.serve.errors import ClientGoneError, ServiceBusyError
from dinle.serve.scheduler import MAX_RETRY_S, MIN_RETRY_S, Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable


async def stay() -> None:
    """A client that never leaves."""
    await anyio.sleep_forever()


async def settle(scheduler: Scheduler, taken: int) -> None:
    with anyio.fail_after(5):
        while scheduler.taken != taken:  # noqa: ASYNC110 - the scheduler has no event for it
            await anyio.sleep(0.005)


def test_no_more_than_the_workers_run_side_by_side() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(_check: Callable[[float], None]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def main() -> None:
        scheduler = Scheduler(workers=2, max_queue=10)
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(scheduler.run, work, stay)
        assert scheduler.taken == 0

    anyio.run(main)
    assert most == 2


def test_a_full_queue_refuses_at_once() -> None:
    release = threading.Event()

    async def main() -> None:
        scheduler = Scheduler(workers=1, max_queue=2)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(scheduler.run, lambda _check: release.wait(5), stay)
            await settle(scheduler, 3)
            started = time.perf_counter()
            with pytest.raises(ServiceBusyError, match="at capacity; try again in") as refused:
                await scheduler.run(lambda _check: None, stay)
            assert time.perf_counter() - started < 0.1
            assert MIN_RETRY_S <= refused.value.retry_after_s <= MAX_RETRY_S
            release.set()
        assert await scheduler.run(lambda _check: "free again", stay) == "free again"

    anyio.run(main)


def test_an_error_is_its_own_requests_alone() -> None:
    def fail(_check: Callable[[float], None]) -> None:
        raise RuntimeError("broken")

    async def main() -> None:
        scheduler = Scheduler(workers=2, max_queue=2)
        answers: list[int] = []

        async def ask(number: int) -> None:
            answers.append(await scheduler.run(lambda _check: number, stay))

        async with anyio.create_task_group() as group:
            group.start_soon(ask, 1)
            with pytest.raises(RuntimeError, match="broken"):
                await scheduler.run(fail, stay)
            group.start_soon(ask, 2)
        assert (sorted(answers), scheduler.taken) == ([1, 2], 0)

    anyio.run(main)


def test_who_leaves_while_waiting_is_never_run() -> None:
    release, ran = threading.Event(), threading.Event()

    async def main() -> None:
        scheduler = Scheduler(workers=1, max_queue=1)
        left = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run, lambda _check: release.wait(5), stay)
            await settle(scheduler, 1)

            async def wait_and_leave() -> None:
                with pytest.raises(ClientGoneError):
                    await scheduler.run(lambda _check: ran.set(), left.wait)

            group.start_soon(wait_and_leave)
            await settle(scheduler, 2)
            left.set()
            await settle(scheduler, 1)  # the place is free while the worker is still busy
            release.set()
        assert scheduler.taken == 0

    anyio.run(main)
    assert not ran.is_set()


def test_who_leaves_while_served_stops_the_work_at_its_next_check() -> None:
    windows = 0

    def work(check: Callable[[float], None]) -> None:
        nonlocal windows
        for _ in range(500):
            windows += 1
            time.sleep(0.01)
            check(0.0)

    async def main() -> None:
        scheduler = Scheduler(workers=1, max_queue=0)
        with pytest.raises(ClientGoneError):
            await scheduler.run(work, lambda: anyio.sleep(0.05))
        assert scheduler.taken == 0

    anyio.run(main)
    assert 0 < windows < 100


def test_a_cancelled_request_frees_its_place() -> None:
    async def main() -> None:
        scheduler = Scheduler(workers=1, max_queue=1)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(scheduler.run, lambda _check: time.sleep(0.05), stay)
                group.start_soon(scheduler.run, lambda _check: None, stay)  # waits
                await settle(scheduler, 2)
                scope.cancel()
        assert scope.cancelled_caught
        assert scheduler.taken == 0

    anyio.run(main)
