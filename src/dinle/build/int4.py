"""Weights in 4 bits, for size: a scale for each block of inputs of each output channel.

Shapes: C input channels, O output channels, N blocks of an output channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dinle.build.graph_tools import CONTRIB, GraphWriter, take_bias

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

BLOCK = 64  # 32 would be a little more exact, and put a bit of scale on every weight instead of half a bit
MIDDLE = 8  # what MatMulNBits takes off an unsigned number when it is given no zero points
CLIP_STEPS = np.linspace(0.7, 1.0, 7)  # of a block's largest weight
INT8_ACTIVATIONS = 4  # accuracy_level: a scale for each block of each row, so that rows do not know each other


def quantize_blocks(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(C, O) -> numbers 0 to 15 in pairs (O, N, BLOCK / 2) and scales (O, N); of each block the least square error.

    The layout is that of onnxruntime's MatMulNBits: the lower half of a byte comes first.
    """
    channels, outputs = weight.shape
    count = -(-channels // BLOCK)
    blocks = np.zeros((outputs, count * BLOCK), dtype=np.float32)
    blocks[:, :channels] = weight.T
    blocks = blocks.reshape(outputs, count, BLOCK)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
    least = np.full((outputs, count, 1), np.inf, dtype=np.float32)
    best, scales = np.zeros_like(blocks), np.ones_like(extreme)
    for clip in CLIP_STEPS:
        scale = np.where(extreme == 0, 1.0, -extreme * clip / MIDDLE).astype(np.float32)  # the extreme becomes -8
        numbers = np.clip(np.rint(blocks / scale), -MIDDLE, MIDDLE - 1)
        error = np.square(numbers * scale - blocks).sum(axis=2, keepdims=True)
        better = error < least
        least, scales = np.where(better, error, least), np.where(better, scale, scales)
        best = np.where(better, numbers, best)
    unsigned = (best + MIDDLE).astype(np.uint8)
    pairs = unsigned[..., 0::2] + np.uint8(16) * unsigned[..., 1::2]
    return pairs.astype(np.uint8), scales[..., 0].astype(np.float32)


def write_int4_product(graph: ir.Graph, product: ir.Node, source: ir.Value, weight: NDArray[np.float32]) -> None:
    """Let a MatMulNBits stand for a MatMul with a constant weight (C, O) and the bias behind it."""
    writer = GraphWriter(graph, product)
    numbers, scales = quantize_blocks(weight)
    bias, last = take_bias(product)
    out = writer.add(
        "MatMulNBits", source, writer.constant(numbers), writer.constant(scales.reshape(-1)), None, None, bias,
        domain=CONTRIB, K=weight.shape[0], N=weight.shape[1], bits=4, block_size=BLOCK, accuracy_level=INT8_ACTIVATIONS,
    )  # fmt: skip
    last.outputs[0].replace_all_uses_with(out, replace_graph_outputs=True)
