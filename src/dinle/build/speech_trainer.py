"""What the trainers of all families share: batches by seconds, a loss by clip, evaluation by transcripts, checkpoints."""

from __future__ import annotations

import shutil
import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers import Trainer

from dinle.build.augment import SPEED_RANGE
from dinle.build.data import NO_LABEL, SecondsBatchSampler, SpeechDataset, SpeechLoader
from dinle.errors import LossNotFiniteError
from dinle.measure.wer import count_errors, pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from transformers import TrainingArguments

    from dinle.build.config import TrainConfig

Item = TypeVar("Item")

BEST_FOLDER = "best"
_SHOWN = 8  # clips that an error names
_REMEDIES = (
    "listen to these clips and read their texts; lower --learning_rate or raise --warmup_ratio; "
    "with fp16 try --precision bf16 or fp32; then go on with --resume"
)


class SpeechModel(Protocol):
    """What a trainer asks of a model of any family."""

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters but the head's, frozen ones too."""

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters with a learning rate of their own; none where there is no fresh head."""

    def save(self, folder: Path) -> None:
        """Write a model folder."""


@dataclass(frozen=True)
class Recognition:
    """An evaluation clip: its number and name, what was said, what was recognised, and the loss by token."""

    clip: int
    name: str
    reference: str
    hypothesis: str
    loss: float


def group_parameters(model: SpeechModel, config: TrainConfig) -> list[dict[str, Any]]:
    """AdamW's groups: body and head with a learning rate each; biases and norms (vectors) are not decayed."""
    head_rate = config.head_learning_rate if config.head_learning_rate is not None else config.learning_rate
    groups = []
    for name, parameters, rate in (
        ("body", model.body_parameters(), config.learning_rate),
        ("head", model.head_parameters(), head_rate),
    ):
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for kind, decay, some in (
            ("matrices", config.weight_decay, [parameter for parameter in trained if parameter.ndim > 1]),
            ("vectors", 0.0, [parameter for parameter in trained if parameter.ndim <= 1]),
        ):
            if some:
                groups.append({"name": f"{name}/{kind}", "params": some, "lr": rate, "weight_decay": decay})
    return groups


class SpeechTrainer(Trainer):
    """Trainer over a module whose forward gives the losses (B,) of a batch's clips, and what decoding them needs.

    The loss of a step is the sum of its clips' losses over the number of their tokens, all batches and ranks together:
    each token counts the same however batches were cut, and accumulating gradients equals a larger batch. (A mean over
    clips, the usual one, would weigh a clip by how many others of its length there are.)

    ``recognitions`` holds the latest evaluation, by the clips' order.
    """

    def __init__(
        self,
        module: nn.Module,
        speech: SpeechModel,
        args: TrainingArguments,
        config: TrainConfig,
        *,
        train: SpeechDataset,
        evaluation: SpeechDataset,
    ) -> None:
        super().__init__(model=module, args=args, train_dataset=train, eval_dataset=evaluation)
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of all accumulated batches
        self.config = config
        self.speech = speech
        self.train_speech = train
        self.eval_speech = evaluation
        self.recognitions: list[Recognition] = []
        self._latest_names: list[str] = []

    @abstractmethod
    def recognize_batch(self, module: Any, inputs: Any) -> tuple[list[str], Tensor]:
        """What the model writes for each clip of a batch, and the clips' losses (B,)."""

    def compute_losses(self, outputs: Any, inputs: Any) -> Tensor:  # noqa: ARG002
        """The losses (B,) of a batch in training, from what the module's forward gave."""
        losses: Tensor = outputs[0]
        return losses

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:  # noqa: ARG002
        """AdamW over :func:`group_parameters`."""
        if self.optimizer is None:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            self.optimizer = torch.optim.AdamW(
                group_parameters(self.speech, self.config), betas=betas, eps=self.args.adam_epsilon
            )
        return self.optimizer

    def get_train_dataloader(self) -> SpeechLoader:
        """Shuffled batches by seconds, this rank's share; not handed to accelerate, which would share it out again."""
        # Sound that may be slowed down is counted at its longest.
        stretch = 1 / SPEED_RANGE[0] if "speed" in self.config.augment else 1.0
        return self._make_loader(self.train_speech, seed=self.config.seed, stretch=stretch)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> SpeechLoader:  # noqa: ARG002
        """The evaluation clips by length, this rank's share."""
        return self._make_loader(self.eval_speech, seed=None)

    def _make_loader(self, dataset: SpeechDataset, *, seed: int | None, stretch: float = 1.0) -> SpeechLoader:
        sampler = SecondsBatchSampler(
            [one.clip.duration_s * stretch for one in dataset.clips],
            self.config.batch_seconds,
            seed=seed,
            rank=self.args.process_index,
            world=self.args.world_size,
        )
        return SpeechLoader(dataset, sampler, self.args.dataloader_num_workers)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None  # noqa: ARG002
    ) -> Tensor:  # fmt: skip
        """This rank's part of the step's loss.

        Raises:
            LossNotFiniteError: a clip's loss is NaN or infinite.
        """
        losses = self.compute_losses(model(inputs["waveform"], inputs["lengths"], inputs["labels"]), inputs)
        self._latest_names = self._name_clips(self.train_speech, inputs["clips"])
        check_losses(losses, self._latest_names, f"step {self.state.global_step + 1}")
        tokens = (inputs["labels"] != NO_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
        # DistributedDataParallel averages gradients over the ranks; the sum over all tokens is wanted.
        total: Tensor = losses.sum() * self.args.world_size / torch.as_tensor(tokens).max().clamp(min=1)
        return total

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]  # transformers'
        # With fp16's loss scaling an overflow is ordinary: that step is left out and the scale lowered.
        if self.accelerator.scaler is None and not torch.isfinite(torch.as_tensor(norm)):
            raise LossNotFiniteError(
                f"the gradient of step {self.state.global_step + 1} is {float(norm)}, the loss was finite; last batch: "
                f"{', '.join(self._latest_names[:_SHOWN])}. Remedies: {_REMEDIES}"
            )
        return norm

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"  # noqa: ARG002
    ) -> dict[str, float]:  # fmt: skip
        """WER, CER and loss over the evaluation clips of all ranks.

        Each batch is decoded to text where it was computed, so memory does not grow with the evaluation set.
        """
        started = time.monotonic()
        found = gather_lists(list(self._recognize(self.get_eval_dataloader())), self.args.world_size)
        self.recognitions = [one for _, one in sorted({one.clip: one for one in found}.items())]
        scores = score_recognitions(self.recognitions)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        metrics[f"{metric_key_prefix}_runtime"] = round(time.monotonic() - started, 3)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _recognize(self, loader: SpeechLoader) -> Iterator[Recognition]:
        module = self.accelerator.unwrap_model(self.model).eval()
        for batch in loader:
            inputs = self._prepare_inputs(batch)
            with torch.no_grad():
                texts, losses = self.recognize_batch(module, inputs)
            check_losses(losses, self._name_clips(self.eval_speech, inputs["clips"]), "the evaluation")
            tokens = (inputs["labels"] != NO_LABEL).sum(dim=1).clamp(min=1)
            columns = (inputs["clips"].tolist(), texts, (losses / tokens).tolist())
            for clip, hypothesis, loss in zip(*columns, strict=True):
                one = self.eval_speech.clips[clip]
                yield Recognition(clip, one.clip.audio.name, one.text, hypothesis, loss)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)

    def _name_clips(self, dataset: SpeechDataset, clips: Tensor) -> list[str]:
        return [str(dataset.clips[clip].clip.audio) for clip in clips.tolist()]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # Before the checkpoint that says where the best one is: a run killed between the two then repeats the step.
        if self.state.best_global_step == self.state.global_step and self.args.should_save:
            save_best(self.speech, self.config.output_dir / BEST_FOLDER)
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        # A checkpoint is a model folder that every command reads, and holds no pickled arguments.
        if self.args.should_save:
            self.speech.save(Path(output_dir) if output_dir else self.config.output_dir)


