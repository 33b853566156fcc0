from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import dinle
from dinle.errors import BundleCorruptError, BundleNotFoundError, MissingExtraError, UsageError
from dinle.recognize.bundle import DEFAULT_BUNDLE, write_bundle
from dinle.recognize.engine import OnnxEngine
from dinle.recognize.load import make_recognizer
from dinle.recognize.recognizer import CtcRecognizer
from dinle.recognize.whisper import WhisperRecognizer, WindowRules
from tests.graphs import spell_levels, write_level_bundle
from tests.recognize.writers import VOCABULARY, LevelWriter

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.config import Backend


@pytest.mark.parametrize("backend", ["onnx", "onnx_int8"])
def test_loads_a_bundle(tmp_path: Path, backend: Backend) -> None:
    write_level_bundle(tmp_path / "levels")
    recognizer = dinle.load(tmp_path / "levels", backend=backend, threads=1)
    assert (recognizer.name, recognizer.transcribe(spell_levels("dinle")).text) == ("levels", "dinle")


def test_the_bundled_model_is_the_default() -> None:
    assert dinle.load(threads=1).name == DEFAULT_BUNDLE


def test_a_bundle_with_too_many_graphs_is_refused(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "levels")
    write_bundle(replace(bundle, files={"int8": ("model.onnx", "model_int8.onnx")}))
    with pytest.raises(BundleCorruptError, match="has 2 graphs for one precision; its engine ctc takes 1"):
        dinle.load(tmp_path / "levels")


def test_a_whisper_engine_refuses_graphs_of_another_kind(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "levels")
    files = {"int8": ("model.onnx", "model_int8.onnx")}
    write_bundle(replace(bundle, engine="whisper", vocabulary=VOCABULARY, files=files))
    with pytest.raises(BundleCorruptError, match="has the inputs waveform, lengths and the outputs log_probs, frames"):
        dinle.load(tmp_path / "levels")


def test_the_vocabulary_decides_on_the_recogniser(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "levels")
    reader = make_recognizer(OnnxEngine(bundle.paths("fp32")[0]), bundle, "levels")
    assert isinstance(reader, CtcRecognizer)
    spoken = replace(bundle, vocabulary=VOCABULARY, min_window_s=8.0, tail_s=0.5, max_seconds=20.0)
    writer = make_recognizer(LevelWriter(), spoken, "levels")
    assert isinstance(writer, WhisperRecognizer)
    assert writer.window == WindowRules(min_s=8.0, tail_s=0.5, max_s=20.0, frame_shift_s=0.02)


def test_wrong_arguments_say_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'tpu'; choose from onnx_int8, onnx_int4, onnx, pytorch"):
        dinle.load(backend="tpu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="threads is 0"):
        dinle.load(threads=0)
    with pytest.raises(UsageError, match="threads is 100000; expected 1 to"):
        dinle.load(threads=100_000)
    with pytest.raises(BundleNotFoundError, match="there is no folder"):
        dinle.load(tmp_path / "yok")


def test_pytorch_needs_a_checkpoint_in_the_bundle(tmp_path: Path) -> None:
    write_level_bundle(tmp_path / "levels")
    with pytest.raises(UsageError, match="holds no torch checkpoint"):
        dinle.load(tmp_path / "levels", backend="pytorch")


def test_pytorch_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("dinle.build.torch_engine")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dinle.build.torch_engine", None)
    with pytest.raises(MissingExtraError, match=r"dinle\[train\]"):
        dinle.load(tmp_path, backend="pytorch")
