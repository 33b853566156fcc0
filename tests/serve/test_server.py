"""The service as people start it: ``dinle serve``, ``uvicorn app.main:app``, ``app.asr``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import uvicorn

from app.asr import ASRService
from dinle.errors import BundleNotFoundError, UsageError
from dinle.recognize.bundle import DEFAULT_BUNDLE
from dinle.serve.config import ServeConfig
from dinle.serve.server import serve
from tests.graphs import spell_levels, write_level_bundle
from tests.serve.servers import ROOT, serve_in_process, wait_for
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path

SPEECH = encode_wav(spell_levels("günaydın"))


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_level_bundle(tmp_path / "levels").folder)


def post(url: str, audio: bytes) -> Any:
    response = httpx2.post(f"{url}/transcribe", files={"file": ("speech.wav", audio)}, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_serve_hands_its_flags_to_uvicorn(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: calls.append((app, options)))
    serve(ServeConfig(host="0.0.0.0", port=9000, model=bundle, backend="onnx"))  # noqa: S104 - nothing listens here
    app, options = calls[0]
    assert (options["host"], options["port"]) == ("0.0.0.0", 9000)  # noqa: S104
    assert app.title == "dinle"


def test_serve_says_what_is_wrong_before_anything_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: pytest.fail("it listened"))
    with pytest.raises(BundleNotFoundError, match="there is no folder"):
        serve(ServeConfig(model=str(tmp_path / "yok")))
    with pytest.raises(UsageError, match="ASR_WORKERS is 0"):
        serve(ServeConfig(workers=0))


def test_the_classic_recogniser_answers_like_the_route(bundle: str) -> None:
    answer = ASRService(bundle, "onnx").transcribe(SPEECH)
    assert answer.keys() == {"text", "inference_time"}
    assert answer["text"] == "günaydın"


@pytest.mark.slow
def test_dinle_serve_answers_and_stops_when_asked(bundle: str, tmp_path: Path) -> None:
    command = ["dinle.cli", "serve", "--port", "0", "--model", bundle]
    with serve_in_process(command, tmp_path / "log", folder=tmp_path) as (url, process):
        assert post(url, SPEECH)["text"] == "günaydın"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_uvicorn_serves_the_model_that_the_variables_name(bundle: str, tmp_path: Path) -> None:
    env = {"ASR_MODEL_DIR": bundle, "ASR_BACKEND": "onnx", "ASR_MAX_SECONDS": "2"}
    with serve_in_process(["uvicorn", "app.main:app", "--port", "0"], tmp_path / "log", env) as (url, _):
        assert post(url, SPEECH)["text"] == "günaydın"
        assert httpx2.get(f"{url}/healthz").json() == {"status": "ok", "model": "levels", "backend": "onnx"}
        long = httpx2.post(f"{url}/transcribe", files={"file": encode_wav(spell_levels("uzun " * 20))})
        assert (long.status_code, long.json()["code"]) == (413, "audio_limit")


@pytest.mark.slow
def test_uvicorn_names_a_bad_variable(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(AssertionError, match="ASR_BACKEND is 'tpu'"),
        serve_in_process(["uvicorn", "app.main:app", "--port", "0"], log, {"ASR_BACKEND": "tpu"}),
    ):
        pytest.fail("it listened")


@pytest.mark.slow
def test_with_nothing_set_the_bundled_model_serves_the_sample(tmp_path: Path) -> None:
    with serve_in_process(["uvicorn", "app.main:app", "--port", "0"], tmp_path / "log") as (url, process):
        assert httpx2.get(f"{url}/healthz").json()["model"] == DEFAULT_BUNDLE
        answer = post(url, (ROOT / "samples" / "sample.wav").read_bytes())
        assert answer.keys() == {"text", "inference_time"}
        assert len(answer["text"].split()) >= 3
        process.terminate()
        wait_for(lambda: process.poll() is not None)
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=f"--port is {port}"):
        serve(ServeConfig(port=port))
