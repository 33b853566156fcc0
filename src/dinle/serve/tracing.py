"""Traces of requests by OpenTelemetry, for those who run a collector: an option, and nothing is paid where it is off.

A request is a span, its steps (waiting, decoding, inference) are spans below it. What is current follows a request through
coroutines and into threads by :mod:`contextvars`; nothing is kept in OpenTelemetry's process-wide provider.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from starlette.datastructures import Headers

from dinle import __version__
from dinle.serve.errors import ERROR_CODE_KEY, REQUEST_ID_KEY
from dinle.serve.logs import WatchedConnection, current_trace_id, name_route

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Attribute = str | bool | int | float

EXPORTERS = ("otlp", "console")
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
# Spans that a collector has not taken by then are dropped: a service that stops must not wait for a machine that is gone.
SHUTDOWN_S = 5.0
# https://opentelemetry.io/docs/specs/semconv/http/http-spans/: what is not one of these is "_OTHER".
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
FIRST_SERVER_ERROR = 500

_current: ContextVar[Tracing | None] = ContextVar("current_tracing", default=None)
_OFF: AbstractContextManager[object] = nullcontext()


class Tracing:
    """A provider of spans, and the end of it.

    Args:
        provider: with the processors that take the spans away.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("dinle", __version__)

    def shut_down(self, timeout_s: float = SHUTDOWN_S) -> None:
        """Send what is left, then stop. Blocks for ``timeout_s`` at most: to be called in a thread."""
        # The SDK's own limits are per attempt; the daemon thread is left behind where they add up to more.
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(timeout_s)


