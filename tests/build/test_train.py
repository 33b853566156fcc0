from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from dinle.build.config import ExportConfig, PrepareConfig, TrainConfig
from dinle.build.data import NO_LABEL
from dinle.build.models import load_model
from dinle.build.speech_trainer import group_parameters
from dinle.build.train import check_config, choose_precision, find_last_checkpoint, train
from dinle.build.trainer import compute_losses
from dinle.build.whisper_ctc import WhisperCtcModel
from dinle.config import build_config, read_toml, to_plain
from dinle.errors import LabelTooLongError, LossNotFiniteError, UnknownCharacterError, UsageError
from dinle.recognize.vocabulary import Vocabulary
from tests.build.tiny_models import make_ctc_folder, make_whisper_ctc, make_whisper_ctc_folder
from tests.build.tones import make_tone_dataset

TORCHRUN_SCRIPT = """
import json, os, sys
from pathlib import Path
from dinle.build import trainer
from dinle.build.config import TrainConfig
from dinle.build.train import train
from dinle.config import build_config

seen = []
compute = trainer.CtcTrainer.compute_loss
def spy(self, model, inputs, *args, **kwargs):
    seen.append([int(self.state.global_step), inputs["clips"].tolist()])
    return compute(self, model, inputs, *args, **kwargs)
trainer.CtcTrainer.compute_loss = spy
best = train(build_config(TrainConfig, json.loads(sys.argv[2]), where="test"))
Path(sys.argv[1], f"rank{os.environ['RANK']}.json").write_text(json.dumps([str(best), seen]))
"""
TEXTS = ("kal", "masa", "ekle", "bade", "tek mal", "lat", "des", "mat")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny products: a second thread only waits


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_dataset(tmp_path_factory.mktemp("tones"), {"train": TEXTS, "test": TEXTS[:3]})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper_ctc_folder(tmp_path_factory.mktemp("model"))


def make_config(checkpoint: Path, dataset: Path, folder: Path, **changes: Any) -> TrainConfig:
    settings = {"batch_seconds": 3.0, "learning_rate": 3e-3, "freeze_front_end": False, "epochs": 1.0, **changes}
    return TrainConfig(str(checkpoint), str(dataset), output_dir=folder / "out", log_dir=folder / "runs", **settings)


