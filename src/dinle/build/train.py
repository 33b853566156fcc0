"""manifest -> checkpoint: fine-tuning with transformers' Trainer, of CTC models and of whole Whisper models.

Runs as it is under ``torchrun --nproc_per_node N``: each process takes its own batches, the first one writes.
"""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import PrinterCallback, Seq2SeqTrainingArguments, TrainingArguments, set_seed

from dinle.build.augment import Augmenter
from dinle.build.data import SpeechDataset, label_clips
from dinle.build.hf_files import read_json
from dinle.build.model_source import find_model_folder
from dinle.build.models import load_model
from dinle.build.provenance import add_training, read_provenance, write_provenance
from dinle.build.speech_trainer import BEST_FOLDER, describe_history, read_samples
from dinle.build.splits import read_splits
from dinle.build.train_callbacks import EarlyStopping, ProgressCallback, TensorBoardCallback
from dinle.build.trainer import CtcTrainer
from dinle.build.whisper_data import label_transcripts
from dinle.build.whisper_model import MODEL_TYPE as WHISPER
from dinle.build.whisper_model import WhisperSpeechModel, load_whisper
from dinle.build.whisper_trainer import WhisperTrainer
from dinle.errors import UsageError
from dinle.progress import progress
from dinle.recognize.load import MAX_WINDOW_S
from dinle.run import write_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dinle.build.config import TrainConfig
    from dinle.build.ctc_model import CtcModel
    from dinle.build.speech_trainer import SpeechTrainer
    from dinle.manifest import Clip

logger = logging.getLogger(__name__)

CHECKPOINTS_KEPT = 2  # the best one and the last one
LOGGING_STEPS = 10
MAX_TAIL_S = 10.0
WHISPER_SETTINGS = (
    "method",
    "min_window_s",
    "distill_weight",
)  # of a whole Whisper model; a CTC model has no use for them
DDP_TIMEOUT_S = 6 * 3600  # the first process may prepare a large dataset while the others wait


