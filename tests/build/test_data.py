from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.build.augment import Augmenter
from dinle.build.data import (
    NO_LABEL,
    LabelledClip,
    SecondsBatchSampler,
    SpeechDataset,
    SpeechLoader,
    collate,
    count_needed_frames,
    find_fewest_samples,
    label_clips,
    round_up_durations,
)
from dinle.errors import LabelTooLongError, TrainingError, UnknownCharacterError
from dinle.manifest import Clip
from dinle.recognize.vocabulary import Vocabulary
from tests.build.tiny_models import make_whisper_ctc
from tests.build.tones import make_tone_clips, speak_tones, write_wave

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.build.ctc_model import CtcModel

DURATIONS = st.lists(st.floats(0.2, 30), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def model() -> CtcModel:
    return make_whisper_ctc()


def read_epoch(sampler: SecondsBatchSampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert all(key[0] == epoch for batch in batches for key in batch)
    return [[index for _, index in batch] for batch in batches]


@given(durations=DURATIONS, limit=st.floats(1, 90), seed=st.none() | st.integers(0, 99), epoch=st.integers(0, 5))
@settings(deadline=None)
def test_every_clip_comes_once_in_batches_within_the_limit(
    durations: list[float], limit: float, seed: int | None, epoch: int
) -> None:
    sampler = SecondsBatchSampler(durations, limit, seed=seed)
    batches = read_epoch(sampler, epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(durations)))
    assert len(batches) == len(sampler)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(durations[index] for index in batch) <= limit * (1 + 1e-9)


@given(durations=DURATIONS, world=st.integers(2, 5), epoch=st.integers(0, 3))
@settings(deadline=None)
def test_ranks_get_as_many_batches_and_between_them_every_clip(durations: list[float], world: int, epoch: int) -> None:
    samplers = [SecondsBatchSampler(durations, 20, seed=1, rank=rank, world=world) for rank in range(world)]
    by_rank = [read_epoch(sampler, epoch) for sampler in samplers]
    assert {len(batches) for batches in by_rank} == {len(samplers[0])}
    seen = [index for batches in by_rank for batch in batches for index in batch]
    assert set(seen) == set(range(len(durations)))
    if len(durations) >= world * len(samplers[0]):  # otherwise there are not clips enough to keep all ranks busy
        assert len(seen) == len(durations)


def test_epochs_differ_in_order_and_company_and_repeat_by_seed() -> None:
    durations = list(np.random.default_rng(0).uniform(1, 10, 200))
    first, second = (read_epoch(SecondsBatchSampler(durations, 30, seed=1), epoch) for epoch in (0, 1))
    assert first == read_epoch(SecondsBatchSampler(durations, 30, seed=1), 0)
    assert first != second
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}
    assert len(first) == len(second)
    assert read_epoch(SecondsBatchSampler(durations, 30, seed=2), 0) != first


def test_batches_are_well_filled() -> None:
    durations = np.random.default_rng(0).uniform(1, 15, 500)
    batches = read_epoch(SecondsBatchSampler(list(durations), 60, seed=1))
    padded = sum(len(batch) * durations[batch].max() for batch in batches)
    assert durations.sum() / padded > 0.9
    assert durations.sum() / (60 * len(batches)) > 0.8


@given(DURATIONS)
def test_rounding_up_never_lowers_and_stays_within_a_bucket(durations: list[float]) -> None:
    rounded = round_up_durations(np.array(durations))
    assert (rounded >= durations).all()
    assert (rounded <= np.array(durations) * 1.1 * (1 + 1e-9)).all()


@given(st.lists(st.integers(0, 3), max_size=30))
def test_needed_frames_are_the_fewest_that_ctc_accepts(label: list[int]) -> None:
    needed = count_needed_frames(label)
    targets = torch.tensor([[token + 1 for token in label]])
    sizes = torch.tensor([len(label)])
    for frames, fits in ((needed, True), (needed - 1, False)):
        if frames < 1:
            continue
        log_probs = torch.zeros(frames, 1, 5).log_softmax(-1)
        loss = torch.nn.functional.ctc_loss(log_probs, targets, torch.tensor([frames]), sizes, reduction="none")
        assert bool(torch.isfinite(loss).all()) == fits


def test_the_fewest_samples_are_exact(model: CtcModel) -> None:
    frames = torch.tensor([1, 26, 40, 77, 500])
    fewest = find_fewest_samples(frames, model.count_frames)
    assert (model.count_frames(fewest) >= frames).all()
    longer_than_nothing = fewest > 0
    assert (model.count_frames(fewest - 1) < frames)[longer_than_nothing].all()


