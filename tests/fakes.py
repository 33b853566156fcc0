"""Engines and recognisers without weights: they spell what they are told."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.recognizer import CtcRecognizer
from dinle.recognize.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pytest
    from numpy.typing import NDArray

FRAME_SAMPLES = 320  # 20 ms at 16 kHz, as in both real families


@dataclass
class FakeEngine:
    """Spells ``text`` for every clip, one character each second frame from the start, whatever it hears.

    ``delay_s`` makes a call last; ``error`` makes it fail; ``batches`` keeps the lengths of each call.
    """

    text: str = "merhaba"
    delay_s: float = 0.0
    error: Exception | None = None
    vocabulary: Vocabulary = field(default_factory=Vocabulary.turkish)
    batches: list[list[int]] = field(default_factory=list)

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.batches.append([int(n) for n in lengths])
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        frames = np.maximum(1, lengths // FRAME_SAMPLES)
        ids = np.full((len(lengths), int(frames.max())), self.vocabulary.blank)
        for position, token in enumerate(self.vocabulary.encode(self.text)):
            ids[:, 1 + 2 * position : 2 + 2 * position] = token
        return spell_frames(ids, self.vocabulary), frames


class GateEngine(FakeEngine):
    """Holds every call until the gate opens; the warm-up passes."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        result = super().run(waveforms, lengths)
        assert self.gate.wait(10)
        return result


def spell_frames(ids: NDArray[np.int64], vocabulary: Vocabulary, probability: float = 0.9) -> NDArray[np.float32]:
    """Log-probabilities (..., T, V) whose best token in each frame is the given one, with the given probability."""
    rest = (1 - probability) / (vocabulary.size - 1)
    probabilities = np.full((*ids.shape, vocabulary.size), rest, dtype=np.float32)
    np.put_along_axis(probabilities, ids[..., np.newaxis], probability, axis=-1)
    return np.log(probabilities)


def fake_recognizer(text: str = "merhaba", *, delay_s: float = 0.0, error: Exception | None = None) -> CtcRecognizer:
    """A recogniser that answers ``text`` for any second of sound."""
    engine = FakeEngine(text, delay_s, error)
    return CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)


def make_tone(seconds: float, *, hz: float = 440.0, level: float = 0.5) -> NDArray[np.float32]:
    """A sine (S,) at 16 kHz: loud enough not to count as silence."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(16_000 * seconds)) / 16_000)).astype(np.float32)


def take_no_notes(patch: pytest.MonkeyPatch) -> None:
    """Let tones and levels, which are as steady as notes, stand for words."""
    patch.setattr("dinle.recognize.segments.measure_steadiness", lambda sound: 0.0)
