"""A recording of any length made of known clips, and what a model's text of it has in common with the clips alone.

``python -m tests.long_recording --model models/dinle-ctc-tr --minutes 120`` prints the table of docs/long-recordings.md.

Clips stand in stretches: whole and with pauses, or without the silence at their ends, so that speech must be cut. Between the
stretches are at least six seconds of silence, noise or music. A stretch has the words whose middles lie in it or within a
second of it; all other words are strays. A clip alone is its sound as it stands in the recording, between 0.7 s of the same room:
models read the bare clips otherwise, and those that they have learnt better.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

import dinle
from dinle.manifest import Clip, read_manifest
from dinle.measure.wer import ErrorCounts, count_errors, paired_bootstrap, pool
from dinle.progress import open_console, progress
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio, stream_audio
from dinle.recognize.segments import cut_segments
from dinle.text import normalize_tr
from tests.sounds import iterate_non_speech, make_noise, scale_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.recognize.recognizer import CtcRecognizer
    from dinle.recognize.transcript import Word
    from dinle.recognize.whisper import WhisperRecognizer

ROOT = Path(__file__).parents[1]
SETS = ("mini", "synthetic-sentences", "synthetic-words")
# What stands between stretches.
BETWEEN = ("digital-silence", "dither", "white", "pink", "hum", "fan", "rain", "chord", "melody", "drums", "band")
NEAR_CUT_S = 2.0
MARGIN_S = 1.0
ROOM_S = 0.7
FIRST_S = 600.0  # of the recording, after which memory must not grow


@dataclass(frozen=True)
class Placed:
    """A clip, where its sound begins in the recording, and whether its own silence was cut off."""

    clip: Clip
    start_s: float
    trimmed: bool

    def read(self) -> Waveform:
        """The sound as it stands in the recording."""
        sound = decode_audio(self.clip.audio)
        return trim_silence(sound) if self.trimmed else sound


@dataclass(frozen=True)
class Stretch:
    """Clips that follow each other, from ``start_s`` to ``end_s``, with pauses between them or without."""

    start_s: float
    end_s: float
    clips: tuple[Placed, ...]
    pauses: bool


@dataclass(frozen=True)
class Tokens:
    """Words of a text as they are scored, and the times of their middles."""

    texts: tuple[str, ...]
    middles_s: tuple[float, ...]

    @property
    def text(self) -> str:
        """All of them."""
        return " ".join(self.texts)


@dataclass
class Comparison:
    """What became of a long recording.

    Attributes:
        clips, hours, work_s: how many clips stand in it, how long it is, and how long its recognition took.
        stretches: what stands where.
        stray: words where nobody speaks, and when.
        alone, whole: errors against what was said, by stretch: of the clips alone, and of the recording.
        differing: words of the clips alone that are others in the recording, or are missing, or are more.
        cuts: how often speech was cut.
        near, elsewhere: of stretches without pauses, words of the clips alone within two seconds of a cut, and the others:
            ``words``, those ``changed`` in the recording (``lost`` ones among them), ``added`` to them, and ``doubled``: added
            beside the same word.
        told_s: the progress that was told.
        first_mb, peak_mb: resident memory at its highest in the first ten minutes, and in all.
    """

    clips: int
    hours: float
    work_s: float
    stretches: list[Stretch]
    stray: list[tuple[str, float]]
    alone: list[ErrorCounts]
    whole: list[ErrorCounts]
    differing: int
    cuts: int
    near: Counter[str]
    elsewhere: Counter[str]
    told_s: list[float] = field(default_factory=list)
    first_mb: float = 0.0
    peak_mb: float = 0.0

    def select(self, *, pauses: bool) -> tuple[list[ErrorCounts], list[ErrorCounts]]:
        """The errors of the clips alone and of the recording, in stretches with pauses or in those without."""
        chosen = [i for i, stretch in enumerate(self.stretches) if stretch.pauses == pauses]
        return [self.alone[i] for i in chosen], [self.whole[i] for i in chosen]


class Maker:
    """Writes a long recording to a file and keeps what stands where.

    Args:
        path: a WAV file.
        seed: of the order and the pauses.
    """

    def __init__(self, path: Path, *, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        clips = [clip for name in SETS for clip in read_manifest(ROOT / "data" / name)]
        self._clips = cycle([clips[i] for i in self._rng.permutation(len(clips))])
        sounds = [sound for name, sound in iterate_non_speech() if name.startswith(BETWEEN)]
        self._sounds = cycle([sounds[i] for i in self._rng.permutation(len(sounds))])
        self._path, self._samples = path, 0
        self.stretches: list[Stretch] = []

    def write(self, seconds: float) -> list[Stretch]:
        """Stretches of 15, 45 and 100 s in turn, until the recording is so long."""
        with soundfile.SoundFile(self._path, "w", SAMPLE_RATE_HZ, 1, subtype="PCM_16") as file:
            kinds = cycle([(15.0, True), (45.0, False), (15.0, True), (100.0, False)])
            self._add(file, next(self._sounds))
            while self._samples < seconds * SAMPLE_RATE_HZ:
                self._write_stretch(file, *next(kinds))
                for _ in range(self._rng.integers(1, 4)):
                    self._add(file, next(self._sounds))
        return self.stretches

    def _write_stretch(self, file: soundfile.SoundFile, seconds: float, pauses: bool) -> None:
        start_s, placed = self._samples / SAMPLE_RATE_HZ, list[Placed]()
        while self._samples / SAMPLE_RATE_HZ < start_s + seconds:
            clip = next(self._clips)
            placed.append(Placed(clip, self._samples / SAMPLE_RATE_HZ, trimmed=not pauses))
            pause_s = self._rng.uniform(0.4, 1.5) if pauses else 0.06
            self._add(file, placed[-1].read())
            self._add(file, make_room(pause_s, seed=len(placed)))
        self.stretches.append(Stretch(start_s, self._samples / SAMPLE_RATE_HZ, tuple(placed), pauses))

    def _add(self, file: soundfile.SoundFile, sound: Waveform) -> None:
        file.write(sound)
        self._samples += len(sound)


def make_room(seconds: float, *, seed: int) -> Waveform:
    """What a quiet room sounds like between words."""
    return scale_to(make_noise(seconds, "pink", seed=seed), -65)


def trim_silence(sound: Waveform) -> Waveform:
    """The sound without the silence at its ends."""
    margin = round(0.03 * SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    return sound[max(0, int(loud[0]) - margin) : int(loud[-1]) + margin]


def compare(recognizer: CtcRecognizer | WhisperRecognizer, path: Path, stretches: Sequence[Stretch]) -> Comparison:
    """Recognise the recording and each of its clips alone, and compare."""
    apart = read_alone(recognizer, stretches)
    told_s, memory_mb = list[float](), list[float]()

    def tell(seconds: float) -> None:
        told_s.append(seconds)
        memory_mb.append(read_resident_mb())

    transcript = recognizer.transcribe(path, on_progress=tell)
    cuts_s = find_cuts(recognizer, path)
    inside, stray = assign_words(transcript.words, stretches)
    whole = [tokenize(words) for words in inside]
    said = [" ".join(placed.clip.text for placed in stretch.clips) for stretch in stretches]
    joined = [i for i, stretch in enumerate(stretches) if not stretch.pauses]
    near, elsewhere = count_changes([apart[i] for i in joined], [whole[i] for i in joined], cuts_s)
    return Comparison(
        clips=sum(len(stretch.clips) for stretch in stretches),
        hours=transcript.duration_s / 3600,
        work_s=transcript.inference_s,
        stretches=list(stretches),
        stray=[(word.text, round(word.start_s, 1)) for word in stray],
        alone=count_errors(said, [one.text for one in apart], normalizer="tr"),
        whole=count_errors(said, [one.text for one in whole], normalizer="tr"),
        differing=pool(
            count_errors([one.text for one in apart], [one.text for one in whole], normalizer="tr")
        ).words.errors,
        cuts=len(cuts_s),
        near=near,
        elsewhere=elsewhere,
        told_s=told_s,
        first_mb=max(mb for mb, seconds in zip(memory_mb, told_s, strict=True) if seconds <= FIRST_S),
        peak_mb=max(memory_mb),
    )


def read_alone(recognizer: CtcRecognizer | WhisperRecognizer, stretches: Sequence[Stretch]) -> list[Tokens]:
    """The words of each stretch as its clips are read alone, at their times in the recording; each clip is read once."""
    room = make_room(ROOM_S, seed=0)
    clips = {(placed.clip.audio, placed.trimmed): placed for stretch in stretches for placed in stretch.clips}
    alone = {
        key: recognizer.transcribe(np.concatenate([room, placed.read(), room])).words for key, placed in clips.items()
    }
    return [
        tokenize(
            replace(word, start_s=placed.start_s - ROOM_S + word.start_s, end_s=placed.start_s - ROOM_S + word.end_s)
            for placed in stretch.clips
            for word in alone[placed.clip.audio, placed.trimmed]
        )
        for stretch in stretches
    ]


def find_cuts(recognizer: CtcRecognizer | WhisperRecognizer, path: Path) -> list[float]:
    """Where the recogniser's rules cut the speech of a recording, in seconds."""
    segments = cut_segments(stream_audio(path), recognizer.long_segments)
    return [(one.start + one.head) / SAMPLE_RATE_HZ for one in segments if one.head]


