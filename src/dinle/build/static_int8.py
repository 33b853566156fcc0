"""Products in int8 with activation scales that are fixed beforehand: a row of a batch cannot change its neighbours.

Dynamic quantisation takes one scale for a whole tensor at run time: all rows of a batch and their padding share it, so a
transcript depends on what else is in the batch. Here the scales are measured once, on speech, and written into the graph.

Shapes: B batch, T time, C channels, O output channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dinle.build.activations import (
    EIGHT_BITS,
    SEVEN_BITS,
    Product,
    Seen,
    find_products,
    list_sources,
    observe,
    quantize_weight,
    smooth_products,
)
from dinle.build.chunking import chunk_layers
from dinle.build.dynamic_int8 import store_half_constants
from dinle.build.graph_tools import CONTRIB, GraphWriter, take_bias
from dinle.build.int4 import write_int4_product
from dinle.build.lower_convolutions import SHIFTED
from dinle.build.lowering import lower_graph
from dinle.build.row_int8 import Frames, round_frames, wants_rows, write_row_product

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def write_static_int8(
    source: Path,
    target: Path,
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    *,
    reduce_range: bool = True,
    int4: bool = False,
    threads: int | None = None,
) -> None:
    """Lower a graph, measure its activations, and quantise its products.

    Weights are signed, one scale for each output channel; activations are unsigned, one scale and zero point for each
    tensor, chosen for the least square error on the values seen. A few channels far beyond the others are multiplied in
    fp32 beside the int8 product (Dettmers et al., 2022): the upper layers of OpenAI's Whisper base have 3 to 15 of them
    among 2 048, and without this everything else there becomes zero (128 words by people: CER 24.5 % in fp32, 29.9 %
    without, 25.7 % with it). :func:`smooth_products` takes the error of that encoder's output from 13.6 to 11.1 % (7.4 %
    come from the weights) and the KL divergence of a small CTC model from 0.00125 to 0.0011.

    Args:
        source: the fp32 graph of a CTC model, or an encoder.
        target: the file to write.
        feeds: inputs of the graph, clip by clip.
        reduce_range: 7 bits for weights.
        int4: 4 bits for the weights of all products but those of convolutions, see :mod:`dinle.build.int4`.
        threads: threads of the runs.
    """
    model = ir.load(source)
    lower_graph(model)
    products = find_products(model.graph)
    if int4:
        for product in products:
            if not product.path:
                write_int4_product(model.graph, product.node, product.source, product.values)
        RemoveUnusedNodesPass()(model)
        products = find_products(model.graph)
    seen = observe(model, list_sources(products), feeds, threads)
    smooth_products(model.graph, products, seen)
    quantize_products(model, seen, limit=SEVEN_BITS if reduce_range else EIGHT_BITS)
    chunk_layers(model.graph)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    proto = ir.to_proto(model)
    store_half_constants(proto)
    onnx.save(proto, target)


def quantize_products(model: ir.Model, seen: Mapping[str, Seen], *, limit: int = SEVEN_BITS) -> int:
    """Turn each product into int8, in place; the activation is quantised once for all products that share it.

    Args:
        model: a lowered graph.
        seen: what each activation was seen to be, from :func:`observe`.
        limit: the largest number of a weight.

    Returns:
        How many products there were.
    """
    graph = model.graph
    quantised: dict[str, Activation] = {}
    frames: dict[str, Frames] = {}
    products = find_products(graph)
    for product in products:
        name = product.source.name or ""
        if wants_rows(product):
            if name not in frames:
                frames[name] = round_frames(graph, product)
            write_row_product(graph, product, frames[name], limit)
            continue
        if name not in quantised:
            quantised[name] = _quantize_source(graph, product, *seen[name].choose_range())
        outliers = seen[name].find_outliers() if product.by_channel else []
        _quantize_product(graph, product, quantised[name], outliers, limit)
    RemoveUnusedNodesPass()(model)
    graph.sort()
    return len(products)


@dataclass(frozen=True)
class Activation:
    """An activation in unsigned 8 bits."""

    numbers: ir.Value
    scale: ir.Value
    zero: ir.Value


def _quantize_source(graph: ir.Graph, product: Product, scale: float, zero: int) -> Activation:
    writer = GraphWriter(graph, (*product.path, product.node)[0])
    scale_value, zero_value = writer.constant(scale, np.float32), writer.constant(zero, np.uint8)
    numbers = writer.add("QuantizeLinear", product.source, scale_value, zero_value)
    return Activation(numbers, scale_value, zero_value)


def _quantize_product(
    graph: ir.Graph, product: Product, activation: Activation, outliers: list[int], limit: int
) -> None:
    writer = GraphWriter(graph, product.node)
    numbers = activation.numbers
    for mover in product.path:
        # silence around a clip is the number that stands for zero
        inputs = [*mover.inputs[1:2], activation.zero] if mover.op_type == "Pad" else mover.inputs[1:]
        attributes = {key: attribute.value for key, attribute in mover.attributes.items()}
        numbers = writer.add(mover.op_type, numbers, *inputs, **attributes)
    values = product.values.copy()
    values[outliers] = 0  # they are clipped here, and their part is added in fp32
    weight, scales = _store_weight(writer, replace(product, values=values), limit)
    bias, last = take_bias(product.node)
    out = writer.add(
        "MatMulIntegerToFloat", numbers, weight, activation.scale, scales, activation.zero, None, bias, domain=CONTRIB
    )
    if outliers:
        columns = writer.add("Gather", product.source, writer.integers(*outliers), axis=-1)
        out = writer.add("Add", out, writer.add("MatMul", columns, writer.constant(product.values[outliers])))
    last.outputs[0].replace_all_uses_with(out, replace_graph_outputs=True)


def _store_weight(writer: GraphWriter, product: Product, limit: int) -> tuple[ir.Value, ir.Value]:
    """The numbers and scales of a weight; shifted copies of a kernel are made when the graph is loaded, not stored."""
    name, kernel = f"{product.weight.name}_int8", product.weight.meta.get(SHIFTED)
    if kernel is None:
        numbers, scales = quantize_weight(product.values, limit)
        return writer.constant(numbers, name=name), writer.constant(scales)
    groups, size, channels, outputs = kernel.shape
    numbers, scales = quantize_weight(kernel.reshape(groups, size * channels, outputs), limit)
    stored = writer.constant(numbers.reshape(kernel.shape), name=name)
    copies = product.values.shape[2] // outputs
    shifted = []
    for copy in range(copies):
        pads = writer.integers(0, copy, 0, 0, 0, copies - 1 - copy, 0, 0)
        padded = writer.add("Pad", stored, pads, mode="constant")
        shifted.append(writer.add("Unsqueeze", padded, writer.integers(3)))
    whole = writer.add("Concat", *shifted, axis=3)
    flat = writer.add("Reshape", whole, writer.integers(groups, (size + copies - 1) * channels, copies * outputs))
    return flat, writer.constant(np.tile(scales, (1, copies))[:, None, :])
