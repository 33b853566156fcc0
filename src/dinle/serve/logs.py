"""What is written down: one line for each event on standard error, as JSON for programs or as text for people.

Sound, texts, query strings and addresses are personal data and stay out. What a client sends (a file's name, an id) cannot
begin a new line or hide one: everything that moves a terminal's cursor is escaped.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from dinle.errors import UsageError
from dinle.serve.errors import CLIENT_GONE_STATUS, ERROR_CODE_KEY, REQUEST_ID_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dinle.serve.metrics import Metrics

LogFormat = Literal["json", "text"]

# Both follow a request into its worker thread; empty outside of requests.
current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
current_trace_id: ContextVar[str] = ContextVar("current_trace_id", default="")

access_logger = logging.getLogger("dinle.access")
transcript_logger = logging.getLogger("dinle.transcript")

NOTES_KEY = "dinle.notes"  # in the ASGI scope
UNMATCHED = "other"
# Asked every few seconds by machines: their successes are written at level DEBUG only.
QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
# At level DEBUG these write the frames of WebSockets and the bytes of forms: sound and texts.
TALKATIVE_LOGGERS = ("uvicorn.error", "websockets", "python_multipart")
# Line ends of any alphabet, terminal escapes, marks that turn the direction of writing, halves of characters.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# uvicorn gives some messages a second time, with colours.
NOT_EXTRA = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


def set_up_logging(log_format: LogFormat = "json", level: int | str = "INFO") -> None:
    """Send every logger's lines to standard error in this format; calling it again replaces what it set up.

    uvicorn is to be started with ``log_config=None``, so that it leaves this in place; its own line for each request,
    which holds the client's address and the query string, is switched off.

    Raises:
        UsageError: an unknown format or level.
    """
    if log_format not in ("json", "text"):
        raise UsageError(f"the log format is {log_format!r}; expected json or text")
    level = _find_level(level)
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, StderrHandler)]:
        root.removeHandler(old)
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(_is_free_of_addresses)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        # Where no handler is in reach, uvicorn does not make the line at all.
        logger.propagate = name != "uvicorn.access"
    for name in TALKATIVE_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.INFO))
    logging.captureWarnings(capture=True)


def _find_level(level: int | str) -> int:
    if isinstance(level, int):
        return level
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise UsageError(f"the log level is {level!r}; expected one of {', '.join(known)}")
    return known[level.upper()]


def _is_free_of_addresses(record: logging.LogRecord) -> bool:
    """Uvicorn announces each WebSocket with the client's address and the query string; the access line replaces it."""
    return not (record.name.startswith("uvicorn") and str(record.msg).startswith('%s - "'))


class StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at the moment of writing."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - logging's own rule: a line that fails must not fail its writer
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, ids, extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as JSON. Extra fields do not replace the standard ones."""
        line = _find_extra(record) | {
            "time": _format_time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _find_ids()
        if failure := _format_failure(self, record):
            line["exception"] = failure
        first = ("time", "level", "logger", "message", "request_id")
        return _dump({name: line[name] for name in first if name in line} | line)


class TextFormatter(logging.Formatter):
    """Time, level, logger, message, then ids and extra fields as ``name=JSON``; lines of a traceback begin with a bar."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        fields = _find_ids() | {k: v for k, v in _find_extra(record).items() if k not in ("request_id", "trace_id")}
        head = [_format_time(record), record.levelname, record.name, _escape(record.getMessage())]
        lines = [" ".join(head + [f"{_escape(name)}={_dump(value)}" for name, value in fields.items()])]
        if failure := _format_failure(self, record):
            lines += [f"  | {_escape(line)}" for line in failure.split("\n")]
        return "\n".join(lines)


