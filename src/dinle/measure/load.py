"""A load generator for ``POST /transcribe``: users who wait for their answer, and arrivals that wait for nobody.

Bodies are made beforehand and connections are kept, so that the generator takes little of the cores that it shares with
the service. Every request becomes one plain row::

    {"start_s": 1.25, "late_s": 0.0, "seconds": 0.31, "status": 200, "error": null, "clip": "wav-07.2s", "audio_s": 7.2,
     "same_text": true, "retry_after": null}

``start_s`` is when the request was due, counted from the start of its phase; ``late_s`` how much later it was sent;
``seconds`` the time from when it was due to the last byte of the answer, so that a generator that falls behind cannot
make the service look better. ``status`` is null where no answer came, and ``error`` then says why: ``timeout`` or
``connection``; ``answer`` is a status of 200 without a transcript. ``retry_after`` is the header as it came.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.errors import UsageError
from dinle.measure.load_client import OK, TIMEOUT_S, Client, LoadClip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

Row = dict[str, Any]

BACK_OFF_S = 1.0  # of a user whose request failed or was refused without a Retry-After
OPEN_LOOP_THREADS = 300
STACK_BYTES = 512 * 1024  # of a thread of the open loop; the system's own, 8 MiB, is address space for 300 of them
PROBE_EVERY_S = 1.0
PROBE_LIMIT_S = 60.0
_TICK_S = 0.5  # how often progress is told


def draw_clips(clips: Sequence[LoadClip], seed: int | Sequence[int]) -> Iterator[LoadClip]:
    """Clips without end, each once in every round, in an order drawn anew for each round.

    Raises:
        UsageError: there are no clips.
    """
    if not clips:
        raise UsageError("there are no clips to post; expected at least one")
    generator = np.random.default_rng(seed)
    while True:
        for index in generator.permutation(len(clips)):
            yield clips[index]


def run_closed_loop(
    url: str,
    clips: Sequence[LoadClip],
    *,
    users: int,
    seconds: float,
    ramp_per_s: float = 2.0,
    seed: int = 1,
    timeout_s: float = TIMEOUT_S,
    on_time: Callable[[float], None] | None = None,
) -> list[Row]:
    """Users who post one clip after another without a pause; after a refusal they wait as long as it says.

    Args:
        url: base URL of the service.
        clips: the mix; each user goes through it in an order of its own.
        users: how many.
        seconds: from the first user's start to the last request's; what is under way then is waited for.
        ramp_per_s: users that begin each second.
        seed: of the orders.
        timeout_s: seconds of silence after which a request has failed.
        on_time: told the seconds that have passed, now and then.

    Returns:
        A row for each request, in the order of their starts.

    Raises:
        UsageError: no clips, or a number that is not positive.
    """
    _check_positive(users=users, seconds=seconds, ramp_per_s=ramp_per_s, timeout_s=timeout_s)
    draws = [draw_clips(clips, [seed, number]) for number in range(users)]
    clock, stop, rows = _Clock(on_time), threading.Event(), list[Row]()

    def act(number: int) -> None:
        client = Client(url, timeout_s)
        stop.wait(number / ramp_per_s)
        while not stop.is_set() and (due_s := clock.read()) < seconds:
            row = _send(client, next(draws[number]), clock, due_s)
            rows.append(row)
            stop.wait(find_pause_s(row))
        client.close()

    with ThreadPoolExecutor(users) as pool:
        try:
            tasks = {pool.submit(act, number) for number in range(users)}
            _wait_for(tasks, clock)
        finally:
            stop.set()
    return sorted(rows, key=lambda row: float(row["start_s"]))


def _wait_for(tasks: set[Future[None]], clock: _Clock) -> None:
    waiting = tasks
    while waiting:
        waiting = wait(waiting, timeout=_TICK_S).not_done
        clock.tick()
    for task in tasks:
        task.result()  # what a user's thread raised


def find_pause_s(row: Row) -> float:
    """How long a user waits after this answer: not at all, as long as ``Retry-After`` says in seconds, or a second."""
    if row["status"] == OK:
        return 0.0
    given = row["retry_after"]
    return float(given) if given is not None and given.isdecimal() else BACK_OFF_S


def draw_arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Times of a Poisson process in seconds, ascending: gaps between arrivals are exponential with mean 1 / rate.

    Raises:
        UsageError: a rate or a length that is not positive.
    """
    _check_positive(rate_per_s=rate_per_s, seconds=seconds)
    generator = np.random.default_rng(seed)
    arrivals: list[float] = []
    at_s = float(generator.exponential(1 / rate_per_s))
    while at_s < seconds:
        arrivals.append(at_s)
        at_s += float(generator.exponential(1 / rate_per_s))
    return arrivals


