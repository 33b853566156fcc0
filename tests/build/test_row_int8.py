from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from dinle.build.static_int8 import write_static_int8

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CHANNELS, OUTPUTS = 24, 40
SQRT2 = 2**0.5


def write_convolution(path: Path, taps: int, stride: int, *, bias: bool) -> None:
    """GELU, a convolution, GELU: the least graph that holds a layer of a feature encoder; (B, T, C) -> (B, O, T')."""
    random = np.random.default_rng(taps)
    values: dict[str, NDArray[Any]] = {
        "weight": random.standard_normal((OUTPUTS, CHANNELS, taps)), "root": np.array(SQRT2), "one": np.array(1.0),
        "half": np.array(0.5), "bias": random.standard_normal(OUTPUTS),
    }  # fmt: skip

    def gelu(name: str, out: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Div", [name, "root"], [f"{out}1"]), helper.make_node("Erf", [f"{out}1"], [f"{out}2"]),
            helper.make_node("Add", [f"{out}2", "one"], [f"{out}3"]), helper.make_node("Mul", [f"{out}3", "half"], [f"{out}4"]),
            helper.make_node("Mul", [name, f"{out}4"], [out]),
        ]  # fmt: skip

    inputs = ["heard", "weight", *(["bias"] if bias else [])]
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        *gelu("turned", "heard"),
        helper.make_node("Conv", inputs, ["convolved"], strides=[stride]),
        *gelu("convolved", "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", OUTPUTS, "U"])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def run(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return out


@pytest.mark.parametrize(("taps", "stride", "bias"), [(3, 2, False), (2, 2, True), (5, 1, False)])
def test_quiet_frames_are_heard_beside_loud_ones(tmp_path: Path, taps: int, stride: int, bias: bool) -> None:
    """Every frame is rounded by its own size: one scale for all would leave nothing of frames a hundred times smaller."""
    x = np.random.default_rng(1).standard_normal((2, 101, CHANNELS)).astype(np.float32)
    x[:, :50] *= 100
    write_convolution(tmp_path / "fp32.onnx", taps, stride, bias=bias)
    write_static_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [{"x": x}], reduce_range=False)
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("Conv")) == (taps, 0)
    exact, rounded = run(tmp_path / "fp32.onnx", x), run(tmp_path / "int8.onnx", x)
    assert exact.shape == rounded.shape
    for frames in (slice(0, 40 // stride), slice(-40 // stride, None)):
        change = np.abs(rounded[..., frames] - exact[..., frames]).mean() / np.abs(exact[..., frames]).mean()
        assert 0 < change < 0.02
    np.testing.assert_allclose(run(tmp_path / "int8.onnx", x[:1]), rounded[:1], atol=1e-5 * np.abs(exact).max())
