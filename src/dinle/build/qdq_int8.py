"""Int8 in standard operators, for any runtime: QuantizeLinear and DequantizeLinear (QDQ) around products and convolutions.

OpenVINO turns them into int8 kernels and runs convolutions of bytes fast, so nothing is lowered here. The scales are fixed,
as in :mod:`dinle.build.static_int8`: a row of a batch does not depend on its neighbours.

Shapes: B batch, T time, C channels, O output channels, K kernel size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dinle.build.activations import (
    EIGHT_BITS,
    SEVEN_BITS,
    Product,
    find_products,
    list_sources,
    observe,
    quantize_weight,
    smooth_products,
)
from dinle.build.dynamic_int8 import store_half_constants
from dinle.build.graph_tools import CHANNELS_LAST, GraphWriter, find_producer, read_constant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def write_qdq_int8(
    source: Path,
    target: Path,
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    *,
    reduce_range: bool = True,
    threads: int | None = None,
) -> None:
    """Measure a graph's activations, and quantise its products, convolutions and the scores of its attentions.

    Args:
        source: the fp32 graph of a CTC model.
        target: the file to write.
        feeds: inputs of the graph, clip by clip.
        reduce_range: 7 bits for weights.
        threads: threads of the runs.
    """
    model = ir.load(source)
    graph = model.graph
    products = [*_take_inputs(find_products(graph)), *find_convolutions(graph)]
    factors = find_attention_factors(graph)
    unfold_first_norm(graph)  # its own small products stay exact
    sources = {value.name or "": False for value in factors} | list_sources(products)
    seen = observe(model, sources, feeds, threads)
    smooth_products(graph, products, seen)
    rounded: dict[str, ir.Value] = {}
    for product in products:
        name = product.source.name or ""
        if name not in rounded:
            scale, zero = seen[name].choose_range()
            rounded[name] = _round(graph, product.source, scale, np.uint8(zero))
        outliers = seen[name].find_outliers() if product.by_channel else []
        _quantize(graph, product, rounded[name], outliers, SEVEN_BITS if reduce_range else EIGHT_BITS)
    for place, factor in enumerate(factors):
        # products of two activations are fast with signed numbers around zero alone; keys stand where weights do
        uses = [use for use in factor.uses() if use.node.op_type == "MatMul"]
        limit = SEVEN_BITS if reduce_range and place % 2 else EIGHT_BITS
        scale = max(float(seen[factor.name or ""].largest.max()), 1e-12) / limit
        value = _round(graph, factor, scale, np.int8(0))
        for use in uses:
            use.node.replace_input_with(use.idx, value)
    RemoveUnusedNodesPass()(model)
    graph.sort()
    proto = ir.to_proto(model)
    store_half_constants(proto)
    onnx.save(proto, target)


def unfold_first_norm(graph: ir.Graph) -> int:
    """Undo the folding of :func:`dinle.build.front_end.convolve_and_normalize`, in place; how often it was found.

    The folded product has a weight for each row of the batch, and comes out channels first. Where convolutions are fast, a
    convolution of the centred windows with the plain kernel and a gain for each row are faster (OpenVINO, wav2vec2-base,
    10 s: 12 ms against 21).

    Windows and kernel go through a cosine transform (orthonormal, so that their products stay the same): neighbouring
    samples are nearly equal, and the variance of a high-pass filter would be a small difference of large numbers, which
    a runtime without double precision gets wrong.
    """
    return sum(_unfold(graph, node) for node in list(graph) if node.op_type == "MatMul")


def _unfold(graph: ir.Graph, product: ir.Node) -> bool:
    # gain * (w . (x - mean)) + bias, written as [gain * w, bias - (gain * w) . mean] . [x, 1]
    folded = find_producer(product.inputs[0], "Cast")
    joined = find_producer(folded.inputs[0], "Concat") if folded is not None else None
    scaled = find_producer(joined.inputs[0], "Mul") if joined is not None else None
    shift = find_producer(joined.inputs[1], "Sub") if joined is not None else None
    kernel = read_constant(scaled.inputs[0]) if scaled is not None else None
    bias = read_constant(shift.inputs[0]) if shift is not None else None
    if scaled is None or kernel is None or bias is None:
        return False
    basis = make_cosine_basis(kernel.shape[1])
    centred = _rotate_covariance(graph, scaled.inputs[1], kernel, basis)
    if centred is None:
        return False
    writer = GraphWriter(graph, product)
    plain = writer.add("Cast", centred, to=ir.DataType.FLOAT)
    windows = writer.add(
        "Transpose", writer.add("MatMul", plain, writer.constant(basis, np.float32)), perm=CHANNELS_LAST
    )
    heard = writer.add("Conv", windows, writer.constant((kernel @ basis)[:, :, None], np.float32))
    gained = writer.add("Mul", heard, writer.add("Cast", scaled.inputs[1], to=ir.DataType.FLOAT))
    out = writer.add("Add", gained, writer.constant(bias.reshape(1, -1, 1), np.float32))
    product.outputs[0].replace_all_uses_with(out)
    return True


def _rotate_covariance(
    graph: ir.Graph, gain: ir.Value | None, kernel: NDArray[Any], basis: NDArray[np.float64]
) -> ir.Value | None:
    """Let the gain come from the transformed windows and kernel, in place; the centred windows (B, T, K), if it does."""
    steps, value = [], gain
    while value is not None and (node := value.producer()) is not None:
        turned = find_producer(node.inputs[0], "Transpose") if node.op_type == "MatMul" else None
        if turned is not None and turned.inputs[0] is node.inputs[1]:
            break
        steps.append(node)
        value = next((each for each in node.inputs if each is not None and read_constant(each) is None), None)
    else:
        return None
    centred = node.inputs[1]
    writer = GraphWriter(graph, node)
    rotated = writer.add("MatMul", centred, writer.constant(basis))
    node.replace_input_with(0, writer.add("Transpose", rotated, perm=CHANNELS_LAST))
    node.replace_input_with(1, rotated)
    for step in steps:
        for place, each in enumerate(step.inputs):
            numbers = read_constant(each)
            if numbers is not None and numbers.shape == kernel.shape:
                step.replace_input_with(place, writer.constant(numbers @ basis))
    return centred


def make_cosine_basis(size: int) -> NDArray[np.float64]:
    """The orthonormal cosine transform DCT-II (Ahmed et al., 1974) as a matrix (K, K), a basis vector a column."""
    places = (2 * np.arange(size)[:, None] + 1) * np.arange(size) * np.pi / (2 * size)
    basis: NDArray[np.float64] = np.cos(places) * np.sqrt(np.where(np.arange(size) == 0, 1, 2) / size)
    return basis


def _take_inputs(products: Iterable[Product]) -> list[Product]:
    """Products whose activation is what goes into them, however it came there."""
    taken = []
    for product in products:
        value = product.node.inputs[0]
        if value is not None:
            taken.append(replace(product, source=value, path=()))
    return taken


def find_convolutions(graph: ir.Graph) -> list[Product]:
    """Convolutions over time with constant weights; not the log-mel's, of one channel or of width one."""
    found = []
    for node in graph:
        source, weight = node.inputs[:2] if node.op_type == "Conv" else (None, None)
        values = read_constant(weight)
        if source is None or weight is None or values is None or values.ndim != len(CHANNELS_LAST):
            continue
        if values.shape[1] > 1 and values.shape[2] > 1:
            found.append(Product(node, weight, values, source))
    return found


