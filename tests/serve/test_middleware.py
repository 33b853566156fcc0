from __future__ import annotations

import http.client
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from dinle.serve import middleware
from dinle.serve.app import create_app
from dinle.serve.errors import ERROR_CODE_KEY, UploadTooLargeError, make_error_response
from dinle.serve.middleware import FORM_OVERHEAD_BYTES, RequestIdMiddleware, UploadGuardMiddleware
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.serve.servers import serve_in_thread, wait_for
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Message, Receive, Scope, Send

MAX_BYTES = 100_000
PIECE = b"\0" * 8192


class Wire:
    """The client's side of one ASGI request: endless pieces of a body, and the answer."""

    def __init__(self, headers: dict[str, str], *, stalls: bool = False) -> None:
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": encoded}
        self.stalls = stalls
        self.pieces = 0
        self.answer: list[Message] = []

    async def receive(self) -> Message:
        if self.stalls:
            await anyio.sleep_forever()
        self.pieces += 1
        return {"type": "http.request", "body": PIECE, "more_body": True}

    async def send(self, message: Message) -> None:
        self.answer.append(message)

    @property
    def status(self) -> int:
        return int(self.answer[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.answer[0]["headers"])


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that swallows any body."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def guard(wire: Wire, admit: Callable[[], None] = lambda: None) -> None:
    """Post the wire's endless body to an application that would read all of it, with the errors answered as in a route."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await read_all(scope, receive, send)
        except UploadTooLargeError as error:
            await make_error_response(scope, error)(scope, receive, send)

    anyio.run(UploadGuardMiddleware(app, MAX_BYTES, admit), wire.scope, wire.receive, wire.send)


def test_a_declared_length_is_refused_before_a_byte_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_S", 0.0)
    wire = Wire({"content-length": "10000000000"}, stalls=True)
    guard(wire)
    assert (wire.status, wire.headers[b"connection"], wire.pieces) == (413, b"close", 0)
    body = json.loads(wire.answer[1]["body"])
    assert body["code"] == "upload_too_large"
    assert body["detail"].startswith("the upload has 10000000000 bytes; at most 100000 are accepted")


def test_an_endless_body_is_never_read_to_its_end() -> None:
    wire = Wire({"transfer-encoding": "chunked"})
    guard(wire)
    assert wire.status == 413
    limit = MAX_BYTES + FORM_OVERHEAD_BYTES
    assert limit < wire.pieces * len(PIECE) <= 2 * limit + 2 * len(PIECE)


def test_the_answer_leaves_before_the_rest_is_dropped() -> None:
    wire = Wire({"transfer-encoding": "chunked"})
    guard(wire)
    assert [message.get("more_body") for message in wire.answer] == [None, True, False]
    assert json.loads(wire.answer[1]["body"])["code"] == "upload_too_large"
    assert wire.answer[2]["body"] == b""


def test_a_client_that_stalls_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_S", 0.05)
    started = time.perf_counter()
    guard(Wire({"content-length": "200000"}, stalls=True))
    assert time.perf_counter() - started < 1.0


def test_what_nothing_else_caught_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("secret")

    wire = Wire({"x-request-id": "id-1"})
    anyio.run(RequestIdMiddleware(fail), wire.scope, wire.receive, wire.send)
    assert (wire.status, wire.headers[b"x-request-id"]) == (500, b"id-1")
    assert b"secret" not in wire.answer[1]["body"]
    assert "request id-1" in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text


def test_a_fault_is_answered_with_every_header_that_other_answers_have() -> None:
    """Behind what adds them: pages of other origins may read the answer, and browsers are careful with it."""
    app = create_app(fake_recognizer(), Settings(cors_origins="https://example.org"))

    @app.get("/broken")
    async def break_down() -> None:
        raise ZeroDivisionError("secret")

    with TestClient(app, headers={"Origin": "https://example.org"}) as client:
        fault, other = client.get("/broken"), client.get("/nope")
        assert (fault.status_code, fault.json()["code"]) == (500, "internal")
        assert fault.json()["request_id"] == fault.headers["X-Request-ID"]
        assert "secret" not in fault.text
        assert fault.headers.keys() == other.headers.keys()
        assert fault.headers["Access-Control-Allow-Origin"] == "https://example.org"
        assert fault.headers["X-Content-Type-Options"] == "nosniff"
        metrics = client.get("/metrics").text
    assert 'dinle_requests_total{method="GET",route="/broken",status="500"} 1.0' in metrics


def test_an_error_in_the_middle_of_an_answer_cuts_it() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    wire = Wire({})
    with pytest.raises(ZeroDivisionError):
        anyio.run(RequestIdMiddleware(fail), wire.scope, wire.receive, wire.send)
    assert len(wire.answer) == 1


def test_a_body_whose_sender_has_left_is_answered_to_nobody() -> None:
    """FastAPI's parser makes a 400 of it: not the client's mistake, and not to be counted as one."""
    wire = Wire({"content-length": "50000"})

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    async def parse(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await make_error_response(scope, HTTPException(400))(scope, receive, send)

    anyio.run(UploadGuardMiddleware(parse, MAX_BYTES, lambda: None), wire.scope, leave, wire.send)
    assert wire.answer == []
    assert wire.scope[ERROR_CODE_KEY] == "client_gone"


@pytest.fixture
def slow_app() -> Any:
    recognizer = fake_recognizer(delay_s=0.3)
    return create_app(recognizer, Settings(max_bytes=MAX_BYTES, workers=1, max_queue=1))


@pytest.fixture
def port(slow_app: Any) -> Iterator[int]:
    with serve_in_thread(slow_app) as port:
        yield port


def post_raw(port: int, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/transcribe", body, headers, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_real_clients_can_read_the_refusal() -> None:
    """A client that writes everything before it reads must not meet a reset connection.

    The excess is more than the sockets' buffers hold, and less than the guard drops.
    """
    limit, size = 12_000_000, 23_000_000
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    with serve_in_thread(create_app(fake_recognizer(), Settings(max_bytes=limit))) as port:
        assert post_raw(port, b"\0" * size, form)[1]["code"] == "upload_too_large"
        chunks = iter([start, *[b"\0" * 65_536] * (size // 65_536)])
        status, body = post_raw(port, chunks, form | {"Transfer-Encoding": "chunked"})
    assert (status, body["code"]) == (413, "upload_too_large")


def make_form(audio: bytes) -> tuple[bytes, dict[str, str]]:
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return start + audio + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def test_clients_that_hang_up_leave_no_place_taken(port: int, slow_app: Any) -> None:
    scheduler = slow_app.state.service.scheduler
    body, headers = make_form(encode_wav(make_tone(1.0)))
    with send(port, headers, len(body), body), send(port, headers, len(body), body):
        wait_for(lambda: scheduler.taken == 2, timeout_s=5)  # one is served, one waits: the service is full
        assert post_raw(port, body, headers)[0] == 503
    wait_for(lambda: scheduler.taken == 0, timeout_s=5)
    with send(port, headers, len(body), body[:1000]):  # gone in the middle of the upload
        pass
    assert post_raw(port, body, headers)[0] == 200


def send(port: int, headers: dict[str, str], length: int, body: bytes) -> socket.socket:
    """Send a request that declares ``length`` bytes; the caller hangs up without reading the answer."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    head = ["POST /transcribe HTTP/1.1", "Host: x", f"Content-Length: {length}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
    return connection
