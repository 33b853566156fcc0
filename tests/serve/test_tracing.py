from __future__ import annotations

import logging
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anyio.lowlevel
import anyio.to_thread
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dinle import __version__
from dinle.serve.errors import ServiceBusyError, add_error_handlers
from dinle.serve.logs import current_trace_id
from dinle.serve.middleware import RequestIdMiddleware
from dinle.serve.tracing import (
    Tracing,
    TracingMiddleware,
    add_attributes,
    capture_context,
    record_step,
    run_in_context,
    set_up_tracing,
    trace_step,
)
from tests.serve.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan
    from starlette.types import Receive, Scope, Send

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # the examples of W3C Trace Context


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def make_app(tracing: Tracing | None) -> FastAPI:
    app = FastAPI()

    @app.post("/transcribe")
    async def transcribe() -> str:
        with trace_step("queue", place=2):
            await anyio.lowlevel.checkpoint()

        def work() -> str:
            with trace_step("decode"):
                add_attributes(audio_seconds=7.7)
            with trace_step("inference", model="dinle-base-tr"):
                return current_trace_id.get()

        return await anyio.to_thread.run_sync(work)

    @app.get("/models/{name}")
    def show_model(name: str) -> str:
        return name

    @app.get("/busy")
    def refuse() -> None:
        raise ServiceBusyError(3)

    @app.get("/broken")
    def break_down() -> None:
        with trace_step("inference"):
            raise RuntimeError("a fault inside")

    @app.websocket("/live")
    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        with trace_step("final"):
            await websocket.send_text("hello")
        await websocket.close()

    add_error_handlers(app)
    if tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=tracing, paths={"/early"})
    app.add_middleware(RequestIdMiddleware)
    return app


