from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import anyio
import onnxruntime
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dinle import __version__
from dinle.serve.metrics import MAX_LABEL_VALUES, OTHER, Metrics, watch_event_loop

if TYPE_CHECKING:
    from prometheus_client import Metric

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# Name in OpenMetrics -> type, unit, labels.
EXPECTED = {
    "dinle_requests": ("counter", "", {"route", "method", "status"}),
    "dinle_request_seconds": ("histogram", "seconds", {"route"}),
    "dinle_queue_depth": ("gauge", "", set()),
    "dinle_queue_wait_seconds": ("histogram", "seconds", set()),
    "dinle_running": ("gauge", "", set()),
    "dinle_batch_seconds": ("histogram", "seconds", set()),
    "dinle_batch_size": ("histogram", "", set()),
    "dinle_inference_seconds": ("histogram", "seconds", {"model"}),
    "dinle_audio_seconds": ("counter", "seconds", {"model"}),
    "dinle_rtfx": ("histogram", "", {"model"}),
    "dinle_live_streams": ("gauge", "", set()),
    "dinle_live_final_seconds": ("histogram", "seconds", set()),
    "dinle_rejected": ("counter", "", {"reason"}),
    "dinle_model": ("info", "", {"model", "family", "backend"}),
    "dinle_models_loaded": ("gauge", "", set()),
    "dinle_model_loads": ("counter", "", {"model", "outcome"}),
    "dinle_build": ("info", "", {"version", "python", "onnxruntime"}),
    "dinle_event_loop_lag_seconds": ("histogram", "seconds", set()),
    "dinle_event_loop_lag_max_seconds": ("gauge", "seconds", set()),
}


def use_everything() -> Metrics:
    metrics = Metrics()
    metrics.read_gauges_from(queue_depth=lambda: 3, running=lambda: 2, live_streams=lambda: 1)
    metrics.count_request("/transcribe", "POST", 200, 0.3)
    metrics.count_request("/live", "WEBSOCKET", 101, None)
    metrics.count_rejection("service_busy")
    metrics.observe_wait(0.02)
    metrics.observe_batch(4, 31.0)
    metrics.observe_inference("dinle-base-tr", 0.5, 10.0)
    metrics.observe_live_final(0.4)
    metrics.observe_loop_lag(0.003)
    metrics.show_model("dinle-base-tr", "whisper", "onnx_int8")
    metrics.count_model_load("dinle-base-tr", "loaded")
    return metrics


def scrape(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in parse_text(metrics.render()[0].decode())}


