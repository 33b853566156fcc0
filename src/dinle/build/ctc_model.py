"""The one interface that training, export and the torch engine see of every CTC family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from transformers import PreTrainedModel

    from dinle.recognize.vocabulary import Vocabulary


@dataclass(frozen=True)
class SpecAugmentSettings:
    """How much to mask in training; the names and meanings are those of Hugging Face's configs.

    ``*_prob`` is the share of positions that start to be covered by spans (overlaps make the real share smaller),
    ``*_length`` the length of a span, in frames (for Whisper: mel frames of 10 ms) or in channels.
    """

    mask_time_prob: float
    mask_time_length: int
    mask_feature_prob: float
    mask_feature_length: int


class CtcModel(nn.Module, ABC):
    """Raw audio in, log-probabilities out; normalisation, log-mel, convolutions and masks are inside.

    The row law holds: over its valid frames a row of a padded batch gives what it gives alone (fp32, 1e-4).

    Attributes:
        family: ``ctc`` (any Hugging Face CTC model) or ``whisper-ctc`` (a Whisper encoder with a CTC head).
        vocabulary: the tokens of the V outputs.
        frame_shift_s: seconds from one frame to the next.
        frame_offset_s: start of the first frame relative to the first sample, taking a frame to reach half a shift to
            both sides of its centre; negative when silence is put in front of the clip.
        max_seconds: the longest clip that the model takes (None: no limit).
        spec_augment: mask time and features while training (no effect in eval mode).
    """

    family: ClassVar[str]

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.frame_shift_s = 0.02
        self.frame_offset_s = 0.0
        self.max_seconds: float | None = None
        self.spec_augment = True

    @property
    @abstractmethod
    def network(self) -> PreTrainedModel:
        """The transformers model inside, which holds the encoder."""

    @property
    @abstractmethod
    def head(self) -> nn.Linear:
        """The linear layer from hidden states to the V tokens."""

    @property
    @abstractmethod
    def encoder_layers(self) -> nn.ModuleList:
        """The transformer layers, the lowest first."""

    @abstractmethod
    def front_end_modules(self) -> Iterable[nn.Module]:
        """The convolutions that turn sound into frames."""

    @abstractmethod
    def below_layers_modules(self) -> Iterable[nn.Module]:
        """What lies between the front end and the first layer."""

    @abstractmethod
    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) samples and lengths (B,) -> hidden states (B, T, C) ready for the head, and frames (B,)."""

    @abstractmethod
    def count_frames(self, lengths: Tensor) -> Tensor:
        """Valid frames of clips of ``lengths`` samples, from the model's own kernels and strides; at least 1."""

    @abstractmethod
    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write config.json, model.safetensors and vocab.json, which :func:`dinle.build.models.load_model` reads.

        ``half`` stores fp16 weights (read back as fp32).
        """

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """From sound to log-probabilities.

        Args:
            waveform: (B, S) float32, mono at 16 kHz in [-1, 1]; what lies beyond a row's length is ignored.
            lengths: (B,) int64, samples of each row.

        Returns:
            log_probs (B, T, V) float32, of which a row's first ``frames`` are valid, and frames (B,) int64.

        Raises:
            AudioLimitError: the batch is longer than ``max_seconds``.
        """
        hidden, frames = self.encode(waveform, lengths)
        return self.head(hidden).float().log_softmax(dim=-1), frames

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the CTC head, for a learning rate of their own."""
        return self.head.parameters()

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters that are not the head's, frozen ones too."""
        head = {id(parameter) for parameter in self.head_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in head)

    def freeze(self, front_end: bool = True, layers: int = 0) -> None:
        """Keep parts as they are.

        Args:
            front_end: the convolutional front end.
            layers: the lowest N transformer layers, with the projection and positional embedding beneath them.

        Raises:
            ValueError: the model has fewer layers.
        """
        if not 0 <= layers <= len(self.encoder_layers):
            raise ValueError(
                f"cannot freeze {layers} layers of a model with {len(self.encoder_layers)}; "
                f"give a number from 0 to {len(self.encoder_layers)}"
            )
        frozen = list(self.front_end_modules()) if front_end else []
        if layers:
            frozen += [*self.below_layers_modules(), *self.encoder_layers[:layers]]
        for module in frozen:
            module.requires_grad_(requires_grad=False)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations."""
        # the reentrant form loses gradients when the layers' input needs none, as after a frozen front end
        network: Any = self.network
        # the second name is gone in transformers 6, the first is missing before 5.2x
        enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def prepare_for_export(self) -> Self:
        """Make the graph plain: eval mode, attention as products and a softmax, weight norms fused. In place."""
        self.eval()
        self.network.set_attn_implementation("eager")
        for module in self.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
        return self


def run_layers(
    layers: Iterable[nn.Module], hidden: Tensor, mask: Tensor, layerdrop: float = 0.0, **inputs: Tensor
) -> Tensor:
    """Run transformer layers one after the other; while training each is left out with probability ``layerdrop``."""
    for layer in layers:
        if layer.training and layerdrop > 0 and torch.rand(()) < layerdrop:
            continue
        output = layer(hidden, attention_mask=mask, **inputs)
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden


def draw_spans(lengths: Tensor, size: int, probability: float, span: int) -> Tensor:
    """Random spans within each row's valid positions: lengths (B,) -> (B, size) bool.

    A row gets ``probability * length / span`` spans (the fraction decided by chance), as in Hugging Face's SpecAugment,
    but never one that reaches beyond its end; rows shorter than a span get none.
    """
    drawn = torch.zeros(len(lengths), size, dtype=torch.bool)
    for row, length in enumerate(lengths.tolist()):
        starts_possible = length - span + 1
        count = int(probability * length / span + torch.rand(()).item())
        if starts_possible < 1 or count < 1:
            continue
        for start in torch.randint(starts_possible, (count,)).tolist():
            drawn[row, start : start + span] = True
    return drawn.to(lengths.device)
