from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dinle.serve.errors import ClientGoneError, DeadlineError, ServiceBusyError
from dinle.serve.scheduler import LIVE_IN_A_ROW, MAX_RETRY_S, MIN_RETRY_S, Outcome, Scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator


async def settle(scheduler: Scheduler, condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the scheduler has no event for it
            await anyio.sleep(0.005)


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


def work(function: Callable[[], Any], steps: int = 1) -> Generator[None, None, Any]:
    """A job that calls a function in each step, and returns what the last call gave."""
    result = None
    for _ in range(steps):
        result = function()
        yield
    return result


def run(main: Callable[[Scheduler], Awaitable[None]], **options: Any) -> Scheduler:
    """Run ``main`` with a scheduler, which must be empty afterwards."""

    async def whole() -> Scheduler:
        scheduler = Scheduler(**({"workers": 1, "max_queue": 10} | options))
        await main(scheduler)
        assert (scheduler.taken, scheduler.waiting) == (0, 0)
        await scheduler.close()
        assert scheduler.running == 0
        return scheduler

    return anyio.run(whole)


def test_a_job_gives_its_result_and_its_times() -> None:
    async def main(scheduler: Scheduler) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run, work(lambda: time.sleep(0.1)))
            await settle(scheduler, lambda: scheduler.running == 1)
            outcome = await scheduler.run(work(lambda: sleep(0.02), steps=3))
        assert outcome.value == "done"
        assert 0.06 <= outcome.work_s < 0.1
        assert 0.03 < outcome.wait_s < 0.2

    run(main)


def test_no_more_than_the_workers_run_side_by_side() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def step() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def main(scheduler: Scheduler) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(scheduler.run, work(step))

    run(main, workers=2)
    assert most == 2


def test_a_full_queue_refuses_at_once() -> None:
    release = threading.Event()

    async def main(scheduler: Scheduler) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(scheduler.run, work(lambda: release.wait(5)))
            await settle(scheduler, lambda: scheduler.taken == 3)
            started = time.perf_counter()
            with pytest.raises(ServiceBusyError, match="at capacity; try again in") as refused:
                await scheduler.run(work(lambda: None))
            assert time.perf_counter() - started < 0.1
            assert MIN_RETRY_S <= refused.value.retry_after_s <= MAX_RETRY_S
            release.set()
        assert (await scheduler.run(work(lambda: "free again"))).value == "free again"

    run(main, max_queue=2)


def test_an_error_is_its_own_jobs_alone() -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    async def main(scheduler: Scheduler) -> None:
        answers: list[int] = []

        async def ask(number: int) -> None:
            answers.append((await scheduler.run(work(lambda: number))).value)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, 1)
            with pytest.raises(RuntimeError, match="broken"):
                await scheduler.run(work(fail))
            group.start_soon(ask, 2)
        assert sorted(answers) == [1, 2]

    run(main, workers=2)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_an_error_that_would_end_the_event_loop_is_told_as_a_plain_one(error: BaseException) -> None:
    def leave() -> None:
        raise error

    async def main(scheduler: Scheduler) -> None:
        with pytest.raises(RuntimeError, match=f"the job was ended by {type(error).__name__}"):
            await scheduler.run(work(leave))
        assert (await scheduler.run(work(lambda: "alive"))).value == "alive"

    run(main)


def test_short_jobs_are_not_stuck_behind_a_long_one() -> None:
    ended: list[str] = []

    async def main(scheduler: Scheduler) -> None:
        async def ask(name: str, steps: int) -> None:
            await scheduler.run(work(lambda: time.sleep(0.01), steps))
            ended.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "long", 40)
            await settle(scheduler, lambda: scheduler.running == 1)
            for number in range(4):
                group.start_soon(ask, f"short {number}", 1)

    run(main, slice_s=0.03)
    assert ended == ["short 0", "short 1", "short 2", "short 3", "long"]


def test_long_jobs_get_their_share_beside_a_stream_of_short_ones() -> None:
    """Turn by turn: a long job needs one round of the queue for each slice, however many short ones come."""
    done = threading.Event()

    async def main(scheduler: Scheduler) -> None:
        shorts = 0

        async def keep_busy() -> None:
            nonlocal shorts
            while not done.is_set():
                await scheduler.run(work(lambda: time.sleep(0.005)))
                shorts += 1

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(keep_busy)
            outcome = await scheduler.run(work(lambda: time.sleep(0.005), 20))
            done.set()
        assert outcome.wait_s < 20 * outcome.work_s
        assert shorts > 10

    run(main, slice_s=0.001)


def test_a_job_alone_is_not_interrupted() -> None:
    async def main(scheduler: Scheduler) -> None:
        outcome = await scheduler.run(work(lambda: time.sleep(0.01), 10))
        assert outcome.wait_s < 0.05

    run(main, slice_s=0.001)