def run_open_loop(
    url: str,
    clips: Sequence[LoadClip],
    arrivals_s: Sequence[float],
    *,
    seconds: float,
    seed: int = 1,
    threads: int = OPEN_LOOP_THREADS,
    timeout_s: float = TIMEOUT_S,
    on_time: Callable[[float], None] | None = None,
    at_end: Callable[[], None] | None = None,
) -> list[Row]:
    """Requests that are sent when they are due, whatever became of those before.

    Args:
        url: base URL of the service.
        clips: the mix, gone through in an order drawn anew each round.
        arrivals_s: when each request is due, ascending.
        seconds: length of the phase, at least the last arrival.
        seed: of the order.
        threads: most requests under way; when all are taken, the next is sent late, which its row says.
        timeout_s: seconds of silence after which a request has failed.
        on_time: told the seconds that have passed, now and then.
        at_end: called when the phase is over, while the last requests are still under way.

    Returns:
        A row for each arrival, in their order, once all of them are answered or have failed.

    Raises:
        UsageError: no clips, or a number that is not positive.
    """
    _check_positive(seconds=seconds, threads=threads, timeout_s=timeout_s)
    clients, draws, clock = _Clients(url, timeout_s), draw_clips(clips, seed), _Clock(on_time)
    with _small_stacks(), ThreadPoolExecutor(threads) as pool:
        tasks = []
        for due_s in arrivals_s:
            clock.sleep_until(due_s)
            tasks.append(pool.submit(clients.send, next(draws), clock, due_s))
        clock.sleep_until(seconds)
        if at_end is not None:
            at_end()
        rows = [task.result() for task in tasks]
    clients.close()
    return rows


class _Clients:
    """As many clients as are needed at once; the one that rested the least is taken first."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._idle: deque[Client] = deque()  # safe to share among threads

    def send(self, clip: LoadClip, clock: _Clock, due_s: float) -> Row:
        try:
            client = self._idle.pop()
        except IndexError:
            client = Client(self._url, self._timeout_s)
        row = _send(client, clip, clock, due_s)
        self._idle.append(client)
        return row

    def close(self) -> None:
        for client in self._idle:
            client.close()


def probe_recovery(
    url: str, clip: LoadClip, *, target_s: float, limit_s: float = PROBE_LIMIT_S, timeout_s: float = TIMEOUT_S
) -> list[Row]:
    """One request a second (or as soon as the one before is answered) until one is right and as quick as ``target_s``.

    Args:
        url: base URL of the service.
        clip: what is posted.
        target_s: seconds within which an answer counts as recovered.
        limit_s: when to give up.
        timeout_s: seconds of silence after which a request has failed.

    Returns:
        A row for each probe; ``start_s`` counts from the call.
    """
    client, clock, rows = Client(url, timeout_s), _Clock(), list[Row]()
    try:
        while (passed_s := clock.read()) < limit_s:
            rows.append(_send(client, clip, clock, passed_s))
            if rows[-1]["status"] == OK and rows[-1]["seconds"] <= target_s:
                break
            clock.sleep_until(passed_s + PROBE_EVERY_S)
    finally:
        client.close()
    return rows


def check_clips(url: str, clips: Sequence[LoadClip], timeout_s: float = TIMEOUT_S) -> list[Row]:
    """Post every clip once, one after another: warms the service up, and finds out early what it refuses."""
    client, clock = Client(url, timeout_s), _Clock()
    try:
        return [_send(client, clip, clock, clock.read()) for clip in clips]
    finally:
        client.close()


def set_texts(clips: Sequence[LoadClip], texts: Sequence[str]) -> list[LoadClip]:
    """The clips, each with the text that it should be answered with."""
    return [replace(clip, expected_text=text) for clip, text in zip(clips, texts, strict=True)]


def _send(client: Client, clip: LoadClip, clock: _Clock, due_s: float) -> Row:
    sent_s = clock.read()
    answer = client.post(clip)
    ended_s = clock.read()
    right = clip.expected_text is None or answer.text == clip.expected_text
    return {
        "start_s": round(due_s, 6),
        "late_s": round(sent_s - due_s, 6),
        "seconds": round(ended_s - due_s, 6),
        "status": answer.status,
        "error": answer.error,
        "clip": clip.id,
        "audio_s": clip.audio_s,
        "same_text": right if answer.text is not None else None,
        "retry_after": answer.retry_after,
    }


class _Clock:
    """The time of a phase, which is told to a progress bar now and then."""

    def __init__(self, on_time: Callable[[float], None] | None = None) -> None:
        self.began = time.perf_counter()
        self._on_time = on_time
        self._told_s = 0.0

    def read(self) -> float:
        """Seconds since the phase began."""
        return time.perf_counter() - self.began

    def tick(self) -> None:
        """Tell the time, if it was not told just now."""
        now_s = self.read()
        if self._on_time is not None and now_s - self._told_s >= _TICK_S:
            self._told_s = now_s
            self._on_time(now_s)

    def sleep_until(self, due_s: float) -> None:
        """Sleep until a time of the phase; not at all when it has passed."""
        self.tick()
        while (left_s := due_s - self.read()) > 0:
            time.sleep(min(left_s, _TICK_S))
            self.tick()


@contextmanager
def _small_stacks() -> Iterator[None]:
    before = threading.stack_size(STACK_BYTES)
    try:
        yield
    finally:
        threading.stack_size(before)


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise UsageError(f"{name} is {number}; expected more than 0")
