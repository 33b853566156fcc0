"""transformers' Seq2SeqTrainer for Whisper: full, with a frozen encoder or by LoRA, with or without a teacher.

Shapes: B batch, L tokens of a label, V vocabulary, K the teacher's likeliest tokens.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Seq2SeqTrainer

from dinle.build.data import NO_LABEL, SpeechDataset
from dinle.build.model_source import read_weights
from dinle.build.speech_trainer import SpeechTrainer
from dinle.build.whisper_generate import generate_greedy
from dinle.build.whisper_lora import add_lora, has_lora, load_adapter, save_adapter
from dinle.build.whisper_model import TIED_HEAD, WhisperSpeechModel
from dinle.errors import UsageError
from dinle.recognize.load import MAX_WINDOW_S

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from dinle.build.config import TrainConfig

TEACHER_TOKENS = 32  # the likeliest ones, which the student learns one by one; the others are taken together
LEAST_SHARE = 1e-7  # fp32 cannot tell a smaller rest of a sum of 1 from rounding


class WhisperTrainingModule(nn.Module):
    """A Whisper model with its loss, so that one ``forward`` does all that DistributedDataParallel must see."""

    accepts_loss_kwargs = True  # has the Trainer count the tokens of all batches of a step, on all ranks

    def __init__(self, whisper: WhisperSpeechModel) -> None:
        super().__init__()
        self.whisper = whisper

    def forward(self, waveform: Tensor, lengths: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Losses (B,) in nats, log_probs (B, L, V), the encoder's hidden states and frames of a batch."""
        hidden, frames = self.whisper.encode(waveform, lengths)
        log_probs = predict_labels(self.whisper, hidden, frames, labels)
        return compute_losses(log_probs, labels), log_probs, hidden, frames


