from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dinle.build.graph_tools import read_constant
from dinle.build.qdq_int8 import make_cosine_basis, unfold_first_norm, write_qdq_int8
from dinle.recognize.openvino_engine import OpenVinoEngine
from tests.build.small_graphs import LENGTHS, make_feeds, run_product, run_rows, write_product

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def measure_change(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(np.exp(one) - np.exp(other)).mean())


@pytest.mark.slow
def test_a_qdq_graph_is_near_fp32_and_keeps_the_row_law_in_both_runtimes(
    small_graph: tuple[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    fp32, qdq = small_graph[1], tmp_path / "qdq.onnx"
    write_qdq_int8(fp32, qdq, make_feeds(), threads=1)
    graph = ir.load(qdq).graph
    assert all(node.domain == "" for node in graph), "standard operators alone"
    weights = [read_constant(node.inputs[1]) for node in graph if node.op_type == "Conv"]
    assert not [weight for weight in weights if weight is not None and weight.shape[1] > 1 and weight.shape[2] > 1]
    openvino = OpenVinoEngine(qdq, 1)
    whole, rows = run_rows(fp32, LENGTHS), run_rows(openvino, LENGTHS)
    for length, exact, row, onnx_row in zip(LENGTHS, whole, rows, run_rows(qdq, LENGTHS), strict=True):
        assert 0 < measure_change(exact, row) < 0.005
        assert 0 < measure_change(exact, onnx_row) < 0.005
        alone = run_rows(openvino, (length,))[0]
        assert alone.shape == row.shape, "the padding to a step of lengths gives no frames"
        # bfloat16, where the processor has it, rounds the sums of another shape otherwise
        assert measure_change(alone, row) < 0.002
        assert (alone.argmax(-1) == row.argmax(-1)).mean() > 0.95


def test_outliers_are_added_in_fp32(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((2, 50, 256)).astype(np.float32)
    x[..., [3, 100]] *= 300
    weight = random.standard_normal((256, 32)).astype(np.float32)
    write_product(tmp_path / "fp32.onnx", weight)
    write_qdq_int8(tmp_path / "fp32.onnx", tmp_path / "qdq.onnx", [{"x": x}])
    expected, found = run_product(tmp_path / "fp32.onnx", x), run_product(tmp_path / "qdq.onnx", x)
    ordinary = x.copy()
    ordinary[..., [3, 100]] = 0
    assert 0 < np.abs(found - expected).mean() / np.abs(ordinary @ weight).mean() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("small_graph", ["wav2vec2-group"], indirect=True)
def test_the_norm_of_the_first_convolution_is_unfolded(small_graph: tuple[str, Path], tmp_path: Path) -> None:
    fp32, unfolded = small_graph[1], tmp_path / "unfolded.onnx"
    model = ir.load(fp32)
    before = sum(node.op_type == "Conv" for node in model.graph)
    assert unfold_first_norm(model.graph) == 1
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    assert sum(node.op_type == "Conv" for node in model.graph) == before + 1
    ir.save(model, unfolded)
    for whole, row in zip(*(run_rows(path, LENGTHS) for path in (fp32, unfolded)), strict=True):
        np.testing.assert_allclose(row, whole, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("small_graph", ["wav2vec2-group"], indirect=True)
def test_a_hum_does_not_make_nonsense_of_a_high_pass_filter(small_graph: tuple[str, Path], tmp_path: Path) -> None:
    """The variance of its output is a millionth of the sound's; without the cosine transform bfloat16 makes it negative."""
    pytest.importorskip("openvino")
    model = ir.load(small_graph[1])
    for value in model.graph.initializers.values():
        numbers = read_constant(value)
        if numbers is not None and numbers.shape == (64, 10):  # the first kernel
            value.const_value = ir.tensor(numbers - 0.999 * numbers.mean(axis=1, keepdims=True), name=value.name)
    ir.save(model, tmp_path / "fp32.onnx")
    write_qdq_int8(tmp_path / "fp32.onnx", tmp_path / "qdq.onnx", make_feeds(), threads=1)
    seconds = np.arange(16_000) / 16_000
    hum = (0.8 * np.sin(2 * np.pi * 50 * seconds)).astype(np.float32)
    hum += 0.002 * np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    log_probs, _ = OpenVinoEngine(tmp_path / "qdq.onnx", 1).run(hum[None], np.array([16_000]))
    assert np.isfinite(log_probs).all()


def test_a_cosine_basis_is_orthonormal() -> None:
    basis = make_cosine_basis(10)
    np.testing.assert_allclose(basis.T @ basis, np.eye(10), atol=1e-12)
    np.testing.assert_allclose(basis[:, 0], np.full(10, 10**-0.5))
    assert (np.diff(np.abs(np.fft.rfft(basis, axis=0)).argmax(axis=0)) >= 0).all(), "from low to high"
