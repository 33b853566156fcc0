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
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dinle.build.dynamic_int8 import store_half_constants
from dinle.build.graph_tools import CONTRIB, GraphWriter, find_sole_user, read_constant, take_bias
from dinle.build.int4 import write_int4_product
from dinle.build.lower_convolutions import SHIFTED
from dinle.build.lowering import lower_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


SEVEN_BITS, EIGHT_BITS = 63, 127  # without VNNI, sums of pairs of 8-bit products saturate in 16 bits (vpmaddubsw)
LEVELS = 255
SAMPLES = 200_000  # values of a tensor that its range is chosen on
OUTLIER_FACTOR = 3.0  # a channel whose largest value is so many times that of all but the top channels is an outlier
ORDINARY_SHARE = 0.98  # all but the top channels
MAX_OUTLIERS = 32  # of a tensor; more are no outliers
CLIP_STEPS = np.geomspace(0.08, 1.0, 40)  # of the range seen
MOVERS = ("Reshape", "Gather", "Pad", "Transpose")  # they move values and do not change them


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
    without, 25.7 % with it). Smoothing (Xiao et al., 2023) where a layer norm feeds products was tried and left out: on the
    bundled CTC model the KL divergence from fp32 went from 0.00125 to 0.00108, and the WER not down.

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
    seen = observe(model, products, feeds, threads)
    quantize_products(model, seen, limit=SEVEN_BITS if reduce_range else EIGHT_BITS)
    proto = ir.to_proto(model)
    store_half_constants(proto)
    onnx.save(proto, target)


@dataclass(frozen=True)
class Product:
    """A product with a constant weight, and where its activation comes from.

    Attributes:
        node: the MatMul.
        weight: its constant factor, (..., C, O).
        values: the numbers of that.
        source: the activation before it was only moved about: quantised there, bytes are moved instead of floats.
        path: the nodes between, from the source on.
    """

    node: ir.Node
    weight: ir.Value
    values: NDArray[np.float32]
    source: ir.Value
    path: tuple[ir.Node, ...]


def find_products(graph: ir.Graph) -> list[Product]:
    """The products that are worth quantising: all with a constant weight, but the head."""
    found = []
    for node in graph:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        values = read_constant(weight)
        if weight is None or values is None or values.ndim < 2 or _is_head(node):  # noqa: PLR2004
            continue
        path: list[ir.Node] = []
        value = node.inputs[0]
        while value is not None and (mover := value.producer()) is not None and mover.op_type in MOVERS:
            path.insert(0, mover)
            value = mover.inputs[0]
        if value is not None and not value.is_initializer():
            found.append(Product(node, weight, values, value, tuple(path)))
    return found


def _is_head(product: ir.Node) -> bool:
    """Whether a product gives the scores of the tokens: it is narrow, and decides the text."""
    add = find_sole_user(product.outputs[0], "Add")
    return find_sole_user((add or product).outputs[0], "LogSoftmax") is not None


@dataclass(frozen=True)
class Seen:
    """What an activation was seen to be.

    Attributes:
        values: drawn by lot, and the extremes, of each channel that is no outlier.
        outliers: channels whose values are far beyond those of all others: Whisper's upper layers have a few.
    """

    values: NDArray[np.float32]
    outliers: tuple[int, ...] = ()


