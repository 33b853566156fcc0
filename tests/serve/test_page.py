"""The page as the service sends it: what it refers to is there, nothing else is, and browsers take it as it is meant."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path
from posixpath import join, normpath
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from dinle.serve.app import create_app
from dinle.serve.page import MEDIA_TYPES, STATIC_DIR
from dinle.serve.security import PAGE_POLICY
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer
from tests.serve.servers import ROOT, serve_in_thread
from tests.serve.wire import send_request

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_GZIPPED_BYTES = 400_000
SAMPLE = ROOT / "samples" / "sample.wav"
IMPORT = re.compile(r'"(\.\.?/[\w./-]+\.\w+)"')  # import ... from, import(...), new URL(..., import.meta.url)
FROM_PAGE = re.compile(r'"(static/[\w./-]+\.\w+)"')
INLINE_ATTRIBUTES = re.compile(r"style|on\w+")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(fake_recognizer(), Settings())) as client:
        yield client


class Document(HTMLParser):
    """Keeps a document's tags with their attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip():
            self.inside.append(data)

    @property
    def references(self) -> set[str]:
        """What the document loads, by addresses relative to it."""
        names = {"script": "src", "img": "src", "audio": "src", "link": "href"}
        return {str(attrs[names[tag]]) for tag, attrs in self.tags if tag in names and attrs.get(names[tag])}


def read_page() -> Document:
    return Document((STATIC_DIR / "index.html").read_text(encoding="utf-8"))


def find_references() -> set[str]:
    """Every address that the page loads, and that its modules load in turn."""
    found: set[str] = set()
    left = set(read_page().references)
    while left:
        address = left.pop()
        found.add(address)
        path = STATIC_DIR.parent / address
        if path.suffix == ".js" and path.is_file() and "vendor" not in path.parts:
            script = path.read_text(encoding="utf-8")
            names = {normpath(join(address, "..", name)) for name in IMPORT.findall(script)}
            left |= (names | set(FROM_PAGE.findall(script))) - found
    return found


def test_the_page_is_html_under_the_strict_policy(client: TestClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert answer.content == (STATIC_DIR / "index.html").read_bytes()


def test_nothing_in_the_page_is_inline() -> None:
    page = read_page()
    assert page.inside == []
    assert "style" not in {tag for tag, _ in page.tags}
    assert [(tag, name) for tag, attrs in page.tags for name in attrs if INLINE_ATTRIBUTES.fullmatch(name)] == []
    assert [attrs for _, attrs in page.tags if any(str(v).startswith("javascript:") for v in attrs.values())] == []


def test_every_file_that_the_page_loads_is_served_by_its_type(client: TestClient) -> None:
    references = find_references()
    assert {"static/js/main.js", "static/js/i18n.js", "static/style.css", "static/sample.wav"} <= references
    missing = {address for address in references if client.get(f"/{address}").status_code != 200}
    assert missing == set()
    for address in references:
        assert client.get(f"/{address}").headers["Content-Type"] == MEDIA_TYPES[Path(address).suffix], address


def test_types_do_not_depend_on_the_systems_table(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starlette.responses.guess_type", lambda *_: (None, None))
    for path, media_type in {
        "/": "text/html; charset=utf-8",
        "/static/js/main.js": "text/javascript; charset=utf-8",
        "/static/style.css": "text/css; charset=utf-8",
        "/static/icon.svg": "image/svg+xml",
        "/static/numbers.json": "application/json",
        "/static/sample.wav": "audio/wav",
    }.items():
        assert client.get(path).headers["Content-Type"] == media_type, path


def test_the_sample_is_the_repositorys_own(client: TestClient) -> None:
    assert client.get("/static/sample.wav").content == SAMPLE.read_bytes()
    part = client.get("/static/sample.wav", headers={"Range": "bytes=0-3"})  # players ask so
    assert (part.status_code, part.content) == (206, b"RIFF")


@pytest.mark.parametrize("path", ["/", "/static/style.css", "/static/js/main.js", "/static/sample.wav"])
def test_a_browser_asks_again_and_gets_only_what_is_new(client: TestClient, path: str) -> None:
    first = client.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["Cache-Control"]) == (304, b"", "no-cache")
    assert client.get(path, headers={"If-None-Match": '"of another version"'}).status_code == 200
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(first.content))


@pytest.mark.parametrize("path", ["/", "/static/style.css", "/static/sample.wav"])
def test_files_are_only_read(client: TestClient, path: str) -> None:
    assert client.post(path).status_code == 405


@pytest.mark.parametrize("path", ["/static/", "/static/js", "/static/js/", "/static/nope.js", "/static/js/main.js/x"])
def test_folders_are_not_listed_and_what_is_missing_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../page.py",
        "/static/..%2fpage.py",
        "/static/%2e%2e/page.py",
        "/static/js/..%2f..%2f..%2fpage.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..%5cpage.py",
        "/static/%00",
        "/static/" + "x" * 5_000,
    ],
)
def test_nothing_outside_of_the_folder_is_sent(path: str) -> None:
    """As the bytes of the request's line say it: clients clean addresses before they send them."""
    with (
        serve_in_thread(create_app(fake_recognizer(), Settings())) as port,
        send_request(port, b"", path="/healthz") as connection,
    ):
        connection.recv(65_536)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"root:" not in answer
    assert b"APIRouter" not in answer


def test_the_page_is_small() -> None:
    sizes = {path: len(gzip.compress(path.read_bytes())) for path in STATIC_DIR.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.name != SAMPLE.name) < MAX_GZIPPED_BYTES


def test_the_page_works_behind_a_proxys_prefix() -> None:
    """With ``--root-path /asr`` uvicorn puts the prefix, which the proxy took away, before the path again."""
    settings = Settings(api_keys=SecretStr("a-key-of-thirty-two-characters-0"))
    with TestClient(create_app(fake_recognizer(), settings), root_path="/asr") as client:
        page = client.get("/asr/")
        assert page.status_code == 200
        assert [address for address in read_page().references if address.startswith("/")] == []
        for path in ("style.css", "js/main.js", "sample.wav"):
            assert client.get(f"/asr/static/{path}").status_code == 200, path
        assert client.get("/asr/static/nope").status_code == 404
        assert client.get("/asr/models/fake").status_code == 401