def assign_words(words: Sequence[Word], stretches: Sequence[Stretch]) -> tuple[list[list[Word]], list[Word]]:
    """The words of each stretch, and those of none."""
    inside: list[list[Word]] = [[] for _ in stretches]
    stray: list[Word] = []
    for word in words:
        middle_s = (word.start_s + word.end_s) / 2
        places = (i for i, one in enumerate(stretches) if one.start_s - MARGIN_S < middle_s < one.end_s + MARGIN_S)
        place = next(places, None)
        (stray if place is None else inside[place]).append(word)
    return inside, stray


def tokenize(words: Iterator[Word] | Sequence[Word]) -> Tokens:
    """Words as they are scored; a word can be several, or none."""
    pairs = [(text, (word.start_s + word.end_s) / 2) for word in words for text in normalize_tr(word.text).split()]
    return Tokens(tuple(text for text, _ in pairs), tuple(middle_s for _, middle_s in pairs))


def count_changes(
    apart: Sequence[Tokens], whole: Sequence[Tokens], cuts_s: Sequence[float]
) -> tuple[Counter[str], Counter[str]]:
    """Words, and words changed, lost, added and doubled, near a cut and elsewhere; see :class:`Comparison`."""
    near, elsewhere = Counter[str](), Counter[str]()
    cuts = np.array([-np.inf, *cuts_s, np.inf])
    counted = count_errors([one.text for one in apart], [one.text for one in whole], normalizer="tr")
    for one, other, counts in zip(apart, whole, counted, strict=True):
        i = j = 0
        for wanted, got in counts.alignment:
            middle_s = one.middles_s[i] if wanted is not None else other.middles_s[j]
            place = near if np.abs(cuts - middle_s).min() < NEAR_CUT_S else elsewhere
            place["words"] += wanted is not None
            place["changed"] += wanted not in (None, got)
            place["lost"] += got is None
            place["added"] += wanted is None
            place["doubled"] += wanted is None and got in (*other.texts[max(0, j - 1) : j], *other.texts[j + 1 : j + 2])
            i, j = i + (wanted is not None), j + (got is not None)
    return near, elsewhere


