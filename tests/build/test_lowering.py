from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dinle.build.export import write_graph
from dinle.build.front_end import convolve_and_normalize, count_conv_frames, masked_group_norm
from dinle.build.graph_tools import read_constant
from dinle.build.int4 import quantize_blocks
from dinle.build.lower_convolutions import shift_kernel
from dinle.build.lowering import lower_graph
from dinle.build.models import load_model
from dinle.build.static_int8 import choose_range, find_products, quantize_weight, write_static_int8
from dinle.recognize.engine import OnnxEngine
from tests.build.tiny_models import make_ctc_folder, make_whisper_ctc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# wide enough to be quantised, the published shift of 320 samples in three convolutions, and positions of 16 frames
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "conv_dim": (64, 64, 64),
    "conv_kernel": (10, 3, 33),
    "conv_stride": (5, 2, 32),
}
# kind: how many GELUs, attentions, convolutions and grouped convolutions there are to be found
KINDS = {
    "wav2vec2-group": {"gelu": 6, "attention": 2, "convolution": 2, "grouped convolution": 1},
    "wav2vec2-layer": {"gelu": 6, "attention": 2, "convolution": 2, "grouped convolution": 1},
    "wavlm": {"gelu": 6, "attention": 0, "convolution": 2, "grouped convolution": 1},  # its scores get a bias
    "whisper-ctc": {"gelu": 4, "attention": 2, "convolution": 2, "grouped convolution": 0},
}
LENGTHS = (20_000, 9_000, 15_321)


@dataclass(frozen=True)
class Lowered:
    kind: str
    graphs: dict[str, Path]
    counts: dict[str, int]


