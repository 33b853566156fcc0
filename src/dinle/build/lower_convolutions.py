"""Convolutions over time as matrix products of channels-last windows.

onnxruntime's int8 convolution (ConvInteger) is slower than its fp32 one on CPUs, its int8 products are not. Once the
activations are bytes, gathering the windows of a product moves a quarter of the memory.

Shapes: B batch, T time, C channels, O output channels, K kernel size, G groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.build.graph_tools import (
    CHANNELS_LAST,
    HEADS_FIRST,
    GraphWriter,
    read_constant,
    read_integer,
    read_integers,
    replace_node,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

SHIFTED = "kernel"  # a constant's note of the smaller kernel that it was made of
MIN_WIDE_KERNEL = 16  # in a narrower one, neighbours have too little of their windows in common
POSITIONS_PER_PRODUCT = 4  # of a wide grouped convolution: windows overlap nearly whole, so neighbours share one


def lower_convolutions(graph: ir.Graph) -> int:
    """Ungrouped convolutions over time as products of channels-last windows: (B, T', K * C) x (K * C, O).

    Once the activations are bytes, gathering windows moves a quarter of the memory, and the product is int8.
    """
    count = 0
    for conv in [node for node in graph if node.op_type == "Conv"]:
        weight = read_constant(conv.inputs[1])
        if (
            weight is None
            or weight.ndim != len(CHANNELS_LAST)
            or not _is_plain(conv)
            or read_integer(conv, "group", 1) != 1
        ):
            continue
        outputs, channels, size = weight.shape
        if channels == 1 or size == 1:
            continue
        writer = GraphWriter(graph, conv)
        windows = _cut_windows(writer, conv, size, read_integers(conv, "strides", (1,))[0])
        flat = writer.add("Reshape", windows, writer.integers(0, 0, size * channels))
        matrix = weight.transpose(2, 1, 0).reshape(size * channels, outputs)
        out = writer.add("MatMul", flat, writer.constant(matrix, name=name_weight(conv, "windows")))
        _finish(writer, conv, out)
        count += 1
    return count


def _cut_windows(writer: GraphWriter, conv: ir.Node, size: int, stride: int) -> ir.Value:
    """The padded windows (B, T', K, C) that a convolution over (B, C, T) sees."""
    source = writer.add("Transpose", conv.inputs[0], perm=CHANNELS_LAST)
    length = writer.add("Shape", source, start=1, end=2)
    left, right = read_integers(conv, "pads", (0, 0))
    if left or right:
        source = writer.add("Pad", source, writer.integers(0, left, 0, 0, right, 0), mode="constant")
        length = writer.add(
            "Add", length, writer.integers(left + right)
        )  # of the source: nobody needs its padding in fp32
    return gather_windows(writer, source, length, size, stride, axis=1)


def gather_windows(
    writer: GraphWriter, source: ir.Value, length: ir.Value, size: int, stride: int, *, axis: int
) -> ir.Value:
    """Windows of an axis of this length (1,): (..., T, C) -> (..., T', K, C), T' = (T - K) // stride + 1."""
    fits = writer.add("Sub", length, writer.integers(size - stride))
    count = writer.add("Squeeze", writer.add("Div", fits, writer.integers(stride)))
    zero, one = writer.constant(0, np.int64), writer.constant(1, np.int64)
    starts = writer.add("Mul", writer.add("Range", zero, count, one), writer.integers(stride))
    column = writer.add("Unsqueeze", starts, writer.integers(1))
    places = writer.add("Add", column, writer.constant(np.arange(size)[None, :], np.int64))
    return writer.add("Gather", source, places, axis=axis)


def _finish(writer: GraphWriter, conv: ir.Node, out: ir.Value) -> None:
    """Add the bias to a channels-last output and let it stand for the convolution's."""
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:  # noqa: PLR2004 - the third input is the bias
        out = writer.add("Add", out, conv.inputs[2])
    replace_node(writer.graph, conv, writer.add("Transpose", out, perm=CHANNELS_LAST))


def name_weight(conv: ir.Node, form: str) -> str:
    """A name for a convolution's weight in another form."""
    weight = conv.inputs[1]
    return f"{weight.name if weight is not None else conv.name}_{form}"


def _is_plain(conv: ir.Node) -> bool:
    pad = conv.attributes["auto_pad"].as_string() if "auto_pad" in conv.attributes else "NOTSET"
    return pad == "NOTSET" and all(step == 1 for step in read_integers(conv, "dilations", (1,)))


def lower_grouped_convolutions(graph: ir.Graph) -> int:
    """Wide grouped convolutions (wav2vec2's positions) as one product for each group.

    A window of 128 frames would be gathered once for each frame; here one window of 131 serves POSITIONS_PER_PRODUCT
    frames, by a weight that holds as many shifted copies of the kernel.
    """
    count = 0
    for conv in [node for node in graph if node.op_type == "Conv"]:
        weight, groups = read_constant(conv.inputs[1]), read_integer(conv, "group", 1)
        if weight is None or weight.ndim != len(CHANNELS_LAST) or not _is_plain(conv) or groups == 1:
            continue
        if weight.shape[2] < MIN_WIDE_KERNEL or read_integers(conv, "strides", (1,)) != (1,):
            continue
        writer = GraphWriter(graph, conv)
        out = _multiply_groups(writer, conv, weight, groups)
        _finish(writer, conv, out)
        count += 1
    return count


def _multiply_groups(writer: GraphWriter, conv: ir.Node, weight: NDArray[np.float32], groups: int) -> ir.Value:
    """The convolution's output without its bias, channels last."""
    outputs, channels, size = weight.shape
    shared, each = POSITIONS_PER_PRODUCT, outputs // groups
    left, right = read_integers(conv, "pads", (0, 0))
    source = writer.add("Transpose", conv.inputs[0], perm=CHANNELS_LAST)
    source = writer.add("Pad", source, writer.integers(0, left, 0, 0, right + shared - 1, 0), mode="constant")
    parted = writer.add("Reshape", source, writer.integers(0, 0, groups, channels))
    parted = writer.add("Transpose", parted, perm=HEADS_FIRST)
    length = writer.add("Shape", conv.inputs[0], start=2, end=3)
    whole = writer.add("Add", length, writer.integers(left + right + shared - 1))
    windows = gather_windows(writer, parted, whole, size + shared - 1, shared, axis=2)
    flat = writer.add("Reshape", windows, writer.integers(0, 0, 0, (size + shared - 1) * channels))
    # (G, K, C, O) is stored; the product takes the shifted copies
    kernel = weight.reshape(groups, each, channels, size).transpose(0, 3, 2, 1)
    matrix = writer.constant(shift_kernel(kernel, shared), name=name_weight(conv, "shifted"))
    matrix.meta[SHIFTED] = kernel
    product = writer.add("MatMul", flat, matrix)
    frames = writer.add("Reshape", product, writer.integers(0, 0, -1, each))
    merged = writer.add("Reshape", writer.add("Transpose", frames, perm=HEADS_FIRST), writer.integers(0, 0, outputs))
    end = writer.add("Add", length, writer.integers(left + right - size + 1))
    return writer.add("Slice", merged, writer.integers(0), end, writer.integers(1))


def shift_kernel(kernel: NDArray[Any], copies: int) -> NDArray[Any]:
    """(G, K, C, O) -> ((G, (K + N - 1) * C, N * O)) for N copies, each one position later than the one before."""
    groups, size, channels, outputs = kernel.shape
    shifted = np.zeros((groups, size + copies - 1, channels, copies, outputs), dtype=kernel.dtype)
    for copy in range(copies):
        shifted[:, copy : copy + size, :, copy] = kernel
    return shifted.reshape(groups, (size + copies - 1) * channels, copies * outputs)
