"""A speech detector that takes loud sound for speech: tones are none to the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dinle.loadtest.clips import LOUD
from dinle.recognize.vad import CHUNK_SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LoudDetector:
    """See :class:`dinle.recognize.segments.Detector`."""

    def __init__(self, least: float = LOUD) -> None:
        self.least = least
        self.left = np.zeros(0, dtype=np.float32)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        sound = np.concatenate([self.left, samples])
        whole = len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES
        self.left = sound[whole:]
        return judge(sound[:whole].reshape(-1, CHUNK_SAMPLES), self.least)

    def finish(self) -> NDArray[np.float32]:
        left, self.left = self.left, np.zeros(0, dtype=np.float32)
        return judge(left[np.newaxis], self.least) if len(left) else left


def judge(chunks: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    loudest: NDArray[np.float32] = np.abs(chunks).max(axis=1)
    return (loudest > least).astype(np.float32)
