"""A whole Whisper model as a bundle: encoder and decoder against torch and transformers, int8, the gate, both backends."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from transformers import GenerationConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

import dinle
from dinle.build import export as export_module
from dinle.build.config import ExportConfig, QuantizeConfig
from dinle.build.dynamic_int8 import tie_embedding, write_dynamic_int8
from dinle.build.export import export
from dinle.build.quantize import quantize
from dinle.build.torch_engine import TorchSpeechToText, open_torch_engine
from dinle.build.whisper_export import TorchWhisperEngine, find_alignment_heads, make_vocabulary
from dinle.build.whisper_model import load_whisper
from dinle.errors import BundleCorruptError, ParityError, UsageError
from dinle.manifest import Clip, write_manifest
from dinle.measure.benchmark import benchmark
from dinle.measure.config import BenchmarkConfig
from dinle.recognize.bundle import Bundle, read_bundle, write_bundle
from dinle.recognize.load import open_graphs
from dinle.recognize.recognizer import Recognizer
from dinle.recognize.segments import Segment
from dinle.recognize.whisper import WhisperRecognizer
from dinle.recognize.whisper_engine import SHARED_AXIS, OnnxWhisperEngine
from dinle.recognize.whisper_vocabulary import WhisperVocabulary
from tests.build.tiny_models import make_whisper_speech_folder
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from dinle.config import Backend
    from dinle.recognize.whisper_engine import Step, WhisperEngine

pytestmark = pytest.mark.slow  # the exporter takes some ten seconds a graph

TOLERANCE = 1e-4  # fp32 sums in another order
LEADING_SILENCE = 400  # Whisper mirrors a window's first 12.5 ms, we hear silence before it
TEXT = (40, 3, 258, 77, 120, 9)
ALIGNMENT_HEADS = [[0, 1], [1, 2], [1, 3]]
FILES = {"fp32": ("encoder.onnx", "decoder.onnx"), "int8": ("encoder_int8.onnx", "decoder_int8.onnx")}


class Exported(NamedTuple):
    checkpoint: Path
    bundle: Bundle


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny checkpoint inside its bundle's folder, exported to fp32 and int8."""
    folder = tmp_path_factory.mktemp("bundle") / "whisper"
    checkpoint = make_whisper_speech_folder(folder / "checkpoint")
    settings: Any = GenerationConfig
    settings(alignment_heads=ALIGNMENT_HEADS).save_pretrained(checkpoint)
    (checkpoint / "preprocessor_config.json").write_text(
        json.dumps({"min_window_s": 2.0, "tail_silence_s": 0.25}), encoding="utf-8"
    )
    config = ExportConfig(checkpoint_dir=str(checkpoint), onnx_dir=folder, sentence_window_s=1.5, sentence_tail_s=0.75)
    return Exported(checkpoint, export(config))


