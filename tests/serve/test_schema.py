"""Requests made from the service's own OpenAPI description: whatever comes, no answer is a fault of the service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.serve.servers import serve_in_thread
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(fake_recognizer(), Settings(max_bytes=200_000))


@pytest.fixture(scope="module")
def described(app: FastAPI) -> Iterator[Any]:
    with serve_in_thread(app) as port:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


@pytest.mark.slow
def test_no_request_makes_the_service_fail(described: Any) -> None:
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 9
    statuses: set[int] = set()
    for operation in operations:

        @settings(max_examples=40, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            response = case.call(timeout=20)
            statuses.add(response.status_code)
            assert response.status_code < 500
            assert "Traceback" not in response.text
            assert response.headers["x-request-id"]

        ask()
    assert {200, 400, 404, 422} & statuses  # it came through to the routes


def test_every_operation_and_every_field_is_described(app: FastAPI) -> None:
    description = app.openapi()
    for path, operations in description["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            for parameter in operation.get("parameters", []):
                assert parameter.get("description") or parameter["in"] == "path", (path, parameter["name"])
    assert set(description["paths"]) == {
        "/transcribe", "/v1/audio/transcriptions", "/v1/models", "/v1/models/{model}",
        "/models/{model}", "/healthz", "/readyz", "/version", "/metrics",
    }  # fmt: skip


def test_the_examples_are_true(app: FastAPI) -> None:
    """What is answered has the fields that the examples show."""
    with TestClient(app) as client:
        audio = {"file": ("speech.wav", encode_wav(make_tone(1.0)))}
        for path in ("/transcribe", "/v1/audio/transcriptions"):
            answer = client.post(path, files=audio).json()
            shown = json.dumps(app.openapi()["paths"][path]) + json.dumps(app.openapi()["components"])
            assert all(f'"{key}"' in shown for key in answer)
        example = app.openapi()["components"]["schemas"]["ModelDetails"]["examples"][0]
        assert client.get("/models/fake").json().keys() == example.keys()
