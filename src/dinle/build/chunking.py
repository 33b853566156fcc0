"""Long layers in chunks of rows: what passes between a product and the next bytes stays in the processor's cache.

The feature encoder's first layers have 32 000 and 16 000 rows for ten seconds of sound. As a whole, a layer writes 65 MB of
fp32, reads them for the GELU, and again to round them; and onnxruntime's int8 product is a fourth slower on so many rows than
on a thousand. Here a layer is a Scan over chunks of its rows, from its taps to the rounded frames.

Shapes: B batch, T rows of a layer, N chunks, R rows of a chunk, K window, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from dinle.build.graph_tools import GraphWriter, find_producer, make_name, read_constant, read_integer
from dinle.build.row_int8 import FRAMES, LAYER, TAPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Measured on 16 000 rows of 1 536 bytes (AVX-512 VNNI, 1 and 2 threads): 79 and 39 ms, as a whole 105 and 52; 250 to 2 000
# are within a tenth of each other.
MAX_ROWS = 1000
CHUNKS_BEHIND_ROWS = (1, 0, 2, 3)
ROW_BY_ROW = ("Add", "Mul", "LayerNormalization", "Gelu")


def chunk_layers(graph: ir.Graph) -> int:
    """Let the layers of the feature encoder be scanned in chunks, in place; how many there were.

    A layer begins with the products of a convolution's taps (see :mod:`dinle.build.row_int8`), or with a product of two
    computed factors (the first convolution, whose weights hold a row's norm), and ends where its frames are rounded.
    """
    groups: dict[str, list[ir.Node]] = {}
    for node in graph:
        if LAYER in node.meta:
            groups.setdefault(node.meta[LAYER], []).append(node)
    starts = [nodes for name, nodes in groups.items() if name.startswith(TAPS)]
    starts += [[node] for node in graph if _begins_product(node)]
    layers = [_follow(start, groups) for start in starts]
    for layer in layers:
        if layer:
            _scan(graph, layer)
    return sum(bool(layer) for layer in layers)


def _begins_product(node: ir.Node) -> bool:
    computed = node.op_type == "MatMul" and all(read_constant(factor) is None for factor in node.inputs)
    return computed and [use.node.op_type for use in _list_uses(node)] == ["Gelu"]


def _follow(start: list[ir.Node], groups: Mapping[str, list[ir.Node]]) -> list[ir.Node]:
    """The nodes of a layer, those that round its frames last; empty where anything else hears what is between."""
    layer = list(start)
    while uses := _list_uses(layer[-1]):
        names = {use.node.meta.get(LAYER) for use in uses}
        name = names.pop()
        if not names and name is not None and name.startswith(FRAMES):
            return [*layer, *groups[name]]
        node = uses[0].node
        others = [value for value in node.inputs[1:] if value is not None]
        if len(uses) > 1 or uses[0].idx != 0 or any(read_constant(value) is None for value in others):
            return []
        if node.op_type not in ROW_BY_ROW:
            return []
        layer.append(node)
    return []


def _list_uses(node: ir.Node) -> list[Any]:
    """Who takes a node's output, but for those who count its rows: they can count those of the layer's output."""
    return [use for use in node.outputs[0].uses() if not _counts_rows(use.node)]


def _counts_rows(node: ir.Node) -> bool:
    return node.op_type == "Shape" and (read_integer(node, "start", 0), read_integer(node, "end", 0)) == (1, 2)


def _read_windows(places: ir.Value | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Count, stride (a constant) and offsets (a constant (1, K)) behind the places of windows."""
    add = find_producer(places, "Add")
    column = find_producer(add.inputs[0], "Unsqueeze") if add is not None else None
    starts = find_producer(column.inputs[0], "Mul") if column is not None else None
    numbers = find_producer(starts.inputs[0], "Range") if starts is not None else None
    if add is None or starts is None or numbers is None:
        return None
    count, stride, offsets = numbers.inputs[1], starts.inputs[1], add.inputs[1]
    return None if count is None or stride is None or offsets is None else (count, stride, offsets)


def _scan(graph: ir.Graph, layer: list[ir.Node]) -> None:
    first = layer[0]
    writer = GraphWriter(graph, first)
    windows = _read_windows(first.inputs[0])
    if windows is not None:
        count, stride, offsets = windows
        count = writer.add("Reshape", count, writer.integers(1))
    else:
        count = writer.add("Shape", first.inputs[0], start=1, end=2)
        stride, offsets = writer.integers(1), None
    places = _cut_chunks(writer, count, stride, offsets)
    chunk = ir.Value(name=make_name(graph), type=ir.TensorType(ir.DataType.INT64))
    uses = [use for node in layer for use in node.outputs[0].uses() if use.node not in layer]
    counters = [use for use in uses if _counts_rows(use.node)]
    outputs = list(dict.fromkeys(node.outputs[0] for node in layer if _leaves(node, layer)))
    for node in layer:
        graph.remove(node)
    if windows is not None:
        _replace(layer, first.inputs[0], chunk)
    else:
        rows = ir.node("Gather", [first.inputs[0], chunk], {"axis": 1}, outputs=[ir.Value(name=make_name(graph))])
        first.replace_input_with(0, rows.outputs[0])
        layer = [rows, *layer]
    body = ir.Graph([chunk], outputs, nodes=layer, name=f"chunk_{chunk.name}", opset_imports=graph.opset_imports)
    for value in {id(value): value for node in layer for value in node.inputs if value is not None}.values():
        _take_over(graph, body, value, layer)
    body.sort()
    made = [ir.Value(name=make_name(graph)) for _ in outputs]
    graph.insert_before(uses[0].node, ir.node("Scan", [places], {"body": body, "num_scan_inputs": 1}, outputs=made))
    behind = GraphWriter(graph, uses[0].node)
    wholes = [_join_chunks(behind, chunks, count) for chunks in made]
    for value, whole in zip(outputs, wholes, strict=True):
        value.type = ir.TensorType(ir.DataType.UINT8 if find_producer(value, "Reshape") else ir.DataType.FLOAT)
        _replace([use.node for use in uses if use not in counters], value, whole)
    for use in counters:
        use.node.replace_input_with(use.idx, wholes[0])


def _leaves(node: ir.Node, layer: Sequence[ir.Node]) -> bool:
    return any(use.node not in layer for use in _list_uses(node))


def _replace(nodes: Iterable[ir.Node], old: ir.Value | None, new: ir.Value) -> None:
    for node in nodes:
        for place, value in enumerate(node.inputs):
            if value is old:
                node.replace_input_with(place, new)


def _join_chunks(writer: GraphWriter, chunks: ir.Value, count: ir.Value) -> ir.Value:
    """(N, B, R, C) -> (B, T, C): the last chunk was filled up."""
    rows_first = writer.add("Transpose", chunks, perm=CHUNKS_BEHIND_ROWS)
    shape = writer.add("Shape", rows_first)
    sizes = [writer.add("Gather", shape, writer.integers(place)) for place in (0, 3)]
    joined = writer.add("Concat", sizes[0], writer.integers(-1), sizes[1], axis=0)
    whole = writer.add("Reshape", rows_first, joined)
    return writer.add("Slice", whole, writer.integers(0), count, writer.integers(1))


def _cut_chunks(writer: GraphWriter, count: ir.Value, stride: ir.Value, offsets: ir.Value | None) -> ir.Value:
    """Places (N, R, K), or (N, R) without windows, of chunks of like size; the last ones repeat the last row."""
    most, one, none = writer.integers(MAX_ROWS), writer.integers(1), writer.constant(0, np.int64)
    chunks = writer.add("Div", writer.add("Add", count, writer.integers(MAX_ROWS - 1)), most)
    rows = writer.add("Div", writer.add("Sub", writer.add("Add", count, chunks), one), chunks)
    total = writer.add("Squeeze", writer.add("Mul", chunks, rows))
    numbers = writer.add("Range", none, total, writer.constant(1, np.int64))
    starts = writer.add("Mul", writer.add("Min", numbers, writer.add("Sub", count, one)), stride)
    shape = writer.add("Concat", chunks, rows, axis=0)
    table = writer.add("Reshape", starts, shape)
    if offsets is None:
        return table
    return writer.add("Add", writer.add("Unsqueeze", table, writer.integers(2)), offsets)


def _take_over(graph: ir.Graph, body: ir.Graph, value: ir.Value, layer: Sequence[ir.Node]) -> None:
    """Give a constant to the body, where onnxruntime packs it once for its product; what others need too is copied."""
    if not value.is_initializer() or value.const_value is None or value.name is None:
        return
    if all(use.node in layer for use in value.uses()):
        graph.initializers.pop(value.name)
        body.register_initializer(value)
        return
    copy = ir.Value(name=make_name(graph), const_value=value.const_value)
    body.register_initializer(copy)
    _replace(layer, value, copy)
