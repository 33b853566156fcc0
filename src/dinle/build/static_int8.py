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
from dinle.build.graph_tools import CONTRIB, GraphWriter, find_producer, find_sole_user, read_constant, take_bias
from dinle.build.int4 import write_int4_product
from dinle.build.lower_convolutions import SHIFTED
from dinle.build.lowering import lower_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


SEVEN_BITS, EIGHT_BITS = 63, 127  # without VNNI, sums of pairs of 8-bit products saturate in 16 bits (vpmaddubsw)
LEVELS = 255
SMOOTHING = 0.7  # the share of a channel's size that the weights take; 0.5 was a little worse
TINY = 1e-5
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
    seen = observe(model, products, feeds, threads)
    smooth_products(model.graph, products, seen)
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
        rows: (R, C), drawn by lot, and the extremes of each channel; (R, 1) where channels are not told apart.
    """

    rows: NDArray[np.float32]

    @property
    def largest(self) -> NDArray[np.float32]:
        """The largest magnitude of each channel (C,)."""
        largest: NDArray[np.float32] = np.abs(self.rows).max(axis=0)
        return largest

    def find_outliers(self) -> list[int]:
        """Channels whose values are far beyond those of all others: Whisper's upper layers have a few."""
        largest = self.largest
        outliers = np.flatnonzero(largest > OUTLIER_FACTOR * np.quantile(largest, ORDINARY_SHARE))
        return outliers.tolist() if len(outliers) <= MAX_OUTLIERS else []

    def choose_range(self) -> tuple[float, int]:
        """Scale and zero point for the channels that are no outliers."""
        return choose_range(np.delete(self.rows, self.find_outliers(), axis=1).reshape(-1))


def observe(
    model: ir.Model,
    products: Iterable[Product],
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    threads: int | None = None,
) -> dict[str, Seen]:
    """Look at the activations of products while the graph runs on each of the feeds; by the name of their source."""
    # what is moved before its product may have its channels on any axis: no outliers are looked for there
    by_channel: dict[str, bool] = {}
    for product in products:
        name = product.source.name or ""
        by_channel[name] = by_channel.get(name, True) and not product.path
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
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in by_channel}
    runs = list(feeds)
    for feed in runs:
        for name, tensor in zip(by_channel, session.run(list(by_channel), dict(feed)), strict=True):
            table = tensor.reshape(-1, tensor.shape[-1] if by_channel[name] else 1)
            count = min(len(table), max(1, SAMPLES // (len(runs) * table.shape[1])))
            drawn = table[lot.choice(len(table), count, replace=False)]
            rows[name] += [drawn, table.min(axis=0, keepdims=True), table.max(axis=0, keepdims=True)]
    return {name: Seen(np.concatenate(parts)) for name, parts in rows.items()}


def smooth_products(graph: ir.Graph, products: Sequence[Product], seen: dict[str, Seen]) -> int:
    """Let a layer norm give channels of like size, and the weights behind it take the difference (Xiao et al., 2023).

    A channel that is large in the activation and small in the weights is divided by ``a ** p / w ** (1 - p)``, the largest
    magnitudes of both, and its weights are multiplied by it. In place; ``seen`` too.

    Returns:
        How many norms were changed: those that nothing but products hears.
    """
    count = 0
    for name, look in list(seen.items()):
        heard_by = [product for product in products if product.source.name == name]
        norm = find_producer(heard_by[0].source, "LayerNormalization")
        alone = len(list(heard_by[0].source.uses())) == len(heard_by)
        parameters = [read_constant(value) for value in norm.inputs[1:]] if norm is not None else []
        if norm is None or not alone or any(product.path for product in heard_by):
            continue
        weights = np.max([np.abs(product.values).max(axis=1) for product in heard_by], axis=0)
        factors = np.maximum(look.largest, TINY) ** SMOOTHING / np.maximum(weights, TINY) ** (1 - SMOOTHING)
        factors = (factors / np.exp(np.log(factors).mean())).astype(np.float32)
        writer = GraphWriter(graph, norm)
        for place, parameter in enumerate(parameters, start=1):
            if parameter is not None:
                norm.replace_input_with(place, writer.constant(parameter / factors))
        for product in heard_by:
            weight = writer.constant(product.values * factors[:, None], name=f"{product.weight.name}_smoothed")
            product.node.replace_input_with(1, weight)
        seen[name] = Seen(look.rows / factors)
        count += 1
    return count


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
            quantised[name] = _quantize_source(graph, product, *seen[name].choose_range())
        outliers = seen[name].find_outliers() if not product.path else []
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
