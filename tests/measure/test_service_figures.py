from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.measure.service_figures import (
    bin_by_length,
    bin_by_time,
    count_answers,
    count_most_at_once,
    find_memory,
    list_differences,
    summarize_lag,
    summarize_loop,
    summarize_memory,
    summarize_overload,
    summarize_phase,
    summarize_recovery,
    summarize_seconds,
)
from dinle.measure.service_watch import Sleeper, Watch, read_lag, read_usage
from tests.measure.services import METRICS, fake_service

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_row(start_s: float = 0.0, seconds: float = 0.1, **changes: Any) -> dict[str, Any]:
    row = {"start_s": start_s, "late_s": 0.0, "seconds": seconds, "status": 200, "error": None, "clip": "a.wav",
           "audio_s": 5.0, "same_text": True, "retry_after": None}  # fmt: skip
    return row | changes


@given(st.lists(st.floats(min_value=0, max_value=1e3), min_size=1, max_size=50))
def test_percentiles_are_those_of_numpy(seconds: list[float]) -> None:
    summary = summarize_seconds(seconds)
    assert summary is not None
    for share in (50, 95, 99):
        assert summary[f"p{share}_s"] == pytest.approx(np.percentile(seconds, share))
    assert summary["mean_s"] == pytest.approx(np.mean(seconds))
    assert (summary["count"], summary["max_s"]) == (len(seconds), max(seconds))
    assert summarize_seconds([]) is None


def test_every_request_is_counted_as_one_thing() -> None:
    rows = [
        make_row(), make_row(same_text=False), make_row(error="answer", same_text=None),
        make_row(status=503, same_text=None, retry_after="1"), make_row(status=503, same_text=None),
        make_row(status=429, same_text=None), make_row(status=500, same_text=None),
        make_row(status=None, error="timeout", same_text=None), make_row(status=None, error="connection", same_text=None),
    ]  # fmt: skip
    answers = count_answers(rows)
    assert answers == {
        "requests": 9, "ok": 2, "different_text": 1, "refused": {"429": 1, "503": 2}, "without_retry_after": 2,
        "other_status": {"500": 1}, "errors": {"answer": 1, "connection": 1, "timeout": 1}, "failed": 4,
    }  # fmt: skip
    assert answers["ok"] + sum(answers["refused"].values()) + answers["failed"] == answers["requests"]


def test_throughput_counts_what_was_answered_in_the_steady_part() -> None:
    rows = [
        make_row(0.0, 0.9),  # over before all users had begun
        make_row(0.5, 1.0, audio_s=4.0),
        make_row(2.0, 2.0, audio_s=8.0),
        make_row(2.5, 1.0, status=503),
        make_row(4.5, 1.0),  # over after the last new request
    ]
    loop = summarize_loop(rows, 1.0, 5.0)
    assert loop["per_second"] == pytest.approx(2 / 4)
    assert loop["rtfx"] == pytest.approx(12 / 4)
    assert loop["mean_audio_s"] == pytest.approx(6.0)
    assert loop["latency"]["p50_s"] == pytest.approx(1.5)
    assert loop["answers"]["requests"] == 5
    nothing = summarize_loop([make_row(status=503)], 1.0, 5.0)
    assert (nothing["per_second"], nothing["latency"], nothing["mean_audio_s"]) == (0.0, None, None)


def test_an_overload_counts_late_answers_but_not_as_throughput() -> None:
    rows = [
        make_row(0.0, 1.0),
        make_row(1.0, 9.5, late_s=0.25),  # answered after the end
        make_row(2.0, 0.01, status=503, retry_after="1", same_text=None),
    ]
    overload = summarize_overload(rows, 10.0, 0.3)
    assert overload["per_second"] == pytest.approx(0.1)
    assert overload["rtfx"] == pytest.approx(0.5)
    assert overload["accepted"]["max_s"] == 9.5
    assert overload["refused"]["count"] == 1
    assert overload["late"]["max_s"] == 0.25
    assert overload["answers"]["ok"] == 2
    assert sum(one["accepted"] + one["refused"] + one["failed"] for one in overload["over_time"]) == 3


