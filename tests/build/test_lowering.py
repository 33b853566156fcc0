from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from dinle.build.front_end import convolve_and_normalize, count_conv_frames, masked_group_norm
from dinle.build.graph_tools import read_constant
from dinle.build.lower_convolutions import shift_kernel
from dinle.build.lowering import lower_graph
from tests.build.small_graphs import LENGTHS, run_rows

if TYPE_CHECKING:
    from pathlib import Path

# kind: how many GELUs, attentions, convolutions and grouped convolutions there are to be found
FOUND = {
    "wav2vec2-group": {"gelu": 6, "attention": 2, "convolution": 2, "grouped convolution": 1},
    "wav2vec2-layer": {"gelu": 6, "attention": 2, "convolution": 2, "grouped convolution": 1},
    "wavlm": {"gelu": 6, "attention": 0, "convolution": 2, "grouped convolution": 1},  # its scores get a bias
    "whisper-ctc": {"gelu": 4, "attention": 2, "convolution": 2, "grouped convolution": 0},
}


@pytest.mark.slow
def test_a_lowered_graph_is_all_products_and_says_what_the_graph_says(
    small_graph: tuple[str, Path], tmp_path: Path
) -> None:
    kind, fp32 = small_graph
    rewritten = ir.load(fp32)
    counts = lower_graph(rewritten)
    assert {name: counts[name] for name in FOUND[kind]} == FOUND[kind]
    weights = [read_constant(node.inputs[1]) for node in rewritten.graph if node.op_type == "Conv"]
    left = [weight for weight in weights if weight is not None and weight.shape[1] > 1 and weight.shape[2] > 1]
    assert not left, "the log-mel's convolutions alone stay"
    assert not [node for node in rewritten.graph if node.op_type == "Erf"]
    ir.save(rewritten, tmp_path / "lowered.onnx")
    for whole, row in zip(*(run_rows(path, LENGTHS) for path in (fp32, tmp_path / "lowered.onnx")), strict=True):
        np.testing.assert_allclose(row, whole, atol=1e-4)  # other orders of summation, as the export's own limit


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
