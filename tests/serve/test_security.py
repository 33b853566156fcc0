from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketDisconnect

from dinle.errors import UsageError
from dinle.serve.security import (
    PAGE_POLICY,
    ApiKeys,
    KeyGuardMiddleware,
    SecurityHeadersMiddleware,
    choose_subprotocol,
    find_key,
    parse_origins,
    read_api_keys,
)
from dinle.serve.settings import Settings
from tests.serve.servers import serve_in_thread

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("first-key-0123456789", "second-key-0123456789", "third-key-0123456789")
OPEN_PATHS = frozenset({"/", "/healthz", "/docs", "/openapi.json"})


def make_app() -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    def check_health() -> str:
        return "ok"

    @app.post("/transcribe")
    def transcribe() -> str:
        return "merhaba"

    @app.get("/static/page.js")
    def send_script() -> PlainTextResponse:
        return PlainTextResponse("1", headers={"Cache-Control": "max-age=60"})

    @app.get("/static/plain.js")
    def send_plain() -> PlainTextResponse:
        return PlainTextResponse("1")

    @app.websocket("/live")
    async def listen(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=choose_subprotocol(websocket.scope["subprotocols"]))
        await websocket.send_text("hello")
        await websocket.close()

    return app


def guarded_client(root_path: str = "") -> TestClient:
    app = make_app()
    app.add_middleware(KeyGuardMiddleware, keys=ApiKeys(KEYS), open_paths=OPEN_PATHS, open_prefixes=("/static/",))
    return TestClient(app, root_path=root_path)


def test_every_key_is_accepted_and_nothing_else() -> None:
    keys = ApiKeys(KEYS)
    assert keys.required
    assert all(keys.check(key) for key in KEYS)
    for wrong in ("", KEYS[0][:-1], KEYS[0] + "0", KEYS[0].swapcase(), ",".join(KEYS), "ğüş", "\udcff"):
        assert not keys.check(wrong), wrong


def test_without_keys_none_is_needed() -> None:
    keys = read_api_keys(Settings())
    assert not keys.required
    assert not keys.check("")


@pytest.mark.parametrize("candidate", [*KEYS, "no-key-at-all-0123456789", ""])
def test_every_key_is_compared_whatever_the_first_ones_say(monkeypatch: pytest.MonkeyPatch, candidate: str) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def spy(known: bytes, given: bytes) -> bool:
        compared.append((known, given))
        return compare(known, given)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    assert ApiKeys(KEYS).check(candidate) == (candidate in KEYS)
    given = hashlib.sha256(candidate.encode()).digest()
    assert compared == [(hashlib.sha256(key.encode()).digest(), given) for key in KEYS]


def test_keys_are_not_shown() -> None:
    keys = ApiKeys(KEYS)
    assert repr(keys) == str(keys) == "ApiKeys(3)"
    assert not any(key in repr(vars(keys)) for key in KEYS)


def test_keys_come_from_the_variable_and_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"\ufeff# for the phones\n\n  {KEYS[1]}  # phone\r\n{KEYS[2]}\n#{'x' * 20}\n", encoding="utf-8")
    settings = Settings(api_keys=SecretStr(f" {KEYS[0]} ,, "), api_keys_file=str(file))
    keys = read_api_keys(settings)
    assert repr(keys) == "ApiKeys(3)"
    assert all(keys.check(key) for key in KEYS)


def test_a_key_may_hold_the_sign_of_a_comment(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("abcdefgh#0123456789", encoding="utf-8")
    assert read_api_keys(Settings(api_keys_file=str(file))).check("abcdefgh#0123456789")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" , ,", "ASR_API_KEYS holds no key; write one or more parted by commas"),
        (f"{KEYS[0]},short-secret", "key 2 of ASR_API_KEYS has 12 characters; at least 16 are expected; make one with"),
        ("two words 0123456789", "key 1 of ASR_API_KEYS holds a space or a letter outside of ASCII"),
        ("anahtarım-0123456789", "key 1 of ASR_API_KEYS holds a space or a letter outside of ASCII"),
    ],
)
def test_keys_that_cannot_protect_are_refused_without_being_shown(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_api_keys(Settings(api_keys=SecretStr(text)))
    assert not any(part.strip() in str(caught.value) for part in text.split(",") if part.strip())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "ASR_API_KEYS_FILE='.*keys.txt' cannot be read \\(No such file.*\\); name a file with one key a line"),
        (b"", "ASR_API_KEYS_FILE='.*keys.txt' holds no key; write one a line"),
        (b"# nothing yet\n\n", "holds no key"),
        (b"\xff\xfe\x00", "cannot be read \\(it is not a text file in UTF-8\\)"),
        (b"0123456789abcdef\nshort\n", "key 2 of ASR_API_KEYS_FILE='.*' has 5 characters"),
    ],
)
def test_a_key_file_that_does_not_protect_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_api_keys(Settings(api_keys_file=str(file)))


