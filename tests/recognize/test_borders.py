"""After a second of digital silence sound is heard as if the recording began there, by whatever stands before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dinle
from dinle.manifest import read_manifest
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.recognize.segments import SILENT, Segment, Segmenter, SegmentRules, cut_segments
from dinle.recognize.vad import CHUNK_SAMPLES
from tests.clips_apart import compare, join_apart
from tests.graphs import CTC_BUNDLE
from tests.long_recording import SETS
from tests.recognize.loudness import LoudnessDetector, runs, sound_of, stretches
from tests.sounds import join_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parents[2] / "data"
RULES = SegmentRules(target_s=2.0, max_s=4.0, cut_s=1.0, overlap_s=0.7)
Heard = tuple[int, int, int, bytes]


def make_silent(samples: int) -> Waveform:
    return np.full(samples, SILENT, dtype=np.float32)


def list_heard(segments: Iterable[Segment], first: int = 0, end: int | None = None) -> list[Heard]:
    """What segments hold of the samples ``first`` to ``end``, counted from the first."""
    heard = []
    for one in segments:
        if first <= one.start and (end is None or one.start < end):
            samples = one.samples[: None if end is None else end - one.start]
            heard.append((one.start - first, one.head, one.tail, samples.tobytes()))
    return heard


@given(
    talks=st.lists(runs, min_size=2, max_size=3),
    gaps=st.lists(st.integers(SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ), min_size=3, max_size=3),
    sizes=st.lists(st.integers(100, 50_000), min_size=1, max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_what_follows_a_second_of_silence_has_the_segments_that_it_has_alone(
    talks: list[list[tuple[float, float]]], gaps: list[int], sizes: list[int]
) -> None:
    sounds = [sound_of(stretches(*talk)) for talk in talks]
    whole, starts = join_apart([make_silent(gap) for gap in gaps[: len(sounds)]], sounds)
    segments = list(cut_segments(join_blocks(whole, sizes), RULES, detector=LoudnessDetector()))
    found = 0
    for start, sound in zip(starts, sounds, strict=True):
        alone = list_heard(cut_segments([sound], RULES, detector=LoudnessDetector()))
        assert list_heard(segments, start, start + len(sound)) == alone
        found += len(alone)
    assert found == len(segments)


@pytest.mark.parametrize(("silence", "begins_anew"), [(SAMPLE_RATE_HZ - 1, False), (SAMPLE_RATE_HZ, True)])
def test_less_silence_than_a_second_is_no_border(silence: int, begins_anew: bool) -> None:
    parts = [sound_of([0.0])[:100], make_silent(silence), sound_of(stretches((1.0, 0.9)))]
    (segment,) = cut_segments([np.concatenate(parts)], SegmentRules(pad_s=0.0), detector=LoudnessDetector())
    assert (segment.start == 100 + silence) == begins_anew
    assert (segment.start % CHUNK_SAMPLES == 0) != begins_anew


def test_places_are_those_of_the_recording() -> None:
    segmenter = Segmenter(SegmentRules(pad_s=0.0), detector=LoudnessDetector())
    begins = 100 + 20_001
    sound = np.concatenate([sound_of([0.0])[:100], make_silent(20_001), sound_of(stretches((1.024, 0.9)))])
    assert segmenter.push(sound) == []
    assert segmenter.settled == begins
    assert segmenter.open_span == range(begins, begins + 32 * CHUNK_SAMPLES)
    segment = segmenter.open_segment()
    assert segment is not None
    assert (segment.start, segment.voice) == (begins, (0, 32 * CHUNK_SAMPLES))
    (segment,) = segmenter.finish()
    assert (segment.start, len(segment.samples)) == (begins, 32 * CHUNK_SAMPLES)


@pytest.mark.slow
def test_clips_have_the_segments_that_they_have_alone() -> None:
    """By the detector itself, whose memory goes back seconds."""
    rng = np.random.default_rng(0)
    clips = [decode_audio(clip.audio) for clip in read_manifest(DATA / "mini")]
    whole, starts = join_apart([make_silent(int(rng.uniform(1.0, 2.0) * SAMPLE_RATE_HZ)) for _ in clips], clips)
    segments = list(cut_segments([whole], RULES))
    for start, clip in zip(starts, clips, strict=True):
        alone = list_heard(cut_segments([clip], RULES))
        assert list_heard(segments, start, start + len(clip)) == alone
    assert len(segments) >= len(clips)


@pytest.mark.slow
def test_two_hours_of_known_clips_have_the_words_of_the_clips_alone() -> None:
    clips = [decode_audio(clip.audio) for name in SETS for clip in read_manifest(DATA / name)]
    recognizer = dinle.load(CTC_BUNDLE, threads=2, language_model=False)  # greedy, to save a third of the time
    figures = compare(recognizer, clips, 2.0, room=False)
    assert figures["clips_with_other_words"] == 0
    assert (figures["hours"], figures["clips"]) == (2.0, 1686)
