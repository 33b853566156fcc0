"""A live stream's finals are those of the whole recording, its committed words stand, and silence says nothing."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dinle
from dinle.errors import UsageError
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.recognize.recognizer import CtcRecognizer, Piece, Recognizer
from dinle.recognize.segments import Segment, SegmentRules, cut_segments
from dinle.recognize.spans import CHUNK_S
from dinle.recognize.stream import Final, LiveStream, Partial, SpeechStarted, StreamEvent, StreamRules
from dinle.recognize.transcript import Word
from dinle.recognize.vad import CHUNK_SAMPLES
from tests.fakes import FakeEngine, fake_recognizer, make_tone
from tests.graphs import CTC_BUNDLE
from tests.recognize.writers import LevelDetector, LevelWriter, make_reader, rest, say
from tests.sounds import iterate_non_speech, join_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("steady_speech")
BLOCK = 1_600  # 100 ms
BIR, IKI, UC, UNCU, DORT, BES, DOT = range(4, 11)
SOUNDS_LIKE_A_VOICE = {"melody-11"}  # to the detector; see test_segments.py


class DraftReader(Recognizer):
    """Says of drafts what a script says, then nothing, in words of 0.1 s, and of finals ``son``; counts what it was asked."""

    def __init__(self, drafts: Iterable[str]) -> None:
        super().__init__("drafts", SegmentRules())
        self.drafts, self.asked = iter(drafts), [0, 0]

    def recognize(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        raise NotImplementedError

    def recognize_segment(self, segment: Segment, *, draft: bool = False) -> tuple[Word, ...]:
        self.asked[draft] += 1
        texts = next(self.drafts, "").split() if draft else ["son"]
        start_s = segment.start / SAMPLE_RATE_HZ
        return tuple(Word(text, start_s + 0.1 * i, start_s + 0.1 * (i + 1), 1.0) for i, text in enumerate(texts))

    def warm_up(self) -> None:
        raise NotImplementedError


def open_stream(recognizer: Recognizer, rules: StreamRules | None = None) -> LiveStream:
    return LiveStream(recognizer, rules, detector=LevelDetector())


def play(stream: LiveStream, sound: Waveform, sizes: list[int] | None = None) -> list[StreamEvent]:
    """All events of a sound that is pushed in blocks of these sizes, to the end of the stream."""
    pushed = [event for block in join_blocks(sound, sizes or [BLOCK]) for event in stream.push(block)]
    return [*pushed, *stream.finish()]


def find_finals(events: Iterable[StreamEvent]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def spell(words: Iterable[Word]) -> str:
    return " ".join(word.text for word in words)


def check_order(events: list[StreamEvent]) -> None:
    """For each segment, numbered from 0: its start, its partials, its final."""
    assert [event.segment for event in events] == sorted(event.segment for event in events)
    for number in range(events[-1].segment + 1 if events else 0):
        started, *partials, final = (event for event in events if event.segment == number)
        assert isinstance(started, SpeechStarted)
        assert isinstance(final, Final)
        assert all(isinstance(partial, Partial) for partial in partials)
        assert final.start_s == started.start_s < final.end_s


def check_commitment(events: list[StreamEvent]) -> None:
    """What a partial calls stable stands in all later ones of its segment."""
    committed: dict[int, tuple[Word, ...]] = {}
    for event in events:
        if isinstance(event, Partial):
            before = committed.get(event.segment, ())
            assert event.stable >= len(before)
            assert event.words[: len(before)] == before
            committed[event.segment] = event.words[: event.stable]


tokens = st.sampled_from([BIR, IKI, UC, DORT, BES])


def draw_talks(longest_gap: int) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    gaps = st.sampled_from([1, 8, 14, 20, 30, longest_gap])
    return st.lists(st.tuples(tokens, st.integers(1, 120), gaps), min_size=1, max_size=12)


talks = draw_talks(60)
# Chunks are counted from the first sample: no digital silence is long enough to count anew after it.
flowing_talks = draw_talks(45)
# The writer parts words by whole frames of silence, wherever a segment begins; and no segment is cut for its length.
short_talks = st.lists(st.tuples(tokens, st.integers(2, 120), st.sampled_from([8, 20, 60])), min_size=1, max_size=3)
stream_rules = st.builds(
    StreamRules,
    silence_s=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    partial_s=st.sampled_from([0.2, 0.5, 1.0]),
    max_segment_s=st.sampled_from([1.0, 3.0, 12.0]),
)


@given(talk=talks, rules=stream_rules, sizes=st.lists(st.integers(100, 50_000), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_finals_are_those_of_the_whole_sound_however_it_is_pushed(
    talk: list[tuple[int, int, int]], rules: StreamRules, sizes: list[int]
) -> None:
    sound = np.concatenate([say(token, frames=frames, gap=gap) for token, frames, gap in talk])
    reader = make_reader(LevelWriter())
    stream = open_stream(reader, rules)
    events = play(stream, sound, sizes)
    check_order(events)
    check_commitment(events)
    segments = list(cut_segments([sound], stream.segments, detector=LevelDetector()))
    assert [final.words for final in find_finals(events)] == [reader.recognize_segment(one) for one in segments]
    places = [(one.start, one.start + len(one.samples)) for one in segments]
    assert [(final.start_s, final.end_s) for final in find_finals(events)] == [
        (start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ) for start, end in places
    ]


@pytest.mark.slow
@pytest.mark.parametrize("model", [None, CTC_BUNDLE])
@pytest.mark.parametrize("sizes", [[BLOCK], [333, 70_000, 9_001]])
def test_the_finals_of_a_bundled_model_are_those_of_the_whole_sound(model: Path | None, sizes: list[int]) -> None:
    clip = decode_audio(ROOT / "data" / "mini" / "audio" / "test-espeak-047.opus")
    sound = np.concatenate([decode_audio(ROOT / "samples" / "sample.wav"), rest(1.5), clip])
    recognizer = dinle.load(model, threads=2)
    stream = LiveStream(recognizer, StreamRules(partial_s=1.0))
    events = play(stream, sound, sizes)
    check_order(events)
    check_commitment(events)
    segments = list(cut_segments([sound], stream.segments))
    expected = [spell(recognizer.recognize_segment(one)) for one in segments]
    assert [spell(final.words) for final in find_finals(events)] == expected
    assert len(expected) >= 2
    assert all(expected)
    if sizes == [BLOCK]:
        assert any(event.stable for event in events if isinstance(event, Partial))


@given(drafts=st.lists(st.lists(st.sampled_from("abc"), max_size=5).map(" ".join), min_size=20, max_size=20))
@settings(max_examples=60, deadline=None)
def test_committed_words_stand_whatever_the_drafts_say(drafts: list[str]) -> None:
    events = play(open_stream(DraftReader(drafts)), np.concatenate([say(BIR, frames=450, gap=0), rest(1)]))
    check_order(events)
    check_commitment(events)
    partials = [event for event in events if isinstance(event, Partial)]
    assert len(partials) >= 18
    for before, draft, partial in zip(partials, drafts[1:], partials[1:-1], strict=False):
        committed = spell(before.words[: before.stable])
        if draft == committed or draft.startswith(f"{committed} " if committed else ""):
            assert spell(partial.words) == draft  # a draft that keeps to what is committed is shown as it is
        texts = [[word.text for word in one.words] for one in (before, partial)]
        common = next(
            (i for i, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts))
        )
        assert partial.stable == common


def test_a_draft_that_contradicts_goes_on_after_what_is_committed() -> None:
    drafts = ["bir", "bir iki", "bir iki üç", "bar iki üç dört", "b ar iki üç dört"]
    events = play(open_stream(DraftReader([*drafts, *[""] * 9])), say(BIR, frames=170, gap=0))
    shown = [(spell(event.words), event.stable) for event in events if isinstance(event, Partial)]
    assert shown[:4] == [("bir", 0), ("bir iki", 1), ("bir iki üç", 2), ("bir iki üç dört", 3)]
    assert shown[4] == ("bir iki üç üç dört", 3)  # by time: the fourth and fifth tenth of a second
    assert shown[5][0] == "bir iki üç"


@pytest.mark.parametrize("partial_s", [0.3, 0.5, 1.0])
def test_partials_come_at_least_once_in_each_partial_s_of_speech(partial_s: float) -> None:
    stream = open_stream(fake_recognizer(), StreamRules(partial_s=partial_s))
    pushed_s, told_s = 0.0, []
    for block in join_blocks(np.concatenate([rest(2), make_tone(9) + 1]), [BLOCK]):
        pushed_s += len(block) / SAMPLE_RATE_HZ
        partials = [event for event in stream.push(block) if isinstance(event, Partial)]
        assert len(partials) <= 1
        told_s += [pushed_s] * len(partials)
    gaps = np.diff([2.0, *told_s, 11.0])
    assert gaps.max() <= partial_s + 1e-6
    assert len(told_s) <= 9 / partial_s + 2


def test_an_empty_draft_is_tried_again_sooner() -> None:
    stream = open_stream(DraftReader(["", "", "bir", "bir", *[""] * 9]), StreamRules(partial_s=0.5))
    told_s = []
    for number, block in enumerate(join_blocks(make_tone(2.5) + 1, [CHUNK_SAMPLES]), start=1):
        told_s += [number * CHUNK_S for event in stream.push(block) if isinstance(event, Partial)]
    gaps = np.diff(told_s)
    assert gaps[:3] == pytest.approx([0.224, 0.224, 0.48])  # whole chunks within a quarter and a half of a second


def test_one_push_gives_one_draft_at_most_and_all_finals() -> None:
    engine = FakeEngine()
    stream = open_stream(CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02))
    events = list(stream.push(np.concatenate([say(BIR, frames=60, gap=50)] * 3 + [say(BIR, frames=60, gap=0)])))
    kinds = [type(event) for event in events]
    assert kinds == [SpeechStarted, Final] * 3 + [SpeechStarted, Partial]
    assert len(engine.batches) == 4


@pytest.mark.parametrize("silence_s", [0.1, 0.2, 0.3, 0.5, 0.8, 1.5])
def test_a_final_comes_after_the_silence_and_costs_no_second_run_of_the_engine(silence_s: float) -> None:
    reader = DraftReader(["taslak"] * 9)
    stream = open_stream(reader, StreamRules(silence_s=silence_s))
    list(stream.push(say(BIR, frames=128, gap=0)))  # a whole number of chunks
    drafts, chunks, told = reader.asked[True], 0, list[StreamEvent]()
    asked_before = 0
    while not find_finals(told):
        asked_before = reader.asked[False]
        told += stream.push(np.zeros(CHUNK_SAMPLES, dtype=np.float32))
        chunks += 1
    assert chunks == np.ceil(silence_s / CHUNK_S)
    assert reader.asked == [1, drafts]
    assert [spell(final.words) for final in find_finals(told)] == ["son"]
    if silence_s > 0.1:
        assert asked_before == 1  # the last block of silence cost nothing
    assert not [event for block in [rest(5)] for event in stream.push(block)]


def test_speech_that_goes_on_after_a_pause_is_written_anew() -> None:
    reader = DraftReader(["taslak"] * 9)
    sound = np.concatenate([say(BIR, frames=60, gap=15), say(IKI, frames=60, gap=60)])
    (final,) = find_finals(play(open_stream(reader), sound))
    assert reader.asked[False] == 2  # in the pause and in the end
    assert final.end_s > 2.7


def test_what_is_written_in_a_pause_is_shown() -> None:
    stream = open_stream(DraftReader(["bir", "iki"]))
    events = [event for block in join_blocks(say(BIR, frames=60, gap=15), [BLOCK]) for event in stream.push(block)]
    assert [spell(event.words) for event in events if isinstance(event, Partial)] == ["bir", "iki", "son"]


@given(talk=flowing_talks, silence_s=st.sampled_from([0.1, 0.3, 0.5, 1.0]), after=short_talks)
@settings(max_examples=40, deadline=None)
def test_a_cut_is_the_end_of_a_segment_and_the_stream_goes_on(
    talk: list[tuple[int, int, int]], silence_s: float, after: list[tuple[int, int, int]]
) -> None:
    rules = StreamRules(silence_s=silence_s)
    first, second = (
        np.concatenate([say(token, frames=frames, gap=gap) for token, frames, gap in one]) for one in (talk, after)
    )
    first = first[: len(first) // CHUNK_SAMPLES * CHUNK_SAMPLES]
    reader = make_reader(LevelWriter())
    stream = open_stream(reader, rules)
    pushed = [event for block in join_blocks(first, [BLOCK]) for event in stream.push(block)]
    cut = list(stream.cut())
    assert list(stream.cut()) == []
    ended = play(open_stream(reader, rules), first)
    assert [final.words for final in find_finals([*pushed, *cut])] == [final.words for final in find_finals(ended)]
    events = [*pushed, *cut, *play(stream, second)]
    check_order(events)
    if cut:
        alone = find_finals(play(open_stream(reader, rules), second))
        later = find_finals(events)[len(find_finals(ended)) :]
        assert [spell(final.words) for final in later] == [spell(final.words) for final in alone]


def test_speech_without_words_has_a_start_and_an_empty_final() -> None:
    events = play(open_stream(make_reader(LevelWriter(certainty=1.0))), say(BIR, IKI, UC, gap=40))
    check_order(events)
    assert [final.words for final in find_finals(events)] == [(), (), ()]


def test_sound_shorter_than_a_word_has_no_events() -> None:
    assert play(open_stream(fake_recognizer()), np.concatenate([say(BIR, frames=6), rest(2)] * 3)) == []
    stream = open_stream(fake_recognizer())
    assert not [*stream.push(say(BIR, frames=6, gap=0)), *stream.cut()]


@pytest.mark.slow
def test_where_nobody_speaks_nothing_is_told() -> None:
    clips = list(iterate_non_speech(3.0))
    assert len(clips) >= 100
    told = {name for name, sound in clips if play(LiveStream(fake_recognizer()), sound, [16_000])}
    assert told <= SOUNDS_LIKE_A_VOICE


@pytest.mark.parametrize("level", [0.0, 0.04])
def test_an_hour_needs_the_memory_of_a_segment(level: float) -> None:
    engine = FakeEngine()
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)
    stream = open_stream(recognizer, StreamRules(partial_s=5))
    tracemalloc.start()
    try:
        finals = 0
        for _ in range(3600):
            finals += len(find_finals(stream.push(np.full(SAMPLE_RATE_HZ, level, dtype=np.float32))))
            engine.batches.clear()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert finals == (0 if level == 0 else pytest.approx(3600 / 9, rel=0.05))
    # where nothing is less speech-like than the rest, speech is cut as early as may be: after 9 of 12 s
    assert peak < 5 * 12 * SAMPLE_RATE_HZ * 4  # an hour's samples are 230 MB


def test_events_that_were_not_taken_come_with_the_next_call() -> None:
    stream = open_stream(fake_recognizer())
    stream.push(say(BIR, frames=60, gap=60))
    stream.push(say(IKI, frames=60, gap=60))
    events = list(stream.finish())
    check_order(events)
    assert len(find_finals(events)) == 2


def test_a_segment_on_which_the_engine_failed_is_written_by_the_next_call() -> None:
    engine = FakeEngine(error=RuntimeError("no memory"))
    stream = open_stream(CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02))
    with pytest.raises(RuntimeError, match="no memory"):
        list(stream.push(say(BIR, frames=60, gap=60)))
    engine.error = None
    assert [spell(final.words) for final in find_finals(stream.push(rest(0)))] == ["merhaba"]


@pytest.mark.parametrize("silence_s", [0.01, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("max_segment_s", [1.0, 12.0, 60.0])
@pytest.mark.parametrize("max_s", [0.5, 7.5, 28.0])
def test_live_rules_keep_the_thresholds_and_the_bounds(silence_s: float, max_segment_s: float, max_s: float) -> None:
    usual = SegmentRules.up_to(max_s)
    rules = StreamRules(silence_s=silence_s, max_segment_s=max_segment_s).adapt(usual)
    assert rules.max_s == rules.target_s == min(max_segment_s, max_s)
    assert (rules.min_silence_s, rules.merge_gap_s) == (silence_s, silence_s)
    assert rules.pad_s <= usual.pad_s
    thresholds = ("start_probability", "end_probability", "min_speech_s")
    assert all(getattr(rules, name) == getattr(usual, name) for name in thresholds)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"silence_s": 0.0}, "silence_s is 0; expected seconds above 0"),
        ({"partial_s": -1.0}, "partial_s is -1"),
        ({"partial_s": float("nan")}, "partial_s is nan"),
        ({"max_segment_s": float("inf")}, "max_segment_s is inf"),
        ({"max_segment_s": 0.5}, "expected 1 or more"),
        ({"silence_s": 13.0}, "expected no more than max_segment_s = 12"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StreamRules(**wrong)


def test_sound_of_another_kind_and_sound_after_the_end_are_refused() -> None:
    stream = open_stream(fake_recognizer())
    with pytest.raises(UsageError, match="type int16"):
        stream.push(np.zeros(100, dtype=np.int16))
    with pytest.raises(UsageError, match="NaN"):
        stream.push(np.full(100, np.nan, dtype=np.float32))
    assert list(stream.push(rest(0))) == []
    assert list(stream.finish()) == []
    for late in (stream.cut, stream.finish, lambda: stream.push(rest(1))):
        with pytest.raises(UsageError, match="the stream is finished"):
            late()
