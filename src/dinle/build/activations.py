"""What a graph's products take in: found, seen while the graph runs on speech, and made easier to quantise.

Shapes: C channels, O output channels, R rows of an activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from dinle.build.graph_tools import GraphWriter, find_producer, find_sole_user, read_constant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


@dataclass(frozen=True)
class Product:
    """A product with a constant weight, and where its activation comes from.

    Attributes:
        node: the MatMul, or the Conv.
        weight: its constant factor, (..., C, O), of a Conv (O, C, K).
        values: the numbers of that.
        source: the activation before it was only moved about: quantised there, bytes are moved instead of floats.
        path: the nodes between, from the source on.
    """

    node: ir.Node
    weight: ir.Value
    values: NDArray[np.float32]
    source: ir.Value
    path: tuple[ir.Node, ...] = ()

    @property
    def by_channel(self) -> bool:
        """Whether the last axis of the activation is that of its channels for certain."""
        return not self.path and self.node.op_type == "MatMul"


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


def list_sources(products: Iterable[Product]) -> dict[str, bool]:
    """The activations of products by name, and whether the channels of each are known (see :attr:`Product.by_channel`)."""
    sources: dict[str, bool] = {}
    for product in products:
        name = product.source.name or ""
        sources[name] = sources.get(name, True) and product.by_channel
    return sources


def observe(
    model: ir.Model,
    sources: Mapping[str, bool],
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    threads: int | None = None,
) -> dict[str, Seen]:
    """Look at activations while the graph runs on each of the feeds.

    Args:
        model: the graph, of standard operators or onnxruntime's.
        sources: names of the activations, see :func:`list_sources`.
        feeds: inputs of the graph, clip by clip.
        threads: threads of the runs.
    """
    if not sources:
        return {}
    proto = ir.to_proto(model)
    for name in sources:
        proto.graph.output.add().name = name
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    lot = np.random.default_rng(1)
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in sources}
    runs = list(feeds)
    for feed in runs:
        for name, tensor in zip(sources, session.run(list(sources), dict(feed)), strict=True):
            table = tensor.reshape(-1, tensor.shape[-1] if sources[name] else 1)
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
    for name in list_sources(products):
        look, heard_by = seen[name], [product for product in products if product.source.name == name]
        norm = find_producer(heard_by[0].source, "LayerNormalization")
        alone = len(list(heard_by[0].source.uses())) == len(heard_by)
        parameters = [read_constant(value) for value in norm.inputs[1:]] if norm is not None else []
        if norm is None or not alone or not all(product.by_channel for product in heard_by):
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
