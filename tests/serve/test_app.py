from __future__ import annotations

import io
import time
import tracemalloc
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.graphs import spell_levels, write_level_bundle
from tests.sounds import encode_lossy, encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dinle.recognize.recognizer import CtcRecognizer
    from dinle.serve.batching import BatchingEngine
    from tests.fakes import FakeEngine

MAX_SECONDS = 30.0
MAX_BYTES = 1_000_000


@pytest.fixture
def recognizer() -> CtcRecognizer:
    return fake_recognizer("merhaba dünya")


@pytest.fixture
def client(recognizer: CtcRecognizer) -> Iterator[TestClient]:
    settings = Settings(backend="onnx", max_seconds=MAX_SECONDS, max_bytes=MAX_BYTES)
    with TestClient(create_app(recognizer, settings)) as client:
        yield client


def find_engine(recognizer: CtcRecognizer) -> FakeEngine:
    """The engine behind the service's own one, which counts its runs."""
    return cast("FakeEngine", cast("BatchingEngine", recognizer.engine).engine)


def post(client: TestClient, audio: bytes, name: str = "speech.wav") -> tuple[int, dict[str, Any]]:
    response = client.post("/transcribe", files={"file": (name, audio)})
    return response.status_code, response.json()


def test_the_answer_has_exactly_two_keys(client: TestClient) -> None:
    status, body = post(client, encode_wav(make_tone(1.0)))
    assert (status, body.keys()) == (200, {"text", "inference_time"})
    assert body["text"] == "merhaba dünya"
    assert isinstance(body["inference_time"], float)
    assert 0 < body["inference_time"] < 10


@pytest.mark.parametrize("suffix", ["opus", "mp3", "m4a", "webm"])
def test_takes_what_people_have(client: TestClient, suffix: str) -> None:
    assert post(client, encode_lossy(make_tone(1.0), suffix), f"speech.{suffix}")[0] == 200


def test_takes_8_khz_stereo_and_silence(client: TestClient) -> None:
    stereo = np.stack([make_tone(2.0), make_tone(2.0)], axis=1)
    assert post(client, encode_wav(stereo, 8_000))[1]["text"] == "merhaba dünya"
    assert post(client, encode_wav(np.zeros(32_000, dtype=np.float32)))[1]["text"] == ""


OPUS = encode_lossy(np.random.default_rng(0).normal(0, 0.2, 64_000).astype(np.float32), "opus")


