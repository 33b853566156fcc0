"""What happens around every request, before and after FastAPI: a request id, no unanswered error, no oversized body."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import anyio
from starlette.datastructures import Headers, MutableHeaders

from dinle.errors import DinleError
from dinle.serve.errors import (
    ERROR_CODE_KEY,
    REQUEST_ID_KEY,
    ServiceBusyError,
    UploadTooLargeError,
    UploadTooSlowError,
    make_error_response,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "X-Request-ID"
# A client's own id is kept when it cannot forge a log line.
PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Boundaries, part headers and small form fields around the file.
FORM_OVERHEAD_BYTES = 16 * 1024
# How long, after an early answer, the rest of the body is still taken off the wire and dropped.
LINGER_S = 2.0


class FaultMiddleware:
    """Answers what nothing else caught with 500 JSON.

    Stands behind what adds headers to every answer: security headers and CORS are most wanted where something went wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; other kinds than HTTP pass untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch_start)
        except Exception as error:
            if started:  # too late for another answer: the server cuts the connection
                raise
            await make_error_response(scope, error)(scope, receive, send)


class RequestIdMiddleware:
    """Gives each request an id, in its answer's header too. A fault of what stands behind it is answered with 500 JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = FaultMiddleware(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; a WebSocket gets an id and passes, other kinds pass untouched."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = scope[REQUEST_ID_KEY] = given if PLAIN_ID.fullmatch(given) else uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class UploadGuardMiddleware:
    """Refuses bodies that are too large, and uploads when there is no place, as early as it can be known.

    A declared length is judged before a byte is read; a chunked body is counted while it is read. The guard stands in
    front of the form parser, which would otherwise write the whole body to a temporary file first.

    Args:
        app: the application behind.
        max_bytes: the largest accepted file.
        admit: raises a :class:`DinleError` when no upload can be taken now.
        upload_s: seconds within which a body must have arrived.
        max_uploads: bodies that may be on their way at the same time. They have no place yet, and lie on a disk.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        admit: Callable[[], None],
        upload_s: float = float("inf"),
        max_uploads: int = 1_000_000,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.admit = admit
        self.upload_s = upload_s
        self.max_uploads = max_uploads
        self._bodies: set[GuardedBody] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; what carries no body passes untouched."""
        if scope["type"] != "http" or not has_body(scope):
            await self.app(scope, receive, send)
            return
        body = GuardedBody(receive, send, self.max_bytes, self.upload_s)
        try:
            body.check_declared(Headers(scope=scope).get("content-length"))
            self.admit()
            self._check_uploads()
        except (DinleError, UploadTooLargeError) as error:
            await make_error_response(scope, error)(scope, body.receive, body.send)
            return
        self._bodies.add(body)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self._bodies.discard(body)
        if body.abandoned:
            scope[ERROR_CODE_KEY] = "client_gone"

    def _check_uploads(self) -> None:
        if (
            len(self._bodies) >= self.max_uploads
            and sum(not body.complete for body in self._bodies) >= self.max_uploads
        ):
            raise ServiceBusyError(1)


class GuardedBody:
    """One request's body, counted, and its answer.

    An answer that leaves before the body has arrived is followed by a moment of reading and dropping: a server that
    closes a connection with unread bytes resets it, and the reset can overtake the answer.

    Attributes:
        complete: nothing of the body is outstanding.
        abandoned: the client left before its body had come. What is answered then is read by nobody and not sent: FastAPI's
            parser makes a 400 of it, which would count as one.
    """

    def __init__(self, receive: Receive, send: Send, max_bytes: int, upload_s: float = float("inf")) -> None:
        self._receive = receive
        self._send = send
        self._upload_s = upload_s
        self._ends_at = anyio.current_time() + upload_s
        self.max_file_bytes = max_bytes
        self.max_body_bytes = max_bytes + FORM_OVERHEAD_BYTES
        self.received_bytes = 0
        self.complete = False
        self.abandoned = False

    def check_declared(self, content_length: str | None) -> None:
        """Raise a 413 when the header ``Content-Length`` says too much (the server guarantees a number)."""
        if content_length is not None and int(content_length) > self.max_body_bytes:
            raise UploadTooLargeError(f"{content_length} bytes", self.max_file_bytes)

    async def receive(self) -> Message:
        """The next piece of the body, or the client's leaving; raises a 413 or 408 for too many bytes or too much time."""
        if self.complete:  # what comes now is the client's leaving, in its own time
            return await self._take()
        with anyio.move_on_at(self._ends_at) as scope:
            message = await self._take()
        if scope.cancelled_caught:
            raise UploadTooSlowError(self._upload_s)
        self.abandoned = message["type"] == "http.disconnect"
        if self.received_bytes > self.max_body_bytes:
            raise UploadTooLargeError(f"more than {self.max_file_bytes} bytes", self.max_file_bytes)
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on; before its end, drop what the client still sends."""
        if self.abandoned:
            return
        if message["type"] == "http.response.start" and not self.complete:
            MutableHeaders(scope=message)["Connection"] = "close"
        if message["type"] == "http.response.body" and not message.get("more_body", False) and not self.complete:
            await self._send({**message, "more_body": True})
            await self._drop_rest()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _take(self) -> Message:
        message = await self._receive()
        self.received_bytes += len(message.get("body", b""))
        self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _drop_rest(self) -> None:
        """Bounded in time, and in bytes: no body is taken beyond twice what is accepted."""
        with anyio.move_on_after(LINGER_S):
            while not self.complete and self.received_bytes < 2 * self.max_body_bytes:
                await self._take()


def has_body(scope: Scope) -> bool:
    """Whether a request announces a body (RFC 9112, section 6)."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
