"""Speech from text: what an engine must do, and by lot which voice says which line.

An engine says a line in one of its voices; a :class:`Cast` hands the lines out. Voices that are held out say the lines of
the split ``test`` and no others, alone or blended, so that a model is tested on voices it has never heard.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dinle.errors import DatasetError, UsageError
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dinle.build.config import PrepareConfig
    from dinle.recognize.audio import Waveform

TEST_SPLIT = "test"
TRAIN_SPLIT = "train"
BLEND_SHARES = (0.3, 0.7)  # of the first voice; nearer to either end a blend is heard as that voice
_DIGITS = 3  # of speeds, pitches and shares: as many as a record of them shows


class SpeechEngineError(DatasetError):
    """A speech engine cannot be opened: its program, its model or its voices."""


class UnspeakableTextError(DatasetError):
    """An engine cannot say this one text."""


@dataclass(frozen=True)
class Voice:
    """A voice of an engine, or ``share`` of it blended with the rest of a second one."""

    first: str
    second: str | None = None
    share: float = 1.0

    @property
    def label(self) -> str:
        """``af_heart``, or ``af_heart+am_puck`` for a blend."""
        return f"{self.first}+{self.second}" if self.second else self.first


@dataclass(frozen=True)
class Delivery:
    """How a line is said; speed and pitch are factors, 1 is the voice's own."""

    voice: Voice
    speed: float
    pitch: float


class SpeechEngine(Protocol):
    """A program or model that says text. Called from several threads at a time."""

    name: str  # stands before the voice in the manifest: espeak-ng:tr+f1
    licence: str  # of the sound
    version: str  # changes with whatever changes the sound: a program's version, a hash of a model
    voices: tuple[str, ...]
    files: dict[str, Path]  # what the run's record hashes

    def speak(self, text: str, delivery: Delivery) -> Waveform:
        """Say lower-case Turkish without numerals.

        Returns:
            Waveform (S,): mono, 16 kHz, float32 in [-1, 1].

        Raises:
            UnspeakableTextError: this text cannot be said.
        """


def open_engine(config: PrepareConfig) -> SpeechEngine:
    """The engine that ``config.speech_engine`` names, with the voices of ``voices`` and ``test_voices``.

    Raises:
        UsageError: a setting that the engine needs, or does not have.
        SpeechEngineError: the program, the model or a voice is missing or unusable.
    """
    if config.speech_engine == "kokoro":
        from dinle.build.speech_kokoro import open_kokoro

        return open_kokoro(config)
    from dinle.build.speech_espeak import open_espeak

    return open_espeak(config)


def check_speech(config: PrepareConfig) -> None:
    """Check the settings that hold for every engine.

    Raises:
        UsageError: one of them is out of its range.
    """
    if config.speakers_per_text < 1:
        raise UsageError(f"--speakers_per_text is {config.speakers_per_text}; expected 1 or more")
    if not 0 <= config.blend_voices <= 1:
        raise UsageError(f"--blend_voices is {config.blend_voices}; expected a share from 0 to 1")
    for name in ("speed_range", "pitch_range"):
        factors = getattr(config, name)
        if len(factors) != 2 or not 0 < factors[0] <= factors[1] < np.inf:  # noqa: PLR2004 - least and most
            given = " ".join(map(str, factors)) or "empty"
            raise UsageError(f"--{name} is {given}; expected the least and the most, such as 0.8 1.25")


class Cast:
    """Who says which line, and how: drawn by lot, the same for the same seed.

    Args:
        voices: of the engine.
        config: ``test_voices``, ``speakers_per_text``, ``blend_voices``, ``speed_range``, ``pitch_range``, ``seed``.

    Raises:
        UsageError: a voice held out that the engine does not have, or none that is left to train on.
    """

    def __init__(self, voices: Sequence[str], config: PrepareConfig) -> None:
        self._config = config
        held_out = tuple(dict.fromkeys(find_voice(name, voices) for name in config.test_voices))
        self._others = tuple(voice for voice in voices if voice not in held_out)
        self._testers = held_out or self._others
        self._test_share = len(held_out) / len(voices)
        if not self._others:
            raise UsageError(
                f"--test_voices holds out every voice ({', '.join(voices)}); leave at least one to train on"
            )

    def choose_split(self, text: str) -> str:
        """``test`` for a share of the texts that is the share of held-out voices among all; the same text, the same side."""
        key = zlib.crc32(normalize_tr(text).encode())
        is_test = np.random.default_rng([self._config.seed, key]).random() < self._test_share
        return TEST_SPLIT if is_test else TRAIN_SPLIT

    def draw(self, split: str, line: int) -> list[Delivery]:
        """Draw how a line is said, ``speakers_per_text`` times; no voice comes twice before each has come once.

        Args:
            split: decides which voices there are to draw from.
            line: number of the line, which is drawn for independently of all others.
        """
        lot = np.random.default_rng([self._config.seed, line])
        pool = self._testers if split == TEST_SPLIT else self._others
        order = lot.permutation(len(pool))
        return [
            Delivery(
                self._draw_voice(pool, int(order[take % len(pool)]), lot),
                _draw_factor(self._config.speed_range, lot),
                _draw_factor(self._config.pitch_range, lot),
            )
            for take in range(self._config.speakers_per_text)
        ]

    def _draw_voice(self, pool: Sequence[str], first: int, lot: np.random.Generator) -> Voice:
        """The voice itself, or a blend with another of the same pool: a held-out voice is in no training clip."""
        if len(pool) == 1 or lot.random() >= self._config.blend_voices:
            return Voice(pool[first])
        second = (first + int(lot.integers(1, len(pool)))) % len(pool)
        return Voice(pool[first], pool[second], _draw_factor(BLEND_SHARES, lot))


def _draw_factor(bounds: Sequence[float], lot: np.random.Generator) -> float:
    return round(float(lot.uniform(bounds[0], bounds[1])), _DIGITS)


def find_voice(name: str, voices: Sequence[str]) -> str:
    """The voice meant by its name, or by the last part of it (``f1`` for ``tr+f1``).

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    for voice in voices:
        if name in (voice, voice.rpartition("+")[2]):
            return voice
    raise UsageError(f"there is no voice {name!r}; known are: {', '.join(voices)}")
