from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from dinle.errors import BundleCorruptError, UsageError
from dinle.measure.weights import find_model_files, read_stored_types
from dinle.recognize.bundle import write_bundle
from dinle.run import shorten_path
from tests.graphs import write_level_bundle

if TYPE_CHECKING:
    from pathlib import Path


def write_cache(root: Path) -> Path:
    """A model as the Hugging Face cache keeps it: snapshots of links into blobs."""
    snapshot, blobs = root / "snapshots" / "0123abcd", root / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_file({"weight": np.zeros(1000, dtype=np.float16), "bias": np.zeros(10, dtype=np.float32)}, blobs / "beef")
    (blobs / "cafe").write_text('{"model_type": "wav2vec2"}')
    (snapshot / "model.safetensors").symlink_to("../../blobs/beef")
    (snapshot / "config.json").symlink_to("../../blobs/cafe")
    return snapshot


def test_a_checkpoint_in_the_cache_has_its_real_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = write_cache(tmp_path)
    monkeypatch.setattr("dinle.build.model_source.download_model", lambda _: snapshot)
    monkeypatch.chdir(tmp_path)
    files = find_model_files("someone/some-model", "pytorch")
    assert files.size_bytes == (tmp_path / "blobs" / "beef").stat().st_size > 2000
    assert (files.name, files.source, files.stored_as) == ("someone/some-model", shorten_path(snapshot), "fp16 + fp32")
    assert files.compute_hash() == hashlib.sha256((tmp_path / "blobs" / "beef").read_bytes()).hexdigest()
    assert find_model_files(snapshot, "pytorch").size_bytes == files.size_bytes


def test_shards_are_added_and_an_optimiser_is_not(tmp_path: Path) -> None:
    sizes = []
    for number in (1, 2):
        save_file({f"w{number}": np.zeros(100 * number, dtype=np.float32)}, tmp_path / f"model-{number}.safetensors")
        sizes.append((tmp_path / f"model-{number}.safetensors").stat().st_size)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}}'
    )
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "optimizer.pt").write_bytes(bytes(10_000))
    files = find_model_files(str(tmp_path), "pytorch")
    assert files.size_bytes == sum(sizes)
    assert files.name == tmp_path.name
    assert len(files.compute_hash()) == 64


def test_a_bundles_graph_is_found_by_backend(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "levels")
    files = find_model_files(bundle.folder, "onnx_int8")
    assert files.files == (bundle.folder / "model_int8.onnx",)
    assert (files.name, files.source, files.stored_as) == ("levels", str(bundle.folder), "int8")
    assert find_model_files(bundle.folder, "onnx").stored_as == "fp32"


def test_a_bundles_checkpoint_is_found(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "levels")
    with pytest.raises(UsageError, match="holds no torch checkpoint"):
        find_model_files(bundle.folder, "pytorch")
    checkpoint = bundle.folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    save_file({"w": np.zeros(10, dtype=np.float32)}, checkpoint / "model.safetensors")
    write_bundle(replace(bundle, checkpoint="checkpoint"))
    files = find_model_files(bundle.folder, "pytorch")
    assert (files.name, files.source, files.stored_as) == ("levels", str(checkpoint), "fp32")


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x04" + bytes(7) + b"nope"])
def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleCorruptError, match=r"model\.safetensors is not a safetensors file"):
        read_stored_types([tmp_path / "model.safetensors"])
