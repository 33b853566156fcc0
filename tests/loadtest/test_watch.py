from __future__ import annotations

import time

from dinle.loadtest.watch import Watch, read_metrics
from tests.measure.services import fake_service

METRICS = """\
# HELP dinle_queue_depth Requests that wait for a worker.
# TYPE dinle_queue_depth gauge
dinle_queue_depth 3.0
dinle_running 2.0
dinle_rejected_total{reason="service_busy"} 5.0
dinle_rejected_total{reason="audio_limit"} 2.0
process_cpu_seconds_total 12.5
process_resident_memory_bytes 2.5e+08
dinle_queue_wait_seconds_sum 99.0
"""


def test_series_are_found_and_summed() -> None:
    assert read_metrics(METRICS) == {
        "queue_depth": 3.0, "running": 2.0, "live_streams": None, "rejected": 7.0, "cpu_s": 12.5, "rss_mb": 250.0,
    }  # fmt: skip
    assert set(read_metrics("").values()) == {None}
    assert read_metrics("dinle_queue_depth 0.0\n")["rejected"] == 0.0


def test_a_phase_begins_and_ends_with_a_sample() -> None:
    with fake_service() as service:
        watch = Watch(service.url, local=True, every_s=0.05)
        with watch.phase("one"):
            time.sleep(0.12)
        with watch.phase("two"):
            pass
    phases = [sample["phase"] for sample in watch.samples]
    assert phases.count("one") >= 4
    assert phases.count("two") == 2
    assert watch.samples[0]["at_s"] < 0.1
    assert watch.samples[0]["queue_depth"] is None  # the fake has other figures


def test_a_service_that_tells_nothing_is_no_error() -> None:
    watch = Watch("http://127.0.0.1:9", local=False)
    with watch.phase("one"):
        pass
    assert {sample["queue_depth"] for sample in watch.samples} == {None}
    assert {sample["machine_cpu_s"] for sample in watch.samples} == {None}