def find_attention_factors(graph: ir.Graph) -> list[ir.Value]:
    """The queries and keys of attentions, in turns: both factors of the products whose softmax is taken."""
    found: list[ir.Value] = []
    for softmax in [node for node in graph if node.op_type == "Softmax"]:
        value = softmax.inputs[0]
        while value is not None and (node := value.producer()) is not None and node.op_type in ("Add", "Mul", "Div"):
            value = node.inputs[0]
        product = find_producer(value, "MatMul")
        if product is not None and all(read_constant(factor) is None for factor in product.inputs):
            found += [factor for factor in product.inputs if factor is not None]
    return found


def _round(graph: ir.Graph, value: ir.Value, scale: float, zero: np.uint8 | np.int8) -> ir.Value:
    """An activation as 8 bits hold it."""
    writer = GraphWriter(graph, next(iter(value.uses())).node)
    parameters = writer.constant(scale, np.float32), writer.constant(zero)
    return writer.add("DequantizeLinear", writer.add("QuantizeLinear", value, *parameters), *parameters)


def _quantize(graph: ir.Graph, product: Product, activation: ir.Value, outliers: list[int], limit: int) -> None:
    node = product.node
    is_conv = node.op_type == "Conv"
    values = read_constant(node.inputs[1])  # smoothing may have changed it
    values = (product.values if values is None else values).copy()
    exact = values[outliers]
    values[outliers] = 0  # they are clipped in the activation, and their part is added in fp32
    writer = GraphWriter(graph, node)
    # a convolution's (O, C, K) as a matrix (C * K, O), and back
    numbers, scales = quantize_weight(values.reshape(len(values), -1).T if is_conv else values, limit)
    numbers = numbers.T.reshape(values.shape) if is_conv else numbers
    stored = writer.constant(numbers, name=f"{product.weight.name}_int8")
    zeros = writer.constant(np.zeros(len(scales), dtype=np.int8))
    weight = writer.add("DequantizeLinear", stored, writer.constant(scales), zeros, axis=0 if is_conv else 1)
    node.replace_input_with(0, activation)
    node.replace_input_with(1, weight)
    if outliers:
        columns = writer.add("Gather", product.source, writer.integers(*outliers), axis=-1)
        added = writer.add("MatMul", columns, writer.constant(exact))
        out = writer.add("Add", writer.add("MatMul", activation, weight), added)
        node.outputs[0].replace_all_uses_with(out, replace_graph_outputs=True)
