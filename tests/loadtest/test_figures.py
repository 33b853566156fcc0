from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dinle.loadtest.config import LoadTestConfig
from dinle.loadtest.figures import (
    choose_counted,
    count_streams,
    count_users,
    find_share_within,
    is_carried,
    summarize_arrivals,
    summarize_live,
    summarize_service,
)
from dinle.loadtest.session import Session, Sounds, draw_arrivals, estimate_capacity, try_streams

if TYPE_CHECKING:
    from dinle.loadtest.stages import Stage

PHASE: dict[str, Any] = {
    "model": "m", "name": "p", "kind": "length", "seconds": 10.0, "from_s": 0.0, "wall_s": 12.5, "generator_cpu_s": 1.25,
    "users": 1, "rate_per_s": 2.0, "length_s": 3.0,
}  # fmt: skip


def make_row(seconds: float, **changes: Any) -> dict[str, Any]:
    row = {
        "model": "m", "phase": "p", "kind": "file", "clip": "a", "audio_s": 3.0, "start_s": 0.0, "late_s": 0.0,
        "seconds": seconds, "status": 200, "error": None, "same_text": True, "retry_after": None,
    }  # fmt: skip
    return row | changes


def test_refusals_and_errors_are_never_in_time() -> None:
    rows = [make_row(0.5)] * 18 + [make_row(0.001, status=503), make_row(0.001, status=None, error="connection")]
    assert find_share_within(rows, 1.0) == 0.9
    assert not is_carried(rows, 1.0)
    assert is_carried([make_row(0.5)] * 19 + [make_row(0.001, status=503)], 1.0)
    assert not is_carried([], 1.0)


def test_a_load_is_carried_where_its_p95_is_in_time() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        seconds = generator.gamma(4, 0.15, size=int(generator.integers(1, 90)))
        p95 = np.percentile(seconds, 95, method="inverted_cdf")
        assert is_carried([make_row(float(one)) for one in seconds], 1.0) == (p95 <= 1.0)


def test_a_step_counts_what_was_answered_while_it_lasted() -> None:
    rows = [make_row(0.5, start_s=float(at)) for at in range(10)] + [
        make_row(2.0, start_s=9.5),
        make_row(0.0, status=503),
    ]
    step = summarize_arrivals(PHASE, rows, 1.0)
    assert step["per_second"] == 1.0
    assert step["refused_per_s"] == 0.1
    assert step["audio_per_s"] == pytest.approx(3.6)
    assert step["latency"]["count"] == 11
    assert step["within"] == pytest.approx(10 / 12)


def test_users_follow_from_arrivals_by_littles_law() -> None:
    # Each of 10 users sends a clip of 3 s and waits 0.5 s: 10 / 3.5 requests a second.
    steps = [
        summarize_arrivals(PHASE | {"rate_per_s": users / 3.5}, [make_row(0.5 if users <= 10 else 1.5)] * 20, 1.0)
        for users in (14, 5, 10)
    ]
    found = count_users(3.0, steps, [], 1.0, cores=2)
    assert found["users"] == pytest.approx(10)
    assert found["users_per_core"] == pytest.approx(5)
    assert [step["carried"] for step in found["steps"]] == [True, True, False]
    assert not found["at_least"]
    assert count_users(3.0, steps[1:], [], 1.0, cores=2)["at_least"]


def test_nobody_is_carried_where_one_request_takes_too_long() -> None:
    slow = [make_row(1.5, phase="warm-up 3 s")] * 4
    assert count_users(3.0, [], slow, 1.0, cores=2)["users_per_core"] == 0
    quick = [make_row(0.5, phase="warm-up 3 s")] * 4
    assert count_users(3.0, [], quick, 1.0, cores=2)["users_per_core"] is None
    failing = [summarize_arrivals(PHASE, [make_row(1.5)] * 4, 1.0)]
    assert count_users(3.0, failing, quick, 1.0, cores=2)["users_per_core"] is None


def test_live_sentences_count_once_all_streams_had_begun() -> None:
    phase = PHASE | {"kind": "live", "from_s": 2.0, "users": 4}
    rows = [
        make_row(0.7, start_s=1.0),
        make_row(0.6, start_s=2.0),
        make_row(0.1, start_s=0.5, status=503, same_text=None),
    ]
    assert choose_counted(phase, rows) == rows[1:]
    assert choose_counted(PHASE, rows) == rows
    step = summarize_live(phase, rows, 1.0)
    assert (step["streams"], step["answers"]["requests"], step["within"]) == (4, 2, 0.5)
    assert step["latency"]["p50_s"] == 0.6


