"""Graph transformations that make int8 fast; each leaves what the graph computes as it was, to rounding.

An exported graph is written for any runtime; onnxruntime on a CPU is fast at matrix products and slow at convolutions of
bytes. Here the feature encoder becomes products over channels-last windows, an attention and a GELU become one operator
each, and the transposes between them meet and cancel.

Shapes: B batch, T time, C channels, O output channels, K kernel size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dinle.build.graph_tools import (
    CHANNELS_LAST,
    CONTRIB,
    HEADS_FIRST,
    HEADS_FIRST_TRANSPOSED,
    GraphWriter,
    find_producer,
    find_sole_user,
    read_constant,
    read_permutation,
    read_scalar,
    replace_node,
    split_operands,
)
from dinle.build.lower_convolutions import lower_convolutions, lower_grouped_convolutions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MASKED_SCORE = -1e4  # as dinle.build.front_end's; importing it would import torch


def lower_graph(model: ir.Model) -> dict[str, int]:
    """Rewrite a CTC graph or an encoder in place; how often each transformation found its place.

    The log-mel front end (convolutions of one channel or of width one) stays as it is: power spectra span more decades
    than 8 bits hold.
    """
    graph, counts = model.graph, {}
    graph.opset_imports.setdefault(CONTRIB, 1)
    for name, transform in TRANSFORMATIONS.items():
        counts[name] = transform(graph)
        RemoveUnusedNodesPass()(model)  # what a fused operator replaced would count as a use in the next step
    return counts


def fuse_gelu(graph: ir.Graph) -> int:
    """``x * 0.5 * (1 + erf(x / sqrt(2)))`` (Hendrycks and Gimpel, 2016) as one operator: one pass over the data, not five."""
    count = 0
    for erf in [node for node in graph if node.op_type == "Erf"]:
        divide = find_producer(erf.inputs[0], "Div")
        add = find_sole_user(erf.outputs[0], "Add")
        half = find_sole_user(add.outputs[0], "Mul") if add is not None else None
        product = find_sole_user(half.outputs[0], "Mul") if half is not None else None
        if divide is None or add is None or half is None or product is None:
            continue
        x = divide.inputs[0]
        constants = (read_scalar(divide.inputs[1]), split_operands(add)[1], split_operands(half)[1])
        if x not in product.inputs or not _are_close(constants, (math.sqrt(2), 1.0, 0.5)):
            continue
        fused = GraphWriter(graph, product).add("Gelu", x, domain=CONTRIB)
        product.outputs[0].replace_all_uses_with(fused, replace_graph_outputs=True)
        count += 1
    return count


def _are_close(found: Sequence[float | None], expected: Sequence[float]) -> bool:
    return all(
        one is not None and math.isclose(one, two, rel_tol=1e-5) for one, two in zip(found, expected, strict=True)
    )


def fuse_attention(graph: ir.Graph) -> int:
    """Masked multi-head attention (Vaswani et al., 2017) as one operator, which keeps a head's scores in the cache.

    The additive mask of padding becomes the number of valid frames of each row. An attention whose weights are wanted
    elsewhere, or whose scores get anything but that mask, stays as it is.
    """
    count = 0
    for softmax in [node for node in graph if node.op_type == "Softmax"]:
        count += _fuse_one_attention(graph, softmax)
    return count


def _fuse_one_attention(graph: ir.Graph, softmax: ir.Node) -> bool:
    masked = find_producer(softmax.inputs[0], "Add")
    mix = find_sole_user(softmax.outputs[0], "MatMul")
    if masked is None or mix is None:
        return False
    scores, mask = masked.inputs
    lengths = _find_lengths(mask)
    scale = 1.0
    scaling = find_producer(scores, "Mul")
    if scaling is not None:
        scores, factor = split_operands(scaling)
        scale = factor if factor is not None else math.nan
    product = find_producer(scores, "MatMul")
    split = find_sole_user(mix.outputs[0], "Reshape")  # a change of shape that changes nothing, from sdpa
    merge = find_sole_user((split or mix).outputs[0], "Transpose")
    reshape = find_sole_user(merge.outputs[0], "Reshape") if merge is not None else None
    if product is None or reshape is None or lengths is None or math.isnan(scale):
        return False
    places = (
        (product.inputs[0], HEADS_FIRST), (product.inputs[1], HEADS_FIRST_TRANSPOSED), (mix.inputs[1], HEADS_FIRST),
    )  # fmt: skip
    whole = [_find_unsplit(value, order) for value, order in places]
    heads = _count_heads(product.inputs[0])
    if heads is None or None in whole or merge is None or read_permutation(merge) != HEADS_FIRST:
        return False
    writer = GraphWriter(graph, reshape)
    valid = writer.add("Cast", lengths, to=ir.DataType.INT32)
    fused = writer.add(
        "MultiHeadAttention",
        *whole,
        None,
        valid,
        domain=CONTRIB,
        num_heads=heads,
        scale=scale,
        mask_filter_value=MASKED_SCORE,
    )
    reshape.outputs[0].replace_all_uses_with(fused, replace_graph_outputs=True)
    return True


def _find_lengths(mask: ir.Value | None) -> ir.Value | None:
    """The valid frames (B,) behind the mask that :func:`dinle.build.front_end.mask_attention` makes."""
    value = mask
    for op in ("Mul", "Unsqueeze", "Cast", "Not", "Less"):
        node = find_producer(value, op)
        if node is None:
            return None
        value = split_operands(node)[0] if op == "Mul" else node.inputs[-1] if op == "Less" else node.inputs[0]
    unsqueeze = find_producer(value, "Unsqueeze")
    return unsqueeze.inputs[0] if unsqueeze is not None else None


def _find_unsplit(value: ir.Value | None, order: tuple[int, ...]) -> ir.Value | None:
    """(B, T, C) behind heads (B, H, T, D) or, for keys, (B, H, D, T).

    torch's sdpa transposes keys with three axes: (B, H, T, D) -> (B * H, T, D) -> (B * H, D, T) -> (B, H, D, T).
    """
    unfold = find_producer(value, "Reshape") if order == HEADS_FIRST_TRANSPOSED else None
    turn = find_producer(unfold.inputs[0], "Transpose") if unfold is not None else None
    if turn is not None and read_permutation(turn) == CHANNELS_LAST:
        fold = find_producer(turn.inputs[0], "Reshape")
        value, order = (fold.inputs[0] if fold is not None else None), HEADS_FIRST
    transpose = find_producer(value, "Transpose")
    if transpose is None or read_permutation(transpose) != order:
        return None
    reshape = find_producer(transpose.inputs[0], "Reshape")
    return reshape.inputs[0] if reshape is not None else None


def _count_heads(value: ir.Value | None) -> int | None:
    """H of (B, H, T, D), where the exporter noted it."""
    size = value.shape[1] if value is not None and value.shape is not None else None
    return size if isinstance(size, int) else None


def cancel_transposes(graph: ir.Graph) -> int:
    """Push transposes of time and channels down through what does not mind, until two meet and are gone."""
    count = sum(_swap_factors(graph, node) for node in list(graph) if node.op_type == "Transpose")
    changed = True
    while changed:
        changed = False
        for node in list(graph):
            if node.op_type == "Transpose" and read_permutation(node) == CHANNELS_LAST and _push_down(graph, node):
                changed = True
                count += 1
    return count


def _swap_factors(graph: ir.Graph, transpose: ir.Node) -> bool:
    """(A B)' is B' A': a product of two computed factors can come out transposed, through a GELU too."""
    if read_permutation(transpose) != CHANNELS_LAST:
        return False
    gelu = find_producer(transpose.inputs[0], "Gelu")
    between = [gelu] if gelu is not None else []
    product = find_producer((gelu or transpose).inputs[0], "MatMul")
    if product is None or any(len(list(node.outputs[0].uses())) != 1 for node in (product, *between)):
        return False
    if any(read_constant(factor) is not None for factor in product.inputs):
        return False
    writer = GraphWriter(graph, transpose)
    second, first = (writer.add("Transpose", factor, perm=CHANNELS_LAST) for factor in product.inputs)
    out = writer.add("MatMul", first, second)
    replace_node(graph, transpose, writer.add("Gelu", out, domain=CONTRIB) if between else out)
    for node in (*between, product):
        graph.remove(node, safe=True)
    return True