def test_live_jobs_go_first_and_leave_every_third_turn() -> None:
    release = threading.Event()
    order: list[str] = []

    async def main(scheduler: Scheduler) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run, work(lambda: release.wait(5)))
            await settle(scheduler, lambda: scheduler.running == 1)
            for name in ("file 0", "file 1"):
                group.start_soon(scheduler.run, work(partial(order.append, name)))
            await settle(scheduler, lambda: scheduler.waiting == 2)

            async def ask_live(name: str) -> None:
                await scheduler.run(work(lambda: order.append(name)), live=True)

            for number in range(5):
                group.start_soon(ask_live, f"live {number}")
            await settle(scheduler, lambda: scheduler.waiting == 7)
            release.set()

    run(main, max_queue=2)
    assert LIVE_IN_A_ROW == 2
    assert order == ["live 0", "live 1", "file 0", "live 2", "live 3", "file 1", "live 4"]


def test_who_leaves_while_waiting_is_never_run() -> None:
    release, ran = threading.Event(), threading.Event()

    async def main(scheduler: Scheduler) -> None:
        left = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run, work(lambda: release.wait(5)))
            await settle(scheduler, lambda: scheduler.taken == 1)

            async def wait_and_leave() -> None:
                with pytest.raises(ClientGoneError):
                    await scheduler.run(work(ran.set), left.wait)

            group.start_soon(wait_and_leave)
            await settle(scheduler, lambda: scheduler.taken == 2)
            left.set()
            await settle(scheduler, lambda: scheduler.taken == 1)  # the place is free while the worker is still busy
            release.set()

    run(main, max_queue=1)
    assert not ran.is_set()


def test_who_leaves_while_served_ends_the_work_after_its_step() -> None:
    steps, closed = 0, threading.Event()

    def long_work() -> Generator[None, None, None]:
        nonlocal steps
        try:
            for _ in range(500):
                steps += 1
                time.sleep(0.01)
                yield
        finally:
            closed.set()

    async def main(scheduler: Scheduler) -> None:
        with pytest.raises(ClientGoneError):
            await scheduler.run(long_work(), lambda: anyio.sleep(0.05))
        await asyncio.to_thread(closed.wait, 5)

    run(main, max_queue=0)
    assert 0 < steps < 100
    assert closed.is_set()


def test_a_job_that_is_not_done_in_time_is_given_up() -> None:
    async def main(scheduler: Scheduler) -> None:
        started = time.perf_counter()
        with pytest.raises(DeadlineError, match="not ready in time"):
            await scheduler.run(work(lambda: time.sleep(0.02), 500), deadline_s=0.1)
        assert time.perf_counter() - started < 0.5
        assert (await scheduler.run(work(lambda: "next"))).value == "next"

    run(main)


def test_a_cancelled_request_frees_its_place() -> None:
    async def main(scheduler: Scheduler) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(scheduler.run, work(lambda: time.sleep(0.05)))
                group.start_soon(scheduler.run, work(lambda: None))  # waits
                await settle(scheduler, lambda: scheduler.taken == 2)
                scope.cancel()
        assert scope.cancelled_caught

    run(main)


def count_to(number: int, delay_s: float = 0.0) -> Generator[int, None, str]:
    for each in range(number):
        time.sleep(delay_s)
        yield each
    return "counted"


def test_a_stream_gives_each_item_and_the_outcome() -> None:
    async def main(scheduler: Scheduler) -> None:
        items = [item async for item in scheduler.stream(count_to(5, 0.01))]
        assert items[:-1] == [0, 1, 2, 3, 4]
        assert isinstance(items[-1], Outcome)
        assert items[-1].value == "counted"

    run(main)


def test_items_of_a_stream_come_before_its_end() -> None:
    async def main(scheduler: Scheduler) -> None:
        started = time.perf_counter()
        stream = scheduler.stream(count_to(10, 0.05))
        assert await anext(stream) == 0
        assert time.perf_counter() - started < 0.3
        await stream.aclose()

    run(main)


def test_a_stream_that_fails_gives_what_it_had_and_then_the_error() -> None:
    def fail() -> Generator[int, None, None]:
        yield 1
        raise RuntimeError("broken")

    async def main(scheduler: Scheduler) -> None:
        stream = scheduler.stream(fail())
        assert await anext(stream) == 1
        with pytest.raises(RuntimeError, match="broken"):
            await anext(stream)

    run(main)


def test_a_stream_may_be_read_by_another_task_and_still_has_its_deadline() -> None:
    async def main(scheduler: Scheduler) -> None:
        stream = scheduler.stream(count_to(500, 0.01), deadline_s=0.15)
        first = await anext(stream)

        async def read_rest() -> None:
            with pytest.raises(DeadlineError):
                async for _ in stream:
                    pass

        await asyncio.create_task(read_rest())
        assert first == 0

    run(main)