def train(config: TrainConfig) -> Path:
    """Fine-tune a model.

    Returns:
        ``output_dir/best``: the checkpoint with the lowest WER on the evaluation clips, with ``run.json``.

    Raises:
        UsageError: a setting that does not fit, or ``output_dir`` holds an interrupted run and ``--resume`` is not given.
        DatasetError: no clips to train on or to evaluate on (or what prepare raises).
        UnknownCharacterError: a transcript has a character that the vocabulary lacks.
        LabelTooLongError: a transcript needs more frames than its clip has, or more tokens than a decoder writes.
        LossNotFiniteError: a loss became NaN or infinite.
    """
    started = time.monotonic()
    check_config(config)
    checkpoint = find_start(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    arguments = make_arguments(config, resuming=checkpoint is not None)  # joins the process group under torchrun
    try:
        return _run(config, arguments, checkpoint, started)
    finally:
        if arguments.world_size > 1:
            arguments.distributed_state.destroy_process_group()


def _run(config: TrainConfig, arguments: TrainingArguments, checkpoint: Path | None, started: float) -> Path:
    set_seed(config.seed)  # a fresh head is drawn now
    with arguments.main_process_first(desc="preparing data and model"):
        train_clips, eval_clips, manifests = read_splits(config)
        model = make_model(config)
    trainer = make_trainer(model, arguments, config, train_clips, eval_clips)
    trainer.remove_callback(PrinterCallback)  # it prints; the bar and TensorBoard show what it would
    if config.early_stopping_patience:
        trainer.add_callback(EarlyStopping(config.early_stopping_patience))
    with _watch(trainer, config, anew=checkpoint is None):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    best = config.output_dir / BEST_FOLDER
    if arguments.should_save:
        results = summarize(trainer, len(train_clips), len(eval_clips))
        write_provenance(best, add_training(read_provenance(config.model_name), config.model_name, train_clips))
        write_run(
            best, stage="train", config=config, seconds=time.monotonic() - started, inputs=manifests, results=results
        )
    arguments.distributed_state.wait_for_everyone()
    return best


def check_config(config: TrainConfig) -> None:
    """Refuse settings that can only fail later.

    Raises:
        UsageError: naming the setting, its value and what was expected.
    """
    rules: tuple[tuple[str, bool, str], ...] = (
        ("train_percent", 0 < config.train_percent <= 1, "a fraction above 0 and up to 1"),
        ("eval_percent", 0 < config.eval_percent <= 1, "a fraction above 0 and up to 1"),
        ("epochs", config.epochs > 0, "a number above 0"),
        ("max_steps", config.max_steps == -1 or config.max_steps > 0, "a number above 0, or -1 to go by epochs"),
        ("learning_rate", config.learning_rate > 0, "a number above 0"),
        ("head_learning_rate", config.head_learning_rate is None or config.head_learning_rate > 0, "a number above 0"),
        ("warmup_ratio", 0 <= config.warmup_ratio < 1, "a fraction from 0 to below 1"),
        ("weight_decay", config.weight_decay >= 0, "0 or more"),
        ("batch_seconds", config.batch_seconds > 0, "seconds above 0"),
        ("gradient_accumulation_steps", config.gradient_accumulation_steps >= 1, "1 or more"),
        ("freeze_layers", config.freeze_layers >= 0, "0 or more"),
        ("augment_probability", 0 <= config.augment_probability <= 1, "a probability from 0 to 1"),
        ("eval_every_steps", config.eval_every_steps >= 0, "a number of steps, or 0 for each epoch"),
        ("early_stopping_patience", config.early_stopping_patience >= 0, "a number of evaluations, or 0 for never"),
        ("num_workers", config.num_workers >= 0, "0 or more"),
        ("threads", config.threads is None or config.threads > 0, "1 or more"),
        ("lora_rank", config.lora_rank >= 1, "1 or more"),
        ("lora_alpha", config.lora_alpha > 0, "a number above 0"),
        ("min_window_s", 0 <= config.min_window_s <= MAX_WINDOW_S, f"seconds from 0 to {MAX_WINDOW_S:g}"),
        ("tail_silence_s", 0 <= config.tail_silence_s <= MAX_TAIL_S, f"seconds from 0 to {MAX_TAIL_S:g}"),
        ("distill_weight", 0 <= config.distill_weight <= 1, "a share from 0 to 1"),
    )
    for name, good, expected in rules:
        if not good:
            raise UsageError(f"--{name} is {getattr(config, name)}; expected {expected}")


def find_start(config: TrainConfig) -> Path | None:
    """The checkpoint to go on from; None starts anew.

    An interrupted run is never overwritten; a finished one is, once the new run has a better place for its results.

    Raises:
        UsageError: ``output_dir`` holds an interrupted run and ``--resume`` is not given.
    """
    checkpoint = find_last_checkpoint(config.output_dir)
    if config.resume:
        if checkpoint is None:
            logger.warning("--resume: there is no checkpoint in %s yet; starting anew", config.output_dir)
        return checkpoint
    if checkpoint is not None and not (config.output_dir / BEST_FOLDER / "run.json").is_file():
        raise UsageError(
            f"{config.output_dir} holds an interrupted run ({checkpoint.name}): go on with it by --resume, "
            "choose another --output_dir, or delete the folder"
        )
    return None


def find_last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: trainer_state.json is what the Trainer writes last."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def make_arguments(config: TrainConfig, *, resuming: bool) -> TrainingArguments:
    """The Trainer's settings for a run."""
    has_cuda = torch.cuda.is_available()  # other devices lack a CTC loss
    choices: dict[str, Any] = (
        {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": config.eval_every_steps,
         "save_steps": config.eval_every_steps}
        if config.eval_every_steps
        else {"eval_strategy": "epoch", "save_strategy": "epoch"}
    )  # fmt: skip
    choices |= choose_precision(config.precision)
    return Seq2SeqTrainingArguments(
        output_dir=str(config.output_dir),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        logging_steps=LOGGING_STEPS,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_on_start=not resuming,  # the figure to beat; and a broken evaluation fails in the first minute
        save_total_limit=CHECKPOINTS_KEPT,
        metric_for_best_model="wer",
        greater_is_better=False,
        dataloader_num_workers=config.num_workers,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
        use_cpu=not has_cuda,
        ddp_backend="gloo" if torch.distributed.is_torchelastic_launched() and not has_cuda else None,
        ddp_find_unused_parameters=True,  # layer drop leaves layers out of a step
        ddp_timeout=DDP_TIMEOUT_S,
        **choices,
    )


def choose_precision(precision: str) -> dict[str, bool]:
    """The Trainer's flags for a precision; ``auto`` is bf16 or fp16 on CUDA devices that compute it, fp32 elsewhere.

    Raises:
        UsageError: fp16 without a CUDA device.
    """
    has_cuda = torch.cuda.is_available()
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if has_cuda else "fp32"
    if precision == "fp16" and not has_cuda:
        raise UsageError("--precision fp16 needs a CUDA device, and there is none; take auto, bf16 or fp32")
    return {"bf16": precision == "bf16", "fp16": precision == "fp16"}


def find_family(config: TrainConfig) -> Literal["auto", "ctc", "whisper-ctc", "whisper"]:
    """The family that is trained: ``whisper``, or one for :func:`load_model` to judge.

    Raises:
        UsageError: a setting of the other family.
    """
    is_whisper = config.family == WHISPER or (
        config.family == "auto"
        and read_json(find_model_folder(config.model_name) / "config.json").get("model_type") == WHISPER
    )
    defaults = {field.name: field.default for field in fields(config)}
    others = ("head_learning_rate",) if is_whisper else WHISPER_SETTINGS
    for name in others:
        if getattr(config, name) != defaults[name]:
            owner = "a CTC model" if is_whisper else "a whole Whisper model"
            raise UsageError(
                f"--{name} is {getattr(config, name)}, which is a setting of {owner}, but {config.model_name} is "
                f"trained as {'a whole Whisper model' if is_whisper else 'a CTC model'}; leave it out, or set --family"
            )
    return "whisper" if is_whisper else config.family


def make_model(config: TrainConfig) -> CtcModel | WhisperSpeechModel:
    """Load the model; of a CTC model set what is trained, masked and recomputed (for Whisper its trainer does it).

    Raises:
        UsageError: more layers are to be frozen than there are, or a setting is the other family's.
    """
    family = find_family(config)
    if family == "whisper":
        return load_whisper(config.model_name, min_window_s=config.min_window_s, tail_silence_s=config.tail_silence_s)
    model = load_model(config.model_name, family=family)
    try:
        model.freeze(front_end=config.freeze_front_end, layers=config.freeze_layers)
    except ValueError as error:
        raise UsageError(f"--freeze_layers is {config.freeze_layers}: {error}") from error
    model.spec_augment = config.spec_augment
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def make_trainer(
    model: CtcModel | WhisperSpeechModel,
    arguments: TrainingArguments,
    config: TrainConfig,
    train_clips: Sequence[Clip],
    eval_clips: Sequence[Clip],
) -> SpeechTrainer:
    """The trainer of a model's family over labelled clips."""
    augmenter = Augmenter(config.augment, config.augment_probability, config.seed) if config.augment else None
    trained, judged = (
        label_transcripts(clips, model) if isinstance(model, WhisperSpeechModel) else label_clips(clips, model)
        for clips in (train_clips, eval_clips)
    )
    train = SpeechDataset(trained, augmenter, max_seconds=model.max_seconds)
    evaluation = SpeechDataset(judged)
    if isinstance(model, WhisperSpeechModel):
        return WhisperTrainer(model, arguments, config, train=train, evaluation=evaluation)
    return CtcTrainer(model, arguments, config, train=train, evaluation=evaluation)


@contextmanager
def _watch(trainer: SpeechTrainer, config: TrainConfig, *, anew: bool) -> Iterator[None]:
    """A progress bar and TensorBoard, on the first process only."""
    if not trainer.is_world_process_zero():
        yield
        return
    if anew:
        _clear_finished_run(config.output_dir)
    run = f"{config.output_dir.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with progress("training") as bar, SummaryWriter(str(config.log_dir / run)) as writer:
        trainer.add_callback(ProgressCallback(bar))
        trainer.add_callback(TensorBoardCallback(writer, lambda: read_samples(trainer.recognitions)))
        yield


def _clear_finished_run(folder: Path) -> None:
    """Remove a finished run's checkpoints, or a later --resume mixes two runs; ``best`` stays until there is a better."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)
    (folder / BEST_FOLDER / "run.json").unlink(missing_ok=True)


def summarize(trainer: SpeechTrainer, train_clips: int, eval_clips: int) -> dict[str, Any]:
    """The figures of a run for its record; warns where training made nothing better."""
    state = trainer.state
    figures = describe_history(state.log_history)
    at_start = next((entry["wer"] for entry in figures["evaluations"] if entry["step"] == 0), None)
    if at_start is not None and state.best_metric is not None and state.best_metric >= at_start:
        logger.warning(
            "training did not lower the WER: %.2f %% at the start, %.2f %% at best; try a lower --learning_rate",
            100 * at_start, 100 * state.best_metric,
        )  # fmt: skip
    return {
        "steps": state.global_step,
        "epochs": round(state.epoch or 0.0, 3),
        "train_clips": train_clips,
        "eval_clips": eval_clips,
        "wer_at_start": at_start,
        "best_wer": state.best_metric,
        "best_step": state.best_global_step,
        **figures,
    }
