from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import dinle
from dinle.commands import benchmark as benchmark_command
from dinle.errors import MissingExtraError, PrecisionUnavailableError, UsageError
from dinle.measure import backends
from dinle.measure.backends import find_models, open_model
from dinle.measure.benchmark import benchmark, find_bundle
from dinle.measure.config import BenchmarkConfig
from dinle.measure.engine_peers import quantize_plainly
from dinle.measure.precisions import list_thread_counts, rank_backends
from dinle.measure.probe import Footprint
from dinle.measure.throughput import measure_throughput
from dinle.measure.weights import find_model_files
from dinle.recognize.audio import decode_audio
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.cpu import find_cpu_kind
from dinle.recognize.recognizer import CtcRecognizer
from tests.build.small_graphs import LENGTHS, make_batch, write_small_graph
from tests.graphs import save_level_graph, write_level_bundle
from tests.measure.speech import write_clip, write_speech

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.measure.config import EnginePeer

FOOTPRINT = Footprint(import_s=1, load_s=0.5, first_s=0.1, library_memory_bytes=10**7, peak_memory_bytes=2 * 10**8)


def write_deaf_graph(path: Path) -> None:
    """A graph that hears a blank in everything."""
    save_level_graph(path)
    model = onnx.load(path)
    (hundred,) = [value for value in model.graph.initializer if value.name == "hundred"]
    hundred.CopyFrom(numpy_helper.from_array(np.array(0, dtype=np.float32), "hundred"))
    onnx.save(model, path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three precisions, one of which is deaf; a clip, and a manifest."""
    root = tmp_path_factory.mktemp("precisions")
    bundle = write_level_bundle(root / "model")
    write_deaf_graph(bundle.folder / "model_int4.onnx")
    files = {**bundle.files, "int4": ("model_int4.onnx",)}
    write_bundle(replace(bundle, files=files, choices={"another-kind": {"backends": ["onnx"]}}))
    write_clip(root / "clip.wav", "bir iki")
    write_speech(root / "data", {name: (name, name) for name in ("bir", "iki", "üç", "dört")})
    return root


def run(root: Path, **settings: Any) -> Path:
    config = BenchmarkConfig(
        model=str(root / "model"), precisions=("all",), audio_path=root / "clip.wav", runs=3, warmup=1, threads=1,
        report_path=root / "out" / "speed.md",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dinle.measure.benchmark.measure_footprint", lambda *_: FOOTPRINT)
        for module in ("benchmark", "precisions", "throughput"):
            patch.setattr(f"dinle.measure.{module}.SETTLE_S", 0.0)
        return benchmark(replace(config, **settings))


def test_all_precisions_are_measured_and_the_choice_is_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(root, manifest=root / "data" / "manifest.jsonl", threads=2)
    table = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["precisions"]
    assert sorted(table["latency"]["1"]) == sorted(table["latency"]["2"]) == ["onnx", "onnx_int4", "onnx_int8"]
    losses = {name: one["wer_loss"] for name, one in table["quality"].items()}
    assert losses == {"onnx": 0.0, "onnx_int8": 0.0, "onnx_int4": 1.0}
    assert table["quality"]["onnx_int4"]["wer_loss_interval"] == [1.0, 1.0]
    assert sorted(table["ranking"]) == ["onnx", "onnx_int8"], "what is deaf may not be chosen, however fast it is"
    choices = read_bundle(root / "model").choices
    assert choices["another-kind"] == {"backends": ["onnx"]}, "what was measured elsewhere stays"
    assert choices[find_cpu_kind()]["backends"] == table["ranking"]
    assert dinle.load(root / "model", threads=1).backend == table["ranking"][0]
    text = path.read_text(encoding="utf-8")
    for part in ("## Precisions", "`backend=auto` takes **ONNX", "+100.00 points", "## Throughput", "side by side",
                 "(speed_threads.png)", "4 clips of"):  # fmt: skip
        assert part in text
    assert path.with_name("speed_threads.png").stat().st_size < 100_000


def test_without_a_manifest_the_report_says_that_quality_is_unknown(root: Path) -> None:
    before = read_bundle(root / "model").choices
    path = run(root, write_choice=False)
    assert "what a precision loses in WER was not measured" in path.read_text(encoding="utf-8")
    assert read_bundle(root / "model").choices == before, "nothing is written when it was not asked for"


def test_a_bundle_that_cannot_be_written_is_measured_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_bundle: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dinle.measure.precisions.write_bundle", refuse)
    assert run(root).is_file()
    assert "the choice was not written" in caplog.text


def test_a_loss_needs_something_to_lose_against(root: Path, tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "model")
    write_bundle(replace(bundle, files={"int8": ("model_int8.onnx",)}))
    with pytest.raises(UsageError, match="measured against fp32, and the bundle has none"):
        run(root, model=str(tmp_path / "model"), manifest=root / "data" / "manifest.jsonl", write_choice=False)


def test_a_precision_that_is_named_must_be_there(root: Path) -> None:
    with pytest.raises(PrecisionUnavailableError, match="no int8_qdq graph"):
        find_models(BenchmarkConfig(model=str(root / "model"), precisions=("openvino",)))
    named = find_models(BenchmarkConfig(model=str(root / "model"), precisions=("onnx_int8", "onnx")))
    assert [model.backend for model in named] == ["onnx", "onnx_int8"], "the baseline first"


def test_the_command_prints_the_table_and_a_line_of_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dinle.measure.benchmark.measure_footprint", lambda *_: FOOTPRINT)
        benchmark_command(
            BenchmarkConfig(
                model=str(root / "model"), precisions=("onnx",), audio_path=root / "clip.wav", runs=1, warmup=0, threads=1,
                report_path=root / "command" / "speed.md",
            )
        )  # fmt: skip
    out = capsys.readouterr().out.splitlines()
    assert json.loads(out[-1])["choice"] == ["onnx"]


def test_thread_counts_are_one_two_and_all() -> None:
    assert [list_thread_counts(threads) for threads in (1, 2, 8)] == [[1], [1, 2], [1, 2, 8]]


def test_the_fastest_that_loses_little_comes_first() -> None:
    latency = {
        name: {"median_s": s} for name, s in (("onnx", 3.0), ("onnx_int8", 2.0), ("openvino", 1.0), ("pytorch", 0.5))
    }
    assert rank_backends(latency, {}, 0.01) == ["openvino", "onnx_int8", "onnx"], "torch is for training"
    quality = {"openvino": {"wer_loss": 0.011}, "onnx_int8": {"wer_loss": 0.01}}
    assert rank_backends(latency, quality, 0.01) == ["onnx_int8", "onnx"]


@pytest.mark.parametrize("wanted", [True, False])
def test_every_model_has_its_language_model_or_none_has(
    root: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    asked: list[bool] = []
    real = dinle.load

    def load_noted(*args: Any, **given: Any) -> Any:
        asked.append(given["language_model"])
        return real(*args, **given)

    monkeypatch.setattr(backends, "load", load_noted)
    config = BenchmarkConfig(model=str(root / "model"), precisions=("onnx", "onnx_int8"), language_model=wanted)
    models = find_models(config)
    assert [model.language_model for model in models] == [wanted] * 2
    measure_throughput(models[0], decode_audio(root / "clip.wav"), rounds=1)
    assert asked == [wanted] * 2


def test_throughput_runs_as_many_clips_by_each_policy(root: Path) -> None:
    waveform = decode_audio(root / "clip.wav")
    figures = measure_throughput(find_model_files(root / "model", "onnx"), waveform, rounds=2)
    assert figures["clips"] == max(8, os.cpu_count() or 1)
    assert [one["name"].split(",")[0] for one in figures["policies"]] == [
        "one after another", f"{os.cpu_count()} side by side", "batches of 4",
    ]  # fmt: skip
    for one in figures["policies"]:
        assert one["rtfx"] * one["median_s"] == pytest.approx(figures["clips"] * len(waveform) / 16_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peer", "package", "file", "operator"),
    [
        ("openvino-nncf", "nncf", "model_nncf.xml", b'type="FakeQuantize"'),
        ("ort-dynamic", "onnx", "model_dynamic.onnx", b"MatMulInteger"),
    ],
)
def test_a_peer_quantises_the_same_graph_and_is_heard_behind_our_decoder(
    tmp_path: Path, peer: EnginePeer, package: str, file: str, operator: bytes
) -> None:
    pytest.importorskip(package)
    graph = write_small_graph(tmp_path, "wav2vec2-group")
    made = write_level_bundle(tmp_path / "model")
    graph.rename(made.folder / "model.onnx")
    write_bundle(replace(made, files={"fp32": ("model.onnx",)}))
    files = quantize_plainly(made.folder, peer, tmp_path / "peer")
    assert (files.backend, files.stored_as, files.files[0].name) == (peer, "int8", file)
    assert operator in files.files[0].read_bytes()
    ours, theirs = open_model(str(made.folder), "onnx", 1), open_model(str(tmp_path / "peer"), peer, 1)
    assert isinstance(ours, CtcRecognizer)
    assert isinstance(theirs, CtcRecognizer)
    (exact, frames), (rounded, _) = (each.engine.run(*make_batch(LENGTHS[:1])) for each in (ours, theirs))
    change = np.abs(np.exp(exact[0, : frames[0]]) - np.exp(rounded[0, : frames[0]])).mean()
    assert 0 < change < 0.01


def test_the_peer_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_level_bundle(tmp_path / "model")
    write_bundle(replace(bundle, files={"int8": ("model_int8.onnx",)}))
    monkeypatch.setattr("dinle.measure.engine_peers.find_spec", lambda name: None if name == "nncf" else object())
    with pytest.raises(MissingExtraError, match=r"'nncf', which is not installed: pip install 'dinle\[peers\]'"):
        quantize_plainly(bundle.folder, "openvino-nncf", tmp_path)
    monkeypatch.setattr("dinle.measure.engine_peers.find_spec", lambda _name: object())
    with pytest.raises(PrecisionUnavailableError, match="no fp32 graph"):
        quantize_plainly(bundle.folder, "openvino-nncf", tmp_path)


def test_only_a_checkpoint_is_no_bundle() -> None:
    with pytest.raises(UsageError, match="only PyTorch is measured; give a bundle too"):
        find_bundle([])