def test_requests_at_once_are_counted_from_when_they_were_sent() -> None:
    rows = [make_row(0.0, 1.0), make_row(0.5, 1.0), make_row(0.6, 2.0, late_s=1.5)]
    assert count_most_at_once(rows) == 2
    assert count_most_at_once([make_row(0.0, 1.0), make_row(1.0, 1.0)]) == 1  # one ends as the other begins
    assert count_most_at_once([]) == 0


def test_recovery_is_the_answer_of_the_first_probe_that_is_right_and_quick() -> None:
    probes = [
        make_row(0.0, 0.01, status=503), make_row(1.0, 3.0), make_row(4.0, 0.2), make_row(5.0, 0.1),
    ]  # fmt: skip
    assert summarize_recovery(probes, 0.3)["recovered_after_s"] == pytest.approx(4.2)
    assert summarize_recovery(probes, 0.05)["recovered_after_s"] is None
    assert len(summarize_recovery(probes, 0.3)["probes"]) == 4


def make_samples(rss_mb: Sequence[float | None], every_s: float = 5.0) -> list[dict[str, Any]]:
    return [
        {"at_s": every_s * number, "rss_mb": one, "cpu_s": 0.0, "healthz_s": 0.001} for number, one in enumerate(rss_mb)
    ]


def test_memory_is_compared_with_the_second_minute_of_the_soak() -> None:
    # 100 s of something else, then a soak of 600 s that fills caches for 100 s and then grows by 1 MB in 50 s.
    rss_mb = [500.0] * 20 + [100.0 + min(5 * n, 100) + max(0, 5 * n - 100) / 50 for n in range(121)]
    memory = summarize_memory(make_samples(rss_mb), 100.0, 700.0)
    assert memory is not None
    assert (memory["base_after_s"], memory["base_mb"]) == (120.0, pytest.approx(200.4))
    assert memory["last_mb"] == pytest.approx(210.0)
    assert memory["growth"] == pytest.approx(210.0 / 200.4 - 1)
    assert memory["slope_mb_per_h"] == pytest.approx(72.0)
    assert memory["most_mb"] == pytest.approx(210.0)


def test_memory_of_a_short_soak_has_no_slope_and_where_nothing_was_measured_there_is_none() -> None:
    short = summarize_memory(make_samples([10, 20, 30, 30]), 0.0, 15.0)
    assert short is not None
    assert (short["base_after_s"], short["base_mb"], short["slope_mb_per_h"]) == (5.0, 20.0, None)
    assert summarize_memory(make_samples([None, None]), 0.0, 15.0) is None
    assert find_memory(make_samples([10, None, 30]), 5.1) == 30
    assert find_memory([], 1.0) is None


def test_a_quantile_of_a_histogram_is_spread_evenly_inside_its_bucket() -> None:
    before = {"0.001": 5.0, "0.01": 5.0, "+Inf": 5.0}
    after = {"0.001": 45.0, "0.01": 105.0, "+Inf": 105.0}  # 40 up to 1 ms, 60 up to 10 ms
    lag = summarize_lag(before, after, 0.2)
    assert lag["p50_s"] == pytest.approx(0.001 + 0.009 * (50 - 40) / 60)
    assert lag["p99_s"] == pytest.approx(0.001 + 0.009 * (99 - 40) / 60)
    assert lag["max_s"] == 0.2
    assert summarize_lag({}, {"0.001": 0.0, "0.01": 0.0, "+Inf": 9.0}, None)["p50_s"] == 0.01  # above the last edge
    assert summarize_lag(after, after, 0.1) == {"p50_s": None, "p99_s": None, "max_s": 0.1}


