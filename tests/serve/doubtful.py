"""A recogniser in doubt: it hears one text, and another of the same length nearly as well. A hot word decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.recognizer import CtcRecognizer
from tests.fakes import FakeEngine

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEARD, MEANT = "bugün ığdırda", "bugün iğdirda"  # the first without hot words, the second with the hot word
HOT_WORD = "iğdir"
SURE, UNSURE = 0.5, 0.45  # where the texts differ


@dataclass
class DoubtfulEngine(FakeEngine):
    """Spells ``text``, and ``other`` nearly as well."""

    other: str = ""

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        log_probs, frames = super().run(waveforms, lengths)
        pairs = zip(self.vocabulary.encode(self.text), self.vocabulary.encode(self.other), strict=True)
        for position, (token, other) in enumerate(pairs):
            if token != other:
                log_probs[:, 1 + 2 * position, :] = np.log((1 - SURE - UNSURE) / (self.vocabulary.size - 2))
                log_probs[:, 1 + 2 * position, token] = np.log(SURE)
                log_probs[:, 1 + 2 * position, other] = np.log(UNSURE)
        return log_probs, frames


def doubtful_recognizer(heard: str = HEARD, meant: str = MEANT) -> CtcRecognizer:
    """A recogniser that answers ``heard`` for any second of sound, and ``meant`` where its words are expected."""
    engine = DoubtfulEngine(heard, other=meant)
    return CtcRecognizer(engine, engine.vocabulary, name="doubtful", frame_shift_s=0.02)
