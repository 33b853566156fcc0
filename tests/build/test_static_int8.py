from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from dinle.build.activations import find_products
from dinle.build.int4 import quantize_blocks
from dinle.build.static_int8 import write_static_int8
from tests.build.small_graphs import LENGTHS, make_feeds, run_product, run_rows, write_product

if TYPE_CHECKING:
    from pathlib import Path

SMALL = [("int8", 0.005), ("int4", 0.02)]  # the largest mean difference of probabilities; of 34 tokens, 0.03 on average


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most"), SMALL)
def test_a_small_graph_keeps_the_row_law_and_stays_near_fp32(
    small_graph: tuple[str, Path], tmp_path: Path, precision: str, most: float
) -> None:
    """The scales are fixed, or those of a row alone, so that nothing of a row depends on the batch."""
    fp32, small = small_graph[1], tmp_path / "small.onnx"
    write_static_int8(fp32, small, make_feeds(), int4=precision == "int4", threads=1)
    together = run_rows(small, LENGTHS)
    for length, row, whole in zip(LENGTHS, together, run_rows(fp32, LENGTHS), strict=True):
        alone = run_rows(small, (length,))[0]
        np.testing.assert_allclose(row, alone, atol=1e-4)
        assert (row.argmax(-1) == alone.argmax(-1)).all()
        assert 0 < np.abs(np.exp(whole) - np.exp(row)).mean() < most
    graph = ir.load(small).graph
    assert not find_products(graph), "every product is quantised"
    narrow = sum(node.op_type == "MatMulNBits" for node in graph)
    assert (narrow >= 10) == (precision == "int4"), "the products of two layers"


def test_a_few_channels_far_beyond_the_others_do_not_blind_the_product(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((2, 50, 256)).astype(np.float32)
    x[..., [3, 100]] *= 300
    weight = random.standard_normal((256, 32)).astype(np.float32)
    write_product(tmp_path / "fp32.onnx", weight)
    write_static_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [{"x": x}])
    expected, found = run_product(tmp_path / "fp32.onnx", x), run_product(tmp_path / "int8.onnx", x)
    assert "Gather" in [node.op_type for node in ir.load(tmp_path / "int8.onnx").graph]
    ordinary = x.copy()
    ordinary[..., [3, 100]] = 0
    noise = np.abs(found - expected).mean() / np.abs(ordinary @ weight).mean()
    assert noise < 0.02, "as good as if the two were not there"


def test_four_bits_are_what_the_operator_takes_them_for(tmp_path: Path) -> None:
    """Against the product with the weights unpacked; a width that fills no block, and a bias."""
    random = np.random.default_rng(1)
    weight = random.standard_normal((100, 48)).astype(np.float32)
    x = random.standard_normal((2, 7, 100)).astype(np.float32)
    pairs, scales = quantize_blocks(weight)
    assert (pairs.dtype, pairs.shape, scales.shape) == (np.uint8, (48, 2, 32), (48, 2))
    numbers = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(48, 2, 64).astype(np.float32) - 8
    unpacked = (numbers * scales[..., None]).reshape(48, 128)[:, :100].T
    assert np.abs(unpacked - weight).mean() < 0.12, "normal numbers in steps of about a third"
    write_product(tmp_path / "fp32.onnx", weight)
    write_static_int8(tmp_path / "fp32.onnx", tmp_path / "int4.onnx", [{"x": x}], int4=True)
    np.testing.assert_allclose(run_product(tmp_path / "int4.onnx", x), x @ unpacked, atol=0.3)  # int8 activations
