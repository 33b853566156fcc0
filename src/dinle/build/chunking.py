"""Long layers in chunks of rows: what passes between a product and the next bytes stays in the processor's cache.

The feature encoder's first layers have 32 000 and 16 000 rows for ten seconds of sound. As a whole, a layer writes 65 MB of
fp32, reads them for the GELU, and again to round them; and onnxruntime's int8 product is a fourth slower on so many rows than
on a thousand. Here a layer is a Scan over chunks of its rows, from the windows to the rounded output.

Shapes: B batch, T rows of a layer, N chunks, R rows of a chunk, K window, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from dinle.build.graph_tools import GraphWriter, find_producer, make_name, read_constant, read_integer

if TYPE_CHECKING:
    from collections.abc import Sequence

# Measured on 16 000 rows of 1 536 bytes (AVX-512 VNNI, 1 and 2 threads): 79 and 39 ms, as a whole 105 and 52; 250 to 2 000
# are within a tenth of each other.
MAX_ROWS = 1000
HEADS_BEHIND_CHUNKS = (1, 0, 2, 3)
ROW_BY_ROW = ("Reshape", "MatMul", "MatMulIntegerToFloat", "Add", "Mul", "LayerNormalization", "Gelu")


def chunk_layers(graph: ir.Graph) -> int:
    """Let the layers of windows be scanned in chunks, in place; how many there were.

    A layer begins with the windows of :func:`dinle.build.lower_convolutions.gather_windows`, or with a product of two
    computed factors (the first convolution, whose weights hold a row's norm), and ends where its output is rounded.
    """
    layers = [_follow(node) for node in graph if _begins_windows(node) or _begins_product(node)]
    for layer in layers:
        if layer:
            _scan(graph, layer)
    return sum(bool(layer) for layer in layers)


def _begins_windows(node: ir.Node) -> bool:
    return node.op_type == "Gather" and read_integer(node, "axis", 0) == 1 and _read_windows(node) is not None


def _begins_product(node: ir.Node) -> bool:
    computed = node.op_type == "MatMul" and all(read_constant(factor) is None for factor in node.inputs)
    return computed and [use.node.op_type for use in _list_uses(node)] == ["Gelu"]


def _follow(first: ir.Node) -> list[ir.Node]:
    """The nodes from a layer's first to the one that rounds; empty where anything else hears what is between."""
    layer = [first]
    while len(uses := _list_uses(layer[-1])) == 1 and not layer[-1].outputs[0].is_graph_output():
        node, place = uses[0].node, uses[0].idx
        others = [value for number, value in enumerate(node.inputs) if number != place and value is not None]
        if place != 0 or any(read_constant(value) is None for value in others):
            return []
        layer.append(node)
        if node.op_type == "QuantizeLinear":
            return layer
        if node.op_type not in ROW_BY_ROW:
            return []
    return []


def _list_uses(node: ir.Node) -> list[Any]:
    """Who takes a node's output, but for those who count its rows: they can count those of the layer's output."""
    return [use for use in node.outputs[0].uses() if not _counts_rows(use.node)]


def _counts_rows(node: ir.Node) -> bool:
    return node.op_type == "Shape" and (read_integer(node, "start", 0), read_integer(node, "end", 0)) == (1, 2)


def _read_windows(gather: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Count, stride (a constant) and offsets (a constant (1, K)) of windows."""
    add = find_producer(gather.inputs[1], "Add")
    column = find_producer(add.inputs[0], "Unsqueeze") if add is not None else None
    starts = find_producer(column.inputs[0], "Mul") if column is not None else None
    numbers = find_producer(starts.inputs[0], "Range") if starts is not None else None
    if add is None or starts is None or numbers is None:
        return None
    count, stride, offsets = numbers.inputs[1], starts.inputs[1], add.inputs[1]
    return None if count is None or stride is None or offsets is None else (count, stride, offsets)


def _scan(graph: ir.Graph, layer: Sequence[ir.Node]) -> None:
    first, rounding = layer[0], layer[-1]
    writer = GraphWriter(graph, first)
    windows = _read_windows(first) if first.op_type == "Gather" else None
    if windows is not None:
        count, stride, offsets = windows
        count = writer.add("Reshape", count, writer.integers(1))
    else:
        count = writer.add("Shape", first.inputs[0], start=1, end=2)
        stride, offsets = writer.integers(1), None
    places = _cut_chunks(writer, count, stride, offsets)
    chunk = ir.Value(name=make_name(graph), type=ir.TensorType(ir.DataType.INT64))
    out = rounding.outputs[0]
    out.type = ir.TensorType(ir.DataType.UINT8)
    users = [use for node in layer for use in node.outputs[0].uses() if use.node not in layer]
    for node in layer:
        graph.remove(node)
    if windows is not None:
        first.replace_input_with(1, chunk)
        body_nodes = list(layer)
    else:
        rows = ir.node("Gather", [first.inputs[0], chunk], {"axis": 1}, outputs=[ir.Value(name=make_name(graph))])
        first.replace_input_with(0, rows.outputs[0])
        body_nodes = [rows, *layer]
    body = ir.Graph([chunk], [out], nodes=body_nodes, name=f"chunk_{out.name}", opset_imports=graph.opset_imports)
    for value in {id(value): value for node in layer for value in node.inputs if value is not None}.values():
        _take_over(graph, body, value, layer)
    scanned = ir.node("Scan", [places], {"body": body, "num_scan_inputs": 1}, outputs=[ir.Value(name=make_name(graph))])
    anchor = users[0].node
    graph.insert_before(anchor, scanned)
    behind = GraphWriter(graph, anchor)
    rows_first = behind.add("Transpose", scanned.outputs[0], perm=HEADS_BEHIND_CHUNKS)  # (N, B, R, C) -> (B, N, R, C)
    shape = behind.add("Shape", rows_first)
    sizes = [behind.add("Gather", shape, behind.integers(place)) for place in (0, 3)]
    joined = behind.add("Concat", sizes[0], behind.integers(-1), sizes[1], axis=0)
    whole = behind.add("Reshape", rows_first, joined)
    rows_alone = behind.add(
        "Slice", whole, behind.integers(0), count, behind.integers(1)
    )  # the last chunk is filled up
    for user in users:
        user.node.replace_input_with(user.idx, rows_alone)


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
    for node in layer:
        for place, each in enumerate(node.inputs):
            if each is value:
                node.replace_input_with(place, copy)