def make_batch(*lengths: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    waveforms = np.full((len(lengths), max(lengths)), 0.3, dtype=np.float32)  # the padding must not be heard
    for seed, (row, length) in enumerate(zip(waveforms, lengths, strict=True)):
        row[:length] = 0.1 * np.random.default_rng(seed).standard_normal(length)
        row[: min(LEADING_SILENCE, length)] = 0
    return waveforms, np.array(lengths, dtype=np.int64)


def write_along(
    engine: WhisperEngine, prefix: tuple[int, ...], waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
) -> list[Step]:
    """The prefix in one step, then the tokens of TEXT one by one through the cache."""
    sound = engine.encode(waveforms, lengths)
    steps = [engine.decode(np.tile(np.array(prefix), (len(lengths), 1)), sound)]
    for token in TEXT:
        steps.append(engine.decode(np.full((len(lengths), 1), token), sound, steps[-1].cache))
    return steps


def test_the_bundle_describes_the_model(exported: Exported) -> None:
    bundle, model = read_bundle(exported.bundle.folder), load_whisper(exported.checkpoint)
    assert bundle == exported.bundle
    assert (bundle.engine, bundle.family, bundle.name, bundle.files) == ("whisper", "whisper", "whisper", FILES)
    assert (bundle.min_window_s, bundle.tail_s, bundle.max_seconds) == (2.0, 0.25, 30.0)
    assert (bundle.sentence_window_s, bundle.sentence_tail_s) == (1.5, 0.75)
    assert (bundle.frame_shift_s, bundle.text_rules) == (0.02, "written")
    assert isinstance(bundle.vocabulary, WhisperVocabulary)
    assert (bundle.vocabulary.prefix, bundle.vocabulary.end) == (model.tokens.prefix, model.tokens.end)
    assert set(model.tokens.banned) < set(bundle.vocabulary.suppressed)
    run = json.loads((bundle.folder / "run_export.json").read_text(encoding="utf-8"))
    assert run["results"]["parity"]["max_row_difference"] <= TOLERANCE
    assert run["results"]["bytes"] == sum(path.stat().st_size for path in bundle.paths("fp32"))
    assert not list(bundle.folder.glob(".export-*")), "the workspace is gone"


@pytest.mark.parametrize("field", ["sentence_window_s", "sentence_tail_s"])
@pytest.mark.parametrize("seconds", [-0.1, 15.1, float("nan")])
def test_windows_that_no_model_has_are_refused(tmp_path: Path, field: str, seconds: float) -> None:
    with pytest.raises(UsageError, match=f"{field} is {seconds:g}; expected 0 to 15 seconds"):
        export(ExportConfig(checkpoint_dir="none", onnx_dir=tmp_path, **{field: seconds}))  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [(16_000,), (1_000,), (48_000, 7_999, 20_001)])
def test_onnx_says_and_looks_as_torch_does(exported: Exported, lengths: tuple[int, ...]) -> None:
    model = load_whisper(exported.checkpoint)
    batch, prefix = make_batch(*lengths), model.tokens.prefix
    graph, torch_engine = open_graphs(exported.bundle, exported.bundle.paths("fp32"), 1), TorchWhisperEngine(model)
    assert isinstance(graph, OnnxWhisperEngine)
    steps = list(zip(write_along(graph, prefix, *batch), write_along(torch_engine, prefix, *batch), strict=True))
    for ours, theirs in steps:
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=TOLERANCE)
        np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-5)
        np.testing.assert_allclose(ours.attention.sum(axis=-1), 1, atol=1e-5)
    assert all((ours.logits.dtype, ours.logits.shape[0]) == (np.float32, len(lengths)) for ours, _ in steps)
    assert steps[-1][0].cache[0].shape[2] == len(prefix) + len(TEXT)


def test_onnx_says_what_transformers_says_over_whole_windows(exported: Exported) -> None:
    reference = WhisperForConditionalGeneration.from_pretrained(exported.checkpoint, attn_implementation="eager")
    reference.train(mode=False)
    extract: Any = WhisperFeatureExtractor
    waveforms, _ = make_batch(30 * 16_000, 30 * 16_000)
    waveforms[0, 20_000:] = 0  # a clip and its silence, and a full window
    features = extract()(list(waveforms), sampling_rate=16_000, return_tensors="pt").input_features
    prefix = load_whisper(exported.checkpoint).tokens.prefix
    steps = write_along(open_graph(exported), prefix, waveforms, np.full(2, waveforms.shape[1]))
    with torch.inference_mode():
        tokens = torch.tensor([[*prefix, *TEXT]] * 2)
        answer = reference(input_features=features, decoder_input_ids=tokens, output_attentions=True, use_cache=False)
    for place, step in enumerate(steps, start=len(prefix) - 1):
        np.testing.assert_allclose(step.logits, answer.logits[:, place].numpy(), atol=TOLERANCE)
        looked = np.mean([answer.cross_attentions[layer][:, head, place].numpy() for layer, head in ALIGNMENT_HEADS], 0)
        np.testing.assert_allclose(step.attention[:, -1], looked, atol=1e-5)


