from __future__ import annotations

import json
import logging
import re
import threading
import urllib.request
import warnings
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
import uvicorn
from fastapi import FastAPI, Request, UploadFile, WebSocket
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

from dinle.errors import UsageError
from dinle.serve.errors import ServiceBusyError, add_error_handlers
from dinle.serve.logs import (
    TALKATIVE_LOGGERS,
    UNMATCHED,
    AccessMiddleware,
    add_notes,
    current_request_id,
    log_transcript,
    set_up_logging,
)
from dinle.serve.metrics import Metrics
from dinle.serve.middleware import RequestIdMiddleware
from tests.serve.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

SECRET = "gizli kalması gereken cümle"  # what is said and must not be written down
UVICORN_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access")
logger = logging.getLogger("dinle.test")


class Written:
    """What has been written to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """Standard error of a test; what it changes in logging is put back."""
    touched = [logging.getLogger(name) for name in ("", *UVICORN_LOGGERS, *TALKATIVE_LOGGERS, "httpx2")]
    kept = [(one, one.level, one.propagate, one.handlers[:]) for one in touched]
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # the test's own client
    yield Written(capsys)
    logging.captureWarnings(capture=False)
    for one, level, propagate, handlers in kept:
        one.setLevel(level)
        one.propagate, one.handlers[:] = propagate, handlers


def read_lines(text: Written) -> list[dict[str, Any]]:
    """Every line of the log; each one must be JSON."""
    return [json.loads(line) for line in text.getvalue().splitlines()]


def make_app(metrics: Metrics | None = None, folder: Path | None = None) -> FastAPI:
    app = FastAPI()

    @app.post("/transcribe")
    async def transcribe(request: Request, file: UploadFile) -> str:
        def work() -> None:  # in a worker thread: the id must follow
            logger.info("decoding", extra={"audio_name": file.filename})
            log_transcript(SECRET, enabled=False)

        await anyio.to_thread.run_sync(work)
        add_notes(request.scope, audio_seconds=7.7)
        return SECRET

    @app.get("/models/{name}")
    def show_model(name: str) -> str:
        return name

    @app.get("/busy")
    def refuse() -> None:
        raise ServiceBusyError(3)

    @app.get("/healthz")
    def check_health() -> str:
        return "ok"

    @app.get("/broken")
    def break_down() -> None:
        raise RuntimeError("a fault inside")

    @app.websocket("/live")
    async def listen(websocket: WebSocket) -> None:
        if "refuse" in websocket.query_params:
            await websocket.close()
            return
        await websocket.accept()
        await websocket.receive_bytes()
        await websocket.send_text(SECRET)
        await websocket.receive_text()
        await websocket.close()

    if folder is not None:
        app.mount("/static", StaticFiles(directory=folder))
    add_error_handlers(app)
    app.add_middleware(AccessMiddleware, metrics=metrics, paths={"/early"})
    app.add_middleware(RequestIdMiddleware)
    return app


def test_a_line_is_one_json_object_with_time_level_logger_and_message(stderr: Written) -> None:
    set_up_logging("json")
    logger.warning("%s clips çöp", 3, extra={"audio_seconds": 7.7, "model": "dinle-base-tr"})
    (line,) = read_lines(stderr)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "WARNING",
        "logger": "dinle.test",
        "message": "3 clips çöp",
        "audio_seconds": 7.7,
        "model": "dinle-base-tr",
    }
    assert "çöp" in stderr.getvalue()  # for people who search the log


def log_failure(text: str) -> None:
    try:
        int(text)
    except ValueError as error:
        error.args = (text,)
        logger.exception("failed")


def test_an_exception_is_one_string_of_its_line(stderr: Written) -> None:
    set_up_logging("json")
    log_failure("first\nsecond")
    (line,) = read_lines(stderr)
    assert line["message"] == "failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: first\nsecond")


def test_the_request_id_is_on_every_line_written_meanwhile(stderr: Written) -> None:
    set_up_logging("json")
    token = current_request_id.set("abc")
    logger.info("inside")
    current_request_id.reset(token)
    logger.info("outside")
    assert [line.get("request_id") for line in read_lines(stderr)] == ["abc", None]


FORGED = '\r\n{"level": "INFO", "message": "forged"}\n2026-01-01T00:00:00.000Z INFO forged\u2028x\x85y\x1b[2Kz\u202ew\x00\ud800'


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_client_cannot_forge_or_hide_a_line(stderr: Written, log_format: Any) -> None:
    set_up_logging(log_format)
    logger.info("file %s", FORGED, extra={"audio_name": FORGED, FORGED: 1})
    written = stderr.getvalue()
    assert written.count("\n") == 1
    assert written[:-1].isprintable()
    if log_format == "json":
        assert json.loads(written)["audio_name"] == FORGED
        assert json.loads(written)["message"] == f"file {FORGED}"


def test_an_extra_field_does_not_replace_a_standard_one(stderr: Written) -> None:
    set_up_logging("json")
    token = current_request_id.set("true-id")
    logger.info("said", extra={"level": "CRITICAL", "time": 0, "logger": "x", "request_id": "false-id"})
    current_request_id.reset(token)
    (line,) = read_lines(stderr)
    assert (line["level"], line["logger"], line["request_id"]) == ("INFO", "dinle.test", "true-id")
    assert line["time"] != 0


def test_values_that_json_cannot_say_are_written_as_strings(stderr: Written) -> None:
    set_up_logging("json")
    circle: list[Any] = []
    circle.append(circle)
    logger.info(
        "odd", extra={"a_path": Exception, "a_circle": circle, "not_a_number": float("nan"), "a_key": {(1, 2): 3}}
    )
    (line,) = read_lines(stderr)
    assert line["message"] == "'odd'"
    assert line["not_a_number"] == "nan"
    assert line["a_circle"] == "[[...]]"


def test_the_text_format_has_the_same_fields(stderr: Written) -> None:
    set_up_logging("text")
    token = current_request_id.set("abc")
    logger.info("done", extra={"audio_seconds": 7.7, "model": "a b", "_of_a_library": 1})
    current_request_id.reset(token)
    expected = r'\S+Z INFO dinle.test done request_id="abc" audio_seconds=7.7 model="a b"\n'
    assert re.fullmatch(expected, stderr.getvalue())


def test_lines_of_a_traceback_cannot_be_taken_for_lines_of_the_log(stderr: Written) -> None:
    set_up_logging("text")
    log_failure("x\n2026-01-01T00:00:00.000Z INFO forged")
    first, *rest = stderr.getvalue().splitlines()
    assert first.endswith("ERROR dinle.test failed")
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_setting_up_twice_writes_each_line_once(stderr: Written) -> None:
    set_up_logging("text")
    set_up_logging("json", "WARNING")
    logger.info("too quiet")
    logger.warning("once")
    assert [line["message"] for line in read_lines(stderr)] == ["once"]


def test_warnings_are_lines_too(stderr: Written) -> None:
    set_up_logging("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)  # pytest has put its own recorder in between
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    logging.captureWarnings(capture=False)
    (line,) = read_lines(stderr)
    assert (line["logger"], "DeprecationWarning: old" in line["message"]) == ("py.warnings", True)


@pytest.mark.parametrize(
    ("given", "message"), [(("xml", "INFO"), "xml.*json or text"), (("json", "LOUD"), "LOUD.*INFO")]
)
def test_an_unknown_format_or_level_is_named(stderr: Written, given: tuple[Any, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        set_up_logging(*given)


def test_a_transcript_is_written_where_it_was_asked_for_alone(stderr: Written) -> None:
    set_up_logging("json", "DEBUG")
    log_transcript(SECRET, enabled=False)
    assert not stderr.getvalue()
    log_transcript(SECRET, enabled=True)
    (line,) = read_lines(stderr)
    assert (line["logger"], line["text"]) == ("dinle.transcript", SECRET)


def test_a_request_is_one_line_without_query_or_address(stderr: Written) -> None:
    set_up_logging("json")
    client = TestClient(make_app(), client=("203.0.113.9", 5), headers={"X-Request-ID": "id-1"})
    client.post("/transcribe?token=hidden", files={"file": ("ses.wav", b"x" * 1000)})
    decoding, line = read_lines(stderr)
    assert (decoding["message"], decoding["request_id"], decoding["audio_name"]) == ("decoding", "id-1", "ses.wav")
    assert (line["logger"], line["message"]) == ("dinle.access", "POST /transcribe 200")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/transcribe", 200)
    assert (line["request_id"], line["audio_seconds"]) == ("id-1", 7.7)
    assert 1000 < line["bytes_in"] < 2000
    assert 0 < line["seconds"] < 10
    assert "hidden" not in stderr.getvalue()
    assert "203.0.113.9" not in stderr.getvalue()


def test_a_refusal_names_its_reason_and_a_fault_is_a_500(stderr: Written) -> None:
    set_up_logging("json")
    client = TestClient(make_app(), raise_server_exceptions=False)
    client.get("/busy")
    client.get("/broken")
    lines = [line for line in read_lines(stderr) if line["logger"] == "dinle.access"]
    assert [(line["status"], line.get("error")) for line in lines] == [(503, "service_busy"), (500, None)]


def test_health_checks_are_written_at_debug_only(stderr: Written) -> None:
    set_up_logging("json")
    client = TestClient(make_app())
    client.get("/healthz")
    assert not stderr.getvalue()
    client.put("/healthz")  # 405: a failure is worth a line
    assert [line["status"] for line in read_lines(stderr)] == [405]


def test_routes_are_named_by_their_templates(stderr: Written, tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text("1", encoding="utf-8")
    set_up_logging("json")
    client = TestClient(make_app(folder=tmp_path), root_path="/prefix")
    for path in ("/models/a", "/models/b", "/static/page.js", "/docs", "/nowhere/x", "/early"):
        client.get("/prefix" + path)
    expected = ["/models/{name}", "/models/{name}", "/static", "/docs", UNMATCHED, "/early"]
    assert [line["route"] for line in read_lines(stderr)] == expected


def test_requests_and_refusals_are_counted(stderr: Written) -> None:
    metrics = Metrics()
    client = TestClient(make_app(metrics), raise_server_exceptions=False)
    for path in ("/busy", "/broken", "/models/a", "/models/b"):
        client.get(path)
    with client.websocket_connect("/live") as websocket:
        websocket.send_bytes(b"sound")
        websocket.receive_text()
        websocket.send_text("bye")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/live?refuse=1"):
        pass
    families = {one.name: one.samples for one in text_string_to_metric_families(metrics.render()[0].decode())}
    counted = {
        (sample.labels["route"], sample.labels["method"], sample.labels["status"]): sample.value
        for sample in families["dinle_requests"]
    }
    assert counted == {
        ("/busy", "GET", "503"): 1,
        ("/broken", "GET", "500"): 1,
        ("/models/{name}", "GET", "200"): 2,
        ("/live", "WEBSOCKET", "101"): 1,
        ("/live", "WEBSOCKET", "403"): 1,
    }
    assert {sample.labels["reason"]: sample.value for sample in families["dinle_rejected"]} == {"service_busy": 1}


def test_a_client_that_leaves_before_the_answer_is_499(stderr: Written) -> None:
    set_up_logging("json")

    async def say_nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    async def ignore(message: Message) -> None:
        raise AssertionError(message)

    scope: Scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    anyio.run(AccessMiddleware(say_nothing), scope, leave, ignore)
    assert [line["status"] for line in read_lines(stderr)] == [499]


def test_what_is_neither_http_nor_websocket_passes_untouched(stderr: Written) -> None:
    set_up_logging("json", "DEBUG")
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    scope: Scope = {"type": "lifespan"}
    anyio.run(AccessMiddleware(app), scope, receive, send)
    assert seen == [({"type": "lifespan"}, receive, send)]
    assert "dinle" not in stderr.getvalue()


def test_a_whole_session_in_uvicorn_leaks_neither_words_nor_addresses(stderr: Written) -> None:
    set_up_logging("json", "DEBUG")  # the level at which libraries tell most
    assert not logging.getLogger("uvicorn.access").hasHandlers()
    server = uvicorn.Server(uvicorn.Config(make_app(), host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        with connect(f"ws://127.0.0.1:{port}/live?token=hidden") as websocket:
            websocket.send(b"sound")
            assert websocket.recv() == SECRET
            websocket.send(SECRET)
        post_form(port)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
    messages = {line["message"] for line in read_lines(stderr)}
    assert {"POST /transcribe 200", "WEBSOCKET /live 101", "Application shutdown complete."} <= messages
    lines = [line for line in stderr.getvalue().splitlines() if "Uvicorn running on" not in line]
    for secret in (SECRET, "kalması", "hidden", "127.0.0.1"):
        assert not [line for line in lines if secret in line], secret


def post_form(port: int) -> None:
    form = (
        '--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
        f'{SECRET}\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n--b--\r\n'
    )
    url, headers = (
        f"http://127.0.0.1:{port}/transcribe?token=hidden",
        {"Content-Type": "multipart/form-data; boundary=b"},
    )
    post = urllib.request.Request(url, form.encode(), headers)
    with urllib.request.urlopen(post, timeout=10) as answer:  # noqa: S310
        assert json.load(answer) == SECRET
