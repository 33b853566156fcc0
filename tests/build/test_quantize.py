from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dinle.build import quantize as quantize_module
from dinle.build.config import QuantizeConfig
from dinle.build.gate import Verdict
from dinle.build.quantize import drop_precision, quantize, sum_bytes
from dinle.errors import PrecisionUnavailableError, QualityGateError
from dinle.manifest import Clip, write_manifest
from dinle.measure.wer import Edits, Interval, PooledCounts
from dinle.recognize.bundle import DEFAULT_BUNDLE, Bundle, read_bundle, write_bundle
from dinle.recognize.load import load
from dinle.recognize.vocabulary import Vocabulary
from tests.graphs import CTC_BUNDLE, ROOT, save_level_graph, spell_levels
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ("bir iki üç", "dört", "beş altı yedi", "sekiz dokuz", "on")


# --- the stage and its gate


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle that reads texts off the loudness of its sound; it holds no product, so int8 is exactly fp32."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    save_level_graph(folder / "model.onnx")
    return write_bundle(
        Bundle(
            folder=folder,
            name="levels",
            family="ctc",
            files={"fp32": ("model.onnx",)},
            vocabulary=Vocabulary.turkish(),
            frame_shift_s=0.02,
            speech_only=False,  # no detector takes levels for speech
        )
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    clips = []
    for number, text in enumerate(TEXTS * 2):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(encode_wav(spell_levels(text), subtype="FLOAT"))
        clips.append(Clip(path, text, 1.0, split="test"))
    write_manifest(tmp_path / "manifest.jsonl", clips)
    return tmp_path / "manifest.jsonl"


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the quantiser make a graph that hears every level a tenth too high."""

    def write_damaged(source: Path, target: Path, *_: Any, **__: Any) -> None:
        model = onnx.load(source)
        for constant in model.graph.initializer:
            if constant.name == "hundred":
                constant.CopyFrom(numpy_helper.from_array(np.array(110, dtype=np.float32), "hundred"))
        onnx.save(model, target)

    monkeypatch.setattr(quantize_module, "write_static_int8", write_damaged)


def test_without_a_manifest_the_gate_is_unmeasured(bundle: Bundle) -> None:
    made = quantize(QuantizeConfig(bundle_dir=bundle.folder))
    assert made == read_bundle(bundle.folder)
    assert made.files == {"fp32": ("model.onnx",), "int8": ("model_int8.onnx",)}
    assert made.gate == {"int8": {"status": "unmeasured"}}
    run = json.loads((bundle.folder / "run_quantize.json").read_text(encoding="utf-8"))
    assert run["results"]["bytes"]["int8"] == made.paths("int8")[0].stat().st_size


def test_int8_without_loss_passes_with_its_figures(bundle: Bundle, manifest: Path) -> None:
    made = quantize(QuantizeConfig(bundle_dir=bundle.folder, manifest=manifest, split="test"))
    gate = made.gate["int8"]
    assert (gate["status"], gate["clips"], gate["normalizer"]) == ("passed", 10, "tr")
    assert gate["wer"] == {"fp32": 0.0, "int8": 0.0}
    assert gate["wer_loss_interval"] == [0.0, 0.0]
    assert load(bundle.folder).transcribe(manifest.parent / "0.wav").text == TEXTS[0]


@pytest.mark.usefixtures("damage")
def test_int8_that_loses_is_refused_kept_and_not_loaded(bundle: Bundle, manifest: Path) -> None:
    with pytest.raises(QualityGateError, match=r"int8 loses \d+\.\d+ points of WER on 10 clips .* serve fp32"):
        quantize(QuantizeConfig(bundle_dir=bundle.folder, manifest=manifest, drop_fp32=True))
    refused = read_bundle(bundle.folder)
    assert refused.gate["int8"]["status"] == "refused"
    assert refused.gate["int8"]["wer"]["int8"] > 0.5
    assert (bundle.folder / "model_int8.onnx").is_file()
    with pytest.raises(PrecisionUnavailableError, match=r"refused the int8 graph .* points of WER"):
        load(bundle.folder, backend="onnx_int8")
    taken = load(bundle.folder)
    assert (taken.backend, taken.transcribe(manifest.parent / "3.wav").text) == ("onnx", TEXTS[3])
    run = json.loads((bundle.folder / "run_quantize.json").read_text(encoding="utf-8"))
    assert run["results"]["gate"]["status"] == "refused"


@pytest.mark.usefixtures("damage")
def test_a_limit_that_allows_everything_lets_it_pass(bundle: Bundle, manifest: Path) -> None:
    made = quantize(QuantizeConfig(bundle_dir=bundle.folder, manifest=manifest, max_wer_loss=10.0))
    assert made.gate["int8"]["status"] == "passed"
    assert made.gate["int8"]["wer_loss"] > 0.5


def test_a_bundle_to_ship_holds_int8_alone(bundle: Bundle, manifest: Path) -> None:
    made = quantize(QuantizeConfig(bundle_dir=bundle.folder, manifest=manifest, drop_fp32=True))
    assert (made.files, set(made.gate)) == ({"int8": ("model_int8.onnx",)}, {"int8"})
    assert read_bundle(bundle.folder) == made
    assert not (bundle.folder / "model.onnx").exists()
    with pytest.raises(PrecisionUnavailableError, match="only usable graph"):
        drop_precision(made, "int8")
    with pytest.raises(PrecisionUnavailableError, match="no fp32 graph"):
        quantize(QuantizeConfig(bundle_dir=bundle.folder))


def test_a_graph_that_serves_two_precisions_outlives_one(bundle: Bundle) -> None:
    save_level_graph(bundle.folder / "other.onnx")
    files = {"fp32": ("model.onnx", "other.onnx"), "int8": ("model.onnx",)}
    made = drop_precision(write_bundle(replace(bundle, files=files)), "fp32")
    assert made.paths("int8")[0].is_file()
    assert not (bundle.folder / "other.onnx").exists()


def make_verdict(fp32_errors: int, int8_errors: int, interval: tuple[float, float], limit: float) -> Verdict:
    fp32, int8 = (
        PooledCounts(50, 0, Edits(1000 - errors, errors), Edits(5000 - errors, errors))
        for errors in (fp32_errors, int8_errors)
    )
    return Verdict(fp32, int8, Interval(*interval), limit)


@pytest.mark.parametrize(
    ("loss", "interval", "limit", "status", "inconclusive"),
    [
        (-5, (-0.02, 0.005), 0.01, "passed", False),
        (9, (0.005, 0.009), 0.01, "passed", False),  # surely a loss, and an allowed one
        (9, (-0.002, 0.02), 0.01, "passed", True),
        (30, (0.012, 0.05), 0.01, "refused", False),
        (30, (-0.002, 0.07), 0.01, "refused", True),
        (0, (0.0, 0.0), -0.01, "refused", False),  # a limit below zero asks for an improvement
    ],
)
def test_the_limit_decides_and_the_interval_says_how_surely(
    loss: int, interval: tuple[float, float], limit: float, status: str, inconclusive: bool
) -> None:
    verdict = make_verdict(100, 100 + loss, interval, limit)
    figures = verdict.to_dict()
    assert (figures["status"], figures["inconclusive"]) == (status, inconclusive)
    assert ("reason" in figures) == (status == "refused")
    assert ("too few to tell" in verdict.describe()) == inconclusive
    assert figures["wer_loss"] == pytest.approx(loss / 1000)


# --- the bundles that travel with the project


@pytest.mark.parametrize(
    ("folder", "most_bytes"), [(CTC_BUNDLE, 26_000_000), (CTC_BUNDLE.with_name(DEFAULT_BUNDLE), 60_000_000)]
)
def test_the_shipped_bundles_are_small_judged_and_of_known_origin(
    folder: Path, most_bytes: int, tmp_path: Path
) -> None:
    shipped = read_bundle(folder)
    assert (shipped.name, set(shipped.files)) == (folder.name, {"int8"})
    assert sum_bytes(shipped.paths("int8")) <= most_bytes
    assert shipped.gate["int8"]["status"] == "passed"
    assert all(entry["licence"] not in ("", "unknown") for entry in shipped.provenance)
    assert any("whisper" in entry["name"].casefold() for entry in shipped.provenance)
    shutil.copytree(folder, tmp_path / "copy")
    assert load(tmp_path / "copy").transcribe(ROOT / "samples" / "sample.wav").text


def test_the_small_bundle_can_be_trained_on() -> None:
    checkpoint = read_bundle(CTC_BUNDLE).checkpoint_dir
    assert checkpoint is not None
    assert (checkpoint / "model.safetensors").is_file()
