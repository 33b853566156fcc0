"""Sound that says itself how probable speech is, and what must hold of every layout of segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform
from dinle.recognize.segments import Segment, SegmentRules, cut_segments
from dinle.recognize.spans import CHUNK_S
from dinle.recognize.vad import CHUNK_SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOM = 0.001  # no speech, and louder than digital silence


class LoudnessDetector:
    """Calls a chunk as probable as its first sample says: a detector whose answers the test writes into the sound."""

    def __init__(self) -> None:
        self.rest: Waveform = np.zeros(0, dtype=np.float32)

    def push(self, samples: Waveform) -> NDArray[np.float32]:
        sound = np.concatenate([self.rest, samples])
        whole = len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES
        self.rest = sound[whole:]
        return sound[:whole:CHUNK_SAMPLES]

    def finish(self) -> NDArray[np.float32]:
        rest, self.rest = self.rest[:1], np.zeros(0, dtype=np.float32)
        return rest


def sound_of(probabilities: list[float]) -> Waveform:
    """No chunk is digital silence."""
    return np.repeat(np.maximum(probabilities, ROOM).astype(np.float32), CHUNK_SAMPLES)


def cut_written(probabilities: list[float], rules: SegmentRules) -> list[Segment]:
    return list(cut_segments([sound_of(probabilities)], rules, detector=LoudnessDetector()))


def stretches(*parts: tuple[float, float]) -> list[float]:
    """(seconds, probability) one after the other, one number a chunk."""
    return [probability for seconds, probability in parts for _ in range(round(seconds / CHUNK_S))]


def check_layout(segments: list[Segment], sound: Waveform, rules: SegmentRules) -> None:
    """Ordered, disjoint, inside the recording, not too long, and true copies of it."""
    end = 0
    for segment in segments:
        assert segment.start >= end
        end = segment.start + len(segment.samples)
        assert end <= len(sound)
        assert 0 < len(segment.samples) <= rules.max_s * SAMPLE_RATE_HZ
        np.testing.assert_array_equal(segment.samples, sound[segment.start : end])


runs = st.lists(st.tuples(st.floats(0.03, 6), st.sampled_from([0.0, 0.1, 0.4, 0.6, 0.9])), min_size=1, max_size=12)
