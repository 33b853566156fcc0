"""What watches a training run: the progress bar, TensorBoard, early stopping."""

# ruff: noqa: ARG002 - the signatures are transformers'

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.utils.tensorboard import SummaryWriter
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from dinle.build.speech_trainer import Recognition
    from dinle.progress import Bar


class ProgressCallback(TrainerCallback):
    """Moves a bar by optimiser steps; its text shows the latest loss and WER."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._figures: dict[str, str] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The number of steps is known now, and after ``--resume`` how many are done."""
        self._bar.update(total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step is done."""
        self._bar.update(completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Show the latest figures."""
        logs: dict[str, float] = parts["logs"]
        if "loss" in logs:
            self._figures["loss"] = f"{logs['loss']:.3f}"
        if "eval_wer" in logs:
            self._figures["WER"] = f"{100 * logs['eval_wer']:.1f} %"
        self._bar.update(description=", ".join(["training", *(f"{key} {text}" for key, text in self._figures.items())]))


class TensorBoardCallback(TrainerCallback):
    """Writes loss, WER, CER, the learning rate of each parameter group, step time and sample transcripts.

    Args:
        writer: the TensorBoard event writer; its owner closes it.
        read_samples: gives the latest recognitions of a few fixed clips.
    """

    def __init__(self, writer: SummaryWriter, read_samples: Callable[[], Sequence[Recognition]]) -> None:
        self._writer = writer
        self._read_samples = read_samples
        self._step_started = 0.0
        self._step_seconds: list[float] = []
        self._rates: dict[str, float] = {}

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock of a step."""
        self._step_started = time.perf_counter()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Keep the rates that this step used: the schedule moves on right after it."""
        groups = parts["optimizer"].param_groups
        self._rates = {group["name"].partition("/")[0]: group["lr"] for group in groups}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop the clock of a step."""
        self._step_seconds.append(time.perf_counter() - self._step_started)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Write the figures that came since the last time."""
        logs: dict[str, float] = parts["logs"]
        if "loss" in logs:
            scalars = {"train/loss": logs["loss"], "train/gradient_norm": logs.get("grad_norm", 0.0)}
            scalars |= {f"learning_rate/{name}": rate for name, rate in self._rates.items()}
            if self._step_seconds:
                scalars["train/step_seconds"] = sum(self._step_seconds) / len(self._step_seconds)
                self._step_seconds = []
        else:
            names = {"eval_loss": "eval/loss", "eval_wer": "eval/WER", "eval_cer": "eval/CER"}
            scalars = {names[key]: value for key, value in logs.items() if key in names}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write what was said and what was recognised, for the same clips each time."""
        rows = [f"| {one.name} | {one.reference} | {one.hypothesis} |" for one in self._read_samples()]
        table = "\n".join(["| clip | reference | hypothesis |", "|---|---|---|", *rows])
        self._writer.add_text("samples", table, state.global_step)
        self._writer.flush()


class EarlyStopping(TrainerCallback):
    """Stops when ``patience`` evaluations in a row were not better than the best before them.

    It reads the run's own record of evaluations, which a checkpoint keeps: a resumed run counts on. (transformers'
    callback of the same purpose starts to count anew.)
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Judge the evaluations so far; the one before the first step does not count, for it has no checkpoint."""
        rates = [entry["eval_wer"] for entry in state.log_history if "eval_wer" in entry and entry["step"] > 0]
        if rates and len(rates) - 1 - rates.index(min(rates)) >= self._patience:
            control.should_training_stop = True
