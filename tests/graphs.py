"""Small ONNX graphs with the bundle's contract, made without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dinle.recognize.bundle import Bundle, write_bundle
from dinle.recognize.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
CTC_BUNDLE = ROOT / "models" / "dinle-ctc-tr"  # the small one of the two bundled models
FRAME_SAMPLES = 320


def save_level_graph(path: Path, vocabulary_size: int = 34) -> None:
    """A graph that writes token ``k`` for a frame whose first sample is ``k / 100``, so that sound can carry text.

    Its log-probabilities fall with the square of the distance from ``k``: a row depends on its own samples alone.
    """
    nodes = [
        helper.make_node("Div", ["lengths", "frame"], ["frames"]),
        helper.make_node("Unsqueeze", ["waveform", "one"], ["rows"]),
        helper.make_node("MaxPool", ["rows"], ["first"], kernel_shape=[1], strides=[FRAME_SAMPLES]),
        helper.make_node("Squeeze", ["first", "one"], ["levels"]),
        helper.make_node("Mul", ["levels", "hundred"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "two"], ["column"]),
        helper.make_node("Sub", ["column", "tokens"], ["distance"]),
        helper.make_node("Mul", ["distance", "distance"], ["square"]),
        helper.make_node("Mul", ["square", "minus"], ["scores"]),
        helper.make_node("LogSoftmax", ["scores"], ["log_probs"], axis=2),
    ]
    constants: dict[str, NDArray[Any]] = {
        "frame": np.array(FRAME_SAMPLES, dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
        "two": np.array([2], dtype=np.int64),
        "hundred": np.array(100, dtype=np.float32),
        "tokens": np.arange(vocabulary_size, dtype=np.float32)[np.newaxis, np.newaxis],
        "minus": np.array(-5, dtype=np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "levels",
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["B", "S"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["B", "T", vocabulary_size]),
            helper.make_tensor_value_info("frames", TensorProto.INT64, ["B"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def write_level_bundle(folder: Path, name: str = "levels") -> Bundle:
    """A bundle around :func:`save_level_graph`, the same graph for both precisions."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("model.onnx", "model_int8.onnx"):
        save_level_graph(folder / file)
    return write_bundle(
        Bundle(
            folder=folder,
            name=name,
            family="ctc",
            files={"fp32": ("model.onnx",), "int8": ("model_int8.onnx",)},
            vocabulary=Vocabulary.turkish(),
            frame_shift_s=0.02,
            speech_only=False,  # no detector takes levels for speech
        )
    )


def spell_levels(text: str, frames_per_token: int = 4) -> NDArray[np.float32]:
    """Sound (S,) that :func:`save_level_graph` reads as ``text`` (a blank after each character)."""
    ids = [token for index in Vocabulary.turkish().encode(text) for token in (index, 0)]
    return (np.repeat(ids, frames_per_token * FRAME_SAMPLES) / 100).astype(np.float32)
