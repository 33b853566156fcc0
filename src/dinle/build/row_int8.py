"""Convolutions in int8 with a scale for each frame of their input.

The feature encoder of wav2vec2 has no norm between its convolutions: loud frames are a hundred times quiet ones, and one scale
for all leaves nothing of the quiet ones (a small wav2vec2 went from a WER of 26 to 62 %; with a scale for each frame: 27 %). The
layer norm behind the encoder makes all frames equally important.

A window holds several frames, so a convolution is a product for each of its taps, each with its frames' scales:
``y[t] = sum over k of s[t * stride + k] * (q[t * stride + k] . W[k])``.

Shapes: B batch, T frames, T' output frames, C channels, O output channels, K taps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from dinle.build.activations import EIGHT_BITS, Product, quantize_weight
from dinle.build.graph_tools import CONTRIB, GraphWriter, find_producer, read_integer, take_bias

LAYER = "layer"  # the note of nodes that belong together: the products of a convolution, or the rounding of frames
FRAMES, TAPS = "frames of", "taps of"
MIDDLE = 128  # the unsigned number that stands for zero
GELU_MINIMUM = 0.17  # of x * Phi(x): no value is below -0.16997


@dataclass(frozen=True)
class Frames:
    """An activation in unsigned 8 bits around :data:`MIDDLE`: ``numbers`` (B, T, C) and ``scales`` (B, T, 1)."""

    numbers: ir.Value
    scales: ir.Value


def wants_rows(product: Product) -> bool:
    """Whether a product is a convolution's, straight behind the GELU of another one."""
    moves = [node.op_type for node in product.path]
    behind_gelu = find_producer(product.source, "Gelu") is not None
    return behind_gelu and moves == ["Gather", "Reshape"] and read_integer(product.path[0], "axis", 0) == 1


def round_frames(graph: ir.Graph, product: Product) -> Frames:
    """Round the activation of a product, which is a GELU's, with a scale for each of its frames."""
    writer = GraphWriter(graph, product.path[0], note=(LAYER, f"{FRAMES} {product.source.name}"))
    source, channels = product.source, product.values.shape[0] // count_taps(product)
    largest = writer.add("ReduceMax", source, writer.integers(-1), keepdims=1)
    bounded = writer.add("Max", largest, writer.constant(GELU_MINIMUM, np.float32))
    scales = writer.add("Div", bounded, writer.constant(EIGHT_BITS, np.float32))
    flat = writer.add("Reshape", source, writer.integers(-1, channels))
    each = writer.add("Reshape", scales, writer.integers(-1))
    zeros = writer.add("Expand", writer.constant([MIDDLE], np.uint8), writer.add("Shape", each))
    rounded = writer.add("QuantizeLinear", flat, each, zeros, axis=0)
    return Frames(writer.add("Reshape", rounded, writer.add("Shape", source)), scales)


def count_taps(product: Product) -> int:
    """K, by the windows' last offset: their places are a constant (1, K) added to each start."""
    add = find_producer(product.path[0].inputs[1], "Add")
    offsets = add.inputs[1].const_value if add is not None and add.inputs[1] is not None else None
    if offsets is None:
        raise ValueError(f"the windows of {product.node.name} do not come from gather_windows")
    return int(offsets.numpy().size)


def write_row_product(graph: ir.Graph, product: Product, frames: Frames, limit: int) -> None:
    """Let products of the taps stand for the product of the windows, and for the bias behind it."""
    writer = GraphWriter(graph, product.node, note=(LAYER, f"{TAPS} {product.node.name}"))
    places, taps = product.path[0].inputs[1], count_taps(product)
    numbers, weight_scales = quantize_weight(product.values, limit)
    kernel = numbers.reshape(taps, -1, numbers.shape[1])
    one, middle = writer.constant(1.0, np.float32), writer.constant(MIDDLE, np.uint8)
    stored_scales = writer.constant(weight_scales)
    total = None
    for tap in range(taps):
        column = writer.add("Reshape", writer.add("Gather", places, writer.integers(tap), axis=1), writer.integers(-1))
        heard = writer.add("Gather", frames.numbers, column, axis=1)
        weight = writer.constant(kernel[tap], name=f"{product.weight.name}_int8_{tap}")
        part = writer.add("MatMulIntegerToFloat", heard, weight, one, stored_scales, middle, None, None, domain=CONTRIB)
        part = writer.add("Mul", part, writer.add("Gather", frames.scales, column, axis=1))
        total = part if total is None else writer.add("Add", total, part)
    bias, last = take_bias(product.node)
    if total is not None:
        out = total if bias is None else writer.add("Add", total, bias)
        last.outputs[0].replace_all_uses_with(out, replace_graph_outputs=True)