def set_up_tracing(service_name: str = "dinle", environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """Tracing where OpenTelemetry's variables ask for it, else ``None``.

    Asked for by ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` or ``OTEL_TRACES_EXPORTER`` (``otlp``,
    ``console`` or both by commas; ``none`` switches off), and ``OTEL_SDK_DISABLED`` is not true. OTLP leaves over HTTP with
    protobuf. Headers, timeouts, sampling and limits are the SDK's variables, read from the process.
    (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/)

    Args:
        service_name: unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` say otherwise.
        environ: where the variables named above are looked up.
    """
    names = _find_exporters(environ)
    if not names:
        return None
    try:
        provider = _make_provider(names, service_name, environ)
    except ImportError as error:
        logger.warning(
            "traces are asked for by OTEL_* variables, and the package %r is missing: pip install 'dinle[otel]'",
            error.name or str(error),
        )
        return None
    return Tracing(provider)


def _find_exporters(environ: Mapping[str, str]) -> list[str]:
    """What is to take the spans; nothing, with a warning, for a value that dinle does not know, as the specification asks."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().casefold() == "true":
        return []
    asked = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not asked:
        asked = "otlp" if environ.get(ENDPOINT) or environ.get(TRACES_ENDPOINT) else "none"
    names = [name.strip() for name in asked.split(",")]
    if "none" in names:
        return []
    if unknown := [name for name in names if name not in EXPORTERS]:
        logger.warning(
            "OTEL_TRACES_EXPORTER asks for %s; expected otlp, console or none", ", ".join(map(repr, unknown))
        )
    if "otlp" in names:
        _check_protocol(environ)
    return [name for name in EXPORTERS if name in names]


def _check_protocol(environ: Mapping[str, str]) -> None:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(name):
            if protocol != "http/protobuf":
                logger.warning("%s is %r; dinle sends http/protobuf, to port 4318 of most collectors", name, protocol)
            return


def _make_provider(names: list[str], service_name: str, environ: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    given = OTELResourceDetector().detect().attributes
    own = {SERVICE_NAME: service_name, SERVICE_VERSION: __version__}
    resource = Resource.create({key: value for key, value in own.items() if key not in given})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in names:
        exporter = ConsoleSpanExporter(out=sys.stdout) if name == "console" else _make_otlp_exporter(environ)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _make_otlp_exporter(environ: Mapping[str, str]) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    base = environ.get(ENDPOINT, "").rstrip("/")
    return OTLPSpanExporter(endpoint=environ.get(TRACES_ENDPOINT) or (base and f"{base}/v1/traces") or None)


def trace_step(name: str, **attributes: Attribute) -> AbstractContextManager[object]:
    """A span below the current one, while the context lasts; an exception that leaves it is recorded.

    Args:
        name: such as ``queue``, ``decode``, ``inference``.
        attributes: ``audio_seconds=7.7`` becomes ``dinle.audio_seconds``.
    """
    tracing = _current.get()
    if tracing is None:
        return _OFF
    return tracing.tracer.start_as_current_span(name, attributes=_name_attributes(attributes))


def add_attributes(**attributes: Attribute) -> None:
    """Add what became known to the current span: of the step, else of the request."""
    if _current.get() is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes(_name_attributes(attributes))


def capture_context() -> contextvars.Context:
    """What belongs to the current request (span, request id), to be handed to another thread or task."""
    return contextvars.copy_context()


def run_in_context(
    context: contextvars.Context,
    function: Callable[Parameters, Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Call a function in a captured context; several threads may do so with one context at the same time."""
    return context.copy().run(function, *args, **kwargs)


def record_step(
    context: contextvars.Context, name: str, seconds: float, ago_s: float = 0.0, **attributes: Attribute
) -> None:
    """A step that is over, in a captured context: for work that was shared, or timed elsewhere.

    Args:
        context: of the request.
        name: see :func:`trace_step`.
        seconds: how long it took.
        ago_s: how long ago it ended.
        attributes: see :func:`trace_step`.
    """
    tracing = context.get(_current)
    if tracing is None:
        return
    end_ns = time.time_ns() - round(ago_s * 1e9)
    start_ns = end_ns - round(seconds * 1e9)
    named = _name_attributes(attributes)
    run_in_context(context, lambda: tracing.tracer.start_span(name, start_time=start_ns, attributes=named).end(end_ns))


def _name_attributes(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"dinle.{name}": value for name, value in attributes.items()}


class TracingMiddleware:
    """A server span for each request, below the caller's where it sends ``traceparent`` (W3C Trace Context).

    The path that came, the query and the client's address are left out: they are the client's, and of any number.

    Args:
        app: the application behind.
        tracing: where the spans go.
        paths: see :func:`dinle.serve.logs.name_route`.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing, paths: Collection[str] = ()) -> None:
        self.app = app
        self.tracing = tracing
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; other kinds than HTTP and WebSocket pass untouched."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import use_span

        span = self._start_span(scope)
        watched = WatchedConnection(receive, send)
        with use_span(span, end_on_exit=True):
            trace_id = f"{span.get_span_context().trace_id:032x}"
            tokens = _current.set(self.tracing), current_trace_id.set(trace_id)
            try:
                await self.app(scope, watched.receive, watched.send)
            except Exception:
                watched.status = watched.status or FIRST_SERVER_ERROR
                raise
            finally:
                self._describe_answer(span, scope, watched.status)
                _current.reset(tokens[0])
                current_trace_id.reset(tokens[1])

    def _start_span(self, scope: Scope) -> Span:
        from opentelemetry.trace import SpanKind

        method = str(scope.get("method", "GET"))  # a WebSocket begins as a GET
        attributes = {
            "http.request.method": method if method in METHODS else "_OTHER",
            "url.scheme": str(scope.get("scheme", "http")),
            "dinle.request_id": str(scope.get(REQUEST_ID_KEY, "")),
        }
        parent = _read_parent(Headers(scope=scope))
        return self.tracing.tracer.start_span(
            _name_span(scope, method), context=parent, kind=SpanKind.SERVER, attributes=attributes
        )

    def _describe_answer(self, span: Span, scope: Scope, status: int) -> None:
        from opentelemetry.trace import StatusCode

        route = name_route(scope, self.paths)
        span.update_name(f"{_name_span(scope, str(scope.get('method', '')))} {route}")
        span.set_attribute("http.route", route)
        if status:  # none where the client left before the answer
            span.set_attribute("http.response.status_code", status)
        if status >= FIRST_SERVER_ERROR:
            span.set_attribute("error.type", str(scope.get(ERROR_CODE_KEY, status)))
            span.set_status(StatusCode.ERROR)


def _name_span(scope: Scope, method: str) -> str:
    """The low-cardinality beginning of a span's name: the method; ``HTTP`` for an unknown one."""
    if scope["type"] == "websocket":
        return "WEBSOCKET"
    return method if method in METHODS else "HTTP"


def _read_parent(headers: Headers) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: ",".join(headers.getlist(name)) for name in ("traceparent", "tracestate") if name in headers}
    return TraceContextTextMapPropagator().extract(carrier)
