from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import pytest

from dinle.build.config import TrainConfig
from dinle.build.splits import choose_eval_split, choose_train_split, hold_out_texts, read_splits, take_share
from dinle.errors import DatasetError
from dinle.manifest import Clip
from tests.build.tones import make_tone_dataset

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ("kal", "masa", "ekle", "bade", "tek mal", "lat", "des", "mat")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_dataset(tmp_path_factory.mktemp("tones"), {"train": TEXTS, "test": TEXTS[:3]})


def make_config(dataset: Path, folder: Path, eval_dataset_name: str | None = None) -> TrainConfig:
    return TrainConfig("unused", str(dataset), output_dir=folder / "out", eval_dataset_name=eval_dataset_name)


def make_clips(tmp_path: Path, *splits: str | None) -> list[Clip]:
    return [
        Clip(tmp_path / f"{number}.wav", f"söz {'abcdefgh'[number % 8]}", 1.0, split=split)
        for number, split in enumerate(splits)
    ]


def test_splits_are_chosen_in_order(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "train", "test", "dev", "other", "validation")
    assert choose_train_split(clips) == clips[:1]
    assert choose_eval_split(clips) == [clips[2], clips[4]]
    assert choose_eval_split(clips[:4]) == [clips[2]]
    assert choose_eval_split(clips[:2]) == [clips[1]]
    unnamed = make_clips(tmp_path, None, None, "test")
    assert choose_train_split(unnamed) == unnamed[:2]


def test_splits_are_known_by_all_their_usual_names(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "training", "testing", "val")
    assert choose_train_split(clips) == clips[:1]
    assert choose_eval_split(clips) == clips[2:]
    assert choose_train_split(clips[1:]) == []


def test_a_share_is_taken_of_a_prepared_folder_inside_the_output_folder(tmp_path: Path) -> None:
    data = make_tone_dataset(tmp_path / "out" / "prepared", {"train": TEXTS, "test": TEXTS[:4]})
    config = dataclasses.replace(make_config(data, tmp_path), train_percent=0.25, eval_percent=0.5)
    training, evaluation, _ = read_splits(config)
    assert (len(training), len(evaluation)) == (2, 2)


def test_held_out_texts_are_on_one_side_only(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *[None] * 24)
    kept, held_out = hold_out_texts(clips, 0.25, seed=1)
    assert len(held_out) == 6
    assert len(kept) == 18
    assert not {clip.text for clip in kept} & {clip.text for clip in held_out}
    assert (kept, held_out) == hold_out_texts(clips, 0.25, seed=1)


def test_a_share_is_drawn_by_lot_keeps_the_order_and_repeats() -> None:
    items = list(range(1000))
    taken = take_share(items, 0.1, 3, "share")
    assert len(taken) == 100
    assert taken == sorted(taken) != items[:100]
    assert taken == take_share(items, 0.1, 3, "share")
    assert max(taken) > 900


def test_without_an_evaluation_split_some_texts_are_held_out_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_tone_dataset(tmp_path / "data", {None: TEXTS})
    with caplog.at_level(logging.WARNING):
        training, evaluation, _ = read_splits(make_config(data, tmp_path))
    assert len(training) == len(TEXTS) - 1
    assert len(evaluation) == 1
    assert "1 clips (5 % of the texts) are held out" in caplog.text


def test_another_dataset_can_be_evaluated_on(tones: Path, tmp_path: Path) -> None:
    data = make_tone_dataset(tmp_path / "data", {None: TEXTS})
    training, evaluation, manifests = read_splits(make_config(data, tmp_path, eval_dataset_name=str(tones)))
    assert len(training) == len(TEXTS)
    assert [clip.text for clip in evaluation] == list(TEXTS[:3])
    assert manifests == {"dataset": data / "manifest.jsonl", "eval_dataset": tones / "manifest.jsonl"}


def test_a_data_set_of_evaluation_clips_alone_is_refused(tmp_path: Path) -> None:
    data = make_tone_dataset(tmp_path / "data", {"test": TEXTS[:2]})
    with pytest.raises(DatasetError, match="0 clips to train on"):
        read_splits(make_config(data, tmp_path))


@pytest.mark.slow
def test_what_is_not_prepared_is_prepared_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # an audiofolder: sound files and metadata.csv in a folder for each split
    for split, texts in (("train", TEXTS), ("test", TEXTS[:2])):
        folder = make_tone_dataset(tmp_path / "raw" / split, {split: texts})
        (folder / "manifest.jsonl").unlink()
        rows = [f"{split}-{number}.wav,{text}" for number, text in enumerate(texts)]
        (folder / "metadata.csv").write_text("\n".join(["file_name,transcription", *rows]), encoding="utf-8")
    config = dataclasses.replace(make_config(tmp_path / "raw", tmp_path), train_percent=0.5)
    with caplog.at_level(logging.INFO):
        training, evaluation, manifests = read_splits(config)
        assert (len(training), len(evaluation)) == (4, 2)
        assert manifests["dataset"] == tmp_path / "out" / "data" / "manifest.jsonl"
        assert [clip.audio for clip in read_splits(config)[0]] == [clip.audio for clip in training]
    assert caplog.text.count("preparing ") == 1