@pytest.mark.parametrize(
    ("audio", "status", "code", "detail"),
    [
        (b"", 422, "empty_audio", "is empty (0 bytes); expected an audio file"),
        (encode_wav(np.zeros(0, dtype=np.float32)), 422, "empty_audio", "holds no samples"),
        ("Bu bir ses değil.\n".encode() * 100, 415, "audio_decode", "cannot be read as audio"),
        (OPUS[: len(OPUS) // 2], 415, "audio_decode", "expected wav, flac, ogg, opus"),
        (encode_wav(np.full(1600, np.nan, dtype=np.float32), subtype="FLOAT"), 415, "audio_decode", "not numbers"),
        (encode_wav(np.zeros(490_000, dtype=np.float32)), 413, "audio_limit", "longer than 30 s; cut it"),
    ],
    ids=["empty", "no samples", "text", "truncated opus", "NaN", "too long"],
)
def test_a_bad_file_is_refused_with_the_reason(
    client: TestClient, audio: bytes, status: int, code: str, detail: str
) -> None:
    got, body = post(client, audio)
    assert (got, body["code"]) == (status, code)
    assert detail in body["detail"]
    assert body["detail"].startswith("the audio")  # not the name of a temporary file


def test_a_file_over_the_limit_is_refused_when_the_form_still_fits(client: TestClient) -> None:
    status, body = post(client, b"\0" * (MAX_BYTES + 1))  # within the allowance for the form around it
    assert (status, body["code"]) == (413, "audio_limit")


def test_three_hours_in_a_small_file_are_refused_quickly_in_flat_memory(client: TestClient) -> None:
    rate_hz = 1_000
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, 1, format="FLAC") as flac:
        for _ in range(3 * 60):
            flac.write(np.zeros(60 * rate_hz, dtype=np.int16))
    audio = file.getvalue()
    assert len(audio) < MAX_BYTES
    tracemalloc.start()
    started = time.perf_counter()
    try:
        status, body = post(client, audio)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (status, body["code"]) == (413, "audio_limit")
    assert time.perf_counter() - started < 3.0
    # 30 s at 16 kHz in float32 are 2 MB; three hours would be 691 MB.
    assert peak < 30_000_000


def test_no_inference_for_a_recording_that_is_refused(client: TestClient, recognizer: CtcRecognizer) -> None:
    engine = find_engine(recognizer)
    engine.batches.clear()
    post(client, encode_wav(make_tone(MAX_SECONDS + 1)))
    assert engine.batches == []


@pytest.mark.parametrize(
    "form", [{}, {"data": {"file": "speech.wav"}}, {"files": {"audio": b"RIFF"}}, {"json": {"file": 1}}]
)
def test_a_missing_field_is_explained(client: TestClient, form: dict[str, Any]) -> None:
    response = client.post("/transcribe", **form)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "the form field 'file'" in response.json()["detail"]
    assert "curl -F file=@speech.wav" in response.json()["detail"]


def test_a_broken_form_is_a_bad_request(client: TestClient) -> None:
    response = client.post("/transcribe", content=b"abc", headers={"Content-Type": "multipart/form-data"})
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


def test_a_model_error_fails_its_own_request_and_shows_nothing(
    client: TestClient, recognizer: CtcRecognizer, caplog: pytest.LogCaptureFixture
) -> None:
    engine = find_engine(recognizer)
    engine.error = RuntimeError("secret path /srv/model.onnx")
    response = client.post(
        "/transcribe", files={"file": encode_wav(make_tone(1.0))}, headers={"X-Request-ID": "request-7"}
    )
    engine.error = None
    assert response.status_code == 500
    assert response.json() == {
        "detail": "the service failed on this request; its log has the reason under this request id",
        "code": "internal",
        "request_id": "request-7",
    }
    assert "request request-7: POST /transcribe failed" in caplog.text
    assert "secret path" in caplog.text
    assert post(client, encode_wav(make_tone(1.0)))[0] == 200


def test_every_answer_carries_a_request_id(client: TestClient) -> None:
    ids = {client.get(path).headers["X-Request-ID"] for path in ("/healthz", "/healthz", "/nope")}
    assert len(ids) == 3
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    forged = client.get("/nope", headers={"X-Request-ID": "a b\tERROR forged"})
    assert forged.headers["X-Request-ID"] == forged.json()["request_id"] != "a b\tERROR forged"


def test_health_names_model_and_backend(client: TestClient) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "model": "fake", "backend": "onnx"})


def test_the_documentation_is_complete(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    schema = client.get("/openapi.json").json()
    route = schema["paths"]["/transcribe"]["post"]
    assert route["responses"].keys() == {"200", *["400", "401", "404", "408", "413", "415", "422", "500", "503", "504"]}
    for status, response in route["responses"].items():
        content = response["content"]["application/json"]
        model = content["schema"]["$ref"].rpartition("/")[2]
        assert model == ("TranscribeAnswer" if status == "200" else "ErrorBody")
        if status != "200":
            assert content["example"].keys() == schema["components"]["schemas"][model]["properties"].keys()
    assert schema["components"]["schemas"]["TranscribeAnswer"]["examples"][0].keys() == {"text", "inference_time"}
    assert "HTTPValidationError" not in str(schema)


def test_the_model_is_made_and_warm_when_the_service_is_ready() -> None:
    made: list[CtcRecognizer] = []

    def make() -> CtcRecognizer:
        made.append(fake_recognizer())
        return made[-1]

    app = create_app(make, Settings())
    assert made == []
    with TestClient(app) as client:
        assert client.get("/healthz").json()["model"] == "fake"
        assert len(made) == 1
        assert find_engine(made[0]).batches == [[16_000]]


def test_the_model_of_the_settings_is_loaded(tmp_path: Path) -> None:
    write_level_bundle(tmp_path / "levels")
    with TestClient(create_app(settings=Settings(model_dir=str(tmp_path / "levels")))) as client:
        assert client.get("/healthz").json() == {"status": "ok", "model": "levels", "backend": "onnx_int8"}
        assert post(client, encode_wav(spell_levels("dinle beni")))[1]["text"] == "dinle beni"