@pytest.fixture(scope="module", params=KINDS)
def lowered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """A tiny model's graph as it was exported, lowered, and in int8."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "whisper-ctc":
        model: Any = make_whisper_ctc(d_model=64, encoder_ffn_dim=96)
    else:
        model = load_model(make_ctc_folder(folder / "checkpoint", request.param, **SIZES))
    graphs = {name: folder / f"{name}.onnx" for name in ("fp32", "lowered", "int8", "int4")}
    write_graph(model.eval(), graphs["fp32"])
    rewritten = ir.load(graphs["fp32"])
    counts = lower_graph(rewritten)
    ir.save(rewritten, graphs["lowered"])
    for name in ("int8", "int4"):
        write_static_int8(graphs["fp32"], graphs[name], make_feeds(), int4=name == "int4", threads=1)
    return Lowered(request.param, graphs, counts)


def make_feeds() -> Iterator[dict[str, NDArray[Any]]]:
    for length in LENGTHS:
        waveforms, lengths = make_batch((length,))
        yield {"waveform": waveforms, "lengths": lengths}


def make_batch(lengths: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    waveforms = np.zeros((len(lengths), max(lengths)), dtype=np.float32)
    for row, length in zip(waveforms, lengths, strict=True):
        row[:length] = 0.1 * np.random.default_rng(length).standard_normal(length)
    return waveforms, np.array(lengths, dtype=np.int64)


def run_rows(path: Path, lengths: tuple[int, ...]) -> list[NDArray[np.float32]]:
    log_probs, frames = OnnxEngine(path, 1).run(*make_batch(lengths))
    return [row[:count] for row, count in zip(log_probs, frames, strict=True)]


@pytest.mark.slow
def test_a_lowered_graph_says_what_the_graph_says(lowered: Lowered) -> None:
    for whole, rewritten in zip(
        *(run_rows(lowered.graphs[name], LENGTHS) for name in ("fp32", "lowered")), strict=True
    ):
        np.testing.assert_allclose(rewritten, whole, atol=1e-4)  # other orders of summation, as the export's own limit


@pytest.mark.slow
def test_every_transformation_finds_its_places(lowered: Lowered) -> None:
    expected = KINDS[lowered.kind]
    assert {name: lowered.counts[name] for name in expected} == expected
    graph = ir.load(lowered.graphs["lowered"]).graph
    weights = [read_constant(node.inputs[1]) for node in graph if node.op_type == "Conv"]
    left = [weight for weight in weights if weight is not None and weight.shape[1] > 1 and weight.shape[2] > 1]
    assert not left, "the log-mel's convolutions alone stay"
    assert not [node for node in graph if node.op_type == "Erf"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rows_of_a_small_graph_do_not_know_their_neighbours(lowered: Lowered, precision: str) -> None:
    """The row law: the scales are fixed, or those of a row alone, so that nothing of a row depends on the batch."""
    together = run_rows(lowered.graphs[precision], LENGTHS)
    for length, row in zip(LENGTHS, together, strict=True):
        alone = run_rows(lowered.graphs[precision], (length,))[0]
        np.testing.assert_allclose(row, alone, atol=1e-4)
        assert (row.argmax(-1) == alone.argmax(-1)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most"), [("int8", 0.005), ("int4", 0.02)])  # of 34 tokens, 0.03 on average
def test_a_small_graph_stays_near_fp32(lowered: Lowered, precision: str, most: float) -> None:
    for whole, small in zip(*(run_rows(lowered.graphs[name], LENGTHS) for name in ("fp32", precision)), strict=True):
        assert 0 < np.abs(np.exp(whole) - np.exp(small)).mean() < most
    graph = ir.load(lowered.graphs[precision]).graph
    assert not find_products(graph), "every product is quantised"
    narrow = sum(node.op_type == "MatMulNBits" for node in graph)
    assert (narrow >= 10) == (precision == "int4"), "the products of two layers"


def test_a_norm_of_a_convolution_needs_no_pass_over_its_output() -> None:
    """Against the plain formula, on sound whose neighbouring samples are nearly equal, with filters that cancel them."""
    torch.manual_seed(1)
    waveform = torch.randn(3, 4_001).cumsum(1) / 30
    lengths = torch.tensor([4_001, 3_000, 10])
    for size, stride in ((10, 5), (7, 3), (4, 4)):
        conv, norm = nn.Conv1d(1, 32, size, stride, bias=False), nn.GroupNorm(32, 32)
        with torch.no_grad():
            conv.weight -= 0.99 * conv.weight.mean(2, keepdim=True)
            norm.weight.normal_()
            norm.bias.normal_()
        frames = count_conv_frames(lengths, (size,), (stride,)).clamp(min=1)
        expected = masked_group_norm(conv(waveform[:, None]).double(), frames, norm.double())
        found = convolve_and_normalize(waveform, frames, conv, norm.float())
        assert found.shape == expected.shape
        for row, expected_row, count in zip(found, expected, frames.tolist(), strict=True):
            torch.testing.assert_close(row[:, :count].double(), expected_row[:, :count], atol=2e-4, rtol=1e-4)


def test_shifted_kernels_are_a_convolution_of_several_positions() -> None:
    random = np.random.default_rng(1)
    kernel, sound = random.standard_normal((1, 5, 2, 3)), random.standard_normal((7, 2))
    product = sound.reshape(1, -1) @ shift_kernel(kernel, 3)[0]
    for position, outputs in enumerate(product.reshape(3, 3)):
        window = sound[position : position + 5]
        np.testing.assert_allclose(outputs, np.einsum("kc,kco->o", window, kernel[0]))


def measure_rounding(samples: NDArray[np.float32], scale: float, zero: int) -> float:
    numbers = np.clip(np.rint(samples / scale) + zero, 0, 255)
    return float(np.square((numbers - zero) * scale - samples).mean())


def test_a_range_is_better_than_the_extremes_and_holds_zero() -> None:
    samples = (
        np.random.default_rng(1).standard_t(4, 100_000).astype(np.float32)
    )  # rare large values, as activations have
    low, high = float(samples.min()), float(samples.max())
    extremes = (high - low) / 255
    scale, zero = choose_range(samples)
    assert scale * 255 < high - low, "what is rare is clipped"
    assert measure_rounding(samples, scale, zero) < 0.9 * measure_rounding(samples, extremes, round(-low / extremes))
    assert choose_range(np.array([1.0, 2.0], dtype=np.float32))[1] == 0, "silence stays silence"
    assert choose_range(np.zeros(5, dtype=np.float32))[0] > 0, "a tensor that is always zero has a scale"


def test_weights_have_a_scale_for_each_output() -> None:
    weight = np.random.default_rng(1).standard_normal((2, 30, 4)).astype(np.float32) * [1, 10, 100, 0]
    numbers, scales = quantize_weight(weight.astype(np.float32), 63)
    assert (numbers.dtype, scales.shape, np.abs(numbers[..., :3]).max(axis=1).min()) == (np.int8, (2, 4), 63)
    assert (np.abs(numbers * scales[:, None, :] - weight) <= 0.51 * scales[:, None, :]).all()


def write_product(path: Path, weight: NDArray[np.float32]) -> None:
    """x (B, T, C) times a weight: the least graph that holds a product."""
    channels, outputs = weight.shape
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", channels])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", outputs])]
    graph = helper.make_graph(nodes, "product", values, outs, [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def run_product(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    out: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return out


def test_a_few_channels_far_beyond_the_others_do_not_blind_the_product(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((2, 50, 256)).astype(np.float32)
    x[..., [3, 100]] *= 300
    weight = random.standard_normal((256, 32)).astype(np.float32)
    write_product(tmp_path / "fp32.onnx", weight)
    write_static_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [{"x": x}])
    expected, found = run_product(tmp_path / "fp32.onnx", x), run_product(tmp_path / "int8.onnx", x)
    assert "Gather" in [node.op_type for node in ir.load(tmp_path / "int8.onnx").graph]
    ordinary = x.copy()
    ordinary[..., [3, 100]] = 0
    noise = np.abs(found - expected).mean() / np.abs(ordinary @ weight).mean()
    assert noise < 0.02, "as good as if the two were not there"


def test_four_bits_are_what_the_operator_takes_them_for(tmp_path: Path) -> None:
    """Against the product with the weights unpacked; a width that fills no block, and a bias."""
    random = np.random.default_rng(1)
    weight = random.standard_normal((100, 48)).astype(np.float32)
    x = random.standard_normal((2, 7, 100)).astype(np.float32)
    pairs, scales = quantize_blocks(weight)
    assert (pairs.dtype, pairs.shape, scales.shape) == (np.uint8, (48, 2, 32), (48, 2))
    numbers = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(48, 2, 64).astype(np.float32) - 8
    unpacked = (numbers * scales[..., None]).reshape(48, 128)[:, :100].T
    assert np.abs(unpacked - weight).mean() < 0.12, "normal numbers in steps of about a third"
    write_product(tmp_path / "fp32.onnx", weight)
    write_static_int8(tmp_path / "fp32.onnx", tmp_path / "int4.onnx", [{"x": x}], int4=True)
    np.testing.assert_allclose(run_product(tmp_path / "int4.onnx", x), x @ unpacked, atol=0.3)  # int8 activations