def open_graph(exported: Exported, precision: str = "fp32") -> OnnxWhisperEngine:
    engine = open_graphs(exported.bundle, exported.bundle.paths(precision), 1)
    assert isinstance(engine, OnnxWhisperEngine)
    return engine


def test_a_row_of_a_batch_equals_the_row_alone(exported: Exported) -> None:
    lengths = (33_000, 4_321, 16_000)
    waveforms, counts = make_batch(*lengths)
    engine, prefix = open_graph(exported), load_whisper(exported.checkpoint).tokens.prefix
    together = write_along(engine, prefix, waveforms, counts)
    for row, length in enumerate(lengths):
        alone = write_along(engine, prefix, waveforms[row : row + 1, :length], counts[row : row + 1])
        for one, all_rows in zip(alone, together, strict=True):
            size = one.attention.shape[-1]
            np.testing.assert_allclose(all_rows.logits[row], one.logits[0], atol=TOLERANCE)
            np.testing.assert_allclose(all_rows.attention[row, :, :size], one.attention[0], atol=1e-5)
            assert not all_rows.attention[row, :, size:].any(), "nobody looks at the padding"
    assert all(np.abs(a.logits - b.logits).max() > 1e-2 for a, b in pairwise(together)), "the decoder reads"


def test_rows_may_share_the_sound_of_one_clip(exported: Exported) -> None:
    """The beams of a clip: as if each had a copy of what was heard."""
    prefix = load_whisper(exported.checkpoint).tokens.prefix
    for engine in (open_graph(exported), open_graph(exported, "int8")):
        sound = engine.encode(*make_batch(20_000))
        tokens = np.array([prefix, [*prefix[:-1], TEXT[0]], [*prefix[:-1], TEXT[1]]])
        shared, copied = engine.decode(tokens, sound), engine.decode(tokens, sound.take([0, 0, 0]))
        for _ in range(2):
            np.testing.assert_allclose(shared.logits, copied.logits, atol=TOLERANCE)
            np.testing.assert_allclose(shared.attention, copied.attention, atol=1e-5)
            last = np.array([[TEXT[2]], [TEXT[3]], [TEXT[3]]])
            shared = engine.decode(last, sound, shared.cache)
            copied = engine.decode(last, sound.take([0, 0, 0]), copied.cache)


def test_a_decoder_of_an_older_export_gets_copies(exported: Exported, tmp_path: Path) -> None:
    encoder, decoder = exported.bundle.paths("fp32")
    model = onnx.load(decoder)
    for value in model.graph.input:
        if value.type.tensor_type.shape.dim[0].dim_param == SHARED_AXIS:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] == "tokens" and not node.attribute[-1].i:
            node.input[0] = "cross_0_key"
    onnx.save(model, tmp_path / "decoder.onnx")
    older, newer = OnnxWhisperEngine(encoder, tmp_path / "decoder.onnx", 1), open_graph(exported)
    tokens = np.array([load_whisper(exported.checkpoint).tokens.prefix] * 3)
    answers = [engine.decode(tokens, engine.encode(*make_batch(20_000))) for engine in (older, newer)]
    np.testing.assert_allclose(answers[0].logits, answers[1].logits, atol=TOLERANCE)


def test_the_cache_gives_what_reading_everything_again_gives(exported: Exported) -> None:
    engine, prefix = open_graph(exported), load_whisper(exported.checkpoint).tokens.prefix
    steps = write_along(engine, prefix, *make_batch(20_000, 9_000))
    sound = engine.encode(*make_batch(20_000, 9_000))
    whole = engine.decode(np.array([[*prefix, *TEXT]] * 2), sound)
    np.testing.assert_allclose(whole.logits, steps[-1].logits, atol=TOLERANCE)
    looked = np.concatenate([step.attention for step in steps[1:]], axis=1)
    np.testing.assert_allclose(whole.attention[:, -len(TEXT) :], looked, atol=1e-5)


# --- int8


