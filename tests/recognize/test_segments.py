"""Segments hold all speech, in order, in bounded memory; where nobody speaks there are none."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.recognize.segments import DEFAULT_RULES, Segmenter, SegmentRules, cut_segments
from dinle.recognize.spans import CHUNK_S, SpanFinder
from dinle.recognize.vad import CHUNK_SAMPLES
from dinle.recognize.whisper import PAD_S
from tests.recognize.loudness import LoudnessDetector, check_layout, cut_written, runs, sound_of, stretches
from tests.sounds import iterate_non_speech, join_blocks, make_noise, scale_to

if TYPE_CHECKING:
    from collections.abc import Iterator


MINI = Path(__file__).parents[2] / "data" / "mini"
CLIPS = [json.loads(line) for line in (MINI / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
# Of the clips in which nobody speaks, the one (a melody of 0.8 s notes with vibrato) that sounds like a voice to the network.
SOUNDS_LIKE_A_VOICE = {"melody-11"}
SMALL = SegmentRules(target_s=2.0, max_s=4.0, cut_s=1.0)


@given(runs=runs, pad_s=st.floats(0, 0.5), merge_gap_s=st.floats(0, 1.5), target_s=st.floats(0, 4))
@settings(max_examples=100, deadline=None)
def test_layout_and_cover_hold_for_any_probabilities(
    runs: list[tuple[float, float]], pad_s: float, merge_gap_s: float, target_s: float
) -> None:
    rules = SegmentRules(
        pad_s=pad_s, merge_gap_s=merge_gap_s, target_s=target_s, max_s=4.0, cut_s=1.0, min_speech_s=0.0
    )
    sound = sound_of(stretches(*runs))
    segments = list(cut_segments([sound], rules, detector=LoudnessDetector()))
    check_layout(segments, sound, rules)
    covered = np.zeros(len(sound), dtype=np.bool_)
    for segment in segments:
        covered[segment.start : segment.start + len(segment.samples)] = True
    assert covered[sound >= rules.start_probability].all()


@given(runs=runs, sizes=st.lists(st.integers(100, 50_000), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_blocks_of_any_size_give_the_same_segments(runs: list[tuple[float, float]], sizes: list[int]) -> None:
    sound = sound_of(stretches(*runs))
    whole = list(cut_segments([sound], SMALL, detector=LoudnessDetector()))
    parts = list(cut_segments(join_blocks(sound, sizes), SMALL, detector=LoudnessDetector()))
    assert [(s.start, len(s.samples), s.speech) for s in parts] == [(s.start, len(s.samples), s.speech) for s in whole]


@given(runs=runs)
@settings(max_examples=100, deadline=None)
def test_what_may_still_be_needed_is_bounded(runs: list[tuple[float, float]]) -> None:
    finder = SpanFinder(SMALL)
    for heard, probability in enumerate(stretches(*runs), start=1):
        before = finder.needed
        spans = list(finder.push(probability))
        assert all(before <= span.start < span.end <= heard for span in spans)
        assert heard - finder.needed <= (SMALL.max_s + SMALL.merge_gap_s + SMALL.pad_s) / CHUNK_S + 2


OVERLAPPING = SegmentRules(target_s=2.0, max_s=4.0, cut_s=1.0, overlap_s=0.7)


@given(runs=runs, sizes=st.lists(st.integers(100, 50_000), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_speech_that_is_cut_is_heard_on_both_sides_and_all_else_once(
    runs: list[tuple[float, float]], sizes: list[int]
) -> None:
    sound = sound_of(stretches(*runs))
    segments = list(cut_segments(join_blocks(sound, sizes), OVERLAPPING, detector=LoudnessDetector()))
    end = tail = 0
    for segment in segments:
        last = segment.start + len(segment.samples)
        assert len(segment.samples) <= OVERLAPPING.max_s * SAMPLE_RATE_HZ
        np.testing.assert_array_equal(segment.samples, sound[segment.start : last])
        assert (segment.head > 0) == (tail > 0)  # what is heard to after a cut goes on from before it
        if segment.head:
            assert segment.start + segment.head == end - tail
            assert segment.head <= OVERLAPPING.overlap_s * SAMPLE_RATE_HZ
            assert segment.tail + segment.head < len(segment.samples)
        assert segment.start + segment.head >= end - tail
        end, tail = last, segment.tail
    assert tail == 0
    covered = np.zeros(len(sound), dtype=np.bool_)
    for segment in segments:
        covered[segment.start : segment.start + len(segment.samples)] = True
    once = list(cut_segments([sound], SMALL, detector=LoudnessDetector()))
    assert all(covered[one.start : one.start + len(one.samples)][one.samples >= 0.5].all() for one in once)


def test_a_cut_is_heard_half_as_long_after_it_as_before_it() -> None:
    first, second, *_ = cut_written([0.9] * 400, OVERLAPPING)
    assert first.start + len(first.samples) - first.tail == second.start + second.head
    assert (first.tail // CHUNK_SAMPLES, second.head // CHUNK_SAMPLES) == (11, 21)  # 0.7 s are 21 chunks
    assert (first.head, second.tail // CHUNK_SAMPLES) == (0, 11)


@given(runs=runs)
@settings(max_examples=100, deadline=None)
def test_what_may_still_be_needed_is_bounded_with_overlap_too(runs: list[tuple[float, float]]) -> None:
    finder = SpanFinder(OVERLAPPING)
    for heard, probability in enumerate(stretches(*runs), start=1):
        before = finder.needed
        spans = list(finder.push(probability))
        assert all(before <= span.start < span.end <= heard for span in spans)
        assert heard - finder.needed <= (OVERLAPPING.max_s + OVERLAPPING.merge_gap_s + OVERLAPPING.pad_s) / CHUNK_S + 2


def test_streams_and_segments_alone_do_not_overlap() -> None:
    assert SegmentRules().overlap_s == SegmentRules.up_to(7.5).overlap_s == 0
    assert all(one.head == one.tail == 0 for one in cut_written([0.9] * 400, SMALL))


@pytest.mark.parametrize("max_s", [0.5, 3.0, 7.5, 28.0])
def test_rules_fit_the_longest_that_a_model_takes(max_s: float) -> None:
    rules = SegmentRules.up_to(max_s)
    assert rules.target_s <= rules.max_s == max_s
    if max_s == SegmentRules().max_s:
        assert rules == SegmentRules()


def test_neighbours_are_merged_up_to_the_target() -> None:
    words = stretches((1, 0), *[(0.7, 0.9), (0.4, 0)] * 4, (2, 0))
    assert len(cut_written(words, SegmentRules(target_s=10))) == 1
    assert len(cut_written(words, SegmentRules(target_s=2.5))) == 2
    assert len(cut_written(words, SegmentRules(target_s=0))) == 4
    assert len(cut_written(words, SegmentRules(target_s=10, merge_gap_s=0.35))) == 4


def test_padding_is_kept_on_both_sides_and_shared_by_close_neighbours() -> None:
    far = cut_written(stretches((1, 0), (0.96, 0.9), (3, 0)), SegmentRules(pad_s=0.2))[0]
    assert far.start / SAMPLE_RATE_HZ == pytest.approx(0.8, abs=0.04)
    assert len(far.samples) / SAMPLE_RATE_HZ == pytest.approx(0.96 + 0.4, abs=0.08)
    near = cut_written(stretches((1, 0.9), (0.3, 0), (1, 0.9)), SegmentRules(pad_s=0.2, target_s=0))
    assert near[1].start == len(near[0].samples)


def test_too_long_speech_is_cut_at_its_quietest_place() -> None:
    speech = [0.9] * 300
    speech[110] = 0.4  # 3.5 s, within the last second before 4 s
    first, *_ = cut_written(speech, SegmentRules(target_s=3, max_s=4.0, cut_s=1.0))
    assert len(first.samples) == 110 * CHUNK_SAMPLES


def test_a_sound_shorter_than_a_word_is_dropped_alone_and_kept_beside_speech() -> None:
    blip = (0.128, 0.9)
    assert cut_written(stretches((1, 0), blip, (2, 0)), SegmentRules()) == []
    for rules in (SegmentRules(), SegmentRules(target_s=0)):
        for parts in ([blip, (0.5, 0), (1, 0.9)], [(1, 0.9), (0.5, 0), blip]):
            written = stretches((1, 0), *parts, (2, 0))
            held = sum((s.samples >= 0.5).sum() for s in cut_written(written, rules))
            assert held == (sound_of(written) >= 0.5).sum()


def test_sounds_that_are_believed_together_lie_within_the_gap() -> None:
    blip, word, rules = (0.128, 0.9), (0.5, 0.9), SegmentRules(merge_gap_s=1.0)
    assert len(cut_written(stretches((1, 0), blip, (0.9, 0), blip, (3, 0)), rules)) == 1
    assert cut_written(stretches((1, 0), blip, (1.1, 0), blip, (1.1, 0), blip, (3, 0)), rules) == []
    for gap_s, kept in ((0.9, [20]), (1.1, [16])):
        found = cut_written(stretches(word, (gap_s, 0), blip, (3, 0)), rules)
        assert [(s.samples >= 0.5).sum() for s in found] == [chunks * CHUNK_SAMPLES for chunks in kept]


def test_a_cut_leaves_what_is_not_believed_yet() -> None:
    segmenter = Segmenter(detector=LoudnessDetector())
    assert segmenter.push(sound_of([*stretches((0.5, 0)), 0.9, 0.9, 0.9])) == []
    assert segmenter.cut() == []
    segmenter.push(sound_of([0.9, 0.9, 0.9]))
    assert [(s.samples >= 0.5).sum() for s in segmenter.finish()] == [6 * CHUNK_SAMPLES]


def test_the_highest_probability_is_told() -> None:
    assert [s.speech for s in cut_written(stretches((1, 0.6), (0.5, 0.8), (1, 0)), SegmentRules())] == [
        pytest.approx(0.8)
    ]


def test_a_segment_comes_out_as_soon_as_it_is_certain() -> None:
    def blocks() -> Iterator[Waveform]:
        yield sound_of(stretches((1, 0.9), (DEFAULT_RULES.vouch_gap_s + 0.1, 0)))
        pytest.fail("the segment was certain before this block")

    assert next(cut_segments(blocks(), detector=LoudnessDetector())).start == 0


def test_an_hour_needs_the_memory_of_a_segment() -> None:
    pattern = sound_of(stretches((40, 0.9), (0.5, 0), (20, 0.9), (0.4, 0), (2, 0.9), (30, 0)))
    hours = (pattern[i : i + SAMPLE_RATE_HZ].copy() for _ in range(39) for i in range(0, len(pattern), SAMPLE_RATE_HZ))
    tracemalloc.start()
    try:
        count = sum(1 for _ in cut_segments(hours, detector=LoudnessDetector()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count >= 39 * 3
    assert peak < 3 * 30 * SAMPLE_RATE_HZ * 4  # the sound held, the segment given out, the one before it


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_probability": 0.2},
        {"end_probability": 0},
        {"pad_s": -1},
        {"target_s": 29},
        {"max_s": 3},
        {"cut_s": 0},
        {"overlap_s": -1},
        {"overlap_s": 7},
    ],
)
def test_rules_that_contradict_each_other_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        SegmentRules(**wrong)


def test_nothing_gives_no_segment() -> None:
    assert list(cut_segments([])) == []
    assert list(cut_segments([np.zeros(0, dtype=np.float32)])) == []


def test_where_nobody_speaks_there_is_no_segment() -> None:
    clips = list(iterate_non_speech())
    assert len(clips) >= 100
    found = {name for name, sound in clips if list(cut_segments([sound]))}
    assert found <= SOUNDS_LIKE_A_VOICE


def test_speech_is_found_in_every_clip_and_most_of_its_sound_is_kept() -> None:
    for clip in CLIPS:
        sound = decode_audio(MINI / clip["audio"])
        rules = SegmentRules(pad_s=PAD_S)
        segments = list(cut_segments([sound], rules))
        check_layout(segments, sound, rules)
        energy = np.square(sound, dtype=np.float64).sum()
        kept = sum(np.square(segment.samples, dtype=np.float64).sum() for segment in segments)
        assert kept > 0.99 * energy, clip["audio"]


@pytest.mark.parametrize("gap_s", [0.4, 3.0])
def test_all_speech_of_a_known_layout_is_covered(gap_s: float) -> None:
    room = scale_to(make_noise(gap_s, "pink", seed=1), -60)
    parts, speech, at = [room], [], len(room)
    for clip in CLIPS[:: len(CLIPS) // 12]:
        sound = decode_audio(MINI / clip["audio"])
        loud = np.flatnonzero(np.abs(sound) > 0.1 * np.abs(sound).max())
        speech.append((at + int(loud[0]), at + int(loud[-1])))
        parts += [sound, room]
        at += len(sound) + len(room)
    whole = np.concatenate(parts)
    segments = list(cut_segments(join_blocks(whole, [7_000]), SegmentRules(max_s=28.0)))
    check_layout(segments, whole, SegmentRules())
    covered = np.zeros(len(whole), dtype=np.bool_)
    for segment in segments:
        covered[segment.start : segment.start + len(segment.samples)] = True
    for first, last in speech:
        loud_part = np.abs(whole[first:last]) > 0.05
        assert covered[first:last][loud_part].mean() > 0.995
    if gap_s > 1:  # silence is left out
        assert len(segments) >= len(speech)
        assert covered.mean() < 0.9
