"""Fine-tuning of whole Whisper models: what moves, what stays, what a run leaves, how it goes on."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Seq2SeqTrainer, WhisperForConditionalGeneration

from dinle.build.data import NO_LABEL
from dinle.build.models import load_model
from dinle.build.speech_trainer import Recognition, group_parameters, score_recognitions
from dinle.build.train import check_config, find_family, train
from dinle.build.whisper_model import load_whisper
from dinle.build.whisper_trainer import Teacher, WhisperTrainer, compute_losses, predict_labels
from dinle.errors import UsageError
from tests.build.test_train import assert_same_weights, make_config, read_losses, read_results
from tests.build.tiny_models import make_whisper_ctc_folder, make_whisper_speech_folder
from tests.build.tones import make_tone_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.build.config import TrainConfig

TEXTS = ("Kal.", "masa", "Ekle!", "bade", "tek mal", "lat", "des", "mat")
FILES = {"config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny products: a second thread only waits


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_dataset(tmp_path_factory.mktemp("tones"), {"train": TEXTS, "test": TEXTS[:3]})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper_speech_folder(tmp_path_factory.mktemp("model"))


def find_moved(before: Path, after: Path) -> set[str]:
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys()
    return {name for name, tensor in old.items() if not torch.equal(tensor, new[name])}


def make_labels(*rows: tuple[int, ...]) -> torch.Tensor:
    size = max(map(len, rows))
    return torch.tensor([[*row, *[NO_LABEL] * (size - len(row))] for row in rows])


def test_the_loss_is_transformers_own_without_the_prefix(checkpoint: Path) -> None:
    model, reference = load_whisper(checkpoint), WhisperForConditionalGeneration.from_pretrained(checkpoint)
    reference.train(mode=False)
    rows = [model.tokens.encode(text) for text in ("kal", "masa ekle")]
    waveform, lengths = torch.randn(2, 8_000) * 0.1, torch.tensor([8_000, 8_000])
    labels, prefix = make_labels(*rows), torch.tensor([model.tokens.prefix] * 2)
    with torch.inference_mode():
        hidden, frames = model.encode(waveform, lengths)
        ours = compute_losses(predict_labels(model, hidden, frames, labels), labels)
        inputs = torch.cat([prefix, labels[:, :-1].clamp(min=0)], dim=1)
        targets = torch.cat([torch.full((2, prefix.shape[1] - 1), NO_LABEL), labels], dim=1)
        theirs = reference(encoder_outputs=(hidden,), decoder_input_ids=inputs, labels=targets).loss
    assert float(ours.sum()) / sum(map(len, rows)) == pytest.approx(float(theirs), rel=1e-5)


def test_the_start_taught_by_itself_with_30_s_diverges_by_nothing(checkpoint: Path) -> None:
    student = load_whisper(checkpoint, min_window_s=30.0)
    teacher = Teacher(student, keep=True)
    inputs = {
        "waveform": torch.randn(2, 9_000) * 0.1, "lengths": torch.tensor([9_000, 5_000]), "clips": torch.tensor([4, 7]),
        "labels": make_labels(student.tokens.encode("kal"), student.tokens.encode("masa ekle")),
    }  # fmt: skip

    def compute(model: Any) -> Any:
        hidden, frames = model.encode(inputs["waveform"], inputs["lengths"])
        return teacher.compute_divergences(predict_labels(model, hidden, frames, inputs["labels"]), inputs)

    with torch.no_grad():
        first, again = compute(student), compute(student)
        torch.testing.assert_close(first, torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(first, again, atol=0, rtol=0)  # what it remembers is what it said
        short = compute(load_whisper(checkpoint, min_window_s=0.0))
        assert (short > 1e-3).all()
        student.decoder.layer_norm.weight.mul_(2)  # the teacher is a copy
        assert (compute(student) > 1e-3).all()


def test_a_divergence_is_that_of_all_tokens_when_few_count(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinle.build.whisper_trainer.TEACHER_TOKENS", 10_000)
    model = load_whisper(checkpoint)
    inputs = {
        "waveform": torch.randn(1, 9_000), "lengths": torch.tensor([9_000]), "clips": torch.tensor([0]),
        "labels": make_labels(model.tokens.encode("kal")),
    }  # fmt: skip
    with torch.no_grad():
        teacher = Teacher(model, keep=False)
        (theirs, ours) = (
            predict_labels(one, *one.encode(inputs["waveform"], inputs["lengths"]), inputs["labels"])
            for one in (teacher.model, model)
        )
        expected = torch.nn.functional.kl_div(ours, theirs, reduction="sum", log_target=True)
        found = teacher.compute_divergences(ours, inputs)
    assert float(found[0]) == pytest.approx(float(expected), rel=1e-3)


def test_scores_know_turkish_letters_and_forgive_case_and_punctuation() -> None:
    pairs = (("Işık söndü, İzmir'de!", "ışık söndü izmirde"), ("ILIK", "ılık."))
    scores = score_recognitions([Recognition(0, "a", left, right, 0.0) for left, right in pairs])
    assert scores["wer"] == scores["cer"] == 0
    assert score_recognitions([Recognition(0, "a", "ILIK", "ilik", 0.0)])["wer"] == 1


def test_nothing_of_a_tied_model_is_trained_twice(checkpoint: Path, tmp_path: Path) -> None:
    model = load_whisper(checkpoint)
    groups = group_parameters(model, make_config(tmp_path, tmp_path, tmp_path, weight_decay=0.1))
    assert [group["name"] for group in groups] == ["body/matrices", "body/vectors"]
    grouped = [parameter for group in groups for parameter in group["params"]]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(grouped) == len({id(parameter) for parameter in grouped}) == len(trained)


def test_it_is_a_seq2seq_trainer() -> None:
    assert issubclass(WhisperTrainer, Seq2SeqTrainer)


@pytest.mark.parametrize(
    ("field", "value"), [("lora_rank", 0), ("lora_alpha", 0.0), ("tail_silence_s", -0.1), ("distill_weight", 1.5)]
)
def test_settings_that_cannot_work_are_named(field: str, value: float, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--{field} is {value}; expected"):
        check_config(make_config(checkpoint, tmp_path, tmp_path, **{field: value}))


def test_the_family_follows_the_checkpoint_and_the_wish(checkpoint: Path, tmp_path: Path) -> None:
    def find(folder: Path, **changes: Any) -> str:
        return find_family(make_config(folder, tmp_path, tmp_path, **changes))

    ctc = make_whisper_ctc_folder(tmp_path / "ctc")
    assert find(checkpoint) == find(checkpoint, family="whisper", method="lora") == "whisper"
    assert find(checkpoint, family="whisper-ctc", head_learning_rate=1e-3) == "whisper-ctc"
    assert find(ctc) == "auto"
    with pytest.raises(UsageError, match=r"--method is lora, which is a setting of a whole Whisper model"):
        find(ctc, method="lora")
    with pytest.raises(UsageError, match=r"--distill_weight is 0\.5.*trained as a CTC model"):
        find(checkpoint, family="whisper-ctc", distill_weight=0.5)
    with pytest.raises(UsageError, match=r"--head_learning_rate is 0\.001, which is a setting of a CTC model"):
        find(checkpoint, head_learning_rate=1e-3)


def test_more_frozen_layers_than_there_are_is_a_usage_error(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="freeze_layers is 9"):
        train(make_config(checkpoint, tones, tmp_path, freeze_layers=9))


@pytest.mark.slow
def test_a_whisper_encoder_still_gets_a_ctc_head_where_asked(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    best = train(make_config(checkpoint, tones, tmp_path, family="whisper-ctc", max_steps=1))
    assert load_model(str(best)).family == "whisper-ctc"


@pytest.mark.slow
def test_a_tiny_model_learns_its_clips_by_heart(checkpoint: Path, tmp_path: Path) -> None:
    words = ("Kal,", "masa.")
    data = make_tone_dataset(tmp_path / "data", {"train": words, "test": words})
    config = make_config(
        checkpoint, data, tmp_path, max_steps=80, eval_every_steps=40, spec_augment=False, warmup_ratio=0.05
    )
    results = read_results(train(config))
    assert results["last_loss"] < results["first_loss"] / 20
    assert results["wer_at_start"] >= 0.5
    assert results["best_wer"] == 0
    logs = EventAccumulator(str(next((tmp_path / "runs").iterdir())))
    logs.Reload()
    text = logs.Tensors("samples/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "| Kal, | Kal, |" in text  # case and punctuation are learned


@pytest.mark.slow
def test_a_run_leaves_the_best_model_checkpoints_a_record_and_logs(
    checkpoint: Path, tones: Path, tmp_path: Path
) -> None:
    config = make_config(checkpoint, tones, tmp_path, max_steps=4, eval_every_steps=2, method="lora", lora_rank=2)
    best = train(config)
    assert {path.name for path in best.iterdir()} == FILES | {"provenance.json", "run.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"best", "checkpoint-2", "checkpoint-4"}
    adapter = tmp_path / "out" / "checkpoint-4" / "adapter"
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert not list((tmp_path / "out").rglob("training_args.bin"))
    for folder in (best, tmp_path / "out" / "checkpoint-4"):
        assert WhisperForConditionalGeneration.from_pretrained(folder).config.model_type == "whisper"
    record = json.loads((best / "run.json").read_text(encoding="utf-8"))
    assert (record["config"]["min_window_s"], record["config"]["method"]) == (8.0, "lora")
    logs = EventAccumulator(str(next((tmp_path / "runs").iterdir())))
    logs.Reload()
    assert set(logs.Tags()["scalars"]) == {
        "train/loss", "train/gradient_norm", "train/step_seconds", "learning_rate/body", "eval/loss", "eval/WER",
        "eval/CER",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "moves"),
    [
        ({}, ("encoder.layers.0.fc1.weight", "encoder.conv1.weight", "decoder.embed_tokens.weight")),
        ({"freeze_front_end": True, "freeze_layers": 1}, ("encoder.layers.1.fc1.weight",)),
        ({"method": "frozen-encoder"}, ("decoder.layers.0.fc1.weight", "decoder.embed_tokens.weight")),
        ({"method": "lora"}, ("encoder.layers.0.fc1.weight", "decoder.layers.1.encoder_attn.q_proj.weight")),
        ({"method": "lora", "lora_target": "decoder"}, ("decoder.layers.1.encoder_attn.q_proj.weight",)),
    ],
    ids=["full", "lowest-layer", "frozen-encoder", "lora", "lora-decoder"],
)
def test_what_is_frozen_stays_and_the_rest_moves(
    settings: dict[str, Any], moves: tuple[str, ...], checkpoint: Path, tones: Path, tmp_path: Path
) -> None:
    best = train(make_config(checkpoint, tones, tmp_path, max_steps=3, warmup_ratio=0.0, **settings))
    moved = {name.removeprefix("model.") for name in find_moved(checkpoint, best)}
    assert set(moves) <= moved
    stays = {
        "{}": ("encoder.embed_positions",),
        "lowest": ("encoder.embed_positions", "encoder.conv", "encoder.layers.0"),
        "frozen-encoder": ("encoder.",),
        "lora": ("encoder.conv", "encoder.layer_norm", "decoder.embed", "decoder.layer_norm"),
    }[str(settings.get("method", "lowest" if settings else "{}"))]
    if settings.get("lora_target") == "decoder":
        stays = (*stays, "encoder.")
    assert not [name for name in moved if name.startswith(stays)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"augment": ("speed", "noise", "volume"), "augment_probability": 0.8}, {"method": "lora", "distill_weight": 0.5}],
    ids=["full-augmented", "lora-distilled"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(settings: dict[str, Any], tones: Path, tmp_path: Path) -> None:
    model = make_whisper_speech_folder(tmp_path / "dropout", dropout=0.1)
    settings = {"max_steps": 10, "eval_every_steps": 6, **settings}
    whole = make_config(model, tones, tmp_path / "whole", **settings)
    train(whole)
    cut = make_config(model, tones, tmp_path / "cut", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dinle.build.train.write_run", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    (cut.output_dir / "checkpoint-10").rename(tmp_path / "thrown-away")
    best = train(dataclasses.replace(cut, resume=True))
    assert_same_weights(whole.output_dir / "checkpoint-10", cut.output_dir / "checkpoint-10")
    evaluations = read_results(best)["evaluations"]
    assert evaluations == read_results(whole.output_dir / "best")["evaluations"]
    assert [entry["step"] for entry in evaluations] == [0, 6, 10]


def train_steps(config: TrainConfig) -> list[tuple[int, float]]:
    train(config)
    return read_losses(config.output_dir)


@pytest.mark.slow
def test_accumulated_gradients_equal_a_larger_batch(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"spec_augment": False, "max_steps": 1, "warmup_ratio": 0.0}
    ((_, whole),) = train_steps(make_config(checkpoint, tones, tmp_path / "one", batch_seconds=60.0, **settings))
    parts = {"batch_seconds": 3.0, "gradient_accumulation_steps": 4}
    ((_, summed),) = train_steps(make_config(checkpoint, tones, tmp_path / "four", **parts, **settings))
    assert summed == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_changes_nothing_but_memory(
    method: str, checkpoint: Path, tones: Path, tmp_path: Path
) -> None:
    for checkpointing in (False, True):
        train(
            make_config(
                checkpoint, tones, tmp_path / str(checkpointing), max_steps=2, spec_augment=False, method=method,
                gradient_checkpointing=checkpointing,
            )
        )  # fmt: skip
    assert_same_weights(tmp_path / "False/out/best", tmp_path / "True/out/best")


@pytest.mark.slow
def test_bf16_on_the_cpu_stays_near_fp32(checkpoint: Path, tones: Path, tmp_path: Path) -> None:
    losses = {
        precision: train_steps(
            make_config(checkpoint, tones, tmp_path / precision, max_steps=1, spec_augment=False, precision=precision)
        )[0][1]
        for precision in ("fp32", "bf16")
    }
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]
