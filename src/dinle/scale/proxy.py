"""In front of the replicas, inside Ray Serve's HTTP proxy: a request whose replica was lost is tried again.

Serve's proxy notices that a replica died under a request, and answers 500. Transcribing changes nothing, so the same bytes
may be sent to another replica. Here the body is kept until an answer begins. When none comes, the request is tried once
more; when that one is lost too, the client is told 503 and when to try again. A third try is not made: a recording that
kills its replica must not kill them all. An answer that has begun cannot be taken back: it is cut off.

A live stream cannot be tried again, as its sound is gone; it is closed with 1012 (service restart, RFC 6455 registry).

Ray loads :func:`make_middlewares` by the variable ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``.
"""

from __future__ import annotations

import logging
import math
import uuid
from typing import TYPE_CHECKING

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware

from dinle.serve.errors import REQUEST_ID_KEY, DeadlineError, ServiceBusyError, make_error_response
from dinle.serve.middleware import FORM_OVERHEAD_BYTES, PLAIN_ID, REQUEST_ID_HEADER
from dinle.serve.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

TRIES = 2
RETRY_S = 1
LOST_STREAM = 1012
SERVES_OWN = "/-/"  # routes and health of the proxy itself
BUSY = 503
STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"})
GONE = frozenset({"http.disconnect", "websocket.disconnect"})


class ReplicaLostError(ServiceBusyError):
    """Every replica that worked on the request was lost before it had an answer."""

    def __init__(self) -> None:
        super().__init__(RETRY_S)
        self.args = (f"the replicas that worked on this were lost, {TRIES} in a row; try again in {RETRY_S} s",)


def make_middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxy."""
    settings = read_settings()
    limit_s = settings.upload_s + settings.deadline_s
    return [
        Middleware(LostReplicaMiddleware, max_bytes=settings.max_bytes + FORM_OVERHEAD_BYTES, limit_s=limit_s),
    ]


class LostReplicaMiddleware:
    """Tries again what was lost with its replica, and gives Serve's own refusals the service's form.

    Args:
        app: Ray Serve's proxy.
        max_bytes: the largest body that is kept; a larger one is not tried again (the service refuses it anyway).
        limit_s: seconds within which an answer must have begun, all tries and the wait for a replica included.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, limit_s: float = math.inf) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket") or scope["path"].startswith(SERVES_OWN):
            await self.app(scope, receive, send)
            return
        name_request(scope)
        with anyio.move_on_after(self.limit_s) as limit:
            source = KeptInput(receive, self.max_bytes)
            answer = Answer(scope, send, on_start=lambda: _begin(source, limit))
            await self._try(scope, source, answer)
        if not source.gone:
            await answer.end(late=limit.cancel_called)

    async def _try(self, scope: Scope, source: KeptInput, answer: Answer) -> None:
        for _ in range(TRIES):
            source.rewind()
            await self.app(dict(scope), source.receive, answer.send)
            if answer.started or answer.refused or source.gone or source.overflown:
                return
            logger.warning("request %s: its replica was lost before it answered", scope[REQUEST_ID_KEY])


def _begin(source: KeptInput, limit: anyio.CancelScope) -> None:
    """An answer has begun: nothing need be kept any more, and it may last."""
    source.forget()
    limit.deadline = math.inf


def name_request(scope: Scope) -> None:
    """Give the request an id, in its headers too where the client gave none, so that every try has the same."""
    headers = MutableHeaders(scope=scope)
    given = headers.get(REQUEST_ID_HEADER, "")
    scope[REQUEST_ID_KEY] = given if PLAIN_ID.fullmatch(given) else uuid.uuid4().hex
    headers[REQUEST_ID_HEADER] = scope[REQUEST_ID_KEY]


class KeptInput:
    """What the client sends, kept so that it can be read again from the start; up to ``max_bytes`` of it.

    Attributes:
        gone: the client has left.
        overflown: more came than is kept: it cannot be read again.
    """

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._room = max_bytes
        self._kept: list[Message] = []
        self._read = 0
        self.gone = False
        self.overflown = False

    def rewind(self) -> None:
        """Read from the start again."""
        self._read = 0

    async def receive(self) -> Message:
        """The next message: a kept one, else the client's next."""
        if self._read < len(self._kept):
            self._read += 1
            return self._kept[self._read - 1]
        message = await self._receive()
        self.gone = self.gone or message["type"] in GONE
        self._room -= len(message.get("body") or message.get("bytes") or message.get("text") or b"")
        if self._room < 0:
            self.overflown = True
            self._kept.clear()
        if not (self.gone or self.overflown):
            self._kept.append(message)
            self._read += 1
        return message

    def forget(self) -> None:
        """Keep nothing any more."""
        self._room = -1
        self.overflown = True
        self._kept.clear()


class Answer:
    """What the client is told: the replica's answer as it is, or the reason why there is none.

    Args:
        scope: of the request, with its id.
        send: to the client.
        on_start: called when the client is about to be told something.

    Attributes:
        started: the client has been told something: there is no way back.
        refused: Serve has no place for the request; its plain text is held back for the service's own form.
    """

    def __init__(self, scope: Scope, send: Send, on_start: Callable[[], None]) -> None:
        self._scope = scope
        self._send = send
        self._on_start = on_start
        self._live = False  # an accepted WebSocket that is not closed yet
        self.started = False
        self.refused = False

    async def send(self, message: Message) -> None:
        """Pass on a message of the answer."""
        kind = message["type"]
        if kind == "http.response.start":
            self.refused = is_refusal(message)
            headers = MutableHeaders(scope=message)  # Serve adds its own header of the name beside the application's
            headers[REQUEST_ID_HEADER] = headers.get(REQUEST_ID_HEADER, self._scope[REQUEST_ID_KEY])
        if self.refused:
            return
        if not self.started and kind in STARTS:
            self.started = True
            self._on_start()
        if kind in ("websocket.accept", "websocket.close"):
            self._live = kind == "websocket.accept"
        await self._send(message)

    async def end(self, *, late: bool) -> None:
        """Say what the replica could not say any more.

        Args:
            late: the time is over.
        """
        if self._live:
            await self._send({"type": "websocket.close", "code": LOST_STREAM, "reason": "the replica was lost"})
        elif not self.started:
            error = ServiceBusyError(RETRY_S) if self.refused else DeadlineError() if late else ReplicaLostError()
            response = make_error_response(self._scope, error)
            response.headers[REQUEST_ID_HEADER] = self._scope[REQUEST_ID_KEY]
            await response(self._scope, unread, self._send)


def is_refusal(message: Message) -> bool:
    """Whether the start of an answer is Serve's own 503: plain text, where the application always answers JSON."""
    kind = Headers(raw=list(message.get("headers", []))).get("content-type", "")
    return message["status"] == BUSY and not kind.startswith("application/json")


async def unread() -> Message:
    """For answers that read nothing."""
    return {"type": "http.disconnect"}