def test_streams_per_core_are_of_the_most_that_was_carried() -> None:
    def make_step(streams: int, seconds: float) -> dict[str, Any]:
        return summarize_live(PHASE | {"kind": "live", "users": streams}, [make_row(seconds)] * 5, 1.0)

    live = count_streams([make_step(8, 1.2), make_step(1, 0.6), make_step(6, 0.9), make_step(4, 0.7)], cores=2)
    assert (live["streams"], live["streams_per_core"], live["p95_s"], live["too_many"]) == (6, 3.0, 0.9, 8)
    assert [step["streams"] for step in live["steps"]] == [1, 4, 6, 8]
    again = count_streams([make_step(4, 1.2), make_step(4, 0.8), make_step(6, 1.2)], cores=2)
    assert (again["streams"], again["too_many"]) == (4, 6)
    assert count_streams([make_step(1, 1.2)], cores=2)["streams_per_core"] == 0
    assert count_streams([make_step(1, 0.2)], cores=2)["too_many"] is None


def test_the_service_is_described_from_its_samples() -> None:
    samples = [
        {"at_s": at_s, "queue_depth": queue, "cpu_s": 100 + 1.5 * at_s, "machine_cpu_s": 900 + 1.75 * at_s, "rss_mb": rss,
         "rejected": 5.0 + at_s}
        for at_s, queue, rss in ((0.0, 0.0, 200.0), (5.0, 4.0, 220.0), (10.0, 8.0, 210.0), (12.0, 99.0, 205.0))
    ]  # fmt: skip
    service = summarize_service(PHASE, samples)
    assert service["service_cores"] == pytest.approx(1.5)
    assert service["generator_cores"] == pytest.approx(0.1)
    assert service["other_cores"] == pytest.approx(0.15)
    assert (service["queue_mean"], service["queue_most"]) == (4.0, 8.0)  # the last sample is after the load
    assert (service["rss_mb"], service["rejected"]) == (220.0, 12.0)
    silent = [dict.fromkeys(samples[0]) | {"at_s": 0.0}]
    assert {summarize_service(PHASE, silent)[key] for key in ("queue_mean", "service_cores", "rss_mb", "rejected")} == {
        None
    }


def test_arrivals_are_uniform_and_as_many_as_asked() -> None:
    arrivals = draw_arrivals(2000, 10.0, seed=3)
    assert len(arrivals) == 2000
    assert list(arrivals) == sorted(arrivals)
    assert arrivals[0] >= 0
    assert arrivals[-1] <= 10
    steps = (np.arange(2000) + 0.5) / 2000
    assert np.abs(np.array(arrivals) / 10 - steps).max() < 1.63 / np.sqrt(2000)  # Kolmogorov-Smirnov, 1 %
    gaps = np.diff(arrivals)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.1)  # as of a Poisson process, not of a metronome


def test_capacity_is_what_all_cores_do_at_the_pace_of_one() -> None:
    assert estimate_capacity([make_row(0.25), make_row(0.75)], cores=2) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("tries", "carried", "names"),
    [
        ([[0.6] * 3], True, ["live 2"]),
        ([[0.6, 0.7, 1.4], [0.6] * 3], True, ["live 2", "live 2 again"]),
        ([[0.6, 0.7, 1.4], [1.2] * 3], False, ["live 2", "live 2 again"]),
        ([[1.4] * 20], False, ["live 2"]),
    ],
)
def test_a_live_step_of_few_sentences_is_tried_again(
    tries: list[list[float]], carried: bool, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(_: Session, stage: Stage, kind: str, **facts: float) -> list[dict[str, Any]]:
        ran.append(stage.name)
        assert (kind, facts) == ("live", {"from_s": 0.74})
        return [make_row(seconds) for seconds in tries[len(ran) - 1]]

    monkeypatch.setattr(Session, "run", run)
    session = Session("m", Any, Any, Sounds([], {}, []), LoadTestConfig(), 2)  # type: ignore[arg-type] # nothing is sent
    assert try_streams(session, 2) == carried
    assert ran == names
