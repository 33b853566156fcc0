"""The middleware in front of Ray Serve's proxy, with a proxy that loses what it is told to lose; no Ray."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dinle.scale.proxy import LOST_STREAM, TRIES, LostReplicaMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = [b"the ", b"recording"]
ID = "x-request-id"


class Proxy:
    """Reads the body and answers it; ``behave`` says, by the number of the try, what happens instead."""

    def __init__(self, behave: Callable[[int], str] = lambda _: "answer") -> None:
        self.behave = behave
        self.bodies: list[bytes] = []
        self.ids: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        what = self.behave(len(self.bodies))
        self.ids.append(dict(scope["headers"])[ID.encode()].decode())
        body, more = b"", what != "lose before reading"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        if what == "stall":
            await anyio.sleep_forever()
        if what.startswith("lose"):
            return
        status, kind = {"busy": (503, b"text/plain"), "own busy": (503, b"application/json")}.get(
            what, (200, b"application/json")
        )
        headers = [(b"content-type", kind), (ID.encode(), self.ids[-1].encode()), (ID.encode(), b"Serve's")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": what == "begin"})


def run(
    app: ASGIApp, scope: dict[str, Any], messages: list[Message], **options: Any
) -> tuple[list[Message], dict[str, Any]]:
    """The messages that the client of a middleware around ``app`` gets; and the first one's headers."""
    sent: list[Message] = []
    left = list(messages)

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(dict(message))

    async def talk() -> None:
        with anyio.fail_after(5):
            await LostReplicaMiddleware(app, **{"max_bytes": 1000} | options)(scope, receive, send)

    anyio.run(talk)
    names = [name.lower() for name, _ in sent[0].get("headers", [])] if sent else []
    assert names.count(ID.encode()) <= 1
    headers = {name.decode().lower(): value.decode() for name, value in sent[0].get("headers", [])} if sent else {}
    return sent, headers


def post(
    app: ASGIApp, *, path: str = "/transcribe", headers: dict[str, str] | None = None, **options: Any
) -> tuple[list[Message], dict[str, Any]]:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw}
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number + 1 < len(BODY)} for number, part in enumerate(BODY)
    ]
    return run(app, scope, messages, **options)


def read(sent: list[Message]) -> tuple[int, Any]:
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def test_an_answer_passes_as_it_is() -> None:
    proxy = Proxy()
    sent, headers = post(proxy, headers={ID: "mine"})
    assert (sent[0]["status"], sent[1]["body"], headers[ID]) == (200, b"the recording", "mine")
    assert proxy.ids == ["mine"]


@pytest.mark.parametrize("how", ["lose", "lose before reading"])
def test_what_is_lost_is_sent_again_as_a_whole_and_under_the_same_id(how: str) -> None:
    proxy = Proxy(lambda number: how if number == 0 else "answer")
    sent, headers = post(proxy)
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"the recording")
    assert proxy.bodies[1] == b"the recording"
    assert proxy.ids == [headers[ID]] * 2


def test_what_is_lost_again_is_refused() -> None:
    proxy = Proxy(lambda _: "lose")
    sent, headers = post(proxy)
    status, answer = read(sent)
    assert (status, answer["code"], headers["retry-after"]) == (503, "replica_lost", "1")
    assert answer["request_id"] == headers[ID] == proxy.ids[0]
    assert len(proxy.bodies) == TRIES


def test_a_body_too_large_to_keep_is_not_sent_again() -> None:
    proxy = Proxy(lambda _: "lose")
    sent, _ = post(proxy, max_bytes=5)
    assert read(sent)[0] == 503
    assert proxy.bodies == [b"the recording"]


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    proxy = Proxy(lambda _: "begin")
    sent, _ = post(proxy)
    assert len(proxy.bodies) == 1
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def test_serves_own_refusal_gets_the_services_form() -> None:
    sent, headers = post(Proxy(lambda _: "busy"))
    status, answer = read(sent)
    assert (status, answer["code"], headers["retry-after"]) == (503, "service_busy", "1")
    assert post(Proxy(lambda _: "own busy"))[0][1]["body"] == b"the recording"


def test_openai_clients_get_their_own_form() -> None:
    sent, _ = post(Proxy(lambda _: "lose"), path="/v1/audio/transcriptions")
    assert read(sent)[1]["error"]["code"] == "replica_lost"


def test_nobody_waits_for_ever() -> None:
    sent, _ = post(Proxy(lambda _: "stall"), limit_s=0.05)
    assert (read(sent)[0], read(sent)[1]["code"]) == (504, "deadline")


def test_an_answer_that_has_begun_may_last() -> None:
    async def slow(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"done"})

    assert post(slow, limit_s=0.05)[0][-1]["body"] == b"done"


def test_who_has_left_is_told_nothing() -> None:
    proxy = Proxy(lambda _: "lose")
    sent, _ = run(proxy, {"type": "http", "path": "/transcribe", "headers": []}, [{"type": "http.disconnect"}])
    assert sent == []
    assert len(proxy.bodies) == 1


def test_serves_own_paths_pass_untouched() -> None:
    seen: list[Scope] = []

    async def own(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope)

    post(own, path="/-/healthz")
    assert seen[0]["headers"] == []


def stream(talk: Callable[[int, Receive, Send], Coroutine[Any, Any, None]], messages: list[Message]) -> list[Message]:
    tries: list[int] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        tries.append(1)
        await talk(len(tries), receive, send)

    scope = {
        "type": "websocket",
        "path": "/stream",
        "headers": [],
        "extensions": {"websocket.http.response": {}},
    }
    return run(app, scope, messages)[0]


def test_a_stream_that_is_lost_is_closed_with_a_reason() -> None:
    async def talk(_: int, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    sent = stream(talk, [{"type": "websocket.connect"}, {"type": "websocket.receive", "bytes": b"sound"}])
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[-1]["code"] == LOST_STREAM


def test_a_stream_that_was_not_open_yet_is_tried_again() -> None:
    async def talk(number: int, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        if number == 2:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})

    assert [message["type"] for message in stream(talk, [{"type": "websocket.connect"}])] == [
        "websocket.accept",
        "websocket.close",
    ]


def test_a_stream_that_cannot_be_opened_is_refused_over_http() -> None:
    async def talk(_: int, receive: Receive, __: Send) -> None:
        await receive()

    (start, _) = stream(talk, [{"type": "websocket.connect"}])
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)


def test_an_open_stream_keeps_nothing() -> None:
    async def talk(_: int, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(3):
            await receive()
        await send({"type": "websocket.close", "code": 1000})

    sound: list[Message] = [{"type": "websocket.receive", "bytes": bytes(600)}] * 3
    assert stream(talk, [{"type": "websocket.connect"}, *sound])[-1]["code"] == 1000
