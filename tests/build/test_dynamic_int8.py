from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dinle.build.dynamic_int8 import store_half_constants, write_dynamic_int8
from dinle.recognize.engine import OnnxEngine

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def save_small_graph(path: Path, *, half: bool = True) -> dict[str, NDArray[np.float32]]:
    """A convolution and two products with the bundle's contract; the weights of an fp16 checkpoint when ``half``."""
    random = np.random.default_rng(1)
    shapes = {"kernel": (64, 1, 320), "expand": (64, 256), "contract": (256, 34)}
    weights = {name: 0.1 * random.standard_normal(shape) for name, shape in shapes.items()}
    constants: dict[str, NDArray[Any]] = {
        name: (value.astype(np.float16) if half else value).astype(np.float32) for name, value in weights.items()
    }
    scalars = {"frame": np.array(320, dtype=np.int64), "one": np.array([1], dtype=np.int64)}
    nodes = [
        helper.make_node("Div", ["lengths", "frame"], ["frames"]),
        helper.make_node("Unsqueeze", ["waveform", "one"], ["rows"]),
        helper.make_node("Conv", ["rows", "kernel"], ["channels"], strides=[320]),
        helper.make_node("Transpose", ["channels"], ["hidden"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["hidden", "expand"], ["wide"]),
        helper.make_node("Tanh", ["wide"], ["bent"]),
        helper.make_node("MatMul", ["bent", "contract"], ["scores"]),
        helper.make_node("LogSoftmax", ["scores"], ["log_probs"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["B", "S"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"]),
        ],
        [
            helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["B", "T", 34]),
            helper.make_tensor_value_info("frames", TensorProto.INT64, ["B"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in {**constants, **scalars}.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return constants


def make_noise() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    waveforms = 0.3 * np.random.default_rng(2).standard_normal((2, 16_000))
    return waveforms.astype(np.float32), np.array([16_000, 16_000])


@pytest.mark.parametrize("per_channel", [True, False])
def test_products_become_integer_and_convolutions_stay(tmp_path: Path, per_channel: bool) -> None:
    save_small_graph(tmp_path / "model.onnx")
    write_dynamic_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", per_channel=per_channel)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    operators = [node.op_type for node in graph.node]
    assert (operators.count("MatMulInteger"), operators.count("Conv")) == (2, 1)
    assert not {"MatMul", "ConvInteger"} & set(operators)
    weights = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    assert weights["expand_quantized"].dtype == np.int8
    assert weights["expand_scale"].size == (256 if per_channel else 1)
    fp32, int8 = (OnnxEngine(tmp_path / name).run(*make_noise())[0] for name in ("model.onnx", "int8.onnx"))
    assert 0 < np.abs(np.exp(fp32) - np.exp(int8)).mean() < 0.003


@pytest.mark.parametrize(("reduce_range", "largest"), [(True, 64), (False, 127)])
def test_seven_bits_leave_room_for_pairs(tmp_path: Path, reduce_range: bool, largest: int) -> None:
    save_small_graph(tmp_path / "model.onnx")
    write_dynamic_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", reduce_range=reduce_range)
    (weights,) = (
        numpy_helper.to_array(constant)
        for constant in onnx.load(tmp_path / "int8.onnx").graph.initializer
        if constant.name == "expand_quantized"
    )
    assert np.abs(weights.astype(int)).max() == largest
    # vpmaddubsw adds two products of an unsigned activation and a signed weight in 16 bits
    assert (2 * 255 * largest <= 2**15) == reduce_range


def test_fp16_storage_loses_no_bit_and_halves_what_fits(tmp_path: Path) -> None:
    constants = save_small_graph(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert store_half_constants(model) == 3
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "half.onnx")
    saved = (tmp_path / "model.onnx").stat().st_size - (tmp_path / "half.onnx").stat().st_size
    assert saved == pytest.approx(2 * sum(value.size for value in constants.values()), rel=0.05)
    whole, half = (OnnxEngine(tmp_path / name).run(*make_noise())[0] for name in ("model.onnx", "half.onnx"))
    np.testing.assert_array_equal(whole, half)


def test_constants_that_fp16_cannot_hold_stay_fp32(tmp_path: Path) -> None:
    save_small_graph(tmp_path / "model.onnx", half=False)
    assert store_half_constants(onnx.load(tmp_path / "model.onnx")) == 0


def test_the_root_logger_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_small_graph(tmp_path / "model.onnx")
    root = logging.getLogger()
    before = root.handlers[:], root.level
    write_dynamic_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert (root.handlers, root.level) == before
    assert not caplog.records