def read(metrics: Metrics, sample_name: str, **labels: str) -> float | None:
    """One sample's value, as Prometheus would store it."""
    samples = [sample for family in scrape(metrics).values() for sample in family.samples]
    found = [sample.value for sample in samples if sample.name == sample_name and sample.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


def test_every_metric_has_its_type_unit_and_labels() -> None:
    body, content_type = use_everything().render(OPENMETRICS)
    families = {family.name: family for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert content_type.startswith("application/openmetrics-text")
    found = {}
    for name, family in families.items():
        if name.startswith("dinle_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, family.unit, labels)
            assert family.documentation.endswith("."), name
    assert found == EXPECTED


def test_names_follow_prometheus_conventions_in_the_text_format() -> None:
    families = scrape(use_everything())
    samples = {sample.name for family in families.values() for sample in family.samples}
    assert {"dinle_requests_total", "dinle_audio_seconds_total", "dinle_model_info", "dinle_build_info"} <= samples
    assert not [name for name in samples if name.endswith("_created")]
    # https://prometheus.io/docs/practices/naming/: base units, so nothing in milliseconds, minutes or percent.
    assert not [name for name in samples if name.endswith(("_ms", "_milliseconds", "_minutes", "_percent"))]
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= samples


def test_the_text_format_is_the_default() -> None:
    assert Metrics().render()[1].startswith("text/plain; version=0.0.4")


def test_values_arrive_where_they_belong() -> None:
    metrics = use_everything()
    assert read(metrics, "dinle_requests_total", route="/transcribe", method="POST", status="200") == 1
    assert read(metrics, "dinle_request_seconds_sum", route="/transcribe") == 0.3
    assert read(metrics, "dinle_rejected_total", reason="service_busy") == 1
    assert read(metrics, "dinle_batch_size_sum") == 4
    assert read(metrics, "dinle_batch_seconds_sum") == 31
    assert read(metrics, "dinle_audio_seconds_total", model="dinle-base-tr") == 10
    assert read(metrics, "dinle_rtfx_sum", model="dinle-base-tr") == 20
    assert read(metrics, "dinle_model_loads_total", model="dinle-base-tr", outcome="loaded") == 1
    build = next(sample for sample in scrape(metrics)["dinle_build_info"].samples)
    assert (build.labels["version"], build.labels["onnxruntime"]) == (__version__, onnxruntime.__version__)


def test_a_websocket_is_counted_but_its_length_is_no_latency() -> None:
    metrics = use_everything()
    assert read(metrics, "dinle_requests_total", route="/live", method="WEBSOCKET", status="101") == 1
    assert read(metrics, "dinle_request_seconds_count", route="/live") is None


def test_gauges_are_read_when_scraped() -> None:
    metrics, waiting = Metrics(), [1]
    metrics.read_gauges_from(lambda: len(waiting), lambda: 0, lambda: 0)
    assert read(metrics, "dinle_queue_depth") == 1
    waiting.append(2)
    assert read(metrics, "dinle_queue_depth") == 2


def test_a_model_that_is_unloaded_is_no_longer_shown() -> None:
    metrics = use_everything()
    metrics.show_model("other-model", "ctc", "openvino")
    assert read(metrics, "dinle_models_loaded") == 2
    assert read(metrics, "dinle_model_info", model="other-model", family="ctc", backend="openvino") == 1
    metrics.hide_model("other-model")
    metrics.hide_model("other-model")  # twice is no fault
    assert read(metrics, "dinle_models_loaded") == 1
    assert read(metrics, "dinle_model_info", model="other-model", family="ctc", backend="openvino") is None


def test_work_that_took_no_time_has_no_rtfx() -> None:
    metrics = Metrics()
    metrics.observe_inference("m", 0.0, 5.0)
    metrics.observe_inference("m", 1.0, 0.0)
    assert read(metrics, "dinle_rtfx_count", model="m") is None
    assert read(metrics, "dinle_audio_seconds_total", model="m") == 5


def test_two_applications_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.count_rejection("deadline")
    assert read(first, "dinle_rejected_total", reason="deadline") == 1
    assert read(second, "dinle_rejected_total", reason="deadline") is None


def test_the_number_of_series_is_bounded_whatever_comes() -> None:
    metrics = Metrics()
    for number in range(3 * MAX_LABEL_VALUES):
        metrics.count_request(f"/guess/{number}", f"M{number}", 404, 0.01)
        metrics.count_rejection(f"reason-{number}")
        metrics.observe_inference(f"model-{number}", 1.0, 1.0)
    families = scrape(metrics)
    for name in ("dinle_requests_total", "dinle_rejected_total", "dinle_audio_seconds_total"):
        assert len(families[name.removesuffix("_total")].samples) == MAX_LABEL_VALUES + 1, name
    rest = 2 * MAX_LABEL_VALUES
    assert read(metrics, "dinle_requests_total", route=OTHER, method=OTHER, status="404") == rest


@pytest.mark.parametrize(("seconds", "bucket"), [(0.004, "0.005"), (599.0, "600.0"), (601.0, "+Inf")])
def test_the_buckets_of_latency_reach_from_milliseconds_to_the_deadline(seconds: float, bucket: str) -> None:
    metrics = Metrics()
    metrics.observe_wait(seconds)
    samples = scrape(metrics)["dinle_queue_wait_seconds"].samples
    filled = [sample.labels["le"] for sample in samples if sample.name.endswith("_bucket") and sample.value]
    assert filled[0] == bucket


def test_a_blocked_event_loop_shows_as_lag() -> None:
    metrics = Metrics()

    async def block() -> None:
        watcher = asyncio.create_task(watch_event_loop(metrics, period_s=0.01))
        await asyncio.sleep(0.05)
        time.sleep(0.3)  # noqa: ASYNC251 - the fault to be seen
        await asyncio.sleep(0.05)
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher

    anyio.run(block)
    worst = read(metrics, "dinle_event_loop_lag_max_seconds")
    assert worst is not None
    assert 0.28 <= worst < 3.0  # the sleep less one period, on a busy machine more
    count, total = (
        read(metrics, "dinle_event_loop_lag_seconds_count"),
        read(metrics, "dinle_event_loop_lag_seconds_sum"),
    )
    assert count is not None
    assert count >= 3
    assert total is not None
    assert total >= worst
