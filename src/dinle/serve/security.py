"""Who may ask, and what browsers may do with the answers: API keys, security headers, origins of other pages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from dinle.errors import UsageError
from dinle.serve.errors import ERROR_CODE_KEY, UnauthorizedError, make_error_response

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dinle.serve.settings import Settings

# 16 letters and digits hold 95 bits where they are drawn at random: beyond guessing, even offline.
MIN_KEY_LENGTH = 16
# What an HTTP header carries unchanged, without the space that would end it (RFC 9110, section 5.5: VCHAR).
KEY = re.compile(r"[\x21-\x7e]+")
MAKE_KEY = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(24))'"
# Browsers cannot set headers on a WebSocket; OpenAI's realtime API takes the key as one of the subprotocols instead.
KEY_SUBPROTOCOL = "openai-insecure-api-key."
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1

FIXED_HEADERS = {
    # An answer is what its content type says: a transcript is never run as a script.
    "X-Content-Type-Options": "nosniff",
    # Links that leave the page do not tell where it was.
    "Referrer-Policy": "no-referrer",
    # frame-ancestors for browsers that do not know it: nobody lays the page under his own buttons.
    "X-Frame-Options": "DENY",
    # The page may listen; nothing that it would embed may, nor use what dinle never needs.
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}
# Shared by both policies: no plugins, no change of what relative addresses mean, forms go nowhere else, no frames around.
CLOSED = "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
# Everything from this origin alone ('self' includes its WebSockets since CSP Level 3); recordings and microphone sound are
# played from blobs, icons may be data.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    f"media-src 'self' blob:; worker-src 'self'; {CLOSED}"
)
# FastAPI's page loads Swagger UI from this one folder, which sets styles in its elements; its own script goes by hash.
SWAGGER_FOLDER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
DOCS_POLICY = (
    f"default-src 'none'; script-src {SWAGGER_FOLDER} {{hashes}}; style-src {SWAGGER_FOLDER} 'unsafe-inline'; "
    f"img-src 'self' data: https://fastapi.tiangolo.com/img/; connect-src 'self'; {CLOSED}"
)
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class ApiKeys:
    """The keys that are accepted, kept as hashes. Without any, none is needed.

    Raises:
        UsageError: a key that is too short, or that no header can carry. Messages name its place, never the key.
    """

    def __init__(self, keys: Iterable[str] = (), source: str = "the API keys") -> None:
        self._digests = tuple(_hash(_check_key(key, f"key {n} of {source}")) for n, key in enumerate(keys, start=1))

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._digests)})"

    def __add__(self, other: ApiKeys) -> ApiKeys:
        both = ApiKeys()
        both._digests = self._digests + other._digests
        return both

    @property
    def required(self) -> bool:
        """Whether requests must carry a key."""
        return bool(self._digests)

    def check(self, candidate: str) -> bool:
        """Whether this is one of the keys.

        The time it takes does not depend on which key matches, or how far: digests of one length are compared in constant
        time, all of them, whatever the first ones say.
        """
        digest = _hash(candidate)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


def read_api_keys(settings: Settings) -> ApiKeys:
    """The keys of ``ASR_API_KEYS`` and of the file ``ASR_API_KEYS_FILE``, together.

    Raises:
        UsageError: a key does not fit; the file cannot be read; one of the two is set and holds no key, which would open
            a service that was meant to be closed.
    """
    keys = ApiKeys()
    if settings.api_keys is not None:
        text = settings.api_keys.get_secret_value()
        found = [key for part in text.split(",") if (key := part.strip())]
        if not found:
            raise UsageError(f"ASR_API_KEYS holds no key; write one or more parted by commas ({MAKE_KEY}), or unset it")
        keys += ApiKeys(found, "ASR_API_KEYS")
    if settings.api_keys_file is not None:
        keys += _read_key_file(Path(settings.api_keys_file))
    return keys


def _read_key_file(path: Path) -> ApiKeys:
    """One key a line; ``#`` at the beginning of a line, or after a space, begins a comment."""
    place = f"ASR_API_KEYS_FILE={str(path)!r}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file in UTF-8"
        raise UsageError(f"{place} cannot be read ({reason}); name a file with one key a line") from error
    found = [key for line in text.splitlines() if (key := re.split(r"(?:^|\s)#", line)[0].strip())]
    if not found:
        raise UsageError(f"{place} holds no key; write one a line ({MAKE_KEY}), or unset the variable")
    return ApiKeys(found, place)


def _check_key(key: str, place: str) -> str:
    if not KEY.fullmatch(key):
        raise UsageError(f"{place} holds a space or a letter outside of ASCII, which no header carries; {MAKE_KEY}")
    if len(key) < MIN_KEY_LENGTH:
        raise UsageError(f"{place} has {len(key)} characters; at least {MIN_KEY_LENGTH} are expected; {MAKE_KEY}")
    return key


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def find_key(headers: Headers, subprotocols: Iterable[str] = ()) -> str | None:
    """The API key that a request carries, checked or not: a bearer token, else ``X-API-Key``, else a WebSocket subprotocol.

    Never from the query: addresses end up in logs, histories and referrers.

    Args:
        headers: of the request.
        subprotocols: that a WebSocket offers; the key is behind ``openai-insecure-api-key.``.
    """
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.casefold() == "bearer" and token.strip():
        return token.strip()
    if key := headers.get("x-api-key", "").strip():
        return key
    for offered in subprotocols:
        if offered.startswith(KEY_SUBPROTOCOL):
            return offered.removeprefix(KEY_SUBPROTOCOL)
    return None


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """What to accept a WebSocket with: the first subprotocol that is not a key, which must not travel back.

    A browser that offered subprotocols hangs up when none is chosen (WHATWG WebSockets, section 2), so a page that sends a
    key offers a second one: ``new WebSocket(url, ["realtime", "openai-insecure-api-key.KEY"])``.
    """
    return next((name for name in offered if not name.startswith(KEY_SUBPROTOCOL)), None)


