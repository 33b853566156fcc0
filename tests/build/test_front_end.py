from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from dinle.build.front_end import (
    WhisperLogMel,
    count_conv_frames,
    mask_attention,
    mask_from_lengths,
    masked_group_norm,
    normalize_waveform,
    receptive_field,
)

# transformers gives its feature extractors no types
make_wav2vec2_extractor: Any = Wav2Vec2FeatureExtractor
make_whisper_extractor: Any = WhisperFeatureExtractor
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # wav2vec2's


def make_batch(lengths: list[int], rubbish: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise whose padding is not even zero."""
    generator = torch.Generator().manual_seed(3)
    waveform = torch.randn(len(lengths), max(lengths), generator=generator) * 0.1
    counts = torch.tensor(lengths)
    return torch.where(mask_from_lengths(counts, max(lengths)), waveform, rubbish), counts


def test_mask_from_lengths_marks_what_a_row_owns() -> None:
    assert mask_from_lengths(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
    attention = mask_attention(torch.tensor([1, 3]), 3)
    assert attention.shape == (2, 1, 1, 3)
    assert attention[0].softmax(-1).tolist() == [[[1.0, 0.0, 0.0]]]


def test_normalize_waveform_is_transformers_own() -> None:
    waveform, lengths = make_batch([4000, 3999, 17])
    extractor = make_wav2vec2_extractor(do_normalize=True, return_attention_mask=True)
    rows = [row[:length].numpy() + 0.05 for row, length in zip(waveform, lengths.tolist(), strict=True)]
    expected = extractor(rows, sampling_rate=16_000, padding=True, return_tensors="pt").input_values
    # float32 sums in another order
    torch.testing.assert_close(normalize_waveform(waveform + 0.05, lengths), expected, atol=1e-5, rtol=0)


def test_masked_group_norm_is_torchs_on_each_row_alone() -> None:
    norm = nn.GroupNorm(6, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    hidden, frames = torch.randn(3, 6, 40) + 1, torch.tensor([40, 13, 1])
    normed = masked_group_norm(hidden, frames, norm)
    for row, count in enumerate(frames.tolist()):
        alone = (
            nn.functional.group_norm(hidden[row : row + 1, :, :count], 6, norm.weight, norm.bias)
            if count > 1
            else (
                norm.bias[None, :, None]  # torch refuses a single value; it equals its mean
            )
        )
        torch.testing.assert_close(normed[row : row + 1, :, :count], alone, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(min_value=400, max_value=5000))
def test_count_conv_frames_is_what_convolutions_give(samples: int) -> None:
    hidden = torch.zeros(1, 1, samples)
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        hidden = nn.functional.conv1d(hidden, torch.zeros(1, 1, kernel), stride=stride)
    assert count_conv_frames(torch.tensor([samples]), KERNELS, STRIDES).item() == hidden.shape[2]


def test_wav2vec2_sees_400_samples_and_a_second_is_49_frames() -> None:
    assert receptive_field(KERNELS, STRIDES) == 400
    assert count_conv_frames(torch.tensor([16_000]), KERNELS, STRIDES).item() == 49


@pytest.mark.parametrize("samples", [1, 159, 16_000, 16_123, 48_000])
def test_log_mel_is_whispers_own(samples: int) -> None:
    waveform, lengths = make_batch([samples])
    silence = 4000
    mel, frames = WhisperLogMel(80, silence_s=0.25)(waveform, lengths)
    padded = np.pad(waveform[0].numpy(), silence)
    extractor = make_whisper_extractor(feature_size=80)
    expected = extractor(padded, sampling_rate=16_000, padding="do_not_pad", return_tensors="pt").input_features
    assert frames.item() == expected.shape[2] == (samples + 2 * silence) // 160
    # a float32 DFT leaves about 1e-14 of a frame's power in each bin; at 1e-8 of the loudest power, where the scale
    # ends, that moves the logarithm by far less than this
    torch.testing.assert_close(mel, expected, atol=1e-4, rtol=0)


def test_log_mel_of_silence_and_of_nothing_is_finite() -> None:
    mel, frames = WhisperLogMel(80, silence_s=0.25)(torch.zeros(2, 1000), torch.tensor([1000, 0]))
    assert frames.tolist() == [56, 50]
    assert torch.isfinite(mel).all()


def test_log_mel_of_a_row_ignores_its_neighbours_and_its_padding() -> None:
    waveform, lengths = make_batch([16_000, 9001, 100], rubbish=5.0)
    module = WhisperLogMel(80, silence_s=0.25)
    mel, frames = module(waveform, lengths)
    for row, (length, count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
        alone, _ = module(waveform[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(mel[row, :, :count], alone[0], atol=1e-5, rtol=0)
        assert not mel[row, :, count:].any()
