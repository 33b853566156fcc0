"""Reading and rewriting ONNX graphs: what the transformations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS_LAST = (0, 2, 1)  # time and channels change places
HEADS_FIRST, HEADS_FIRST_TRANSPOSED = (0, 2, 1, 3), (0, 2, 3, 1)
CONTRIB = "com.microsoft"  # onnxruntime's own operators: Gelu, MultiHeadAttention, MatMulIntegerToFloat, MatMulNBits


class GraphWriter:
    """Adds nodes in front of one node, or at the end of the nodes before it.

    Args:
        graph: the graph.
        anchor: new nodes are put before it.
        note: key and value that new nodes carry in their ``meta``.
    """

    def __init__(self, graph: ir.Graph, anchor: ir.Node, note: tuple[str, str] | None = None) -> None:
        self.graph = graph
        self._anchor = anchor
        self._note = note

    def add(self, op: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """A node of one output; the output."""
        node = ir.node(op, inputs, attributes=attributes, domain=domain, outputs=[ir.Value(name=make_name(self.graph))])
        if self._note is not None:
            node.meta[self._note[0]] = self._note[1]
        self.graph.insert_before(self._anchor, node)
        return node.outputs[0]

    def integers(self, *values: int) -> ir.Value:
        """An initializer of integers: a shape, axes, pads."""
        return self.constant(values, np.int64)

    def constant(self, values: Any, dtype: Any = None, *, name: str | None = None) -> ir.Value:
        """An initializer."""
        name = name if name is not None and name not in self.graph.initializers else make_name(self.graph)
        value = ir.Value(
            name=name, const_value=ir.tensor(np.ascontiguousarray(np.asarray(values, dtype=dtype)), name=name)
        )
        self.graph.register_initializer(value)
        return value


def make_name(graph: ir.Graph) -> str:
    """A name that no other transformation has given in this graph."""
    count = graph.meta["lowered"] = int(graph.meta.get("lowered", 0)) + 1
    return f"lowered_{count}"


def read_constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The numbers of an initializer; None for what is computed."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def read_scalar(value: ir.Value | None) -> float | None:
    """The number of an initializer with one element; None for anything else."""
    numbers = read_constant(value)
    return float(numbers.reshape(-1)[0]) if numbers is not None and numbers.size == 1 else None


def find_sole_user(value: ir.Value, op: str) -> ir.Node | None:
    """The node that takes a value, where there is one alone and it is of this kind."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() and uses[0].node.op_type == op else None


def find_producer(value: ir.Value | None, op: str) -> ir.Node | None:
    """The node that makes a value, where it is of this kind."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op else None


def split_operands(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    """Of an Add, Mul or Div the operand that is computed and the scalar constant, in whichever order they stand."""
    first, second = node.inputs
    for computed, constant in ((first, second), (second, first)):
        scalar = read_scalar(constant)
        if scalar is not None:
            return computed, scalar
    return None, None


def read_permutation(node: ir.Node) -> tuple[int, ...]:
    """What a Transpose does to the axes."""
    return read_integers(node, "perm", ())


def read_integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute of several integers."""
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else default


def read_integer(node: ir.Node, name: str, default: int) -> int:
    """An attribute of one integer."""
    return node.attributes[name].as_int() if name in node.attributes else default


def replace_node(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let a value stand for what a node gave, and take the node out."""
    node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def take_bias(product: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """The constant that is added to a product, and the node whose output then stands for both."""
    add = find_sole_user(product.outputs[0], "Add")
    if add is not None:
        other = add.inputs[1] if add.inputs[0] is product.outputs[0] else add.inputs[0]
        numbers = read_constant(other)
        if numbers is not None and numbers.ndim == 1:
            return other, add
    return None, product
