"""What is open while sound comes in: where it begins, what silence would make of it, and what a cut gives."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.recognize.segments import Segment, Segmenter, SegmentRules, cut_segments
from dinle.recognize.vad import CHUNK_SAMPLES
from tests.recognize.loudness import LoudnessDetector, check_layout, runs, sound_of, stretches
from tests.sounds import join_blocks


def describe(segment: Segment | None) -> tuple[int, list[float], float] | None:
    return (segment.start, segment.samples.tolist(), segment.speech) if segment else None


small_rules = st.builds(
    SegmentRules,
    pad_s=st.sampled_from([0.0, 0.064, 0.2]),
    merge_gap_s=st.sampled_from([0.0, 0.3, 1.0, 1.8]),
    min_silence_s=st.sampled_from([0.1, 0.25, 0.5]),
    target_s=st.sampled_from([0.0, 2.0, 4.0]),
    max_s=st.just(4.0),
    cut_s=st.just(1.0),
)


@given(runs=runs, rules=small_rules)
@settings(max_examples=40, deadline=None)
def test_what_is_open_begins_where_the_next_segment_will(runs: list[tuple[float, float]], rules: SegmentRules) -> None:
    sound = sound_of(stretches(*runs))
    segmenter, promised = Segmenter(rules, detector=LoudnessDetector()), None
    for heard in range(CHUNK_SAMPLES, len(sound) + 1, CHUNK_SAMPLES):
        segments = segmenter.push(sound[heard - CHUNK_SAMPLES : heard])
        if promised is not None and segments:
            assert segments[0].start == promised
        span, segment = segmenter.open_span, segmenter.open_segment()
        assert (span is None) == (segment is None)
        if span is None or segment is None:
            assert promised is None or segments  # what was open does not vanish
            promised = None
            continue
        assert promised is None or segments or span.start == promised
        promised = span.start
        assert span.stop == heard
        assert segment.start == span.start
        np.testing.assert_array_equal(segment.samples, sound[span.start : span.stop])
    assert promised is None or segmenter.finish()[0].start == promised


@given(runs=runs, rules=small_rules)
@settings(max_examples=100, deadline=None)
def test_the_expected_segment_is_the_one_that_silence_gives(
    runs: list[tuple[float, float]], rules: SegmentRules
) -> None:
    segmenter = Segmenter(rules, detector=LoudnessDetector())
    silence = sound_of(stretches((2, 0.0)))
    for size, probability in runs:
        segmenter.push(sound_of(stretches((size, probability))))
        expected = segmenter.expected_segment()
        later = deepcopy(segmenter).push(silence)
        if segmenter.speaking:
            assert expected is None
        if expected is not None:
            assert [describe(expected)] == [describe(one) for one in later]
        elif later:  # what is open is told as soon as its padding is heard
            assert segmenter.open_span is not None
            assert segmenter.speaking or segmenter.open_span.stop < later[0].start + len(later[0].samples)


def test_the_expected_segment_is_told_as_soon_as_its_padding_is_heard() -> None:
    rules = SegmentRules(pad_s=0.2, min_silence_s=0.5)
    segmenter = Segmenter(rules, detector=LoudnessDetector())
    segmenter.push(sound_of([0.9] * 40))
    told = [segmenter.push(sound_of([0.0])) or segmenter.expected_segment() is not None for _ in range(10)]
    assert told == [False] * 6 + [True] * 4  # 0.2 s are 7 chunks
    segmenter.push(sound_of([0.9]))
    assert segmenter.expected_segment() is None


@given(runs=runs, rules=small_rules, rest=runs)
@settings(max_examples=100, deadline=None)
def test_a_cut_gives_what_the_end_of_the_recording_would_give(
    runs: list[tuple[float, float]], rules: SegmentRules, rest: list[tuple[float, float]]
) -> None:
    sound, more = sound_of(stretches(*runs)), sound_of(stretches(*rest))
    segmenter = Segmenter(rules, detector=LoudnessDetector())
    first = segmenter.push(sound)
    ended = deepcopy(segmenter).finish()
    cut = segmenter.cut()
    assert [describe(one) for one in cut] == [describe(one) for one in ended]
    if cut:
        assert segmenter.open_segment() is None
        assert segmenter.cut() == []
    later = [*segmenter.push(more), *segmenter.finish()]
    check_layout([*first, *cut, *later], np.concatenate([sound, more]), rules)
    if cut and cut[-1].start + len(cut[-1].samples) == len(
        sound
    ):  # else silence before the cut is padding of what follows
        alone = list(cut_segments([more], rules, detector=LoudnessDetector()))
        ends = [one.start + len(one.samples) - len(sound) for one in later]
        assert ends == [one.start + len(one.samples) for one in alone]


def test_sound_that_is_not_believed_is_not_open_and_not_cut() -> None:
    segmenter = Segmenter(detector=LoudnessDetector())
    segmenter.push(sound_of([0.9] * 5))
    assert segmenter.speaking
    assert (segmenter.open_span, segmenter.open_segment(), segmenter.cut()) == (None, None, [])
    segmenter.push(sound_of([0.9]))  # 0.192 s
    assert segmenter.open_span == range(6 * CHUNK_SAMPLES)


def test_a_buffer_may_be_filled_anew_after_each_push() -> None:
    sound = sound_of(stretches((0.5, 0), (1, 0.9), (2, 0)))
    segmenter, buffer, found = Segmenter(detector=LoudnessDetector()), np.zeros(1000, dtype=np.float32), []
    for part in join_blocks(sound, [len(buffer)]):
        buffer[: len(part)] = part
        found += segmenter.push(buffer[: len(part)])
    assert [describe(one) for one in found] == [
        describe(one) for one in cut_segments([sound], detector=LoudnessDetector())
    ]
