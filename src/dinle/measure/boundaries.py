"""How far a recogniser's word times are from the truth: words of known boundaries, joined with known gaps.

Word times are otherwise compared with another aligner's, which errs too. Here every word is a clip of its own, its silence is
cut off by its energy, and where it is put is known to the sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.errors import UsageError
from dinle.measure.word_marks import mark_words
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dinle.recognize.transcript import Word

FRAME_SAMPLES = SAMPLE_RATE_HZ // 100  # 10 ms: how finely energy tells where a word begins
FLOOR_DB = -35.0  # below its loudest frame, a word is silent: breath and reverberation are, soft consonants are not
EDGE_S = 0.3  # of noise before the first word and after the last
LEVEL_RMS = 0.05  # of every word: -26 dB of full scale, as speech is levelled (ITU-T P.56)


@dataclass(frozen=True)
class JoinRules:
    """How words become a recording.

    Attributes:
        min_gap_s, max_gap_s: shortest and longest gap between two words; by default from running speech to a clear pause.
        noise_db: level of the noise under everything, relative to the words.

    Raises:
        UsageError: gaps that are no range of seconds, or a level that is not finite.
    """

    min_gap_s: float = 0.05
    max_gap_s: float = 0.6
    noise_db: float = -40.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_gap_s <= self.max_gap_s < math.inf:
            raise UsageError(
                f"the gaps are {self.min_gap_s:g} to {self.max_gap_s:g} s; expected a range of seconds from 0 on"
            )
        if not math.isfinite(self.noise_db):
            raise UsageError(f"noise_db is {self.noise_db}; expected decibels relative to the words, such as -40")


@dataclass(frozen=True)
class SpokenWord:
    """A single word and its sound, (S,) at 16 kHz, with whatever silence is around it."""

    text: str
    waveform: Waveform


@dataclass(frozen=True)
class TimedWord:
    """A word of a joined recording: when it is really said."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class JoinedSpeech:
    """A recording (S,) at 16 kHz, and the words in it, in order."""

    waveform: Waveform
    words: tuple[TimedWord, ...]


@dataclass(frozen=True)
class BoundaryError:
    """How much later than the truth a word that was recognised right is said to start and to end; negative: earlier."""

    text: str
    start_s: float
    end_s: float


def trim_silence(waveform: Waveform) -> Waveform:
    """The sound from its first to its last frame that is within :data:`FLOOR_DB` of the loudest one.

    Raises:
        UsageError: shorter than a frame, or silent throughout.
    """
    frames = waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    energy = np.square(frames, dtype=np.float64).mean(axis=1)
    if not energy.any():
        raise UsageError(f"a word of {len(waveform)} samples holds no sound; expected a spoken word at 16 kHz")
    loud = np.flatnonzero(energy >= energy.max() * 10 ** (FLOOR_DB / 10))
    return waveform[loud[0] * FRAME_SAMPLES : (loud[-1] + 1) * FRAME_SAMPLES]


def join_words(words: Sequence[SpokenWord], rules: JoinRules, rng: np.random.Generator) -> JoinedSpeech:
    """Words one after the other, trimmed and equally loud, with random gaps between them and noise under everything.

    Raises:
        UsageError: no words, or one without sound.
    """
    if not words:
        raise UsageError("there are no words to join; expected at least one")
    edge = round(EDGE_S * SAMPLE_RATE_HZ)
    parts, timed, at = [np.zeros(edge, dtype=np.float32)], [], edge
    for word in words:
        sound = trim_silence(word.waveform)
        sound = sound * np.float32(LEVEL_RMS / np.sqrt(np.square(sound, dtype=np.float64).mean()))
        gap = round(rng.uniform(rules.min_gap_s, rules.max_gap_s) * SAMPLE_RATE_HZ)
        timed.append(TimedWord(word.text, at / SAMPLE_RATE_HZ, (at + len(sound)) / SAMPLE_RATE_HZ))
        parts += [sound, np.zeros(gap, dtype=np.float32)]
        at += len(sound) + gap
    speech = np.concatenate([*parts, np.zeros(edge, dtype=np.float32)])
    noise = rng.normal(0.0, LEVEL_RMS * 10 ** (rules.noise_db / 20), len(speech))
    return JoinedSpeech((speech + noise).clip(-1.0, 1.0).astype(np.float32), tuple(timed))


def make_recordings(
    words: Sequence[SpokenWord], rules: JoinRules, *, recordings: int, length: int, seed: int
) -> Iterator[JoinedSpeech]:
    """Recordings of ``length`` words, drawn without replacement: all words come before one comes again.

    Raises:
        UsageError: fewer words than a recording is long, or a count below one.
    """
    if recordings < 1 or not 1 <= length <= len(words):
        raise UsageError(
            f"{recordings} recordings of {length} words out of {len(words)} single words; expected at least 1 recording, "
            "of at least 1 word and no more than there are"
        )
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(recordings):
        if len(order) < length:
            order = rng.permutation(len(words)).tolist()
        yield join_words([words[order.pop()] for _ in range(length)], rules, rng)


def measure_boundaries(said: Sequence[TimedWord], heard: Sequence[Word]) -> list[BoundaryError]:
    """The errors of the words that were recognised right, by a minimal alignment of what was said and what was heard."""
    reference = " ".join(normalize_tr(word.text) for word in said)
    marks = mark_words(reference, [word.text for word in heard])
    return [
        BoundaryError(said[place].text, word.start_s - said[place].start_s, word.end_s - said[place].end_s)
        for place, word in zip(marks, heard, strict=True)
        if place is not None
    ]


def summarize_errors(errors: Sequence[BoundaryError]) -> dict[str, Any]:
    """Median and 90th percentile of the absolute error and the median signed error, of starts, of ends and of both, in ms.

    Raises:
        UsageError: no word was recognised right.
    """
    if not errors:
        raise UsageError("no word was recognised right, so that no boundary can be judged; give clearer words")
    starts, ends = (np.array([getattr(error, side) for error in errors]) for side in ("start_s", "end_s"))
    sides: Mapping[str, Any] = {"starts": starts, "ends": ends, "both": np.concatenate([starts, ends])}
    return {
        "words": len(errors),
        **{
            name: {
                "median_ms": round(1000 * float(np.median(np.abs(values))), 1),
                "p90_ms": round(1000 * float(np.percentile(np.abs(values), 90)), 1),
                "bias_ms": round(1000 * float(np.median(values)), 1),
            }
            for name, values in sides.items()
        },
    }
