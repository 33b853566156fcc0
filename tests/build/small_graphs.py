"""Tiny models as fp32 graphs, and what runs them: the tests of everything that rewrites graphs begin here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from dinle.build.export import write_graph
from dinle.build.models import load_model
from dinle.recognize.engine import Engine, OnnxEngine
from tests.build.tiny_models import make_ctc_folder, make_whisper_ctc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# wide enough to be quantised, the published shift of 320 samples in three convolutions, and positions of 16 frames
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "conv_dim": (64, 64, 64),
    "conv_kernel": (10, 3, 33),
    "conv_stride": (5, 2, 32),
}
KINDS = ("wav2vec2-group", "wav2vec2-layer", "wavlm", "whisper-ctc")
LENGTHS = (20_000, 9_000, 15_321)


def write_small_graph(folder: Path, kind: str) -> Path:
    """A tiny model's fp32 graph, as it is exported."""
    if kind == "whisper-ctc":
        model: Any = make_whisper_ctc(d_model=64, encoder_ffn_dim=96)
    else:
        model = load_model(make_ctc_folder(folder / "checkpoint", kind, **SIZES))
    write_graph(model.eval(), folder / "fp32.onnx")
    return folder / "fp32.onnx"


def make_feeds() -> Iterator[dict[str, NDArray[Any]]]:
    for length in LENGTHS:
        waveforms, lengths = make_batch((length,))
        yield {"waveform": waveforms, "lengths": lengths}


def make_batch(lengths: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    waveforms = np.zeros((len(lengths), max(lengths)), dtype=np.float32)
    for row, length in zip(waveforms, lengths, strict=True):
        row[:length] = 0.1 * np.random.default_rng(length).standard_normal(length)
    return waveforms, np.array(lengths, dtype=np.int64)


def run_rows(graph: Path | Engine, lengths: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """The valid frames of each row, heard in one batch."""
    engine = OnnxEngine(graph, 1) if isinstance(graph, Path) else graph
    log_probs, frames = engine.run(*make_batch(lengths))
    return [row[:count] for row, count in zip(log_probs, frames, strict=True)]


def write_product(path: Path, weight: NDArray[np.float32]) -> None:
    """x (B, T, C) times a weight: the least graph that holds a product."""
    channels, outputs = weight.shape
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", channels])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", outputs])]
    graph = helper.make_graph(nodes, "product", values, outs, [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def run_product(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    out: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return out
