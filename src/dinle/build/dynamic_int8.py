"""Products in int8 with activation scales that are taken while the graph runs: the classic recipe, needs no speech."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUANTIZED_OPS = ("MatMul", "Gemm")
MIN_HALF_ELEMENTS = 4096  # smaller constants are not worth a Cast node


def write_dynamic_int8(source: Path, target: Path, *, per_channel: bool = True, reduce_range: bool = True) -> None:
    """Quantise the products with constant weights; activations get their scale at run time.

    Convolutions stay fp32: onnxruntime's ConvInteger is several times slower than its fp32 convolution on CPUs, and the
    DFT and mel filters, which are convolutions too, span more decades than 8 bits hold. What stays is stored in fp16 where
    that loses no bit.

    The defaults are signed weights, one scale for each output channel, 7 bits. Measured on a Skylake Xeon (AVX-512 without
    VNNI) with the bundled Whisper-encoder model: mean KL divergence from fp32 for each frame and share of frames whose best
    token changes, on the 50 test clips of data/mini; fastest of 15 runs on 10 s of sound with one thread on a shared
    machine (fp32: 0.297 s). Last, the fastest of 6 runs with random weights of wav2vec2-base's shape (fp32: 1.92 s), most of
    whose time goes into convolutions:

    ===================================  =======  ======  =======  ========
    weights                              KL       flips   10 s     wav2vec2
    ===================================  =======  ======  =======  ========
    int8, a scale for each channel       0.00103  0.76 %  0.245 s  1.67 s
    int8, 7 bits, a scale for each       0.00100  0.86 %  0.246 s  1.66 s
    int8, 7 bits, one scale              0.00529  1.56 %  0.263 s  1.75 s
    uint8, a scale for each channel      0.00060  0.50 %  0.313 s  1.88 s
    ===================================  =======  ======  =======  ========

    A scale for each channel cuts the error to a fifth at no cost. Without VNNI, uint8 x int8 products of 8 bits saturate
    when pairs are added in 16 bits (vpmaddubsw), which costs what the eighth bit gains; with 7 bits they cannot, whatever
    the activations. Unsigned weights are more exact but take a kernel that loses the gain in speed. In WER the three with
    scales for channels cannot be told apart on 371 clips (-0.3 to 0.0 points, intervals of about +-0.8).

    The scale of an activation is that of its whole tensor, all rows of a batch and their padding included: unlike fp32, a
    clip in a batch may come out slightly different from the same clip alone. :mod:`dinle.build.static_int8` has the cure.

    Shape inference or pre-processing in front is not needed: the exporter has folded and fused what it would.

    Args:
        source: the fp32 graph.
        target: the file to write.
        per_channel: one scale for each output channel of a weight.
        reduce_range: 7 bits for weights.
    """
    # imported here: it sets the root logger up as a side effect, which _quiet_quantizer takes back
    with _quiet_quantizer():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(QUANTIZED_OPS),
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )
    model = onnx.load(target)
    tie_embedding(model)
    store_half_constants(model)
    onnx.save(model, target)


def tie_embedding(model: onnx.ModelProto) -> int:
    """Read token embeddings from the quantised output layer, where both are the same weights (Press and Wolf, 2017). In place.

    A decoder looks tokens up in the matrix (V, C) that, transposed and quantised, gives its logits. The lookup then takes
    columns of the int8 matrix (C, V) and scales them, and the fp32 copy goes: a sixth of a small decoder. With one scale
    for the whole matrix that scale serves every column.

    Returns:
        How many lookups were changed.
    """
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    changed = 0
    for node in list(graph.node):
        if node.op_type != "Gather" or node.input[0] not in constants:
            continue
        table = constants[node.input[0]]
        for name in [name for name in constants if name.endswith("_quantized") and _is_twin(table, name, constants)]:
            stem = name.removesuffix("_quantized")
            place = list(graph.node).index(node)
            graph.node.remove(node)
            single = math.prod(constants[f"{stem}_scale"].dims) == 1
            for offset, new in enumerate(_look_up_columns(node, name, f"{stem}_scale", single=single)):
                graph.node.insert(place + offset, new)
            changed += 1
            break
    if changed:
        _drop_unused(graph)
    return changed


def _is_twin(table: TensorProto, quantised: str, constants: dict[str, TensorProto]) -> bool:
    """Whether a quantised matrix (C, V) is the transpose of a table (V, C), to half a step of its scales."""
    scale = constants.get(f"{quantised.removesuffix('_quantized')}_scale")
    if scale is None or list(constants[quantised].dims) != list(reversed(table.dims)):
        return False
    steps = numpy_helper.to_array(scale)
    matrix = numpy_helper.to_array(constants[quantised]).astype(np.float32) * steps
    return bool(np.all(np.abs(matrix.T - numpy_helper.to_array(table)) <= 0.501 * np.reshape(steps, (-1, 1))))


def _look_up_columns(node: onnx.NodeProto, matrix: str, scale: str, *, single: bool) -> list[onnx.NodeProto]:
    """Gather (C, B, N) columns and (B, N) scales by tokens (B, N) -> (B, N, C) under the old node's output name."""
    tokens, out = node.input[1], node.output[0]
    scales = [] if single else [helper.make_node("Gather", [scale, tokens], [f"{out}_scale"], axis=0)]
    return [
        helper.make_node("Gather", [matrix, tokens], [f"{out}_int8"], axis=1),
        helper.make_node("Cast", [f"{out}_int8"], [f"{out}_unscaled"], to=TensorProto.FLOAT),
        *scales,
        helper.make_node("Mul", [f"{out}_unscaled", scale if single else f"{out}_scale"], [f"{out}_columns"]),
        helper.make_node("Transpose", [f"{out}_columns"], [out], perm=[1, 2, 0]),
    ]


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for constant in [constant for constant in graph.initializer if constant.name not in used]:
        graph.initializer.remove(constant)


def store_half_constants(model: onnx.ModelProto) -> int:
    """Store large fp32 constants as fp16 with a Cast behind, where fp16 holds every value exactly. In place.

    onnxruntime folds the Cast when it loads the graph, so speed and results stay as they were; weights that come from an
    fp16 checkpoint take half the space.

    Returns:
        How many constants were changed.
    """
    graph = model.graph
    taken = {value.name for value in graph.output}
    casts = []
    for constant in graph.initializer:
        if constant.data_type != TensorProto.FLOAT or constant.name in taken:
            continue
        values = numpy_helper.to_array(constant)
        if values.size < MIN_HALF_ELEMENTS or not _fits_half(values):
            continue
        name, half_name = constant.name, f"{constant.name}_fp16"
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half_name))
        casts.append(helper.make_node("Cast", [half_name], [name], name=f"{name}_to_fp32", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)


def _fits_half(values: np.ndarray[Any, np.dtype[np.float32]]) -> bool:
    if float(np.abs(values).max()) > float(np.finfo(np.float16).max):
        return False
    return bool(np.array_equal(values.astype(np.float16).astype(np.float32), values))


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Keep onnxruntime's quantiser from configuring the root logger and from advising pre-processing on it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.addHandler(logging.NullHandler())  # with a handler there, logging.basicConfig does nothing
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
