from __future__ import annotations

import gc
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.measure.timing import measure_speedup, summarize, time_interleaved


def test_each_round_runs_every_call_once_and_orders_change() -> None:
    order: list[str] = []
    timings = time_interleaved({name: lambda name=name: order.append(name) for name in "abc"}, runs=20, warmup=2)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    rounds = [tuple(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert len(rounds) == 22
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert {one[0] for one in rounds} == {"a", "b", "c"}
    assert {name: len(samples) for name, samples in timings.samples_s.items()} == {"a": 20, "b": 20, "c": 20}


def test_a_call_is_timed_by_the_wall_clock_and_the_pause_is_not() -> None:
    timings = time_interleaved({"slow": lambda: time.sleep(0.02), "fast": lambda: None}, runs=3, warmup=0, pause_s=0.05)
    assert min(timings.samples_s["slow"]) >= 0.02
    assert min(timings.samples_s["fast"]) < 0.02


def test_the_collector_rests_during_runs_and_works_after_them() -> None:
    states: list[bool] = []
    time_interleaved({"a": lambda: states.append(gc.isenabled())}, runs=1, warmup=0)
    assert (states, gc.isenabled()) == ([False], True)


def test_progress_is_told_of_every_call() -> None:
    calls: list[None] = []
    time_interleaved({"a": lambda: None, "b": lambda: None}, runs=3, warmup=1, on_run=lambda: calls.append(None))
    assert len(calls) == 8


@pytest.mark.parametrize(("runs", "warmup"), [(0, 1), (1, -1)])
def test_no_runs_are_refused(runs: int, warmup: int) -> None:
    with pytest.raises(UsageError, match="expected at least 1 run"):
        time_interleaved({"a": lambda: None}, runs=runs, warmup=warmup)


def test_a_summary_of_known_samples() -> None:
    latency = summarize([float(number) for number in range(1, 101)])
    assert latency.to_dict() == pytest.approx({"mean_s": 50.5, "median_s": 50.5, "p95_s": 95.05, "min_s": 1.0})
    assert summarize([0.5]).to_dict() == {"mean_s": 0.5, "median_s": 0.5, "p95_s": 0.5, "min_s": 0.5}


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=20), st.floats(0.1, 10))
def test_a_constant_factor_is_found_exactly(fast_s: list[float], factor: float) -> None:
    # Runs are drawn in rounds, so a factor that holds in every round leaves the interval without width.
    speedup = measure_speedup([factor * seconds for seconds in fast_s], fast_s, samples=50)
    assert [speedup.ratio, *speedup.interval.to_list()] == pytest.approx([factor] * 3)


def test_the_interval_of_a_speedup_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    hits = 0
    for seed in range(100):
        slow, fast = 2 * generator.lognormal(0, 0.2, size=30), generator.lognormal(0, 0.2, size=30)
        interval = measure_speedup(slow.tolist(), fast.tolist(), samples=300, seed=seed).interval
        hits += interval.low <= 2 <= interval.high
    assert hits >= 88  # 95 expected; 88 or fewer has a chance below 1 in 100


def test_unpaired_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="2 and 1 samples"):
        measure_speedup([1.0, 2.0], [1.0])
