"""What the service counts and times, in the form that Prometheus scrapes.

Names begin with ``dinle_`` and end with their base unit (https://prometheus.io/docs/practices/naming/). No label ever takes a
value that a client chose freely: routes are templates, models are loaded ones, and whatever slips through is bounded.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import time
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dinle import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

PREFIX = "dinle"
OTHER = "other"
# More routes, models and reasons than a service has; a label's further values are counted as OTHER.
MAX_LABEL_VALUES = 64
# RFC 9110, section 9, and RFC 5789; a WebSocket counts as a method of its own.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "WEBSOCKET"})

# From the health check (milliseconds) to the longest recording that meets the deadline of 600 s.
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# A window of a CTC model alone, up to several times the default limit of a run, 60 s of sound.
BATCH_BUCKETS_S = (0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
# Below 1 the service falls behind a live speaker; a short clip on a small model reaches hundreds.
RTFX_BUCKETS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
# People notice a wait from about 0.1 s, and lose the thread after 1 s (Nielsen, Usability Engineering, 1993).
LIVE_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Everything that one application measures, in a registry of its own. Safe to call from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._routes, self._models, self._reasons = (_BoundedNames(MAX_LABEL_VALUES) for _ in range(3))
        self._shown_models: set[str] = set()
        self._worst_lag_s = 0.0
        self._add_request_metrics()
        self._add_engine_metrics()
        self._add_model_metrics()
        self._add_loop_metrics()

    def _counter(self, name: str, text: str, labels: tuple[str, ...], unit: str = "") -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, unit=unit, registry=self.registry)

    def _gauge(self, name: str, text: str, unit: str = "") -> Gauge:
        return Gauge(name, text, namespace=PREFIX, unit=unit, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = (), unit: str = "seconds"
    ) -> Histogram:
        return Histogram(name, text, labels, namespace=PREFIX, unit=unit, buckets=buckets, registry=self.registry)

    def _add_request_metrics(self) -> None:
        self._requests = self._counter("requests", "Requests that ended.", ("route", "method", "status"))
        self._request_seconds = self._histogram(
            "request", "From a request's arrival to the end of its answer.", LATENCY_BUCKETS_S, ("route",)
        )
        self._rejected = self._counter("rejected", "Requests that were refused, by their error's code.", ("reason",))
        self._queue_depth = self._gauge("queue_depth", "Requests that wait for a worker.")
        self._queue_wait_seconds = self._histogram("queue_wait", "Waiting for a worker.", LATENCY_BUCKETS_S)
        self._running = self._gauge("running", "Inferences that run.")
        self._live_streams = self._gauge("live_streams", "Live streams that are open.")
        self._live_final_seconds = self._histogram(
            "live_final", "From the end of speech in a live stream to its final text.", LIVE_BUCKETS_S
        )

    def _add_engine_metrics(self) -> None:
        self._batch_seconds = self._histogram("batch", "Sound in one engine run, with padding.", BATCH_BUCKETS_S)
        self._batch_size = self._histogram("batch_size", "Rows of one engine run.", BATCH_SIZE_BUCKETS, unit="")
        self._inference_seconds = self._histogram(
            "inference", "Work on one request, without waiting.", LATENCY_BUCKETS_S, ("model",)
        )
        self._audio_seconds = self._counter("audio", "Sound that was transcribed.", ("model",), unit="seconds")
        self._rtfx = self._histogram(
            "rtfx", "Seconds of sound for each second of work on a request.", RTFX_BUCKETS, ("model",), unit=""
        )

    def _add_model_metrics(self) -> None:
        self._model_info = Info(
            "model", "Models that are loaded.", ("model",), namespace=PREFIX, registry=self.registry
        )
        self._models_loaded = self._gauge("models_loaded", "How many models are loaded.")
        self._models_loaded.set_function(lambda: len(self._shown_models))
        self._model_loads = self._counter("model_loads", "Attempts to load a model.", ("model", "outcome"))
        build = Info("build", "Versions of what runs.", namespace=PREFIX, registry=self.registry)
        build.info(
            {
                "version": __version__,
                "python": platform.python_version(),
                "onnxruntime": _find_version("onnxruntime"),
            }
        )

    def _add_loop_metrics(self) -> None:
        self._loop_lag_seconds = self._histogram("event_loop_lag", "How late the loop wakes up.", LAG_BUCKETS_S)
        worst = self._gauge("event_loop_lag_max", "The latest wake-up since the start.", unit="seconds")
        worst.set_function(lambda: self._worst_lag_s)

    def read_gauges_from(
        self, queue_depth: Callable[[], float], running: Callable[[], float], live_streams: Callable[[], float]
    ) -> None:
        """Ask these functions, at each scrape: requests that wait, inferences that run, live streams that are open."""
        self._queue_depth.set_function(queue_depth)
        self._running.set_function(running)
        self._live_streams.set_function(live_streams)

    def count_request(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """A request ended.

        Args:
            route: its template, such as ``/v1/models/{model}``, never the path that came.
            method: HTTP's, or ``WEBSOCKET``; unknown ones are counted as ``other``.
            status: HTTP's.
            seconds: from its arrival to the end of its answer; ``None`` where that says nothing (a live stream lasts as
                long as its speaker).
        """
        route = self._routes(route)
        self._requests.labels(route, method if method in METHODS else OTHER, str(status)).inc()
        if seconds is not None:
            self._request_seconds.labels(route).observe(seconds)

    def count_rejection(self, reason: str) -> None:
        """A request was refused; ``reason`` is the error's code, such as ``service_busy``."""
        self._rejected.labels(self._reasons(reason)).inc()

    def observe_wait(self, seconds: float) -> None:
        """A request waited this long for a worker."""
        self._queue_wait_seconds.observe(seconds)

    def observe_batch(self, rows: int, seconds: float) -> None:
        """The engine ran once, on so many rows with so many seconds of sound in all, padding included."""
        self._batch_size.observe(rows)
        self._batch_seconds.observe(seconds)

    def observe_inference(self, model: str, seconds: float, audio_seconds: float) -> None:
        """A request's work is done: its model, the seconds of work without waiting, the seconds of sound."""
        model = self._models(model)
        self._inference_seconds.labels(model).observe(seconds)
        self._audio_seconds.labels(model).inc(audio_seconds)
        if seconds > 0 and audio_seconds > 0:
            self._rtfx.labels(model).observe(audio_seconds / seconds)

    def observe_live_final(self, seconds: float) -> None:
        """A live stream's final text left so long after the end of speech."""
        self._live_final_seconds.observe(seconds)

    def observe_loop_lag(self, seconds: float) -> None:
        """The event loop woke up so much later than asked."""
        self._loop_lag_seconds.observe(seconds)
        self._worst_lag_s = max(self._worst_lag_s, seconds)

    def count_model_load(self, model: str, outcome: Literal["loaded", "failed"]) -> None:
        """A model was loaded, or could not be. ``model`` is a known bundle's name, never what a client asked for."""
        self._model_loads.labels(self._models(model), outcome).inc()

    def show_model(self, model: str, family: str, backend: str) -> None:
        """This model is loaded now (again: with these labels)."""
        model = self._models(model)
        self._shown_models.add(model)
        self._model_info.labels(model).info({"family": family, "backend": backend})

    def hide_model(self, model: str) -> None:
        """This model is no longer loaded; unknown ones are passed over."""
        model = self._models(model)
        if model in self._shown_models:
            self._shown_models.discard(model)
            self._model_info.remove(model)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The answer to a scrape.

        Args:
            accept: the request's header ``Accept``; OpenMetrics and the text format are understood.

        Returns:
            Body and content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(_WithoutCreated(self.registry)), content_type


async def watch_event_loop(metrics: Metrics, period_s: float = 0.02) -> None:
    """Measure, until cancelled, how late the running loop wakes up: work that blocks it shows here."""
    while True:
        asleep = time.perf_counter()  # not the loop's own clock: uvloop's counts whole milliseconds
        await asyncio.sleep(period_s)
        metrics.observe_loop_lag(max(0.0, time.perf_counter() - asleep - period_s))


class _BoundedNames:
    """Lets the first ``limit`` different values of a label through; the rest become :data:`OTHER`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._names: set[str] = set()

    def __call__(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= self.limit:
                return OTHER
            self._names.add(name)
        return name


class _WithoutCreated(Collector):
    """A registry without the times at which its series began, which double the series and answer no question here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _find_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