def _format_time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _format_failure(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _find_extra(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller added; names that begin with an underscore are other libraries' (Ray puts its own on every record)."""
    extra = record.__dict__.items()
    return {name: value for name, value in extra if name not in NOT_EXTRA and not name.startswith("_")}


def _find_ids() -> dict[str, Any]:
    ids = {"request_id": current_request_id.get(), "trace_id": current_trace_id.get()}
    return {name: value for name, value in ids.items() if value}


def _dump(value: Any) -> str:
    """JSON with Turkish letters as they are; what JSON cannot say becomes a string."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except (TypeError, ValueError):  # keys that are no strings, circles, NaN
        plain = {str(k): repr(v) for k, v in value.items()} if isinstance(value, dict) else repr(value)
        text = json.dumps(plain, ensure_ascii=False)
    return _escape(text)


def _escape(text: str) -> str:
    r"""Write unsafe characters as ``\uXXXX``, which is also JSON's way: nothing else of a JSON text holds one."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@dataclass
class AnsweredRequest:
    """One request, when it has ended."""

    route: str
    """its template, such as ``/transcribe``; never the path that came"""
    method: str
    """HTTP's, or ``WEBSOCKET``"""
    status: int
    """HTTP's; 101 for a WebSocket that was accepted, 499 where the client left before the answer"""
    seconds: float
    """from its arrival to the end of its answer"""
    bytes_in: int
    """of its body, or of a WebSocket's messages"""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """what the route added: see :func:`add_notes`"""


def log_request(answered: AnsweredRequest) -> None:
    """Write one line for a request that ended."""
    quiet = answered.route in QUIET_ROUTES and answered.status < 400  # noqa: PLR2004 - HTTP's first error
    access_logger.log(
        logging.DEBUG if quiet else logging.INFO,
        "%s %s %d",
        answered.method,
        answered.route,
        answered.status,
        extra={
            **answered.notes,
            "method": answered.method,
            "route": answered.route,
            "status": answered.status,
            "seconds": round(answered.seconds, 4),
            "bytes_in": answered.bytes_in,
        },
    )


def log_transcript(text: str, enabled: bool) -> None:
    """Write a transcript where the operator asked for it (``ASR_LOG_TEXT``), else nothing."""
    if enabled:
        transcript_logger.info("transcript", extra={"text": text})


def add_notes(scope: MutableMapping[str, Any], **notes: Any) -> None:
    """Add fields to the line of the request with this ASGI scope, such as ``audio_seconds=7.7, model="dinle-base-tr"``.

    A note must not be named like an attribute of :class:`logging.LogRecord` (``name``, ``args``...): logging refuses it.
    """
    scope.setdefault(NOTES_KEY, {}).update(notes)


def name_route(scope: Mapping[str, Any], paths: Collection[str] = ()) -> str:
    """The template of the route that a request was given to: few values, whatever clients ask for.

    Args:
        scope: the ASGI scope after the application has run.
        paths: paths without parameters that keep their name also when the request was refused before it was routed.

    Returns:
        The template; a mount's prefix; :data:`UNMATCHED` for what no route took.
    """
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    root = str(scope.get("app_root_path", scope.get("root_path", "")))
    mount = str(scope.get("root_path", "")).removeprefix(root)
    if mount:
        return mount
    path = str(scope.get("path", "")).removeprefix(root)
    # A route without parameters matched: its template is the path itself.
    matched = "endpoint" in scope and not scope.get("path_params")
    return path.strip() if matched or path in paths else UNMATCHED


class AccessMiddleware:
    """Writes one line for each request, counts it, and makes its id known to every line written meanwhile.

    Stands right behind the middleware that gives the id, in front of everything that may refuse a request.

    Args:
        app: the application behind.
        metrics: what counts requests, and refusals by the code that :func:`make_error_response` left in the scope.
        paths: see :func:`name_route`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None, paths: Collection[str] = ()) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; other kinds than HTTP and WebSocket pass untouched."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        watched = WatchedConnection(receive, send)
        token = current_request_id.set(str(scope.get(REQUEST_ID_KEY, "")))
        scope.setdefault(NOTES_KEY, {})
        try:
            await self.app(scope, watched.receive, watched.send)
        except Exception:
            watched.status = watched.status or 500
            raise
        finally:
            self._note_end(scope, watched, time.perf_counter() - started)
            current_request_id.reset(token)

    def _note_end(self, scope: Scope, watched: WatchedConnection, seconds: float) -> None:
        answered = AnsweredRequest(
            route=name_route(scope, self.paths),
            method="WEBSOCKET" if scope["type"] == "websocket" else str(scope["method"]),
            status=watched.status or CLIENT_GONE_STATUS,
            seconds=seconds,
            bytes_in=watched.bytes_in,
            notes=scope[NOTES_KEY] | ({"error": scope[ERROR_CODE_KEY]} if ERROR_CODE_KEY in scope else {}),
        )
        log_request(answered)
        if self.metrics is None:
            return
        timed = None if scope["type"] == "websocket" else seconds
        self.metrics.count_request(answered.route, answered.method, answered.status, timed)
        if scope.get(ERROR_CODE_KEY, "internal") != "internal":  # a fault inside is no refusal
            self.metrics.count_rejection(str(scope[ERROR_CODE_KEY]))


class WatchedConnection:
    """What passes between a client and the application: counts the bytes in, remembers the answer's status."""

    def __init__(self, receive: Callable[[], Any], send: Send) -> None:
        self._receive = receive
        self._send = send
        self.status = 0
        self.bytes_in = 0

    async def receive(self) -> Message:
        """The client's next message."""
        message: Message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
        elif message["type"] == "websocket.receive":
            self.bytes_in += len(message.get("bytes") or b"") + len((message.get("text") or "").encode())
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on to the client."""
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif message["type"] == "websocket.accept":
            self.status = 101
        elif message["type"] == "websocket.close" and not self.status:
            self.status = 403  # what a server answers to a close before the accept (ASGI, WebSocket close)
        await self._send(message)
