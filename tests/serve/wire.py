"""HTTP by hand, for what no proper client does: half a body, a wrong length, a connection that is dropped."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
FORM_END = b"\r\n--x--\r\n"
FORM_TYPE = "multipart/form-data; boundary=x"
TIMEOUT_S = 20.0


def make_form(audio: bytes, **fields: str) -> bytes:
    """A form of type :data:`FORM_TYPE` with the file and more fields."""
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    return "".join(parts).encode() + FILE_HEAD + audio + FORM_END


@contextmanager
def send_request(
    port: int, body: bytes, *, path: str = "/transcribe", length: int | None = None, **headers: str
) -> Iterator[socket.socket]:
    """Send a POST that declares ``length`` bytes (default: those that it has); the connection closes with the context."""
    fields = {
        "Host": "x",
        "Content-Type": FORM_TYPE,
        "Content-Length": str(len(body) if length is None else length),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    head = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall("\r\n".join(head).encode() + body)
        yield connection


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers (names in lower case) and the JSON body (``None`` where it is empty)."""
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    text = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, json.loads(text) if text else None


def post_raw(port: int, body: bytes, **options: Any) -> tuple[int, Any]:
    """Status and JSON body of the answer to :func:`send_request`."""
    with send_request(port, body, **options) as connection:
        status, _, answer = read_answer(connection)
    return status, answer


def reset_on_close(connection: socket.socket) -> None:
    """Let closing send a reset instead of a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def find_detail(answer: Any) -> str:
    """The reason in an error's body, in the service's own form or in OpenAI's; fails where it has neither."""
    if "error" in answer:
        assert answer["error"].keys() == {"message", "type", "param", "code"}
        return str(answer["error"]["message"])
    assert answer.keys() == {"detail", "code", "request_id"}
    return str(answer["detail"])


def find_code(answer: Any) -> str:
    """The code of an error, as :func:`find_detail` finds its reason."""
    find_detail(answer)
    return str(answer["error"]["code"] if "error" in answer else answer["code"])