def read_results(best: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((best / "run.json").read_text(encoding="utf-8"))["results"]
    return results


def read_losses(folder: Path) -> list[tuple[int, float]]:
    last = find_last_checkpoint(folder)
    assert last is not None
    history = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


def assert_same_weights(left: Path, right: Path) -> None:
    ours, theirs = load_file(left / "model.safetensors"), load_file(right / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["whisper-ctc", "ctc"])
def test_a_tiny_model_learns_its_clips_by_heart(family: str, tmp_path: Path) -> None:
    words = ("kal", "masa")
    data = make_tone_dataset(tmp_path / "data", {"train": words, "test": words})
    model = (make_whisper_ctc_folder if family == "whisper-ctc" else make_ctc_folder)(tmp_path / "model")
    config = make_config(
        model, data, tmp_path, max_steps=150, eval_every_steps=50, spec_augment=False, warmup_ratio=0.05
    )  # fmt: skip
    best = train(config)
    results = read_results(best)
    assert results["last_loss"] < results["first_loss"] / 20
    assert results["wer_at_start"] == 1.0
    assert results["best_wer"] <= 0.5
    assert [entry["step"] for entry in results["evaluations"]] == [0, 50, 100, 150]
    assert load_model(str(best)).family == family


@pytest.mark.slow
def test_a_run_leaves_the_best_model_checkpoints_a_record_and_logs(
    checkpoint: Path, tones: Path, tmp_path: Path
) -> None:
    config = make_config(checkpoint, tones, tmp_path, epochs=2.0, head_learning_rate=1e-2, warmup_ratio=0.0)
    best = train(config)
    assert best == tmp_path / "out" / "best"
    assert {path.name for path in best.iterdir()} == {
        "config.json", "model.safetensors", "vocab.json", "provenance.json", "run.json",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"best", *(f"checkpoint-{step}" for step in (3, 6))}
    record = json.loads((best / "run.json").read_text(encoding="utf-8"))
    assert record["stage"] == "train"
    assert record["inputs"]["dataset"]["path"] == str(tones / "manifest.jsonl")
    assert record["results"]["steps"] == 6
    assert record["results"]["train_clips"] == len(TEXTS)
    # every checkpoint is a model, and nothing in it is a pickle that needs trust
    load_model(str(tmp_path / "out" / "checkpoint-6"))
    assert not list((tmp_path / "out").rglob("training_args.bin"))

    logs = EventAccumulator(str(next((tmp_path / "runs").iterdir())))
    logs.Reload()
    tags = logs.Tags()
    assert set(tags["scalars"]) == {
        "train/loss", "train/gradient_norm", "train/step_seconds", "learning_rate/body", "learning_rate/head",
        "eval/loss", "eval/WER", "eval/CER",
    }  # fmt: skip
    assert logs.Scalars("learning_rate/body")[0].value == pytest.approx(3e-3, rel=1e-3)
    assert logs.Scalars("learning_rate/head")[0].value == pytest.approx(1e-2, rel=1e-3)
    assert [scalar.step for scalar in logs.Scalars("eval/WER")] == [0, 3, 6]
    text = logs.Tensors("samples/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert all(f"| {name} |" in text for name in TEXTS[:3])


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    # stopped in the middle of the second epoch, with dropout, masks and augmentation drawing on all generators
    settings: dict[str, Any] = {
        "max_steps": 10, "eval_every_steps": 6, "augment": ("speed", "noise", "volume"), "augment_probability": 0.8,
    }  # fmt: skip
    model = make_whisper_ctc()
    model.encoder.config.dropout = 0.1
    model.save(tmp_path / "dropout")
    whole = make_config(tmp_path / "dropout", tones, tmp_path / "whole", **settings)
    train(whole)

    cut = make_config(tmp_path / "dropout", tones, tmp_path / "cut", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dinle.build.train.write_run", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    (last := cut.output_dir / "checkpoint-10").rename(tmp_path / "thrown-away")
    assert not last.exists()
    with pytest.raises(UsageError, match=r"interrupted run \(checkpoint-6\).*--resume"):
        train(cut)
    best = train(dataclasses.replace(cut, resume=True))

    assert_same_weights(whole.output_dir / "checkpoint-10", cut.output_dir / "checkpoint-10")
    evaluations = read_results(best)["evaluations"]
    assert evaluations == read_results(whole.output_dir / "best")["evaluations"]
    assert [entry["step"] for entry in evaluations] == [0, 6, 10]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_losses_and_another_does_not(
    checkpoint: Path, tones: Path, tmp_path: Path
) -> None:
    losses = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(make_config(checkpoint, tones, tmp_path / name, seed=seed, augment=("noise",)))
        losses.append(read_losses(tmp_path / name / "out"))
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.slow
def test_accumulated_gradients_equal_a_larger_batch(tones: Path, tmp_path: Path) -> None:
    model = make_whisper_ctc_folder(tmp_path / "model")
    settings: dict[str, Any] = {"spec_augment": False, "max_steps": 1, "warmup_ratio": 0.0}
    train(make_config(model, tones, tmp_path / "one", batch_seconds=60.0, **settings))
    accumulation = {"batch_seconds": 3.0, "gradient_accumulation_steps": 4}
    train(make_config(model, tones, tmp_path / "four", **accumulation, **settings))
    ((_, whole),), ((_, parts),) = read_losses(tmp_path / "one" / "out"), read_losses(tmp_path / "four" / "out")
    assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
def test_it_runs_under_torchrun_on_two_processes(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_seconds": 60.0, "spec_augment": False, "warmup_ratio": 0.0, "epochs": 2.0}
    train(make_config(checkpoint, tones, tmp_path / "one", **settings))
    config = make_config(checkpoint, tones, tmp_path / "two", threads=1, **settings)
    (tmp_path / "run.py").write_text(TORCHRUN_SCRIPT, encoding="utf-8")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(tmp_path / "run.py"), str(tmp_path), json.dumps(to_plain(config)),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]

    (best, first), (other, second) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert best == other == str(config.output_dir / "best")
    assert [step for step, _ in first] == [step for step, _ in second] == [0, 1]
    for epoch in (0, 1):
        assert sorted(first[epoch][1] + second[epoch][1]) == list(range(len(TEXTS)))
        assert len(first[epoch][1]) == len(second[epoch][1])
    assert {path.name for path in config.output_dir.iterdir()} == {"best", "checkpoint-1", "checkpoint-2"}
    assert len(list(config.log_dir.iterdir())) == 1
    # the two halves of the batch add up to the loss, and to the step, of the whole batch in one process
    one, two = read_losses(tmp_path / "one" / "out"), read_losses(config.output_dir)
    assert two == [(step, pytest.approx(loss, rel=1e-3)) for step, loss in one]
    ours, theirs = read_results(config.output_dir / "best"), read_results(tmp_path / "one/out/best")
    assert ours["evaluations"] == theirs["evaluations"]


@pytest.mark.slow
def test_early_stopping_counts_evaluations_without_a_better_wer(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    # a rate so low that nothing is ever better than the first evaluation
    config = make_config(
        checkpoint, tones, tmp_path, epochs=20.0, learning_rate=1e-9, early_stopping_patience=2, eval_every_steps=1
    )
    results = read_results(train(config))
    assert results["steps"] == 3
    assert results["best_step"] == 1


@pytest.mark.slow
def test_frozen_parts_stay_and_the_rest_moves(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    config = make_config(
        checkpoint, tones, tmp_path, freeze_front_end=True, freeze_layers=1, max_steps=2, warmup_ratio=0.0
    )
    best = train(config)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, best))
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {"ctc_head.weight", "encoder.layers.1.fc1.weight"} <= moved
    assert not [name for name in moved if re.match(r"encoder\.(conv|layers\.0)", name)]


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing_but_memory(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    for checkpointing in (False, True):
        train(
            make_config(
                checkpoint, tones, tmp_path / str(checkpointing), max_steps=2, spec_augment=False,
                gradient_checkpointing=checkpointing,
            )
        )  # fmt: skip
    assert_same_weights(tmp_path / "False/out/best", tmp_path / "True/out/best")


@pytest.mark.slow
def test_bf16_on_the_cpu_stays_near_fp32(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        train(make_config(checkpoint, tones, folder, max_steps=1, spec_augment=False, precision=precision))
        losses[precision] = read_losses(folder / "out")[0][1]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_a_loss_that_is_not_finite_stops_with_the_clips_and_their_losses(
    checkpoint: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = WhisperCtcModel.encode

    def break_longest(self: WhisperCtcModel, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden, frames = encode(self, waveform, lengths)
        return hidden.masked_fill((lengths == 21_120)[:, None, None], float("nan")), frames

    monkeypatch.setattr(WhisperCtcModel, "encode", break_longest)
    with pytest.raises(
        LossNotFiniteError, match=r"step 1 is not finite.*: \S*train-4\.wav: nan, .*Remedies: .*--learning_rate"
    ):
        train(make_config(checkpoint, tones, tmp_path, batch_seconds=60.0))
    assert not (tmp_path / "out" / "best").exists()


def test_a_gradient_that_is_not_finite_stops(
    checkpoint: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.Trainer._clip_grad_norm", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(LossNotFiniteError, match=r"gradient of step 1 is nan.*train-\d\.wav"):
        train(make_config(checkpoint, tones, tmp_path))


def test_losses_are_torchs_own_and_impossible_labels_are_infinite() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(2, 12, 5).log_softmax(-1)
    labels = torch.tensor([[1, 2, 2, 3], [4, NO_LABEL, NO_LABEL, NO_LABEL]])
    losses = compute_losses(log_probs, torch.tensor([12, 7]), labels, blank=0)
    sizes = torch.tensor([7]), torch.tensor([1])
    alone = torch.nn.functional.ctc_loss(log_probs[1, :7, None], labels[1:, :1], *sizes, reduction="none")
    assert losses[1] == pytest.approx(float(alone))
    assert torch.isinf(compute_losses(log_probs, torch.tensor([4, 7]), labels, blank=0)).tolist() == [True, False]


def test_head_and_body_have_a_rate_each_and_vectors_do_not_decay(tmp_path: Path) -> None:
    model = make_whisper_ctc()
    config = make_config(tmp_path, tmp_path, tmp_path, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.1)
    groups = {group["name"]: group for group in group_parameters(model, config)}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "body/matrices": (1e-4, 0.1), "body/vectors": (1e-4, 0.0), "head/matrices": (1e-3, 0.1), "head/vectors": (1e-3, 0.0),
    }  # fmt: skip
    grouped = [parameter for group in groups.values() for parameter in group["params"]]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(grouped) == len({id(parameter) for parameter in grouped}) == len(trained)


def test_labels_are_checked_before_the_first_step(checkpoint: Path, tmp_path: Path) -> None:
    data = make_tone_dataset(tmp_path / "data", {"train": ["kal", "a" * 40], "test": ["kal"]})
    manifest = data / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines[0]["text"] = "kal" * 60
    manifest.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    with pytest.raises(LabelTooLongError, match=r"train-0\.wav.*180 tokens"):
        train(make_config(checkpoint, data, tmp_path))
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_vocabulary_without_a_letter_is_refused(tones: Path, tmp_path: Path) -> None:
    make_whisper_ctc(Vocabulary(("<blank>", "k", "a", " "), blank=0)).save(tmp_path / "small")
    with pytest.raises(UnknownCharacterError, match=r"train-0\.wav.*'l'"):
        train(make_config(tmp_path / "small", tones, tmp_path))


@pytest.mark.parametrize(
    ("field", "value"),
    [("train_percent", 0.0), ("eval_percent", 1.5), ("epochs", 0.0), ("warmup_ratio", 1.0), ("batch_seconds", 0.0),
     ("augment_probability", 2.0), ("max_steps", 0), ("gradient_accumulation_steps", 0), ("head_learning_rate", -1.0),
     ("head_learning_rate", 0.0), ("weight_decay", -1.0), ("num_workers", -1), ("threads", 0)],
)  # fmt: skip
def test_settings_that_cannot_work_are_named(field: str, value: float, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--{field} is {value}; expected"):
        train(make_config(checkpoint, tmp_path, tmp_path, **{field: value}))


def test_more_frozen_layers_than_there_are_is_a_usage_error(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="freeze_layers is 9"):
        train(make_config(checkpoint, tones, tmp_path, freeze_layers=9))


def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_precision("auto") == {"bf16": False, "fp16": False}
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        choose_precision("fp16")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert choose_precision("auto") == {"bf16": False, "fp16": True}


@pytest.mark.parametrize("name", ["wav2vec2", "whisper-encoder"])
def test_the_experiments_of_the_project_are_valid(name: str) -> None:
    tables = read_toml(Path(__file__).parents[2] / "configs" / f"{name}.toml")
    check_config(build_config(TrainConfig, tables["train"], where=name))
    prepared = build_config(PrepareConfig, tables["prepare"], where=name)
    exported = build_config(ExportConfig, tables["export"], where=name)
    assert str(prepared.output_dir) == tables["train"]["dataset_name"]
    assert exported.checkpoint_dir == f"{tables['train']['output_dir']}/best"