def _push_down(graph: ir.Graph, transpose: ir.Node) -> bool:
    out = transpose.outputs[0]
    uses = list(out.uses())
    if not uses or out.is_graph_output():
        return False
    twins = [
        use.node for use in uses if use.node.op_type == "Transpose" and read_permutation(use.node) == CHANNELS_LAST
    ]
    source = transpose.inputs[0]
    if source is None:
        return False
    for twin in twins:
        replace_node(graph, twin, source)
    if twins or len(uses) != 1:
        return bool(twins)
    user = uses[0].node
    writer = GraphWriter(graph, user)
    if user.op_type == "Gelu":
        inner = writer.add("Gelu", source, domain=CONTRIB)
    elif user.op_type == "Slice" and _read_axes(user) == [2]:
        inner = writer.add("Slice", source, *user.inputs[1:3], writer.integers(1), *user.inputs[4:])
    elif user.op_type == "Mul" and (other := _find_mask(user, out)) is not None:
        inner = writer.add("Mul", source, writer.add("Transpose", other, perm=CHANNELS_LAST))
    else:
        return False
    replace_node(graph, user, writer.add("Transpose", inner, perm=CHANNELS_LAST))
    graph.remove(transpose, safe=True)
    return True


def _read_axes(node: ir.Node) -> list[int]:
    axes = read_constant(node.inputs[3]) if len(node.inputs) > 3 else None  # noqa: PLR2004 - Slice's fourth input
    return [] if axes is None else [int(axis) for axis in axes]


def _find_mask(product: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other factor of a product, where it is a mask (B, 1, T)."""
    other = product.inputs[1] if product.inputs[0] is value else product.inputs[0]
    shape = other.shape if other is not None else None
    return other if shape is not None and len(shape) == len(CHANNELS_LAST) and shape[1] == 1 else None


TRANSFORMATIONS: Mapping[str, Callable[[ir.Graph], int]] = {
    "gelu": fuse_gelu,
    "attention": fuse_attention,
    "convolution": lower_convolutions,
    "grouped convolution": lower_grouped_convolutions,
    "transpose": cancel_transposes,
}
