from __future__ import annotations

import json
import logging
import shutil
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch

from dinle.build import export as export_module
from dinle.build.config import ExportConfig
from dinle.build.export import export, write_graph
from dinle.build.models import load_model
from dinle.build.onnx_writer import _quiet_exporter
from dinle.build.parity import ParityClip, check_parity, load_parity_clips, read_text, run_alone
from dinle.build.torch_engine import TorchEngine
from dinle.errors import BundleCorruptError, ExportError, ParityError, UsageError
from dinle.manifest import Clip, write_manifest
from dinle.recognize.bundle import Bundle, read_bundle
from dinle.recognize.engine import OnnxEngine
from dinle.recognize.vocabulary import Vocabulary
from tests.build.tiny_models import make_ctc_folder, make_whisper_ctc, make_whisper_ctc_folder
from tests.fakes import make_tone
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

KINDS = ("wav2vec2-group", "wav2vec2-layer", "whisper-ctc")
# the exporter's time grows with the nodes: one layer, and two convolutions with the published seven's shift of 320 samples
FEW_CONVOLUTIONS: dict[str, Any] = {"conv_dim": (16, 16), "conv_kernel": (40, 20), "conv_stride": (20, 16)}
PROVENANCE = {"what": "weights", "name": "tiny", "source": "random numbers", "licence": "CC0-1.0"}


class Exported(NamedTuple):
    checkpoint: Path
    bundle: Bundle


def make_checkpoint(folder: Path, kind: str) -> Path:
    if kind == "whisper-ctc":
        return make_whisper_ctc_folder(folder)
    return make_ctc_folder(folder, kind, num_hidden_layers=1, **FEW_CONVOLUTIONS)


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny checkpoint inside its bundle's folder, with provenance, exported to fp32 and int8."""
    folder = tmp_path_factory.mktemp("bundle") / request.param
    checkpoint = make_checkpoint(folder / "checkpoint", request.param)
    (checkpoint / "provenance.json").write_text(json.dumps([PROVENANCE]), encoding="utf-8")
    return Exported(checkpoint, export(ExportConfig(checkpoint_dir=str(checkpoint), onnx_dir=folder)))


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Path:
    """The front end of wav2vec2-base and a head, no layers."""
    return make_ctc_folder(tmp_path / "tiny", num_hidden_layers=0, **FEW_CONVOLUTIONS)