def observe(
    model: ir.Model,
    products: Iterable[Product],
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    threads: int | None = None,
) -> dict[str, Seen]:
    """Look at the activations of products while the graph runs on each of the feeds; by the name of their source."""
    # what is moved before its product may have its channels on any axis: no outliers are looked for there
    by_channel = {product.source.name or "": not product.path for product in products}
    if not by_channel:
        return {}
    proto = ir.to_proto(model)
    for name in by_channel:
        proto.graph.output.add().name = name
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    lot = np.random.default_rng(1)
    drawn: dict[str, list[NDArray[np.float32]]] = {name: [] for name in by_channel}
    extremes: dict[str, list[NDArray[np.float32]]] = {name: [] for name in by_channel}
    runs = list(feeds)
    for feed in runs:
        for name, tensor in zip(by_channel, session.run(list(by_channel), dict(feed)), strict=True):
            rows = tensor.reshape(-1, tensor.shape[-1] if by_channel[name] else 1)
            count = min(len(rows), max(1, SAMPLES // (len(runs) * rows.shape[1])))
            drawn[name].append(rows[lot.choice(len(rows), count, replace=False)])
            extremes[name].append(np.stack([rows.min(axis=0), rows.max(axis=0)]))
    return {name: _sum_up(np.concatenate(drawn[name]), np.concatenate(extremes[name])) for name in by_channel}


def _sum_up(drawn: NDArray[np.float32], extremes: NDArray[np.float32]) -> Seen:
    """From rows (R, C) drawn by lot and the extremes (E, C) of each channel."""
    largest = np.abs(extremes).max(axis=0)
    outliers = np.flatnonzero(largest > OUTLIER_FACTOR * np.quantile(largest, ORDINARY_SHARE))
    if len(outliers) > MAX_OUTLIERS:
        outliers = outliers[:0]
    kept = [np.delete(part, outliers, axis=1).reshape(-1) for part in (drawn, extremes)]
    return Seen(np.concatenate(kept).astype(np.float32), tuple(int(one) for one in outliers))


def choose_range(samples: NDArray[np.float32]) -> tuple[float, int]:
    """Scale and zero point of unsigned 8 bits with the least mean square error; what lies outside is clipped."""
    low, high = min(float(samples.min()), 0.0), max(float(samples.max()), 0.0)
    best = (np.inf, 1.0, 0)
    for clip in CLIP_STEPS:
        scale = max((high - low) * clip / LEVELS, 1e-12)
        zero = int(np.clip(round(-low * clip / scale), 0, LEVELS))
        rounded = (np.clip(np.rint(samples / scale) + zero, 0, LEVELS) - zero) * scale
        error = float(np.mean(np.square(rounded - samples, dtype=np.float64)))
        if error < best[0]:
            best = (error, scale, zero)
    return best[1], best[2]


def quantize_weight(weight: NDArray[np.float32], limit: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(..., C, O) -> signed numbers up to ``limit`` and a scale for each output channel (..., O)."""
    scales = np.maximum(np.abs(weight).max(axis=-2), 1e-12) / limit
    numbers = np.rint(weight / scales[..., None, :]).astype(np.int8)
    return numbers, scales.astype(np.float32)


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
    products = find_products(graph)
    for product in products:
        name = product.source.name or ""
        if name not in quantised:
            quantised[name] = _quantize_source(graph, product, *choose_range(seen[name].values))
        outliers = seen[name].outliers if not product.path else ()
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
    graph: ir.Graph, product: Product, activation: Activation, outliers: tuple[int, ...], limit: int
) -> None:
    writer = GraphWriter(graph, product.node)
    numbers = activation.numbers
    for mover in product.path:
        # silence around a clip is the number that stands for zero
        inputs = [*mover.inputs[1:2], activation.zero] if mover.op_type == "Pad" else mover.inputs[1:]
        attributes = {key: attribute.value for key, attribute in mover.attributes.items()}
        numbers = writer.add(mover.op_type, numbers, *inputs, **attributes)
    values = product.values.copy()
    values[list(outliers)] = 0  # they are clipped here, and their part is added in fp32
    weight, scales = _store_weight(writer, replace(product, values=values), limit)
    bias, last = take_bias(product.node)
    out = writer.add(
        "MatMulIntegerToFloat", numbers, weight, activation.scale, scales, activation.zero, None, bias, domain=CONTRIB
    )
    if outliers:
        columns = writer.add("Gather", product.source, writer.integers(*outliers), axis=-1)
        out = writer.add("Add", out, writer.add("MatMul", columns, writer.constant(product.values[list(outliers)])))
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
