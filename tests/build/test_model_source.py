"""The hub's side of loading, with the hub played by fakes: it cannot be reached from every machine."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from dinle.build import model_source
from dinle.build.models import load_model
from dinle.errors import BundleCorruptError, BundleNotFoundError, HubUnreachableError
from tests.build.tiny_models import make_bare_encoder_folder

if TYPE_CHECKING:
    from pathlib import Path

HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]


class FakeHub:
    """A hub with one model, whose files may be pickles with or without the bot's conversion."""

    def __init__(self, files: list[str], converted: list[str] | None = None) -> None:
        self.files, self.converted = files, converted

    def model_info(self, _: str, timeout: float) -> Any:
        assert timeout <= 10
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.files], sha="abc")

    def get_repo_discussions(self, _: str, **filters: str) -> Any:
        assert filters["author"] == "SFconvertbot"
        return [SimpleNamespace(git_reference="refs/pr/6")] if self.converted else []

    def list_repo_files(self, _: str, revision: str) -> list[str]:
        assert revision == "refs/pr/6"
        return self.converted or []


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of snapshot_download, which answers with a bare encoder's folder."""
    folder, calls = make_bare_encoder_folder(tmp_path / "cache"), list[dict[str, Any]]()

    def download(hub_id: str, **options: Any) -> str:
        calls.append({"hub_id": hub_id, **options})
        return str(folder)

    monkeypatch.setattr(model_source, "snapshot_download", download)
    return calls


def test_a_hub_model_is_downloaded_without_pickles(
    downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model_source, "HfApi", lambda: FakeHub(["config.json", "model.safetensors", "pytorch_model.bin"])
    )
    assert load_model("facebook/wav2vec2-base").family == "ctc"
    assert downloads == [
        {"hub_id": "facebook/wav2vec2-base", "revision": "abc", "allow_patterns": ["*.json", "*.safetensors"]}
    ]


def test_a_pickled_hub_model_comes_from_the_bots_conversion_or_not_at_all(
    downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_source, "HfApi", lambda: FakeHub(["pytorch_model.bin"], ["model.safetensors"]))
    load_model("facebook/wav2vec2-base")
    assert downloads[0]["revision"] == "refs/pr/6"
    monkeypatch.setattr(model_source, "HfApi", lambda: FakeHub(["pytorch_model.bin"]))
    with pytest.raises(BundleNotFoundError, match="offers no safetensors weights"):
        load_model("facebook/wav2vec2-base")


def test_an_unreachable_hub_is_told_quickly_unless_the_model_is_cached(
    downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise HTTP_ERROR("Name or service not known")

    monkeypatch.setattr(model_source, "HfApi", lambda: SimpleNamespace(model_info=fail))
    load_model("facebook/wav2vec2-base")
    assert "using the cached copy" in caplog.text
    assert downloads[0]["local_files_only"] is True

    def miss(*_: object, **__: object) -> Any:
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(model_source, "snapshot_download", miss)
    started = time.perf_counter()
    with pytest.raises(HubUnreachableError, match=r"facebook/wav2vec2-base.*give a local folder"):
        load_model("facebook/wav2vec2-base")
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("name", ["facebook/wav2vec2-base", "whisper-base", "a.b-c_d/e"])
def test_hub_ids_are_not_paths(name: str) -> None:
    assert not model_source.looks_like_path(name)


@pytest.mark.parametrize("name", ["./a", "../a/b", "/a", "~/a", "a/b/c", "a/", "a\\b", "a b"])
def test_paths_are_not_hub_ids(name: str) -> None:
    assert model_source.looks_like_path(name)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{bad", "is not readable"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', "names model-1.safetensors, which is not"),
    ],
)
def test_a_broken_index_of_shards_is_named(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(BundleCorruptError, match=message):
        model_source.list_weight_files(tmp_path)
