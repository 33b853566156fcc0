"""``GET /models/{model}``: what is told of a bundle, loaded or not, and of a model that has none."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from dinle.errors import BundleCorruptError
from dinle.recognize.bundle import BUNDLE_FILE, DEFAULT_BUNDLE, hash_file, read_bundle, write_bundle
from dinle.serve.app import create_app
from dinle.serve.model_details import describe_language_model, read_facts
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer
from tests.graphs import write_level_bundle
from tests.serve.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    for name in ("levels", "other"):
        write_level_bundle(tmp_path / name, name)
    (tmp_path / "other" / "README.md").write_text("# Diğeri\n\n<script>x</script>", encoding="utf-8")
    settings = Settings(model_dir=str(tmp_path / "levels"), models_dir=str(tmp_path))
    with TestClient(create_app(settings=settings)) as client:
        yield client


def test_the_loaded_default_is_described(client: TestClient, tmp_path: Path) -> None:
    details = client.get("/models/levels").json()
    path = tmp_path / "levels" / "model_int8.onnx"
    assert details["files"][1] == {
        "precision": "int8", "file": "model_int8.onnx", "bytes": path.stat().st_size, "sha256": hash_file(path)
    }  # fmt: skip
    del details["files"]
    assert details == {
        "name": "levels", "default": True, "loaded": True, "backend": "onnx_int8", "family": "ctc", "engine": "ctc",
        "max_seconds": None, "vocabulary": 34, "text_rules": "tr", "provenance": [], "language_model": None, "scores": {},
        "gate": {}, "card_html": None,
    }  # fmt: skip


def test_a_model_is_described_without_being_loaded(client: TestClient) -> None:
    details = client.get("/models/other").json()
    assert (details["default"], details["loaded"], details["backend"]) == (False, False, None)
    assert (details["family"], details["vocabulary"]) == ("ctc", 34)
    assert details["card_html"] == "<h3>Diğeri</h3>\n<p>&lt;script&gt;x&lt;/script&gt;</p>\n"
    assert client.get("/models/other").json()["loaded"] is False


@pytest.mark.parametrize("name", ["nope", "whisper-1", "%2e%2e", "levels%2f..%2fother"])
def test_an_unknown_name_is_refused(client: TestClient, name: str) -> None:
    answer = client.get(f"/models/{name}")
    assert (answer.status_code, answer.json()["code"]) in ((404, "model_unknown"), (404, "not_found"))


def test_an_unknown_name_is_told_what_there_is(client: TestClient) -> None:
    answer = client.get("/models/nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_unknown")
    assert "choose from levels, other" in answer.json()["detail"]


LANGUAGE_MODEL: dict[str, Any] = {
    "file": "lm/letters.safetensors",
    "letters": "ab ",
    "model_weight": 0.85,
    "letter_bonus": 1.2,
}


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({}, {"hot_word_weight": 1.0, "hot_words": [], "tuned_on": None}),
        (
            {"hot_word_weight": 2.0, "hot_words": ["trendyol"], "tuned_on": {"manifests": ["a.jsonl"], "clips": 7}},
            {"hot_word_weight": 2.0, "hot_words": ["trendyol"], "tuned_on": {"manifests": ["a.jsonl"], "clips": 7}},
        ),
    ],
)
def test_the_language_model_is_described_without_being_loaded(
    client: TestClient, tmp_path: Path, stated: dict[str, Any], told: dict[str, Any]
) -> None:
    (tmp_path / "other" / "lm").mkdir()
    (tmp_path / "other" / "lm" / "letters.safetensors").write_bytes(bytes(123))
    bundle = read_bundle(tmp_path / "other")
    written = write_bundle(replace(bundle, language_model=LANGUAGE_MODEL | stated))
    details = client.get("/models/other").json()
    known = {name: value for name, value in LANGUAGE_MODEL.items() if name != "letters"}
    known |= {"bytes": 123, "sha256": hashlib.sha256(bytes(123)).hexdigest()}
    assert details["language_model"] == known | told
    assert details["loaded"] is False
    (tmp_path / "other" / "lm" / "letters.safetensors").unlink()
    described = describe_language_model(written)
    assert described is not None
    assert described.bytes is None


def test_a_language_model_that_cannot_be_understood_is_a_damaged_bundle(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path)
    with pytest.raises(BundleCorruptError, match="language model of .* cannot be understood"):
        describe_language_model(replace(bundle, language_model={"file": "lm/letters.safetensors"}))


def test_a_graph_that_is_gone_has_no_size(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "levels" / "model.onnx").unlink()
    sizes = {file["file"]: file["bytes"] for file in client.get("/models/levels").json()["files"]}
    assert sizes["model.onnx"] is None
    assert sizes["model_int8.onnx"] > 0


def test_a_damaged_bundle_is_a_fault_that_shows_no_path(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "other" / BUNDLE_FILE).write_text('{"name": "other"}')
    answer = client.get("/models/other")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert str(tmp_path) not in answer.text


def test_of_a_model_without_a_bundle_only_its_name_is_known() -> None:
    with TestClient(create_app(fake_recognizer(), Settings())) as client:
        details = client.get("/models/fake").json()
    assert {name: value for name, value in details.items() if value is not None} == {
        "name": "fake", "default": True, "loaded": True
    }  # fmt: skip


def test_the_bundled_model_tells_its_origins_and_its_gate() -> None:
    folder = ROOT / "models" / DEFAULT_BUNDLE
    facts = read_facts(None, folder)
    stated = json.loads((folder / BUNDLE_FILE).read_text(encoding="utf-8"))
    assert facts["gate"] == stated["gate"]
    assert [origin.model_dump() for origin in facts["provenance"]] == stated["provenance"]
    files = [*facts["files"], facts["language_model"]]
    assert {file.file: file.sha256 for file in files} == stated["sha256"]
    assert all(file.bytes > 1_000_000 for file in files)
    assert facts["vocabulary"] == len(stated["vocabulary"]["tokens"])
