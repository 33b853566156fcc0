"""Clips as batches: labels checked before training, batches cut by padded seconds, epochs shuffled by seed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dinle.errors import LabelTooLongError, TrainingError, UnknownCharacterError
from dinle.manifest import Clip
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dinle.build.augment import Augmenter
    from dinle.build.ctc_model import CtcModel

NO_LABEL = -100  # padding of labels; the value that transformers' Trainer leaves out when it counts them
BUCKET_RATIO = 1.1  # clips whose durations differ by less may change places from one epoch to the next

Key = tuple[int, int]  # (epoch, index of the clip): all that decides on an example


@dataclass(frozen=True)
class LabelledClip:
    """A clip and what is to be learned from it.

    Attributes:
        clip: where the sound is.
        text: the transcript, normalised.
        label: its tokens.
        min_samples: the shortest sound that has frames enough for the label.
    """

    clip: Clip
    text: str
    label: tuple[int, ...]
    min_samples: int


class Example(TypedDict):
    """One clip, decoded."""

    waveform: Waveform
    label: tuple[int, ...]
    clip: int


class Batch(TypedDict):
    """waveform (B, S) float32, lengths (B,), labels (B, L) padded with -100, clips (B,): numbers in the dataset."""

    waveform: Tensor
    lengths: Tensor
    labels: Tensor
    clips: Tensor


def label_clips(clips: Sequence[Clip], model: CtcModel) -> list[LabelledClip]:
    """Make each clip's label and check that the model can learn it.

    Raises:
        UnknownCharacterError: a text holds a character that the model's vocabulary lacks.
        LabelTooLongError: a label needs more frames than its clip has.
        TrainingError: a clip is longer than the model takes.
    """
    texts = [normalize_tr(clip.text) for clip in clips]
    labels = [_encode(clip, text, model) for clip, text in zip(clips, texts, strict=True)]
    needed = torch.tensor([count_needed_frames(label) for label in labels])
    fewest = find_fewest_samples(needed, model.count_frames).tolist()
    labelled = [LabelledClip(*fields) for fields in zip(clips, texts, labels, fewest, strict=True)]
    frames = model.count_frames(torch.tensor([count_samples(clip) for clip in clips])).tolist()
    for one, frame_count in zip(labelled, frames, strict=True):
        if model.max_seconds is not None and one.clip.duration_s > model.max_seconds:
            raise TrainingError(
                f"{one.clip.audio} lasts {one.clip.duration_s:.2f} s, the model takes at most {model.max_seconds:g} s: "
                f"cut it, or prepare the data with --max_duration_s {model.max_seconds:g}"
            )
        if count_samples(one.clip) < one.min_samples:
            raise LabelTooLongError(_describe_too_long(one, one.clip.duration_s, frame_count))
    return labelled


def _encode(clip: Clip, text: str, model: CtcModel) -> tuple[int, ...]:
    try:
        return tuple(model.vocabulary.encode(text))
    except UnknownCharacterError as error:
        raise UnknownCharacterError(f"{clip.audio}: {error}; or correct or remove the clip's line") from None


def _describe_too_long(one: LabelledClip, duration_s: float, frames: int | None = None) -> str:
    has = f", which is {frames} frames" if frames is not None else ""
    return (
        f"{one.clip.audio}: the label {one.text!r} has {len(one.label)} tokens and needs {count_needed_frames(one.label)} "
        f"frames (one a token, one more between equal neighbours), at least {one.min_samples / SAMPLE_RATE_HZ:.2f} s, "
        f"but the clip lasts {duration_s:.2f} s{has}: correct or remove the clip's line, or prepare the data with a "
        "lower --max_chars_per_s"
    )


def count_samples(clip: Clip) -> int:
    """Samples of a clip at 16 kHz, by its manifest."""
    return round(clip.duration_s * SAMPLE_RATE_HZ)


def count_needed_frames(label: Sequence[int]) -> int:
    """Frames that CTC needs: one for each token, and a blank between equal neighbours (Graves et al. 2006, section 3)."""
    return len(label) + sum(left == right for left, right in pairwise(label))


def find_fewest_samples(frames: Tensor, count_frames: Callable[[Tensor], Tensor]) -> Tensor:
    """The shortest lengths (N,) in samples that have at least ``frames`` (N,), by bisection: frames grow with length."""
    low, high = torch.zeros_like(frames), torch.ones_like(frames)
    while bool((short := count_frames(high) < frames).any()):
        high = torch.where(short, high * 2, high)
    while bool((low < high).any()):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        enough = count_frames(middle) >= frames
        low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
    return high


class SpeechDataset(Dataset[Example]):
    """Decodes, and where asked augments, clips by (epoch, index); none is slowed down to more than ``max_seconds``."""

    def __init__(
        self, clips: Sequence[LabelledClip], augmenter: Augmenter | None = None, *, max_seconds: float | None = None
    ) -> None:
        self.clips = clips
        self.augmenter = augmenter
        self.max_samples = int(max_seconds * SAMPLE_RATE_HZ) if max_seconds is not None else None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> Example:
        """The example of one clip in one epoch.

        Raises:
            AudioError: the clip's file is no sound.
            LabelTooLongError: the sound is shorter than the manifest says, and too short for the label.
        """
        epoch, index = key
        one = self.clips[index]
        waveform = decode_audio(one.clip.audio)
        if len(waveform) < one.min_samples:
            raise LabelTooLongError(_describe_too_long(one, len(waveform) / SAMPLE_RATE_HZ))
        if self.augmenter is not None:
            waveform = self.augmenter.apply(
                waveform, epoch=epoch, clip=index, min_samples=one.min_samples, max_samples=self.max_samples,
                draw_voice=self._draw_voice,
            )  # fmt: skip
        return {"waveform": waveform, "label": one.label, "clip": index}

    def _draw_voice(self, generator: np.random.Generator) -> Waveform:
        return decode_audio(self.clips[int(generator.integers(len(self.clips)))].clip.audio)


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples to one batch: sound with zeros, labels with -100."""
    lengths = torch.tensor([len(example["waveform"]) for example in examples])
    label_sizes = [len(example["label"]) for example in examples]
    waveform = torch.zeros(len(examples), int(lengths.max()))
    labels = torch.full((len(examples), max(label_sizes)), NO_LABEL)
    for row, example in enumerate(examples):
        waveform[row, : lengths[row]] = torch.from_numpy(example["waveform"])
        labels[row, : label_sizes[row]] = torch.tensor(example["label"], dtype=torch.int64)
    clips = torch.tensor([example["clip"] for example in examples])
    return {"waveform": waveform, "lengths": lengths, "labels": labels, "clips": clips}