def test_labels_are_normalised_tokens(model: CtcModel, tmp_path: Path) -> None:
    clips = make_tone_clips(tmp_path, ["bade kal"], "train")
    labelled = label_clips([dataclasses.replace(clips[0], text="IŞIK, İki!")], model)
    assert labelled[0].text == "ışık iki"
    assert list(labelled[0].label) == Vocabulary.turkish().encode("ışık iki")


def test_an_unknown_character_names_the_clip_the_character_and_a_remedy(tmp_path: Path) -> None:
    small = make_whisper_ctc(Vocabulary(("<blank>", *"abdekl", " "), blank=0))
    clips = make_tone_clips(tmp_path, ["bade kal", "masa"], "train")
    with pytest.raises(UnknownCharacterError, match=r"train-1\.wav.*'m', 's'.*correct or remove"):
        label_clips(clips, small)


def test_a_label_longer_than_its_frames_names_the_clip_the_numbers_and_a_remedy(
    model: CtcModel, tmp_path: Path
) -> None:
    clip = make_tone_clips(tmp_path, ["ekle"], "train")[0]
    text = "aa" * 60
    frames = int(model.count_frames(torch.tensor([round(clip.duration_s * 16_000)])))
    with pytest.raises(
        LabelTooLongError, match=rf"train-0\.wav.*120 tokens.*239 frames.*{frames} frames.*max_chars_per_s"
    ):
        label_clips([clip, dataclasses.replace(clip, text=text)], model)


def test_a_file_shorter_than_its_manifest_says_is_found_when_it_is_read(model: CtcModel, tmp_path: Path) -> None:
    clip = make_tone_clips(tmp_path, ["bade kal " * 4], "train")[0]
    labelled = label_clips([clip], model)
    write_wave(clip.audio, speak_tones("b")[:300])
    with pytest.raises(LabelTooLongError, match=r"train-0\.wav.*lasts 0\.02 s"):
        SpeechDataset(labelled)[0, 0]


def test_a_clip_longer_than_the_model_takes_is_refused(model: CtcModel, tmp_path: Path) -> None:
    clip = Clip(tmp_path / "long.wav", "masa", 31.0)
    with pytest.raises(TrainingError, match=r"long\.wav lasts 31\.00 s.*max_duration_s 29\.5"):
        label_clips([clip], model)


def test_collate_pads_sound_with_zeros_and_labels_with_minus_100() -> None:
    sounds = [np.ones(3, dtype=np.float32), np.ones(5, dtype=np.float32)]
    batch = collate(
        [{"waveform": sounds[0], "label": (4, 5), "clip": 7}, {"waveform": sounds[1], "label": (), "clip": 8}]
    )
    assert batch["waveform"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["lengths"].tolist() == [3, 5]
    assert batch["labels"].tolist() == [[4, 5], [NO_LABEL, NO_LABEL]]
    assert batch["clips"].tolist() == [7, 8]


def make_augmented(tmp_path: Path, model: CtcModel) -> tuple[list[LabelledClip], SpeechDataset]:
    labelled = label_clips(make_tone_clips(tmp_path, ["bade kal", "masa", "ekle"], "train"), model)
    return labelled, SpeechDataset(labelled, Augmenter(("speed", "noise", "volume"), 1.0, seed=1))


def test_augmentation_depends_on_epoch_and_clip_alone(model: CtcModel, tmp_path: Path) -> None:
    _, dataset = make_augmented(tmp_path, model)
    first = dataset[2, 1]["waveform"]
    np.testing.assert_array_equal(first, dataset[2, 1]["waveform"])
    other = dataset[3, 1]["waveform"]
    assert len(other) != len(first) or not np.array_equal(other, first)


def test_slowing_down_keeps_to_what_the_model_takes(model: CtcModel, tmp_path: Path) -> None:
    labelled, _ = make_augmented(tmp_path, model)
    longest_s = max(one.clip.duration_s for one in labelled)
    dataset = SpeechDataset(labelled, Augmenter(("speed",), 1.0, seed=1), max_seconds=longest_s + 0.01)
    lengths = [len(dataset[epoch, clip]["waveform"]) for epoch in range(10) for clip in range(len(labelled))]
    assert max(lengths) <= 16_000 * (longest_s + 0.01)


@pytest.mark.slow
def test_workers_change_nothing(model: CtcModel, tmp_path: Path) -> None:
    labelled, dataset = make_augmented(tmp_path, model)
    durations = [one.clip.duration_s for one in labelled]

    def read(workers: int) -> list[list[float]]:
        loader = SpeechLoader(dataset, SecondsBatchSampler(durations, 3, seed=1), workers)
        loader.set_epoch(4)
        return [batch["waveform"].flatten().tolist() for batch in loader]

    assert read(0) == read(2)