class KeyGuardMiddleware:
    """Refuses what carries no valid key, before anything of its body is read: HTTP with 401, WebSockets with 403.

    Args:
        app: the application behind.
        keys: the accepted keys; without any, everything passes.
        open_paths: paths that need no key, exactly.
        open_prefixes: beginnings of paths that need no key, such as ``/static/``.
    """

    def __init__(
        self, app: ASGIApp, keys: ApiKeys, open_paths: Collection[str] = (), open_prefixes: Iterable[str] = ()
    ) -> None:
        self.app = app
        self.keys = keys
        self.open_paths = frozenset(open_paths)
        self.open_prefixes = tuple(open_prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; other kinds than HTTP and WebSocket pass untouched."""
        if scope["type"] not in ("http", "websocket") or self._lets_pass(scope):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "http":
            await make_error_response(scope, UnauthorizedError())(scope, receive, send)
            return
        scope[ERROR_CODE_KEY] = "unauthorized"
        await receive()  # the client's wish to connect
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "no valid API key"})

    def _lets_pass(self, scope: Scope) -> bool:
        path = find_path(scope)
        if not self.keys.required or path in self.open_paths or path.startswith(self.open_prefixes):
            return True
        headers = Headers(scope=scope)
        # A preflight carries no credentials by the Fetch standard, and the answer tells nothing but the CORS rules.
        if scope.get("method") == "OPTIONS" and "access-control-request-method" in headers:
            return True
        key = find_key(headers, scope.get("subprotocols", ()))
        return key is not None and self.keys.check(key)


def find_path(scope: Mapping[str, Any]) -> str:
    """A request's path as the routes see it: without the prefix that a proxy in front keeps (``--root-path``)."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path


class SecurityHeadersMiddleware:
    """Tells browsers to be careful with every answer. A header that a route has set stays as it is.

    Args:
        app: the application behind.
        shared: other origins may read the answers (CORS is on).
        docs_paths: FastAPI's pages, which get a policy of their own.
        cacheable_prefixes: beginnings of paths whose answers may be kept; the others may hold someone's words.
    """

    def __init__(
        self,
        app: ASGIApp,
        shared: bool = False,
        docs_paths: Collection[str] = ("/docs",),
        cacheable_prefixes: Iterable[str] = ("/static/",),
    ) -> None:
        self.app = app
        self.docs_paths = frozenset(docs_paths)
        self.cacheable_prefixes = tuple(cacheable_prefixes)
        # Whether other sites may embed an answer; without CORS they may not even use one as an image or a script.
        self.headers = FIXED_HEADERS | {"Cross-Origin-Resource-Policy": "cross-origin" if shared else "same-origin"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection; other kinds than HTTP pass untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = find_path(scope)  # before a mount moves the border between prefix and path
        if path in self.docs_paths:
            send = _DocsPage(send).send

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(MutableHeaders(scope=message), path)
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _add_headers(self, headers: MutableHeaders, path: str) -> None:
        for name, value in self.headers.items():
            headers.setdefault(name, value)
        if path not in self.docs_paths:
            headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        if not path.startswith(self.cacheable_prefixes):
            headers.setdefault("Cache-Control", "no-store")


class _DocsPage:
    """Holds FastAPI's page back until it is whole, then sends it with a policy that allows its own scripts by hash."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._page = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._page += message.get("body", b"")
        if message.get("more_body", False):
            return
        MutableHeaders(scope=self._start)["Content-Security-Policy"] = make_docs_policy(self._page)
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": self._page})


def make_docs_policy(page: bytes) -> str:
    """The content security policy for a Swagger page of FastAPI, with the hashes of the scripts inside (CSP Level 3)."""
    digests = [hashlib.sha256(script).digest() for script in INLINE_SCRIPT.findall(page)]
    return DOCS_POLICY.format(hashes=" ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests))


def parse_origins(text: str) -> list[str]:
    """The origins of ``ASR_CORS_ORIGINS``, written as browsers send them (RFC 6454, section 6.2): lower case, no default port.

    Returns:
        Nothing for an empty text; ``["*"]`` for all.

    Raises:
        UsageError: not scheme://host[:port], or ``*`` beside others.
    """
    parts = [part for piece in text.split(",") if (part := piece.strip())]
    if "*" in parts and len(parts) > 1:
        raise UsageError(f"ASR_CORS_ORIGINS is {text!r}; expected either * or a list of origins")
    return parts if parts == ["*"] else list(dict.fromkeys(_parse_origin(part) for part in parts))


def _parse_origin(text: str) -> str:
    expected = "expected scheme://host[:port], such as https://example.org or http://localhost:3000"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:  # a port that is no number, a bracket that does not close
        raise UsageError(f"ASR_CORS_ORIGINS holds {text!r} ({error}); {expected}") from error
    host = f"[{host}]" if ":" in host else host
    plain = re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host)
    more = parts.path + parts.query + parts.fragment or parts.username is not None
    if not text.isascii() or parts.scheme not in ("http", "https") or not plain or more:
        raise UsageError(f"ASR_CORS_ORIGINS holds {text!r}; {expected} (no path, no wildcard, letters of ASCII)")
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if port in (None, default) else f":{port}")
