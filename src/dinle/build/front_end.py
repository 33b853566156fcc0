"""Length-aware front-end pieces: what a padded row does not own never reaches what it gives.

Shapes: B batch, S samples, M mel frames, C channels, T frames.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.audio_utils import mel_filter_bank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400  # 25 ms, Whisper's n_fft
HOP_SAMPLES = 160  # 10 ms
LOG_FLOOR = 1e-10  # openai/whisper audio.py: clamp(min=1e-10).log10()
DYNAMIC_RANGE = 8.0  # openai/whisper audio.py: at most 8 decades below the loudest value
NORMALIZE_EPSILON = 1e-7  # transformers Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm
KALDI_DFT, KALDI_PREEMPHASIS, KALDI_FLOOR = 512, 0.97, 1.192092955078125e-07  # SeamlessM4TFeatureExtractor
MASKED_SCORE = -1e4  # additive mask: exp(-1e4) is 0 in every float type, and fp16 can hold it


def mask_from_lengths(lengths: Tensor, size: int) -> Tensor:
    """True where a position belongs to its row: lengths (B,) -> (B, size) bool."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def mask_attention(frames: Tensor, size: int) -> Tensor:
    """Additive attention mask (B, 1, 1, size): 0 on the valid frames of a row, very negative on its padding."""
    return (~mask_from_lengths(frames, size)).to(torch.float32)[:, None, None, :] * MASKED_SCORE


def normalize_waveform(waveform: Tensor, lengths: Tensor) -> Tensor:
    """Zero mean and unit variance over the valid samples of each row of (B, S); the padding becomes zero.

    The formula is that of transformers' ``Wav2Vec2FeatureExtractor`` (``do_normalize``).
    """
    mask = mask_from_lengths(lengths, waveform.shape[1]).to(waveform.dtype)
    count = lengths.clamp(min=1).to(waveform.dtype)[:, None]
    centred = (waveform - (waveform * mask).sum(1, keepdim=True) / count) * mask
    variance = centred.square().sum(1, keepdim=True) / count
    return centred * torch.rsqrt(variance + NORMALIZE_EPSILON)