class SecondsBatchSampler(Sampler[list[Key]]):
    """Batches of clips of like duration, none of more than ``batch_seconds`` padded (unless one clip alone is longer).

    The sizes of the batches are the same in each epoch; which clips fill them, and their order, is shuffled by seed and
    epoch. Every clip comes once an epoch. With several processes each rank gets its own batches, and all ranks get the
    same number: batches are halved until the number fits. (Only where every batch is a single clip already do some ranks
    see a clip that another has seen.)

    Args:
        durations_s: of each clip of the dataset.
        batch_seconds: limit of clips times the longest one's seconds.
        seed: of the shuffle; None: the order stays, shortest first.
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self,
        durations_s: Sequence[float],
        batch_seconds: float,
        *,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self._bounds = round_up_durations(np.asarray(durations_s, dtype=np.float64))
        self._slots = even_slots(cut_slots(np.sort(self._bounds), batch_seconds), world)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for this epoch from the next iteration on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._slots) // self.world

    def __iter__(self) -> Iterator[list[Key]]:
        if self.seed is None:
            order, slots = np.argsort(self._bounds, kind="stable"), np.arange(len(self._slots))
        else:
            generator = np.random.default_rng((self.seed, self.epoch))
            order = np.lexsort((generator.random(len(self._bounds)), self._bounds))
            slots = generator.permutation(len(self._slots))
        for slot in slots[self.rank :: self.world]:
            start, stop = self._slots[slot]
            yield [(self.epoch, int(index)) for index in order[start:stop]]


def round_up_durations(durations_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each clip's duration raised to the longest one of its bucket; buckets grow by :data:`BUCKET_RATIO`."""
    buckets = np.floor(np.log(np.maximum(durations_s, 1e-3)) / np.log(BUCKET_RATIO))
    _, bucket = np.unique(buckets, return_inverse=True)
    longest = np.zeros(int(bucket.max(initial=-1)) + 1)
    np.maximum.at(longest, bucket, durations_s)
    return longest[bucket]


def cut_slots(durations_s: NDArray[np.float64], batch_seconds: float) -> list[tuple[int, int]]:
    """Cut ascending durations into (start, stop) so that (stop - start) times the longest stays within the limit."""
    slots, start = [], 0
    for stop in range(1, len(durations_s) + 1):
        if stop - start > 1 and (stop - start) * durations_s[stop - 1] > batch_seconds:
            slots.append((start, stop - 1))
            start = stop - 1
    return [*slots, (start, len(durations_s))] if len(durations_s) else []


def even_slots(slots: list[tuple[int, int]], world: int) -> list[tuple[int, int]]:
    """As many slots as a multiple of ``world``: the largest are halved; single clips are repeated."""
    slots = list(slots)
    while len(slots) % world:
        start, stop = max(slots, key=lambda slot: slot[1] - slot[0])
        middle = (start + stop) // 2
        if middle == start:
            slots.append(slots[0])
        else:
            slots[slots.index((start, stop)) : slots.index((start, stop)) + 1] = [(start, middle), (middle, stop)]
    return slots


class SpeechLoader(DataLoader[Example]):
    """A DataLoader whose batch sampler hears of the epoch."""

    def __init__(self, dataset: SpeechDataset, sampler: SecondsBatchSampler, workers: int = 0) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )
        self.seconds_sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        """See :class:`SecondsBatchSampler`."""
        self.seconds_sampler.set_epoch(epoch)