@pytest.mark.parametrize(
    ("headers", "subprotocols", "expected"),
    [
        ({}, (), None),
        ({"Authorization": "Bearer abc"}, (), "abc"),
        ({"Authorization": "bEARER   abc "}, (), "abc"),
        ({"Authorization": "Bearer"}, (), None),
        ({"Authorization": "Basic abc"}, (), None),
        ({"X-API-Key": " abc "}, (), "abc"),
        ({"Authorization": "Basic abc", "X-API-Key": "def"}, (), "def"),
        ({"Authorization": "Bearer abc", "X-API-Key": "def"}, (), "abc"),
        ({}, ("realtime", "openai-insecure-api-key.abc"), "abc"),
        ({}, ("realtime",), None),
    ],
)
def test_the_key_is_found_in_headers_and_subprotocols(
    headers: dict[str, str], subprotocols: tuple[str, ...], expected: str | None
) -> None:
    assert find_key(Headers(headers), subprotocols) == expected


def test_a_request_without_a_valid_key_is_answered_401() -> None:
    client = guarded_client()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": KEYS[0] + "x"}):
        answer = client.post("/transcribe", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["code"] == "unauthorized"
    assert client.post(f"/transcribe?api_key={KEYS[0]}").status_code == 401


def test_openai_clients_get_their_own_form_of_the_refusal() -> None:
    answer = guarded_client().post("/v1/audio/transcriptions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEYS[0]}"}, {"X-API-Key": KEYS[2]}])
def test_a_valid_key_opens(headers: dict[str, str]) -> None:
    assert guarded_client().post("/transcribe", headers=headers).json() == "merhaba"


def test_open_paths_need_no_key_and_their_neighbours_do() -> None:
    client = guarded_client()
    for path in ("/healthz", "/docs", "/openapi.json", "/static/plain.js"):
        assert client.get(path).status_code == 200, path
    for path in ("/healthzz", "/docs/x", "/static", "/nowhere"):
        assert client.get(path).status_code == 401, path


def test_paths_are_judged_without_the_prefix_of_a_proxy() -> None:
    client = guarded_client(root_path="/dinle")
    assert client.get("/dinle/healthz").status_code == 200
    assert client.post("/dinle/transcribe").status_code == 401


def test_without_keys_everything_passes() -> None:
    app = make_app()
    app.add_middleware(KeyGuardMiddleware, keys=ApiKeys())
    assert TestClient(app).post("/transcribe").status_code == 200


def test_a_preflight_passes_and_a_plain_options_does_not() -> None:
    app = make_app()
    app.add_middleware(CORSMiddleware, allow_origins=["https://page.example"], allow_methods=["POST"])
    app.add_middleware(KeyGuardMiddleware, keys=ApiKeys(KEYS))
    client = TestClient(app)
    preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/transcribe", headers=preflight)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://page.example")
    assert client.options("/transcribe").status_code == 401
    assert client.post("/transcribe", headers=preflight).status_code == 401


def test_a_websocket_without_a_valid_key_is_closed_before_it_opens() -> None:
    client = guarded_client()
    for subprotocols in ([], ["realtime"], ["realtime", "openai-insecure-api-key.wrong"]):
        with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/live", subprotocols):
            pass
        assert caught.value.code == 1008


def test_a_websocket_opens_with_a_key_that_does_not_travel_back() -> None:
    client = guarded_client()
    with client.websocket_connect("/live", headers={"X-API-Key": KEYS[1]}) as websocket:
        assert (websocket.receive_text(), websocket.accepted_subprotocol) == ("hello", None)
    offered = [f"openai-insecure-api-key.{KEYS[1]}", "realtime"]
    with client.websocket_connect("/live", offered) as websocket:
        assert (websocket.receive_text(), websocket.accepted_subprotocol) == ("hello", "realtime")