def check_losses(losses: Tensor, names: list[str], where: str) -> None:
    """Stop at a loss that is not finite.

    Raises:
        LossNotFiniteError: with the clips of the batch and each one's loss, the bad ones first.
    """
    if bool(torch.isfinite(losses).all()):
        return
    pairs = sorted(zip(losses.tolist(), names, strict=True), key=lambda pair: abs(pair[0]) < float("inf"))
    listed = ", ".join(f"{name}: {loss:.4g}" for loss, name in pairs[:_SHOWN])
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    raise LossNotFiniteError(
        f"the loss of {where} is not finite; clips and losses: {listed}{more}. Remedies: {_REMEDIES}"
    )


def gather_lists(items: list[Item], world: int) -> list[Item]:
    """One list of the items of all ranks, on each of them."""
    if world == 1:
        return items
    gathered: list[list[Item]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]


def score_recognitions(recognitions: list[Recognition]) -> dict[str, float]:
    """WER and CER by pooled counts (rule set ``tr``), and the mean over clips of the loss by token."""
    references, hypotheses = [one.reference for one in recognitions], [one.hypothesis for one in recognitions]
    counts = pool(count_errors(references, hypotheses, normalizer="tr"))
    loss = sum(one.loss for one in recognitions) / max(1, len(recognitions))
    return {"wer": counts.wer, "cer": counts.cer, "loss": loss}


def save_best(model: SpeechModel, folder: Path) -> None:
    """Write the model beside its place, then move it there, so that ``folder`` never holds half a model."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def read_samples(recognitions: list[Recognition], count: int = 5) -> list[Recognition]:
    """A few clips spread evenly over the evaluation set, the same ones each time."""
    step = max(1, len(recognitions) // count)
    return recognitions[::step][:count]


def describe_history(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What a run's record keeps: the first and the last loss, and WER and CER by step."""
    losses = [round(entry["loss"], 5) for entry in history if "loss" in entry]
    evaluations = [
        {"step": entry["step"], "wer": round(entry["eval_wer"], 5), "cer": round(entry["eval_cer"], 5)}
        for entry in history
        if "eval_wer" in entry
    ]
    return {
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "evaluations": evaluations,
    }