def make_batch(lengths: list[int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    waveforms = np.zeros((len(lengths), max(lengths)), dtype=np.float32)
    for seed, (row, length) in enumerate(zip(waveforms, lengths, strict=True)):
        row[:length] = 0.1 * np.random.default_rng(seed).standard_normal(length)
    return waveforms, np.array(lengths, dtype=np.int64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lengths", [[16_000], [1_234], [400], [50_001, 8_000, 23_457], [6_400, 6_400, 3_000, 9_999, 640]]
)
def test_the_graph_says_what_torch_says_at_sizes_unlike_the_example(exported: Exported, lengths: list[int]) -> None:
    waveforms, counts = make_batch(lengths)
    log_probs, frames = OnnxEngine(exported.bundle.paths("fp32")[0]).run(waveforms, counts)
    expected, expected_frames = TorchEngine(load_model(exported.checkpoint)).run(waveforms, counts)
    assert frames.tolist() == expected_frames.tolist()
    assert log_probs.shape == expected.shape
    for row, expected_row, count in zip(log_probs, expected, frames, strict=True):
        np.testing.assert_allclose(row[:count], expected_row[:count], atol=1e-4)  # fp32, one or two layers
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1.0, atol=1e-4)


@pytest.mark.slow
def test_the_bundle_describes_the_model_and_its_origin(exported: Exported) -> None:
    bundle, model = read_bundle(exported.bundle.folder), load_model(exported.checkpoint)
    assert (bundle.family, bundle.vocabulary) == (model.family, model.vocabulary)
    assert (bundle.frame_shift_s, bundle.frame_offset_s) == (model.frame_shift_s, model.frame_offset_s)
    assert bundle.max_seconds == model.max_seconds
    assert bundle.name == bundle.folder.name
    assert bundle.provenance == (PROVENANCE,)
    assert bundle.checkpoint_dir == exported.checkpoint
    assert bundle.gate == {"int8": {"status": "unmeasured"}}
    run = json.loads((bundle.folder / "run_export.json").read_text(encoding="utf-8"))
    assert run["results"]["parity"]["max_row_difference"] <= 1e-4
    assert "model.safetensors" in run["inputs"]
    assert not list(bundle.folder.glob(".export-*")), "the workspace is gone"


@pytest.mark.slow
def test_the_graph_keeps_its_contract(exported: Exported) -> None:
    graph = onnx.load(exported.bundle.paths("fp32")[0])
    onnx.checker.check_model(graph)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert axes["waveform"] == ["batch", "samples"]
    assert axes["lengths"] == axes["frames"] == ["batch"]
    assert axes["log_probs"][0] == "batch"
    assert isinstance(axes["log_probs"][1], str), "frames follow the samples"
    assert axes["log_probs"][2] == Vocabulary.turkish().size


@pytest.mark.slow
def test_the_graphs_tell_nothing_of_the_machine_that_made_them(exported: Exported) -> None:
    for file in exported.bundle.file_names:
        data = (exported.bundle.folder / file).read_bytes()
        assert not [word for word in (b"site-packages", b"/dinle/build/", b"stack_trace") if word in data]


def list_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the bodies inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from list_nodes(attribute.g)


def read_groups(convolution: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)


@pytest.mark.slow
def test_int8_takes_the_products_and_the_convolutions_but_the_log_mel(exported: Exported) -> None:
    fp32, int8 = (onnx.load(exported.bundle.paths(precision)[0]).graph for precision in ("fp32", "int8"))
    constants = {constant.name: list(constant.dims) for constant in fp32.initializer}
    products = sum(node.op_type == "MatMul" and node.input[1] in constants for node in fp32.node)
    assert products >= 7, "six products in a layer and the head"
    convolutions = [(constants[node.input[1]], read_groups(node)) for node in fp32.node if node.op_type == "Conv"]
    lowered = [(size, groups) for (_, channels, size), groups in convolutions if channels > 1 and size > 1]
    operators = [node.op_type for node in list_nodes(int8)]
    # a product for each tap where frames have scales of their own: between the convolutions of wav2vec2
    taps = sum(size if groups == 1 and exported.bundle.family == "ctc" else 1 for size, groups in lowered)
    assert operators.count("MatMulIntegerToFloat") == products - 1 + taps, "the head stays as it is"
    assert operators.count("Conv") == len(convolutions) - len(lowered)
    assert len(lowered) >= 2
    assert "ConvInteger" not in operators


@pytest.mark.slow
def test_int8_stays_close_to_fp32(exported: Exported) -> None:
    waveforms, lengths = make_batch([40_000, 12_345])
    (fp32, frames), (int8, _) = (
        OnnxEngine(exported.bundle.paths(precision)[0]).run(waveforms, lengths) for precision in ("fp32", "int8")
    )
    for row, expected, count in zip(int8, fp32, frames, strict=True):
        # 34 tokens share the probability: an error of a hundredth would be a third of the mean
        assert np.abs(np.exp(row[:count]) - np.exp(expected[:count])).mean() < 0.003


@pytest.mark.slow
def test_a_norm_over_padding_fails_the_export_and_leaves_the_folder_as_it_was(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what transformers does with wav2vec2-base: the group norm sees the padding of the batch
    monkeypatch.setattr(
        "dinle.build.hf_ctc.convolve_and_normalize", lambda waveform, _, conv, norm: norm(conv(waveform[:, None]))
    )
    folder = tmp_path / "bundle"
    with pytest.raises(ParityError, match=r"in a batch of .* s, .* differ by .* from the clip alone"):
        export(ExportConfig(checkpoint_dir=str(tiny_checkpoint), onnx_dir=folder))
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_branches_on_values_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_whisper_ctc()

    def branch(waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (waveform, lengths) if waveform.sum() > 0 else (-waveform, lengths)

    monkeypatch.setattr(model, "forward", branch)
    with pytest.raises(ExportError, match="cannot export this model to model.onnx, ONNX opset 18"):
        write_graph(model, tmp_path / "model.onnx")


def copy_graph_instead(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    """Let export() take a graph that was exported before: everything else in it is real, and quick."""

    def copy_graph(_model: object, path: Path, **_: Any) -> None:
        shutil.copy(graph, path)

    monkeypatch.setattr(export_module, "write_graph", copy_graph)


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["whisper-ctc"], indirect=True)
def test_a_second_export_replaces_all_of_the_first(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_graph_instead(monkeypatch, exported.bundle.paths("fp32")[0])
    folder = tmp_path / "bundle"
    config = ExportConfig(checkpoint_dir=str(exported.checkpoint), onnx_dir=folder, name="first")
    assert set(export(config).files) == {"fp32", "int8"}
    second = ExportConfig(
        checkpoint_dir=str(exported.checkpoint), onnx_dir=folder, name="second", int8=False, licence="MIT", source="us"
    )
    bundle = export(second)
    assert (bundle.name, set(bundle.files)) == ("second", {"fp32"})
    assert bundle.checkpoint is None, "the weights lie elsewhere"
    flags = {"what": "weights", "name": "checkpoint", "source": "us", "licence": "MIT"}
    assert bundle.provenance == (PROVENANCE, flags)
    assert {path.name for path in folder.iterdir()} == {"bundle.json", "model.onnx", "run_export.json"}


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["whisper-ctc"], indirect=True)
def test_a_graph_of_other_weights_fails_and_keeps_the_older_bundle(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported.bundle.folder, folder)
    model = make_whisper_ctc()
    with torch.no_grad():
        model.ctc_head.weight.mul_(1.1)
    model.save(tmp_path / "other")
    copy_graph_instead(monkeypatch, exported.bundle.paths("fp32")[0])
    with pytest.raises(ParityError, match="ONNX and torch differ by"):
        export(ExportConfig(checkpoint_dir=str(tmp_path / "other"), onnx_dir=folder))
    assert read_bundle(folder).name == exported.bundle.name


def test_weights_beyond_one_file_are_refused_before_the_work(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "MAX_GRAPH_BYTES", 1000)
    with pytest.raises(ExportError, match="500 million parameters"):
        export(ExportConfig(checkpoint_dir=str(tiny_checkpoint), onnx_dir=tmp_path / "bundle"))


@pytest.mark.parametrize("text", ["{", '[{"what": "weights"}]', "[1]"])
def test_a_broken_provenance_is_named(tiny_checkpoint: Path, tmp_path: Path, text: str) -> None:
    (tiny_checkpoint / "provenance.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleCorruptError, match=r"provenance\.json cannot be understood"):
        export(ExportConfig(checkpoint_dir=str(tiny_checkpoint), onnx_dir=tmp_path / "bundle"))


def test_the_exporters_noise_is_hidden_and_errors_are_not() -> None:
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    with _quiet_exporter():
        assert not noisy.isEnabledFor(logging.WARNING)
        assert noisy.isEnabledFor(logging.ERROR)
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", UserWarning, stacklevel=1)
    assert noisy.level == level


# --- the parity check on engines that are wrong in one way each


class LevelEngine:
    """Two tokens, 100 samples a frame; ``leak`` lets the neighbours' loudness in, ``extra`` adds frames in a batch."""

    def __init__(self, leak: float = 0.0, extra: int = 0, offset: float = 0.0) -> None:
        self.leak, self.extra, self.offset = leak, extra, offset

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        frames = lengths // 100 - (self.extra if len(lengths) > 1 else 0)
        levels = waveforms[:, : waveforms.shape[1] // 100 * 100].reshape(len(waveforms), -1, 100).mean(axis=2)
        scores = np.stack([levels, -levels], axis=2) + self.leak * np.abs(waveforms).mean()
        return (scores + self.offset).astype(np.float32), frames


READ = partial(read_text, vocabulary=Vocabulary(("<blank>", "a"), 0))


@pytest.fixture
def clips() -> list[ParityClip]:
    random = np.random.default_rng(1)
    return [
        ParityClip(f"clip {seconds}", random.standard_normal(round(16_000 * seconds)).astype(np.float32))
        for seconds in (0.5, 1.0, 2.0, 0.2)
    ]


def test_parity_holds_for_an_engine_that_keeps_the_laws(clips: list[ParityClip]) -> None:
    engine = LevelEngine()
    report = check_parity(engine, run_alone(engine, clips), clips, READ)
    assert (report.clips, report.batches) == (4, 2)
    assert report.max_row_difference == report.max_torch_difference == 0


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (LevelEngine(offset=0.01), r"clip 0\.5 \(0\.50 s\) alone: ONNX and torch differ by 0\.01"),
        (LevelEngine(offset=float("nan")), "ONNX and torch differ by inf"),
        (LevelEngine(extra=1), r"in a batch of .*: \d+ frames instead of \d+"),
    ],
)
def test_parity_names_the_clip_and_the_difference(clips: list[ParityClip], engine: LevelEngine, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        check_parity(engine, run_alone(LevelEngine(), clips), clips, READ)


def test_parity_finds_a_row_that_hears_its_neighbours(clips: list[ParityClip]) -> None:
    engine = LevelEngine(leak=0.01)
    with pytest.raises(ParityError, match=r"\(.* s\) in a batch of .* s, .* s.*: log-probabilities differ by"):
        check_parity(engine, run_alone(engine, clips), clips, READ)


def test_parity_compares_texts_too(clips: list[ParityClip]) -> None:
    quiet = [ParityClip(clip.name, clip.waveform * 1e-3) for clip in clips]
    engine = LevelEngine()
    flipped = [rows[:, ::-1] for rows in run_alone(engine, quiet)]  # the other token by a hair
    with pytest.raises(ParityError, match=r"ONNX reads 'a+', torch reads 'a+'"):
        check_parity(engine, flipped, quiet, READ)


def test_without_files_the_clips_are_synthetic_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinle.build.parity._find_default_files", list)
    first, second = load_parity_clips(None), load_parity_clips(None)
    assert [round(clip.seconds, 1) for clip in first] == [0.4, 1.1, 2.7, 6.3, 3.9]
    assert all(np.array_equal(a.waveform, b.waveform) for a, b in zip(first, second, strict=True))
    assert all(clip.waveform.dtype == np.float32 and np.abs(clip.waveform).max() <= 1 for clip in first)


def test_clips_come_from_a_folder_a_manifest_or_a_file_and_fit_the_model(tmp_path: Path) -> None:
    for name, seconds in (("b.wav", 1.5), ("a.wav", 3.0)):
        (tmp_path / name).write_bytes(encode_wav(make_tone(seconds)))
    (tmp_path / "notes.txt").write_text("no sound", encoding="utf-8")
    whole = load_parity_clips(tmp_path)
    assert [(clip.name, clip.seconds) for clip in whole][-2:] == [("a.wav", 3.0), ("b.wav", 1.5)]
    assert [clip.seconds for clip in load_parity_clips(tmp_path, max_seconds=1.2)] == [0.4, 1.1, 1.2, 1.2]
    write_manifest(tmp_path / "list.jsonl", [Clip(tmp_path / "b.wav", "bir", 1.5)])
    assert [clip.seconds for clip in load_parity_clips(tmp_path / "list.jsonl")] == [0.4, 1.1, 1.5]
    assert [clip.seconds for clip in load_parity_clips(tmp_path / "a.wav")] == [0.4, 1.1, 2.7, 3.0]


def test_a_folder_without_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no sound files"):
        load_parity_clips(tmp_path)
