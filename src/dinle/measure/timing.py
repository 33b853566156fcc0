"""Clocks: backends timed in turns, and the figures of their samples."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dinle.errors import UsageError
from dinle.measure.wer import CONFIDENCE, RESAMPLES, Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

# onnxruntime's threads spin for about 35 ms after a run (measured with 1.32 on 2 cores: processor time used while the main
# thread slept) and would take the cores from the backend that comes next.
SETTLE_S = 0.1


@dataclass(frozen=True)
class Timings:
    """Seconds of each run: one value a round, the same number for every backend; round ``i`` of all lies side by side."""

    samples_s: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Latency:
    """What a backend's samples say, in seconds. ``p95_s`` interpolates between samples (numpy's ``linear``)."""

    mean_s: float
    median_s: float
    p95_s: float
    min_s: float

    def to_dict(self) -> dict[str, float]:
        """Plain values by name."""
        return {name: getattr(self, name) for name in ("mean_s", "median_s", "p95_s", "min_s")}


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster: ratio of the medians, with its 95 % interval."""

    ratio: float
    interval: Interval


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    runs: int,
    warmup: int = 2,
    seed: int = 1,
    pause_s: float = 0.0,
    on_run: Callable[[], object] | None = None,
) -> Timings:
    """Time calls in rounds: each round runs every call once, in an order drawn anew.

    What slows the machine for a while (other work, heat) then falls on all of them alike, and none profits from its place.

    Args:
        calls: name to what is timed.
        runs: timed rounds.
        warmup: untimed rounds first.
        seed: of the orders.
        pause_s: rest before each timed call, so that threads of the call before have gone to sleep.
        on_run: called after each call, warm-up included.

    Raises:
        UsageError: fewer than one run, or a negative warm-up.
    """
    if runs < 1 or warmup < 0:
        raise UsageError(f"{runs} runs after {warmup} of warm-up; expected at least 1 run and no negative warm-up")
    generator = np.random.default_rng(seed)
    names = list(calls)
    samples: dict[str, list[float]] = {name: [] for name in names}
    with _pause_collector():
        for number in range(warmup + runs):
            for index in generator.permutation(len(names)):
                time.sleep(pause_s)
                seconds = _time_call(calls[names[index]])
                if number >= warmup:
                    samples[names[index]].append(seconds)
                if on_run is not None:
                    on_run()
    return Timings({name: tuple(values) for name, values in samples.items()})


def summarize(samples_s: Sequence[float]) -> Latency:
    """Mean, median, 95th percentile and minimum of at least one sample."""
    values = np.asarray(samples_s, dtype=np.float64)
    return Latency(
        mean_s=float(values.mean()),
        median_s=float(np.median(values)),
        p95_s=float(np.percentile(values, 95)),
        min_s=float(values.min()),
    )


def measure_speedup(
    slow_s: Sequence[float], fast_s: Sequence[float], *, samples: int = RESAMPLES, seed: int = 1
) -> SpeedUp:
    """How many times faster ``fast_s`` is than ``slow_s``, which were timed in the same rounds.

    The interval is a percentile bootstrap over rounds; one round gives an interval without width.

    Raises:
        UsageError: different numbers of samples, or none.
    """
    if len(slow_s) != len(fast_s) or not slow_s:
        raise UsageError(f"{len(slow_s)} and {len(fast_s)} samples; expected one of each for every round")
    slow, fast = np.asarray(slow_s), np.asarray(fast_s)
    drawn = np.random.default_rng(seed).integers(len(slow), size=(samples, len(slow)))
    ratios: NDArray[np.float64] = np.median(slow[drawn], axis=1) / np.median(fast[drawn], axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return SpeedUp(float(np.median(slow) / np.median(fast)), Interval(float(low), float(high)))


def _time_call(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextmanager
def _pause_collector() -> Iterator[None]:
    """Keep Python's collector out of the samples: with torch loaded, one full pass takes as long as a short clip."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