def read_resident_mb() -> float:
    """Memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def describe(result: Comparison) -> dict[str, object]:
    """The figures, by name."""
    return {
        "hours": round(result.hours, 3),
        "clips": result.clips,
        "stretches": len(result.whole),
        "rtfx": round(3600 * result.hours / result.work_s, 1),
        "with_pauses": describe_errors(*result.select(pauses=True)),
        "without_pauses": describe_errors(*result.select(pauses=False)),
        "words_said": pool(result.whole).words.reference,
        "words_differing": result.differing,
        "stray_words": result.stray,
        "cuts": result.cuts,
        "near_cuts": dict(result.near),
        "elsewhere": dict(result.elsewhere),
        "longest_silence_of_progress_s": round(float(np.diff([0.0, *result.told_s]).max()), 1),
        "first_10_minutes_mb": round(result.first_mb, 1),
        "peak_mb": round(result.peak_mb, 1),
    }


def describe_errors(alone: list[ErrorCounts], whole: list[ErrorCounts]) -> dict[str, object]:
    """WER of the clips alone and in the recording, and the difference with its interval over stretches."""
    difference = paired_bootstrap(alone, whole)
    return {
        "wer_alone": round(pool(alone).wer, 4),
        "wer_whole": round(pool(whole).wer, 4),
        "difference": round(difference.difference, 4),
        "interval": [round(bound, 4) for bound in difference.interval.to_list()],
    }


def main() -> None:
    """Make a recording, compare, print."""
    parser = argparse.ArgumentParser(description="what a long recording has in common with its clips alone")
    parser.add_argument("--model", help="bundle folder (default: the bundled model)")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recognizer = dinle.load(arguments.model, threads=arguments.threads)
    recognizer.warm_up()
    with tempfile.TemporaryDirectory() as folder, progress("comparing"):
        path = Path(folder) / "long.wav"
        started = time.monotonic()
        stretches = Maker(path, seed=arguments.seed).write(60 * arguments.minutes)
        result = compare(recognizer, path, stretches)  # type: ignore[arg-type]  # both families have long_segments
    figures = {"model": recognizer.name, "seconds": round(time.monotonic() - started), **describe(result)}
    open_console().print_json(json.dumps(figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
