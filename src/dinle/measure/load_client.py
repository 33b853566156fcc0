"""A light client of ``POST /transcribe`` for load tests: the form is made beforehand, the connection is kept."""

from __future__ import annotations

import json
import select
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from dinle.errors import UsageError

OK = 200
ROUTE = "/transcribe"
TIMEOUT_S = 120.0
KEEP_S = 2.0  # a connection that rested longer is opened anew: servers close idle ones, uvicorn after 5 s


@dataclass(frozen=True)
class LoadClip:
    """A recording that is ready to be posted.

    Attributes:
        id: what rows call it.
        audio_s: its length in seconds.
        body: the multipart form, complete.
        content_type: of the form, with its boundary.
        expected_text: what a right answer holds (``None``: anything is right).
    """

    id: str
    audio_s: float
    body: bytes
    content_type: str
    expected_text: str | None = None


@dataclass(frozen=True)
class Answer:
    """What came back: see the module's rows."""

    status: int | None
    text: str | None = None
    retry_after: str | None = None
    error: str | None = None


class Client:
    """One connection, kept from request to request; for one thread at a time.

    Args:
        url: base URL of the service, ``http://host:port``.
        timeout_s: seconds of silence after which a request has failed.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        address = urlsplit(url)
        if address.scheme != "http" or address.hostname is None:
            raise UsageError(f"the service's address is {url!r}; expected one such as http://127.0.0.1:8000")
        self._connection = HTTPConnection(address.hostname, address.port, timeout=timeout_s)
        self._rested_from = 0.0

    def post(self, clip: LoadClip) -> Answer:
        """Post a clip; what goes wrong is part of the answer, never raised."""
        try:
            status, retry_after, content = self._exchange("POST", ROUTE, clip.body, {"Content-Type": clip.content_type})
        except TimeoutError:
            return Answer(None, error="timeout")
        except (OSError, HTTPException):
            return Answer(None, error="connection")
        text = _read_text(content) if status == OK else None
        return Answer(status, text, retry_after, "answer" if status == OK and text is None else None)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and content of ``GET path``.

        Raises:
            OSError, HTTPException: no answer came.
        """
        status, _, content = self._exchange("GET", path, None, {})
        return status, content

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str | None, bytes]:
        if self._is_stale():
            self.close()
        try:
            cut = False
            try:
                self._connection.request(method, path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                cut = True  # a refusal may stand in the socket though the server took no more of the body
            response = self._connection.getresponse()
            content = response.read()
            if cut:
                self.close()
        except BaseException:
            self.close()
            raise
        self._rested_from = time.monotonic()
        return response.status, response.headers.get("Retry-After"), content

    def _is_stale(self) -> bool:
        """Whether the kept connection was closed by the server (readable between requests), or may be about to."""
        sock = self._connection.sock
        if sock is None:
            return False
        return time.monotonic() - self._rested_from > KEEP_S or bool(select.select([sock], [], [], 0)[0])


def _read_text(content: bytes) -> str | None:
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    text = answer.get("text") if isinstance(answer, dict) else None
    return text if isinstance(text, str) else None
