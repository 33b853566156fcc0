"""transformers' Trainer for CTC: the loss by clip, two learning rates, transcripts by greedy decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from dinle.build.data import NO_LABEL, SpeechDataset
from dinle.build.models import load_model
from dinle.build.speech_trainer import SpeechTrainer
from dinle.recognize.ctc import decode_greedy

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from dinle.build.config import TrainConfig
    from dinle.build.ctc_model import CtcModel


class TrainingModule(nn.Module):
    """A CtcModel with its loss, so that one ``forward`` does all that DistributedDataParallel must see."""

    accepts_loss_kwargs = True  # has the Trainer count the tokens of all batches of a step, on all ranks

    def __init__(self, ctc: CtcModel) -> None:
        super().__init__()
        self.ctc = ctc

    def forward(self, waveform: Tensor, lengths: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (B,) in nats, log_probs (B, T, V) and frames (B,) of a batch; labels (B, L) are padded with -100."""
        log_probs, frames = self.ctc(waveform, lengths)
        return compute_losses(log_probs, frames, labels, self.ctc.vocabulary.blank), log_probs, frames


def compute_losses(log_probs: Tensor, frames: Tensor, labels: Tensor, blank: int) -> Tensor:
    """The CTC loss of each clip (B,): minus the log-probability of its label.

    Infinite losses stay infinite: labels were checked, so that one means something is wrong and must not be hidden.
    """
    sizes = (labels != NO_LABEL).sum(dim=1)
    targets = labels.masked_fill(labels == NO_LABEL, 0)
    # fp32: sums over hundreds of frames; the CUDA kernel has no half precision
    return functional.ctc_loss(
        log_probs.float().transpose(0, 1), targets, frames, sizes, blank=blank, reduction="none", zero_infinity=False
    )


class CtcTrainer(SpeechTrainer):
    """A :class:`SpeechTrainer` over a :class:`TrainingModule`."""

    def __init__(
        self,
        ctc: CtcModel,
        args: TrainingArguments,
        config: TrainConfig,
        *,
        train: SpeechDataset,
        evaluation: SpeechDataset,
    ) -> None:
        super().__init__(TrainingModule(ctc), ctc, args, config, train=train, evaluation=evaluation)
        self.ctc = ctc

    def recognize_batch(self, module: Any, inputs: Any) -> tuple[list[str], Tensor]:
        """See :class:`SpeechTrainer`."""
        losses, log_probs, frames = module(inputs["waveform"], inputs["lengths"], inputs["labels"])
        texts = []
        for row, count in zip(log_probs.float().cpu(), frames.tolist(), strict=True):
            words = decode_greedy(row[:count].numpy(), self.ctc.vocabulary, frame_shift_s=self.ctc.frame_shift_s)
            texts.append(" ".join(word.text for word in words))
        return texts, losses

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        self.ctc.load_state_dict(load_model(resume_from_checkpoint).state_dict())