def test_a_refusal_leaves_before_the_body_is_read() -> None:
    app = make_app()
    app.add_middleware(KeyGuardMiddleware, keys=ApiKeys(KEYS))
    with serve_in_thread(app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("POST", "/transcribe")
        connection.putheader("Content-Length", str(10**9))
        connection.endheaders(b"the first of a billion bytes")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (401, "unauthorized")
        connection.close()


def test_a_real_server_turns_the_close_into_403() -> None:
    app = make_app()
    app.add_middleware(KeyGuardMiddleware, keys=ApiKeys(KEYS))
    with serve_in_thread(app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        nonce = base64.b64encode(b"0123456789abcdef").decode()
        connection.request("GET", "/live", headers=upgrade | {"Sec-WebSocket-Key": nonce})
        assert connection.getresponse().status == 403
        connection.close()


def headers_client(shared: bool = False) -> TestClient:
    app = make_app()
    app.add_middleware(SecurityHeadersMiddleware, shared=shared)
    return TestClient(app)


def test_every_answer_tells_browsers_to_be_careful() -> None:
    client = headers_client()
    for answer in (client.get("/healthz"), client.get("/nowhere"), client.put("/transcribe")):
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["permissions-policy"] == "microphone=(self), camera=(), geolocation=()"
        assert headers["content-security-policy"] == PAGE_POLICY
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


def test_the_page_policy_allows_nothing_inline_and_nobody_else() -> None:
    rules = parse_policy(PAGE_POLICY)
    assert rules["default-src"] == rules["script-src"] == rules["connect-src"] == rules["worker-src"] == ["'self'"]
    assert rules["media-src"] == ["'self'", "blob:"]
    for closed in ("frame-ancestors", "object-src", "base-uri"):
        assert rules[closed] == ["'none'"]
    assert rules["form-action"] == ["'self'"]
    assert "unsafe" not in PAGE_POLICY
    assert "http" not in PAGE_POLICY


def test_static_files_may_be_kept_and_a_routes_own_header_wins() -> None:
    client = headers_client()
    assert "cache-control" not in client.get("/static/plain.js").headers
    assert client.get("/static/page.js").headers["cache-control"] == "max-age=60"


def test_with_cors_other_origins_may_embed_answers() -> None:
    assert headers_client(shared=True).get("/healthz").headers["cross-origin-resource-policy"] == "cross-origin"


def test_the_docs_page_may_run_its_own_scripts_and_swaggers_alone() -> None:
    answer = headers_client().get("/docs")
    rules = parse_policy(answer.headers["content-security-policy"])
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    inline = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inline]
    assert len(inline) == 1
    assert rules["script-src"] == ["https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/", *hashes]
    loaded = re.findall(r'(?:src|href)="(https://[^"]+)"', answer.text)
    assert len(loaded) == 3  # a script, a style and an icon: each one is under a source that the policy names
    sources = rules["script-src"] + rules["style-src"] + rules["img-src"]
    assert all(any(url.startswith(source) for source in sources) for url in loaded)
    assert rules["default-src"] == ["'none'"]


def test_a_docs_page_in_pieces_is_hashed_whole() -> None:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<script>a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b</script>"})

    answer = TestClient(SecurityHeadersMiddleware(stream)).get("/docs")
    expected = base64.b64encode(hashlib.sha256(b"ab").digest()).decode()
    assert f"'sha256-{expected}'" in answer.headers["content-security-policy"]
    assert answer.content == b"<script>ab</script>"


def parse_policy(text: str) -> dict[str, list[str]]:
    return {name: sources for name, *sources in (rule.split() for rule in text.split(";"))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" , ", []),
        (" * ", ["*"]),
        ("https://a.example", ["https://a.example"]),
        ("HTTPS://A.Example:443, http://b.example:80", ["https://a.example", "http://b.example"]),
        ("http://localhost:3000,http://localhost:3000", ["http://localhost:3000"]),
        ("http://[::1]:8080,http://127.0.0.1", ["http://[::1]:8080", "http://127.0.0.1"]),
        ("https://a.example:80", ["https://a.example:80"]),
    ],
)
def test_origins_are_written_as_browsers_send_them(text: str, expected: list[str]) -> None:
    assert parse_origins(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a.example",
        "ftp://a.example",
        "https://",
        "https://a.example/",
        "https://a.example/page",
        "https://a.example?x",
        "https://a.example#x",
        "https://user@a.example",
        "https://a.example:port",
        "https://a.example:99999",
        "https://*.example",
        "https://örnek.example",
        "https://a.example\u212a",
        "https://[::1",
        "null",
        "*,https://a.example",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="ASR_CORS_ORIGINS .*expected"):
        parse_origins(text)