def masked_group_norm(hidden: Tensor, frames: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm with one group per channel over the valid frames of each row of (B, C, T).

    This is what wav2vec2-base does to its first convolution; plain ``nn.GroupNorm`` lets the padding of a batch change
    the mean and the variance of every row.
    """
    mask = mask_from_lengths(frames, hidden.shape[2]).to(hidden.dtype)[:, None, :]
    count = frames.to(hidden.dtype)[:, None, None]
    centred = hidden - (hidden * mask).sum(2, keepdim=True) / count
    variance = (centred * mask).square().sum(2, keepdim=True) / count
    return centred * (torch.rsqrt(variance + norm.eps) * norm.weight[None, :, None]) + norm.bias[None, :, None]


def convolve_and_normalize(waveform: Tensor, frames: Tensor, conv: nn.Conv1d, norm: nn.GroupNorm) -> Tensor:
    """``masked_group_norm(conv(waveform))`` for a convolution of one channel, without a pass over its output.

    A channel is ``w . x + b`` over windows x, so that its mean is ``w . mean(x) + b`` and its variance ``w' cov(x) w``: the
    statistics of 512 channels of half a million frames follow from one 10 x 10 matrix, and the norm becomes another
    weight and bias for each row. The covariance is taken in double precision: neighbouring samples are nearly equal, and a
    high-pass filter's variance is a small difference of large numbers.

    Args:
        waveform: (B, S).
        frames: (B,) valid frames of the output.
        conv: of one input channel, without padding or dilation.
        norm: one group for each channel.

    Returns:
        (B, C, T).
    """
    size, stride = conv.kernel_size[0], conv.stride[0]
    windows = cut_windows(waveform, size, stride)
    mask = mask_from_lengths(frames, windows.shape[1])[:, :, None]
    count = frames.to(torch.float64)[:, None, None]
    mean = (windows * mask).to(torch.float64).sum(1, keepdim=True) / count
    centred = (windows.to(torch.float64) - mean) * mask
    covariance = centred.transpose(1, 2) @ centred / count
    kernel = conv.weight[:, 0, :].to(torch.float64)
    variance = ((kernel @ covariance) * kernel).sum(2, keepdim=True)
    gain = norm.weight[:, None] * torch.rsqrt(variance + norm.eps)
    weight = kernel * gain
    bias = norm.bias[:, None] - weight @ mean.transpose(1, 2)
    folded = torch.cat([weight, bias], dim=2).to(windows.dtype)
    ones = torch.ones_like(windows[:, :, :1])
    return folded @ torch.cat([windows, ones], dim=2).transpose(1, 2)


def cut_windows(waveform: Tensor, size: int, stride: int) -> Tensor:
    """(B, S) -> (B, T, size), T = (S - size) // stride + 1; slices of whole blocks, which every runtime copies fast."""
    count = (waveform.shape[1] - size) // stride + 1
    reach = -(-size // stride)
    padded = functional.pad(waveform, (0, reach * stride))
    blocks = padded[:, : (count + reach - 1) * stride].reshape(waveform.shape[0], -1, stride)
    return torch.cat([blocks[:, first : first + count] for first in range(reach)], dim=2)[:, :, :size]


def normalize_bins(features: Tensor, frames: Tensor) -> Tensor:
    """Zero mean and unit variance of each channel of (B, C, M) over a row's valid frames; the padding becomes zero.

    The formula, with n - 1 in the variance, is that of transformers' ``SeamlessM4TFeatureExtractor``.
    """
    mask = mask_from_lengths(frames, features.shape[2])[:, None, :].to(features.dtype)
    count = frames.to(features.dtype)[:, None, None]
    centred = (features - (features * mask).sum(2, keepdim=True) / count) * mask
    variance = centred.square().sum(2, keepdim=True) / (count - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + NORMALIZE_EPSILON)


def count_conv_frames(lengths: Tensor, kernels: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Frames left of ``lengths`` after convolutions without padding, by torch's Conv1d formula."""
    for kernel, stride in zip(kernels, strides, strict=True):
        lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
    return lengths


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Input positions that one output position of a chain of convolutions sees."""
    size = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        size = (size - 1) * stride + kernel
    return size


def make_dft_basis(window: NDArray[np.float64], dft_size: int) -> NDArray[np.float64]:
    """Windowed cosines, then sines: (2 * (dft_size // 2 + 1), window) float64, so that a DFT is one product."""
    bins, samples = np.arange(dft_size // 2 + 1), np.arange(len(window))
    angles = 2 * np.pi * np.outer(bins, samples) / dft_size
    basis: NDArray[np.float64] = np.concatenate([np.cos(angles), np.sin(angles)]) * window
    return basis


class WhisperLogMel(nn.Module):
    """Whisper's log-mel spectrogram without the 30 s padding, as two convolutions.

    Silence of ``silence_s`` is put at both ends of each row, so that the frames at the borders see what they see in
    the middle of Whisper's own zero-padded window; the reflection that ``torch.stft(center=True)`` makes of zeros is
    zeros too. The DFT is a strided convolution with a fixed basis and the mel filters a convolution of width one: both
    export to ONNX, and neither is a MatMul that an int8 quantiser would take (power spectra span 8 decades).
    """

    def __init__(self, mel_bins: int, silence_s: float) -> None:
        super().__init__()
        self.silence_samples = round(silence_s * SAMPLE_RATE_HZ)
        window = np.hanning(WINDOW_SAMPLES + 1)[:-1]  # periodic, as torch.hann_window
        filters = mel_filter_bank(
            num_frequency_bins=WINDOW_SAMPLES // 2 + 1,
            num_mel_filters=mel_bins,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE_HZ / 2,
            sampling_rate=SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        basis = torch.from_numpy(make_dft_basis(window, WINDOW_SAMPLES)).float()[:, None, :]
        # squared cosine and sine parts are added by the filters themselves
        mel = torch.from_numpy(np.concatenate([filters, filters]).T.copy()).float()[:, :, None]
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("mel_filters", mel, persistent=False)
        self.basis: Tensor
        self.mel_filters: Tensor

    def count_frames(self, lengths: Tensor) -> Tensor:
        """Mel frames M of clips of ``lengths`` samples, the silence at both ends included."""
        return torch.div(lengths + 2 * self.silence_samples, HOP_SAMPLES, rounding_mode="floor")

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) raw samples -> log-mel (B, mel_bins, M), zero after each row's end, and mel frames (B,)."""
        waveform = waveform * mask_from_lengths(lengths, waveform.shape[1]).to(waveform.dtype)
        margin = self.silence_samples + WINDOW_SAMPLES // 2
        # one hop less at the end: Whisper drops the last frame of its STFT
        padded = functional.pad(waveform, (margin, margin - HOP_SAMPLES))
        parts = functional.conv1d(padded[:, None, :], self.basis, stride=HOP_SAMPLES)
        power = functional.conv1d(parts.square(), self.mel_filters)
        log_mel = power.clamp(min=LOG_FLOOR).log10()
        frames = self.count_frames(lengths)
        mask = mask_from_lengths(frames, log_mel.shape[2])[:, None, :]
        floor = math.log10(LOG_FLOOR)
        loudest = torch.where(mask, log_mel, floor).amax(dim=(1, 2), keepdim=True)
        scaled = (torch.maximum(log_mel, loudest - DYNAMIC_RANGE) + 4.0) / 4.0
        return scaled * mask.to(scaled.dtype), frames


class KaldiFbank(nn.Module):
    """The log-mel filter bank of Kaldi, as transformers' ``SeamlessM4TFeatureExtractor`` computes it.

    Scaling to 16 bits, removing the mean, pre-emphasis, window and DFT are all linear in a frame's 400 samples, so that
    one convolution with a fixed basis does the five of them.
    """

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=KALDI_DFT // 2 + 1,
            num_mel_filters=mel_bins,
            min_frequency=20,
            max_frequency=SAMPLE_RATE_HZ // 2,
            sampling_rate=SAMPLE_RATE_HZ,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        size = WINDOW_SAMPLES
        centring = np.eye(size) - 1 / size
        emphasis = np.eye(size) - KALDI_PREEMPHASIS * np.eye(size, k=-1)
        emphasis[0, 0] -= KALDI_PREEMPHASIS
        povey = np.hanning(size) ** 0.85
        basis = make_dft_basis(povey, KALDI_DFT) @ emphasis @ centring * 2**15
        mel = np.concatenate([filters, filters]).T.copy()
        self.register_buffer("basis", torch.from_numpy(basis).float()[:, None, :], persistent=False)
        self.register_buffer("mel_filters", torch.from_numpy(mel).float()[:, :, None], persistent=False)
        self.basis: Tensor
        self.mel_filters: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, S) -> natural log-mel (B, mel_bins, M); frames lie within the signal, M = (S - 400) // 160 + 1."""
        parts = functional.conv1d(waveform[:, None, :], self.basis, stride=HOP_SAMPLES)
        return functional.conv1d(parts.square(), self.mel_filters).clamp(min=KALDI_FLOOR).log()
