"""What the service tells about itself, and what it keeps to itself: routes, keys, origins, logs."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

import httpx2
import onnxruntime
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from pydantic import SecretStr
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from dinle import __version__
from dinle.serve.app import OPEN_PATHS, OPEN_PREFIXES, ROUTERS, create_app
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.graphs import spell_levels, write_level_bundle
from tests.serve.servers import serve_in_process, serve_in_thread
from tests.serve.wire import find_code, read_answer, send_request
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a-key-of-thirty-two-characters-0"
BEARER = {"Authorization": f"Bearer {KEY}"}
ORIGIN = "https://example.org"
SPEECH = encode_wav(make_tone(1.0))
PATHS = ("/transcribe", "/v1/audio/transcriptions")


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(create_app(fake_recognizer(), Settings())) as client:
        yield client


@pytest.fixture
def closed() -> Iterator[TestClient]:
    """A service that needs a key."""
    with TestClient(create_app(fake_recognizer(), make_closed())) as client:
        yield client


def make_closed(**options: Any) -> Settings:
    return Settings(api_keys=SecretStr(KEY), **options)


def test_it_tells_versions_health_and_readiness(client: TestClient) -> None:
    assert client.get("/version").json() == {
        "version": __version__,
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
    assert client.get("/healthz").json()["status"] == "ok"
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (200, {"status": "ready"})


def test_metrics_come_in_the_form_that_is_asked_for(client: TestClient) -> None:
    assert client.post("/transcribe", files={"file": SPEECH}).status_code == 200
    plain = client.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert 'dinle_requests_total{method="POST",route="/transcribe",status="200"} 1.0' in plain.text
    assert 'dinle_model_info{backend="unknown",family="unknown",model="fake"} 1.0' in plain.text
    openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    names = {family.name for family in parse_openmetrics(openmetrics.text)}  # type: ignore[no-untyped-call]
    assert {"dinle_inference_seconds", "dinle_audio_seconds", "dinle_queue_wait_seconds"} <= names


# Who may ask.


def list_routes() -> list[tuple[str, str]]:
    """Methods and paths of every route; a WebSocket's method is ``WEBSOCKET``."""
    return [
        (method, str(route.path).replace("{model}", "fake"))  # type: ignore[attr-defined]
        for router in ROUTERS
        for route in router.routes
        for method in sorted(getattr(route, "methods", None) or {"WEBSOCKET"})
    ]


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIXES)


def test_the_routes_are_those_that_are_known() -> None:
    closed = {path for _, path in list_routes() if not is_open(path)}
    assert closed == {
        "/metrics", "/models/fake",
        "/transcribe", "/v1/audio/transcriptions", "/v1/models", "/v1/models/fake", "/v1/realtime", "/stream",
    }  # fmt: skip


@pytest.mark.parametrize(("method", "path"), list_routes())
def test_without_a_key_only_open_paths_answer(closed: TestClient, method: str, path: str) -> None:
    if method == "WEBSOCKET":
        with pytest.raises(WebSocketDisconnect), closed.websocket_connect(path):
            pytest.fail("it opened")
        return
    answer = closed.request(method, path)
    if is_open(path):
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert find_code(answer.json()) == ("invalid_api_key" if path.startswith("/v1/") else "unauthorized")
    assert ("error" in answer.json()) == path.startswith("/v1/")
    assert closed.request(method, path, headers={"X-API-Key": KEY + "x"}).status_code == 401
    assert closed.request(method, path, headers=BEARER).status_code in (200, 400, 422)


@pytest.mark.parametrize(
    "path",
    ["/docs", "/openapi.json", "/", "/static/style.css", "/static/sample.wav", "/healthz", "/readyz", "/version"],
)
def test_what_tells_how_to_use_it_is_open(closed: TestClient, path: str) -> None:
    assert closed.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nope", "/static", "/staticx", "/docs/", "/healthz/", "/HEALTHZ", "/redoc", "/docs/oauth2-redirect"]
)
def test_other_paths_do_not_tell_whether_they_exist(closed: TestClient, path: str) -> None:
    assert closed.get(path, follow_redirects=False).status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_a_refusal_does_not_wait_for_the_body(path: str) -> None:
    with (
        serve_in_thread(create_app(fake_recognizer(), make_closed())) as port,
        send_request(port, b"", path=path, length=10_000_000) as connection,
    ):
        connection.settimeout(2)
        assert read_answer(connection)[0] == 401


def test_a_client_without_a_key_can_read_why_it_was_refused() -> None:
    """Also one that writes everything before it reads."""
    with serve_in_thread(create_app(fake_recognizer(), make_closed())) as port:
        answer = httpx2.post(f"http://127.0.0.1:{port}/transcribe", files={"file": bytes(20_000_000)}, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


# Whose pages may ask.


def ask_first(client: TestClient, path: str = "/transcribe", **headers: str) -> Any:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"} | headers
    return client.options(path, headers=asked)


def test_other_origins_get_nothing_by_default(client: TestClient) -> None:
    for answer in (client.post("/transcribe", files={"file": SPEECH}, headers={"Origin": ORIGIN}), ask_first(client)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert ask_first(client).status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_origins_that_were_named_may_ask_with_a_key(path: str) -> None:
    app = create_app(fake_recognizer(), make_closed(cors_origins=ORIGIN))
    with TestClient(app) as client:
        allowed = ask_first(client, path, **{"Access-Control-Request-Headers": "authorization,x-api-key"})
        assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
        assert {"Authorization", "X-API-Key"} <= set(allowed.headers["Access-Control-Allow-Headers"].split(", "))
        assert ask_first(client, path, Origin="https://evil.example").status_code == 400
        answer = client.post(path, files={"file": SPEECH}, headers=BEARER | {"Origin": ORIGIN})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
        refused = client.post(path, files={"file": SPEECH}, headers={"Origin": ORIGIN})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)
        other = client.post(path, files={"file": SPEECH}, headers=BEARER | {"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


# What is written down.


@pytest.mark.slow
@pytest.mark.parametrize("written", [False, True], ids=["by default", "ASR_LOG_TEXT"])
def test_transcripts_are_in_the_log_only_where_that_was_asked_for(tmp_path: Path, written: bool) -> None:
    write_level_bundle(tmp_path / "levels")
    audio = encode_wav(spell_levels("gizli bir sözdü"))
    command = ["dinle.cli", "serve", "--port", "0", "--model", str(tmp_path / "levels")]
    env = {"ASR_LOG_TEXT": str(written).casefold(), "ASR_API_KEYS": KEY}
    with serve_in_process(command, tmp_path / "log", env) as (url, process):
        answer = httpx2.post(
            f"{url}/transcribe?details=true&model=levels", files={"file": ("gizli.wav", audio)}, headers=BEARER
        )
        assert answer.json()["text"] == "gizli bir sözdü"
        for form in ({}, {"stream": "true"}, {"response_format": "srt"}, {"prompt": "gizli", "language": "gizlice"}):
            httpx2.post(f"{url}/v1/audio/transcriptions", data=form, files={"file": audio}, headers=BEARER)
        httpx2.post(f"{url}/transcribe", files={"file": audio}, headers={"X-API-Key": KEY + "?"})
        process.terminate()
        process.wait(20)
    log = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert len([line for line in lines if line["logger"] == "dinle.access"]) == 6
    assert len([line for line in lines if line.get("text") == "gizli bir sözdü"]) == (4 if written else 0)
    if not written:
        assert "gizli" not in log
        assert "sözdü" not in log
    assert KEY not in log