def test_the_lag_is_read_from_prometheus_text_whatever_its_labels() -> None:
    assert read_lag(METRICS) == {"buckets": {"0.001": 6.0, "0.01": 10.0, "+Inf": 10.0}, "max_s": 0.0042}
    labelled = 'dinle_event_loop_lag_seconds_bucket{worker="a",le="0.1"} 2 1700000000\n' * 2
    assert read_lag(labelled) == {"buckets": {"0.1": 4.0}, "max_s": None}
    assert read_lag("dinle_requests_total 3\nnot a metric at all {\n") is None


def test_lengths_and_times_are_put_into_classes_without_losing_any() -> None:
    rows = [make_row(t, 0.1 * t, audio_s=a) for t, a in ((0.0, 1.0), (1.9, 3.0), (2.0, 4.99), (5.0, 5.0), (5.5, 60.0))]
    lengths = bin_by_length(rows)
    assert [(one["from_s"], one["to_s"], one["count"]) for one in lengths] == [(3, 5, 3), (5, 7, 1), (13, 15, 1)]
    assert lengths[0]["p50_s"] == pytest.approx(0.19)
    times = bin_by_time(rows, 7.0)
    assert [one["accepted"] for one in times] == [2, 1, 2, 0]
    assert [one["at_s"] for one in times] == [1.0, 3.0, 5.0, 6.5]
    assert times[-1]["p95_s"] is None
    assert list_differences([*rows, make_row(same_text=False), make_row(same_text=None)]) == {"a.wav": 1}


def test_a_watch_sees_memory_processor_health_and_lag() -> None:
    with fake_service() as service, Watch(service.url, os.getpid(), every_s=0.02) as watch:
        with watch.phase("busy"):
            ends = time.process_time() + 0.2
            while time.process_time() < ends:
                pass
        with watch.phase("idle"):
            time.sleep(0.1)
    busy, idle = watch.phases
    assert busy["client_cpu_s"] >= 0.2
    assert busy["server_cpu_s"] == pytest.approx(
        busy["client_cpu_s"], abs=0.05
    )  # they are the same process; ticks are 10 ms
    assert busy["machine_cpu_s"] >= 0.15
    assert idle["server_cpu_s"] < busy["server_cpu_s"]
    assert idle["lag"]["after"] == read_lag(METRICS)
    assert len(watch.samples) >= 3
    assert all(one["rss_mb"] > 10 and one["healthz_s"] > 0 for one in watch.samples)
    figures = summarize_phase(busy, watch.samples)
    assert figures["client_cores"] == pytest.approx(busy["client_cpu_s"] / (busy["ended_s"] - busy["began_s"]))
    assert figures["lag"]["max_s"] == 0.0042
    assert figures["healthz_failed"] == 0
    assert 0 < busy["sleeper_late_s"] <= idle["sleeper_late_s"] < 5
    assert figures["sleeper_late_s"] == busy["sleeper_late_s"]


def test_a_sleeper_that_is_stopped_was_late() -> None:
    sleeper = Sleeper()
    sleeper.start()
    try:
        while sleeper.most_late_s == 0:
            time.sleep(0.01)
        (process,) = (one for one in multiprocessing.active_children() if one.name == "sleeper")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGCONT)
        ends = time.monotonic() + 5
        while sleeper.most_late_s < 0.25 and time.monotonic() < ends:
            time.sleep(0.01)
        assert sleeper.most_late_s >= 0.25
    finally:
        sleeper.stop()
    assert not any(one.name == "sleeper" for one in multiprocessing.active_children())


def test_a_watch_of_a_service_that_is_gone_says_so_in_its_samples() -> None:
    with fake_service() as service:
        url = service.url
    with Watch(url, 2**22 + 1, every_s=0.02) as watch, watch.phase("nothing"):
        time.sleep(0.05)
    assert read_usage(2**22 + 1) is None
    assert all(one["rss_mb"] is None and one["healthz_s"] is None for one in watch.samples)
    figures = summarize_phase(watch.phases[0], watch.samples)
    assert [figures[key] for key in ("server_cores", "other_cores", "lag", "healthz")] == [None] * 4
    assert figures["healthz_failed"] >= 1