def predict_labels(model: WhisperSpeechModel, hidden: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities (B, L, V) of the tokens at the places of ``labels`` (B, L), given the prefix and those before."""
    prefix = torch.tensor(model.tokens.prefix, device=labels.device).expand(len(labels), -1)
    written = labels[:, :-1].masked_fill(labels[:, :-1] == NO_LABEL, model.tokens.end)
    logits = model.decode(torch.cat([prefix, written], dim=1), hidden, frames)
    return logits[:, prefix.shape[1] - 1 :].float().log_softmax(dim=-1)


def compute_losses(log_probs: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy of each clip (B,): minus the log-probability of its label (B, L), padded with -100."""
    losses = functional.nll_loss(log_probs.transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none")
    return losses.sum(dim=1)


class Teacher:
    """The untouched starting model, which hears each clip with Whisper's own padding to 30 s.

    It hears clips one at a time, so that what it says of a clip does not depend on the batch.

    Args:
        model: the starting model; a copy is kept.
        keep: remember what was said of each clip, where the sound is the same in each epoch (about 5 kB a clip).
    """

    def __init__(self, model: WhisperSpeechModel, *, keep: bool) -> None:
        network = copy.deepcopy(model.network).requires_grad_(requires_grad=False)
        self.model = WhisperSpeechModel(
            network, model.tokens, min_window_s=MAX_WINDOW_S, tail_silence_s=model.tail_silence_s
        ).eval()
        self.keep = keep
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def compute_divergences(self, log_probs: Tensor, inputs: Any) -> Tensor:
        """Kullback-Leibler divergence (B,) of log_probs (B, L, V) from the teacher's, summed over a label's tokens.

        It is taken over the teacher's :data:`TEACHER_TOKENS` likeliest tokens and all others together.
        """
        divergences = []
        for row, clip in enumerate(inputs["clips"].tolist()):
            size = int((inputs["labels"][row] != NO_LABEL).sum())
            best, ours = self._ask(row, clip, size, inputs)
            theirs = log_probs[row, :size].gather(1, best)
            both = (_add_rest(ours), _add_rest(theirs))
            divergences.append(functional.kl_div(both[1], both[0], reduction="sum", log_target=True))
        return torch.stack(divergences)

    @torch.no_grad()
    def _ask(self, row: int, clip: int, size: int, inputs: Any) -> tuple[Tensor, Tensor]:
        """The likeliest tokens (L, K) of a clip and their log-probabilities (L, K)."""
        device = inputs["waveform"].device
        if clip in self._known:
            best, log_probs = self._known[clip]
            return best.to(device, torch.int64), log_probs.to(device)
        self.model.to(device)
        length, labels = inputs["lengths"][row : row + 1], inputs["labels"][row : row + 1, :size]
        hidden, frames = self.model.encode(inputs["waveform"][row : row + 1, : int(length)], length)
        everything = predict_labels(self.model, hidden, frames, labels)[0]
        top = everything.topk(min(TEACHER_TOKENS, everything.shape[1]), dim=1)
        if self.keep:
            self._known[clip] = (top.indices.to("cpu", torch.int32), top.values.cpu())
        return top.indices, top.values


def _add_rest(log_probs: Tensor) -> Tensor:
    """(L, K) log-probabilities and in a last column that of all other tokens together."""
    rest = (1 - log_probs.exp().sum(dim=1, keepdim=True)).clamp(min=LEAST_SHARE).log()
    return torch.cat([log_probs, rest], dim=1)


class WhisperTrainer(SpeechTrainer, Seq2SeqTrainer):  # type: ignore[misc]  # evaluate takes no options of generate here
    """A :class:`SpeechTrainer` over a :class:`WhisperTrainingModule`.

    Raises:
        UsageError: more layers are to be frozen than there are.
    """

    def __init__(
        self,
        whisper: WhisperSpeechModel,
        args: TrainingArguments,
        config: TrainConfig,
        *,
        train: SpeechDataset,
        evaluation: SpeechDataset,
    ) -> None:
        self.teacher = Teacher(whisper, keep=not config.augment) if config.distill_weight else None
        choose_trained(whisper, config)
        module = WhisperTrainingModule(whisper)
        super().__init__(module, whisper, args, config, train=train, evaluation=evaluation)
        self.whisper = whisper

    def compute_losses(self, outputs: Any, inputs: Any) -> Tensor:
        """The cross entropy, and with a teacher its divergence in the share ``distill_weight``."""
        losses: Tensor = outputs[0]
        if self.teacher is None:
            return losses
        share = self.config.distill_weight
        return (1 - share) * losses + share * self.teacher.compute_divergences(outputs[1], inputs)

    def recognize_batch(self, module: Any, inputs: Any) -> tuple[list[str], Tensor]:
        """See :class:`SpeechTrainer`; greedy, from the same encoding as the loss."""
        losses, _, hidden, frames = module(inputs["waveform"], inputs["lengths"], inputs["labels"])
        rows = generate_greedy(self.whisper, hidden, frames, inputs["lengths"])
        return [self.whisper.tokens.decode(row) for row in rows], losses

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save and has_lora(self.whisper.network):
            save_adapter(self.whisper.network, Path(output_dir) if output_dir else self.config.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        folder, network = Path(resume_from_checkpoint), self.whisper.network
        if has_lora(network):
            load_adapter(network, folder)
            return
        weights = read_weights(folder)
        if network.config.tie_word_embeddings:
            weights[TIED_HEAD] = weights["model.decoder.embed_tokens.weight"]
        network.load_state_dict(weights)


def choose_trained(model: WhisperSpeechModel, config: TrainConfig) -> None:
    """Set what is trained, masked and recomputed. In place.

    Raises:
        UsageError: more layers are to be frozen than there are.
        MissingExtraError: LoRA without peft.
    """
    if config.method == "lora":
        add_lora(model.network, rank=config.lora_rank, alpha=config.lora_alpha, target=config.lora_target)
    try:
        model.freeze(
            front_end=config.freeze_front_end, layers=config.freeze_layers, encoder=config.method == "frozen-encoder"
        )
    except ValueError as error:
        raise UsageError(f"--freeze_layers is {config.freeze_layers}: {error}") from error
    model.spec_augment = config.spec_augment
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