def list_operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_int8_takes_the_products_of_both_graphs(exported: Exported) -> None:
    encoder, decoder = (list_operators(path) for path in exported.bundle.paths("int8"))
    assert encoder.count("MatMulIntegerToFloat") == 2 * 6 + 2 * 2 + 2, (
        "six products in a layer; keys and values of two decoder layers; two convolutions"
    )
    assert decoder.count("MatMulInteger") == 2 * 8 + 1, "the sound's keys and values are the encoder's; and the logits"
    assert "ConvInteger" not in encoder


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_int8_decoder_holds_its_embedding_once(exported: Exported, per_channel: bool, tmp_path: Path) -> None:
    source, target = exported.bundle.paths("fp32")[1], tmp_path / "decoder_int8.onnx"
    write_dynamic_int8(source, target, per_channel=per_channel)
    rows = exported.bundle.vocabulary.size
    large = [one for one in onnx.load(target).graph.initializer if len(one.dims) > 1 and rows in one.dims]
    assert [(list(one.dims), one.data_type) for one in large] == [([32, rows], onnx.TensorProto.INT8)]
    onnx.checker.check_model(onnx.load(target))
    assert tie_embedding(onnx.load(target)) == 0, "nothing is left to tie"


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_tied_embedding_moves_logits_by_less_than_int8_does(
    exported: Exported, per_channel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, source = exported.bundle.paths("fp32")
    write_dynamic_int8(source, tmp_path / "tied.onnx", per_channel=per_channel)
    monkeypatch.setattr("dinle.build.dynamic_int8.tie_embedding", lambda _: 0)
    write_dynamic_int8(source, tmp_path / "free.onnx", per_channel=per_channel)
    prefix, batch = load_whisper(exported.checkpoint).tokens.prefix, make_batch(20_000, 9_000)
    whole, free, tied = (
        write_along(OnnxWhisperEngine(encoder, path, 1), prefix, *batch)
        for path in (source, tmp_path / "free.onnx", tmp_path / "tied.onnx")
    )
    assert (tmp_path / "tied.onnx").stat().st_size < (tmp_path / "free.onnx").stat().st_size
    for fp32, one, other in zip(whole, free, tied, strict=True):
        rounding = np.abs(one.logits - fp32.logits).max()
        assert 0 < np.abs(other.logits - one.logits).max() < 3 * rounding
        assert np.corrcoef(other.logits.ravel(), fp32.logits.ravel())[0, 1] > 0.99


def test_a_looked_up_token_is_its_row_to_half_a_step(exported: Exported) -> None:
    graph = onnx.load(exported.bundle.paths("int8")[1])
    constants = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}
    size = exported.bundle.vocabulary.size
    (name,) = [name for name, one in constants.items() if name.endswith("_quantized") and size in one.shape]
    scale = constants[f"{name.removesuffix('_quantized')}_scale"]
    rows = load_whisper(exported.checkpoint).decoder.embed_tokens.weight.detach().numpy()
    assert (np.abs((constants[name] * scale).T - rows) <= 0.501 * scale[:, None]).all()


# --- the stages around it


