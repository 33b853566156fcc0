from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from dinle.errors import BundleCorruptError, BundleNotFoundError, PrecisionUnavailableError
from dinle.recognize.bundle import Bundle, read_bundle, write_bundle
from dinle.recognize.vocabulary import Vocabulary
from tests.recognize.writers import VOCABULARY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "model.onnx").write_bytes(b"graph" * 100)
    (tmp_path / "model_int8.onnx").write_bytes(b"small" * 50)
    return write_bundle(
        Bundle(
            folder=tmp_path,
            name="deneme",
            family="ctc",
            files={"fp32": ("model.onnx",), "int8": ("model_int8.onnx",)},
            vocabulary=Vocabulary.turkish(),
            frame_shift_s=0.02,
            provenance=({"what": "weights", "name": "random", "source": "made in the test", "licence": "CC0-1.0"},),
            gate={"int8": {"status": "unmeasured"}},
        )
    )


def edit(bundle: Bundle, **changes: Any) -> None:
    path = bundle.folder / "bundle.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def test_reads_what_was_written(bundle: Bundle) -> None:
    assert read_bundle(bundle.folder) == bundle
    assert bundle.paths("int8") == (bundle.folder / "model_int8.onnx",)


@pytest.mark.parametrize("name", ["model.onnx", "model_int8.onnx"])
def test_one_flipped_byte_is_found_and_the_file_named(bundle: Bundle, name: str) -> None:
    path = bundle.folder / name
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleCorruptError, match=rf"{name} is not the file"):
        read_bundle(bundle.folder)


def test_a_missing_graph_is_named(bundle: Bundle) -> None:
    (bundle.folder / "model.onnx").unlink()
    with pytest.raises(BundleCorruptError, match=r"lacks model\.onnx"):
        read_bundle(bundle.folder)


def test_a_graph_without_a_hash_is_refused(bundle: Bundle) -> None:
    edit(bundle, sha256={})
    with pytest.raises(BundleCorruptError, match="no hash for"):
        read_bundle(bundle.folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "../model.onnx"])
def test_a_file_outside_is_refused(bundle: Bundle, name: str) -> None:
    edit(bundle, files={"fp32": name})
    with pytest.raises(BundleCorruptError, match="outside the bundle"):
        read_bundle(bundle.folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"format": 1, "files": [], "sha256": {}}'])
def test_an_unreadable_description_is_refused(bundle: Bundle, text: str) -> None:
    (bundle.folder / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleCorruptError, match=r"bundle\.json cannot be understood"):
        read_bundle(bundle.folder)


def test_another_format_is_refused(bundle: Bundle) -> None:
    edit(bundle, format=99)
    with pytest.raises(BundleCorruptError, match="format 99.*reads format 1 and 2"):
        read_bundle(bundle.folder)


def test_another_engine_is_refused(bundle: Bundle) -> None:
    edit(bundle, engine="transducer")
    with pytest.raises(BundleCorruptError, match="engine 'transducer'; this version of dinle has ctc and whisper"):
        read_bundle(bundle.folder)


def test_format_1_is_still_read(bundle: Bundle) -> None:
    path = bundle.folder / "bundle.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for name in ("engine", "min_window_s", "tail_s", "sentence_window_s", "sentence_tail_s"):
        del data[name]
    data |= {"format": 1, "files": {"fp32": "model.onnx", "int8": "model_int8.onnx"}}
    path.write_text(json.dumps(data), encoding="utf-8")
    assert read_bundle(bundle.folder) == bundle


@pytest.mark.parametrize("files", [{"fp32": 5}, {"fp32": [5]}, ["model.onnx"], "model.onnx", None])
def test_files_of_another_kind_are_refused(bundle: Bundle, files: Any) -> None:
    edit(bundle, files=files)
    with pytest.raises(BundleCorruptError, match=r"bundle\.json cannot be understood"):
        read_bundle(bundle.folder)


def test_a_bundle_of_two_graphs(bundle: Bundle) -> None:
    whole = replace(
        bundle, family="whisper", engine="whisper", vocabulary=VOCABULARY, min_window_s=8.0, tail_s=0.5,
        files={"fp32": ("model.onnx", "model_int8.onnx"), "int8": ("model_int8.onnx", "model.onnx")},
    )  # fmt: skip
    written = write_bundle(whole)
    assert read_bundle(bundle.folder) == written
    assert [path.name for path in written.paths("int8")] == ["model_int8.onnx", "model.onnx"]
    assert written.file_names == ["model.onnx", "model_int8.onnx"]
    edit(bundle, engine="ctc")
    with pytest.raises(BundleCorruptError, match="cannot be understood"):
        read_bundle(bundle.folder)


def test_duplicate_tokens_are_refused(bundle: Bundle) -> None:
    edit(bundle, vocabulary={"tokens": ["_", "a", "a"], "blank": 0})
    with pytest.raises(BundleCorruptError, match="'a' more than once"):
        read_bundle(bundle.folder)


def test_no_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="no folder.*dinle export"):
        read_bundle(tmp_path / "yok")
    with pytest.raises(BundleNotFoundError, match=r"has no bundle\.json"):
        read_bundle(tmp_path)


def test_a_precision_that_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(PrecisionUnavailableError, match="no int4 graph, only fp32, int8"):
        bundle.paths("int4")


def test_a_refused_precision_cannot_be_loaded(bundle: Bundle) -> None:
    edit(bundle, gate={"int8": {"status": "refused", "reason": "WER 0.20 -> 0.30"}})
    refused = read_bundle(bundle.folder)
    with pytest.raises(PrecisionUnavailableError, match=r"refused the int8 graph.*0\.20 -> 0\.30"):
        refused.paths("int8")
    assert [path.name for path in refused.paths("fp32")] == ["model.onnx"]


def test_a_bundle_is_not_written_before_its_graphs(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "bundle.json").unlink()
    with pytest.raises(BundleCorruptError, match=r"lacks model\.onnx"):
        write_bundle(bundle)
    assert not (tmp_path / "bundle.json").exists()
