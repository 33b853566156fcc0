from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import dinle
from dinle.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    MissingExtraError,
    PrecisionUnavailableError,
    UsageError,
)
from dinle.recognize.bundle import DEFAULT_BUNDLE, write_bundle
from dinle.recognize.cpu import find_cpu_kind
from dinle.recognize.engine import OnnxEngine
from dinle.recognize.load import choose_backend, make_recognizer
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


@pytest.mark.parametrize("threads", [1, None])
def test_openvino_runs_a_bundle(tmp_path: Path, threads: int | None) -> None:
    pytest.importorskip("openvino")
    bundle = write_level_bundle(tmp_path / "levels")
    write_bundle(replace(bundle, files={"int8_qdq": ("model.onnx",)}))
    recognizer = dinle.load(tmp_path / "levels", backend="openvino", threads=threads)
    assert recognizer.transcribe(spell_levels("dinle")).text == "dinle"
    with ThreadPoolExecutor(4) as pool:
        words = ["bir", "iki", "üç", "dört", "beş", "altı"] * 3
        heard = pool.map(lambda word: recognizer.transcribe(spell_levels(word)).text, words)
        assert list(heard) == words, "a thread's buffers are its own"


def test_openvino_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_level_bundle(tmp_path / "levels")
    write_bundle(replace(bundle, files={"int8_qdq": ("model.onnx",)}))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"dinle\[openvino\]"):
        dinle.load(tmp_path / "levels", backend="openvino")


def test_openvino_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    bundle = write_level_bundle(tmp_path / "levels")
    (tmp_path / "levels" / "broken.onnx").write_bytes(b"not a graph")
    write_bundle(replace(bundle, files={"int8_qdq": ("broken.onnx",)}))
    with pytest.raises(BundleCorruptError, match=r"OpenVINO cannot read .*broken\.onnx"):
        dinle.load(tmp_path / "levels", backend="openvino")
    write_bundle(replace(bundle, engine="whisper", vocabulary=VOCABULARY, files={"int8_qdq": ("model.onnx",) * 2}))
    with pytest.raises(UsageError, match="is a Whisper model: the backend openvino runs CTC models"):
        dinle.load(tmp_path / "levels", backend="openvino")


FILES = {"fp32": ("model.onnx",), "int8": ("model_int8.onnx",), "int8_qdq": ("model.onnx",)}


@pytest.mark.parametrize(
    ("files", "gate", "measured", "expected"),
    [
        (FILES, {}, [], "onnx_int8"),
        (FILES, {}, ["openvino", "onnx_int8"], "openvino"),
        (FILES, {}, ["tpu", "onnx"], "onnx"),
        (FILES, {"int8_qdq": {"status": "refused"}}, ["openvino", "onnx"], "onnx"),
        (FILES, {"int8": {"status": "refused"}}, [], "onnx"),
        ({"fp32": ("model.onnx",)}, {}, ["openvino", "onnx_int8"], "onnx"),
    ],
)
def test_auto_takes_the_best_that_was_measured_and_can_be_loaded(
    tmp_path: Path, files: dict[str, tuple[str, ...]], gate: dict[str, Any], measured: list[str], expected: str
) -> None:
    pytest.importorskip("openvino")
    bundle = write_level_bundle(tmp_path / "levels")
    choices = {find_cpu_kind(): {"backends": measured}, "another-kind": {"backends": ["onnx_int4"]}}
    write_bundle(replace(bundle, files=files, gate=gate, choices=choices))
    recognizer = dinle.load(tmp_path / "levels", threads=1)
    assert recognizer.backend == expected
    assert recognizer.transcribe(spell_levels("dinle")).text == "dinle"


def test_auto_passes_over_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_level_bundle(tmp_path / "levels")
    choices = {find_cpu_kind(): {"backends": ["openvino", "onnx"]}}
    bundle = write_bundle(replace(bundle, files=FILES, choices=choices))
    monkeypatch.setattr(sys.modules["dinle.recognize.load"], "find_spec", lambda _name: None)
    assert choose_backend(bundle) == "onnx"
    with pytest.raises(PrecisionUnavailableError, match="no graph that can be loaded here, only int8_qdq"):
        choose_backend(replace(bundle, files={"int8_qdq": ("model.onnx",)}))


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
    spoken = replace(
        bundle, vocabulary=VOCABULARY, min_window_s=8.0, tail_s=0.5, max_seconds=20.0, sentence_window_s=5.0,
        sentence_tail_s=1.0,
    )  # fmt: skip
    writer = make_recognizer(LevelWriter(), spoken, "levels")
    assert isinstance(writer, WhisperRecognizer)
    assert writer.window == WindowRules(
        min_s=8.0, tail_s=0.5, max_s=20.0, frame_shift_s=0.02, sentence_min_s=5.0, sentence_tail_s=1.0
    )


def test_wrong_arguments_say_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'tpu'; choose from auto, onnx_int8, onnx_int4, onnx, openvino, pytorch"):
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