def copy_graphs_instead(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    """Let export() take graphs that were exported before: everything else in it is real, and quick."""

    def copy_graphs(_model: object, folder: Path, **_: Any) -> None:
        for path in bundle.paths("fp32"):
            shutil.copy(path, folder)

    monkeypatch.setattr(export_module, "write_whisper_graphs", copy_graphs)


def test_a_second_export_replaces_all_of_the_first(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_graphs_instead(monkeypatch, exported.bundle)
    config = ExportConfig(checkpoint_dir=str(exported.checkpoint), onnx_dir=tmp_path, name="first")
    for name in ("model.onnx", "model_int8.onnx"):
        (tmp_path / name).write_bytes(b"of an earlier CTC model")
    assert export(config).files == FILES
    second = export(ExportConfig(checkpoint_dir=str(exported.checkpoint), onnx_dir=tmp_path, int8=False))
    assert (second.files, second.gate, second.checkpoint) == ({"fp32": FILES["fp32"]}, {}, None)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bundle.json", "run_export.json", "encoder.onnx", "decoder.onnx"}


def test_graphs_of_other_weights_fail_and_keep_the_older_bundle(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported.bundle.folder, folder)
    model = load_whisper(exported.checkpoint)
    with torch.no_grad():
        model.decoder.layers[1].encoder_attn.v_proj.weight.mul_(1.2)  # in the encoder's graph
    model.save(tmp_path / "other")
    copy_graphs_instead(monkeypatch, exported.bundle)
    with pytest.raises(ParityError, match="ONNX and torch differ by"):
        export(ExportConfig(checkpoint_dir=str(tmp_path / "other"), onnx_dir=folder))
    assert read_bundle(folder).files == FILES


def test_the_gate_judges_both_graphs_together(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def transcribe(self: WhisperRecognizer, *_: Any, **__: Any) -> Any:
        """A text of random weights says nothing: fp32 is given the reference, int8 another one."""
        logits = write_along(self.engine, self.vocabulary.prefix, *make_batch(16_000))[-1].logits
        seen.append(len(logits[0]))
        spoken = np.array_equal(logits, expected)
        return dinle.Transcript("bir iki" if spoken else "bir beş", (), 1.0, 0.1, "tiny")

    prefix = load_whisper(exported.checkpoint).tokens.prefix
    expected = write_along(open_graph(exported), prefix, *make_batch(16_000))[-1].logits
    folder = tmp_path / "bundle"
    shutil.copytree(exported.bundle.folder, folder)
    (tmp_path / "a.wav").write_bytes(encode_wav(make_batch(16_000)[0][0]))
    write_manifest(tmp_path / "manifest.jsonl", [Clip(tmp_path / "a.wav", "Bir, iki!", 1.0)])
    monkeypatch.setattr(Recognizer, "transcribe", transcribe)
    config = {"bundle_dir": folder, "manifest": tmp_path / "manifest.jsonl", "drop_fp32": True, "threads": 1}
    made = quantize(QuantizeConfig(**config, max_wer_loss=0.5))  # type: ignore[arg-type]
    gate = made.gate["int8"]
    assert seen == [exported.bundle.vocabulary.size] * 2
    assert (gate["status"], gate["wer"]) == ("passed", {"fp32": 0.0, "int8": 0.5})
    assert (made.files, read_bundle(folder)) == ({"int8": FILES["int8"]}, made)
    assert not (folder / "encoder.onnx").exists()
    assert not list(folder.glob("*.partial"))


def test_both_backends_recognise_speech_the_same_way(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment(make_batch(24_000)[0][0], start=16_000, speech=1.0)
    words = []
    ways: list[tuple[Path, Backend]] = [
        (exported.bundle.folder, "onnx"), (exported.bundle.folder, "pytorch"), (exported.checkpoint, "pytorch"),
    ]  # fmt: skip
    for model, backend in ways:
        recognizer = dinle.load(model, backend=backend, threads=1)
        assert isinstance(recognizer, WhisperRecognizer)
        assert recognizer.window.min_s == 2.0
        monkeypatch.setattr(type(recognizer.beam), "believe", lambda *_: True)  # random weights are sure of nothing
        words.append([(word.text, round(word.start_s, 4)) for word in recognizer.write_segments([segment])])
    assert words[0]
    assert words[0] == words[1] == words[2]
    assert all(1.0 <= start <= 2.5 for _, start in words[0])
    assert dinle.load(exported.bundle.folder, threads=1).name == "whisper"


def test_the_torch_engine_has_the_bundles_geometry(exported: Exported) -> None:
    engine = open_torch_engine(exported.checkpoint, threads=1)
    assert isinstance(engine, TorchSpeechToText)
    names = ("vocabulary", "frame_shift_s", "max_seconds", "min_window_s", "tail_s", "family")
    assert [getattr(engine, name) for name in names] == [getattr(exported.bundle, name) for name in names]


def test_a_bundle_without_its_decoder_is_refused(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.bundle.folder, tmp_path / "copy")
    half = write_bundle(replace(exported.bundle, folder=tmp_path / "copy", files={"fp32": ("encoder.onnx",)}))
    with pytest.raises(BundleCorruptError, match="has 1 graphs for one precision; its engine whisper takes 2"):
        open_graphs(half, half.paths("fp32"), 1)


# --- what the checkpoint says of itself


def test_the_heads_are_the_checkpoints_own_where_the_model_has_their_layers(exported: Exported) -> None:
    model = load_whisper(exported.checkpoint)
    assert find_alignment_heads(model) == [(0, 1), (1, 2), (1, 3)]
    model.network.generation_config.alignment_heads = [[1, 0], [7, 2]]
    assert find_alignment_heads(model) == [(1, 0)], "a list of a teacher with more layers"
    model.network.generation_config.alignment_heads = None
    assert find_alignment_heads(model) == [(1, 0), (1, 1), (1, 2), (1, 3)], "the upper half"


def test_rows_beyond_the_tokenizer_are_never_written(tmp_path: Path) -> None:
    model = load_whisper(make_whisper_speech_folder(tmp_path, vocab_size=288))
    vocabulary = make_vocabulary(model)
    assert vocabulary.size == 288
    assert set(range(model.tokens.tokenizer.get_vocab_size(), 288)) <= set(vocabulary.suppressed)


def test_signs_are_suppressed_and_bytes_of_other_signs_are_not(exported: Exported) -> None:
    vocabulary, model = exported.bundle.vocabulary, load_whisper(exported.checkpoint)
    assert isinstance(vocabulary, WhisperVocabulary)
    never = {vocabulary.tokens[index] for index in vocabulary.suppressed}
    assert {"*", "(", "]", "~"} <= never
    assert not never & {"-", "'", ".", ",", "?", "!", "%", "a", "\u0120"}
    # the notes of music and quotation marks begin with the same byte
    assert not set(model.tokens.tokenizer.encode("\u201c\u2019\u2026").ids) & set(vocabulary.suppressed)


def test_an_output_layer_of_its_own_is_used(tmp_path: Path) -> None:
    folder = make_whisper_speech_folder(tmp_path, tie_word_embeddings=False)
    model = load_whisper(folder)
    waveforms, lengths = make_batch(16_000)
    (step, *_) = write_along(TorchWhisperEngine(model), model.tokens.prefix, waveforms, lengths)
    with torch.inference_mode():
        frames = model.hear(torch.from_numpy(waveforms), torch.from_numpy(lengths))
        expected = model.decode(torch.tensor([model.tokens.prefix]), *frames)[:, -1]
    np.testing.assert_allclose(step.logits, expected.numpy(), atol=TOLERANCE)
    assert not torch.equal(model.network.proj_out.weight, model.decoder.embed_tokens.weight)


def test_a_whisper_bundle_is_benchmarked_as_a_whole(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinle.measure.benchmark.SETTLE_S", 0.0)
    folder = exported.bundle.folder
    config = BenchmarkConfig(
        checkpoint_dir=str(exported.checkpoint), onnx_path=folder, onnx_int8_path=folder / "encoder_int8.onnx", runs=2,
        warmup=1, threads=1, report_path=tmp_path / "speed.md",
    )  # fmt: skip
    report = json.loads(benchmark(config).with_suffix(".json").read_text(encoding="utf-8"))
    assert [one["backend"] for one in report["backends"]] == ["pytorch", "onnx", "onnx_int8"]
    for one, precision in zip(report["backends"][1:], ("fp32", "int8"), strict=True):
        assert one["size_bytes"] == sum(path.stat().st_size for path in exported.bundle.paths(precision))
        assert one["files"] == list(FILES[precision])
    assert all(one["peak_memory_mb"] > 0 and len(one["samples_s"]) == 2 for one in report["backends"])