class Recorder:
    """An application with tracing, and the spans that ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)
        self.client = TestClient(make_app(self.tracing), headers={"X-Request-ID": "id-1"})

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.tracing.shut_down()


def find_parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def find_id(span: ReadableSpan) -> int:
    assert span.context
    return int(span.context.span_id)


def test_a_request_is_a_server_span_with_its_steps_below(recorder: Recorder) -> None:
    answer = recorder.client.post("/transcribe?token=hidden")
    spans = recorder.spans
    assert set(spans) == {"POST /transcribe", "queue", "decode", "inference"}
    request = spans["POST /transcribe"]
    assert request.kind is SpanKind.SERVER
    assert request.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/transcribe",
        "http.response.status_code": 200,
        "dinle.request_id": "id-1",
    }
    assert request.status.status_code is StatusCode.UNSET
    for name in ("queue", "decode", "inference"):
        assert find_parent_id(spans[name]) == find_id(request), name
    assert spans["queue"].attributes == {"dinle.place": 2}
    assert spans["decode"].attributes == {"dinle.audio_seconds": 7.7}
    assert spans["inference"].attributes == {"dinle.model": "dinle-base-tr"}
    assert request.context
    assert answer.json() == f"{request.context.trace_id:032x}"  # what the log's lines carry


def test_the_callers_trace_goes_on(recorder: Recorder) -> None:
    recorder.client.get("/models/a", headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "a=b"})
    (span,) = recorder.spans.values()
    assert span.context
    assert (f"{span.context.trace_id:032x}", span.context.trace_state.get("a")) == (TRACE_ID, "b")
    assert find_parent_id(span) == int(PARENT_ID, 16)
    assert span.parent
    assert span.parent.is_remote


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT_ID}-01", "00-xyz-1-01"])
def test_a_damaged_traceparent_begins_a_new_trace(recorder: Recorder, traceparent: str) -> None:
    assert recorder.client.get("/models/a", headers={"traceparent": traceparent}).status_code == 200
    (span,) = recorder.spans.values()
    assert span.parent is None


def test_a_caller_that_does_not_sample_gets_no_spans(recorder: Recorder) -> None:
    recorder.client.post("/transcribe", headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"})
    assert not recorder.spans


def test_names_hold_templates_and_known_methods_alone(recorder: Recorder) -> None:
    for path in ("/models/a", "/models/b", "/nowhere", "/early"):
        recorder.client.get(path)
    recorder.client.request("BREW", "/models/a")
    assert set(recorder.spans) == {"GET /models/{name}", "GET other", "GET /early", "HTTP /models/{name}"}
    brewed = recorder.spans["HTTP /models/{name}"].attributes
    assert brewed is not None
    assert (brewed["http.request.method"], brewed["http.response.status_code"]) == ("_OTHER", 405)


def test_a_fault_is_recorded_on_its_step_and_its_request(recorder: Recorder) -> None:
    assert recorder.client.get("/broken").status_code == 500
    for name in ("inference", "GET /broken"):
        span = recorder.spans[name]
        assert span.status.status_code is StatusCode.ERROR, name
        assert [event.name for event in span.events] == ["exception"], name
        assert span.events[0].attributes
        assert span.events[0].attributes["exception.message"] == "a fault inside"


def test_an_answer_of_503_is_an_error_with_its_code_as_type_and_405_is_none(recorder: Recorder) -> None:
    recorder.client.get("/busy")
    recorder.client.put("/busy")
    assert recorder.spans["PUT /busy"].status.status_code is StatusCode.UNSET
    span = recorder.spans["GET /busy"]
    assert span.attributes
    assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (503, "service_busy")
    assert span.status.status_code is StatusCode.ERROR


def test_a_live_stream_is_one_span(recorder: Recorder) -> None:
    with recorder.client.websocket_connect("/live") as websocket:
        assert websocket.receive_text() == "hello"
    span = recorder.spans["WEBSOCKET /live"]
    assert span.attributes
    assert span.attributes["http.response.status_code"] == 101
    assert find_parent_id(recorder.spans["final"]) == find_id(span)


def test_spans_follow_a_captured_context_into_other_threads(recorder: Recorder) -> None:
    contexts = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        contexts.append(capture_context())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def work(name: str) -> str:
        with trace_step(name):
            both_inside.wait(timeout=10)  # one context in two threads at once
        return name

    both_inside = threading.Barrier(2)
    TestClient(TracingMiddleware(app, recorder.tracing)).get("/")
    threads = [threading.Thread(target=run_in_context, args=(contexts[0], work, name)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    request = recorder.spans["GET other"]
    assert find_parent_id(recorder.spans["first"]) == find_parent_id(recorder.spans["second"]) == find_id(request)
    assert run_in_context(contexts[0], sorted, [2, 1], reverse=True) == [2, 1]


def test_a_step_can_be_recorded_when_it_is_over(recorder: Recorder) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record_step(capture_context(), "batch", 0.25, ago_s=2.0, rows=4)

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    anyio.run(TracingMiddleware(app, recorder.tracing), scope, *(_no_message, _no_message))
    span = recorder.spans["batch"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(0.25, abs=1e-6)
    assert time.time() - span.end_time / 1e9 == pytest.approx(2.0, abs=1.0)
    assert span.attributes == {"dinle.rows": 4}
    assert find_parent_id(span) == find_id(recorder.spans["GET other"])


async def _no_message(*_: Any) -> Any:
    return {"type": "http.disconnect"}


def test_without_tracing_steps_are_one_shared_object_that_does_nothing() -> None:
    first, second = trace_step("queue", place=1), trace_step("decode")
    assert first is second
    with first:
        add_attributes(audio_seconds=1.0)
        record_step(capture_context(), "batch", 1.0)
        assert not trace.get_current_span().is_recording()
    with pytest.raises(KeyError), trace_step("queue"):
        raise KeyError
    assert TestClient(make_app(None)).post("/transcribe").json() == ""


def test_two_applications_in_one_process_trace_apart() -> None:
    first, second = Recorder(), Recorder()
    first.client.get("/models/a")
    assert (len(first.spans), len(second.spans)) == (1, 0)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"},
        {"OTEL_SDK_DISABLED": " TRUE ", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_tracing_is_off_unless_it_is_asked_for(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert set_up_tracing(environ=environ) is None
    assert not caplog.records


def test_an_exporter_that_is_not_known_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert set_up_tracing(environ={"OTEL_TRACES_EXPORTER": "zipkin"}) is None
    assert "OTEL_TRACES_EXPORTER asks for 'zipkin'; expected otlp, console or none" in caplog.text


def test_missing_packages_are_one_warning_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert set_up_tracing(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"}) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "pip install 'dinle[otel]'" in record.getMessage()
    assert "opentelemetry.sdk.trace" in record.getMessage()


def test_another_protocol_than_ours_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    tracing = set_up_tracing(environ=variables)
    assert tracing is not None
    tracing.shut_down()
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; dinle sends http/protobuf" in caplog.text


class Collector(ThreadingHTTPServer):
    """Plays an OpenTelemetry collector: keeps what is posted to it."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, str, ExportTraceServiceRequest]] = []
        super().__init__(("127.0.0.1", 0), CollectorHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, self.headers["Content-Type"], ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("variable", "path"),
    [("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/elsewhere")],
)
def test_spans_arrive_at_a_collector(collector: Collector, variable: str, path: str) -> None:
    tracing = set_up_tracing(environ={variable: collector.url + ("" if path == "/v1/traces" else path)})
    assert tracing is not None
    TestClient(make_app(tracing)).post("/transcribe")
    tracing.shut_down()
    ((got_path, content_type, request),) = collector.posts
    assert (got_path, content_type) == (path, "application/x-protobuf")
    (resource_spans,) = request.resource_spans
    resource = {one.key: one.value.string_value for one in resource_spans.resource.attributes}
    assert (resource["service.name"], resource["service.version"]) == ("dinle", __version__)
    names = {span.name for scope_spans in resource_spans.scope_spans for span in scope_spans.spans}
    assert names == {"POST /transcribe", "queue", "decode", "inference"}


def test_the_operators_service_name_wins(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url + "/")
    tracing = set_up_tracing("dinle")
    assert tracing is not None
    TestClient(make_app(tracing)).get("/models/a")
    tracing.shut_down()
    ((path, _, request),) = collector.posts
    resource = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
    assert (path, resource["service.name"]) == ("/v1/traces", "ours")


def test_a_collector_that_is_gone_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # after which the thread that is left behind gives up
    before = threading.active_count()
    tracing = set_up_tracing(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert tracing is not None
    TestClient(make_app(tracing)).get("/models/a")
    started = time.perf_counter()
    tracing.shut_down(timeout_s=0.2)
    assert time.perf_counter() - started < 0.9
    wait_for(lambda: threading.active_count() <= before, timeout_s=20)


def test_the_console_exporter_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    tracing = set_up_tracing(environ={"OTEL_TRACES_EXPORTER": "console"})
    assert tracing is not None
    TestClient(make_app(tracing)).get("/models/a")
    tracing.shut_down()
    assert '"name": "GET /models/{name}"' in capsys.readouterr().out
