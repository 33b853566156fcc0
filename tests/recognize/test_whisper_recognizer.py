"""The recogniser of encoder-decoder models, on sound that says itself what is to be written."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinle.recognize.segments import Segment, SegmentRules
from dinle.recognize.vad import SpeechDetector
from dinle.recognize.whisper import SILENCE_S, WhisperRecognizer, WindowRules
from tests.recognize.writers import VOCABULARY, LevelDetector, LevelWriter, make_reader, rest, say
from tests.sounds import iterate_non_speech, join_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dinle.recognize.audio import Waveform
    from dinle.recognize.transcript import Word
    from dinle.recognize.whisper_engine import Step

pytestmark = pytest.mark.usefixtures("steady_speech")
BIR, IKI, UC, UNCU, DORT, BES, DOT = range(4, 11)


@pytest.fixture(autouse=True)
def hear_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speech detector hears anything but silence."""
    monkeypatch.setattr("dinle.recognize.segments.SpeechDetector", LevelDetector)


def read(reader: WhisperRecognizer, sound: Waveform, sizes: list[int]) -> list[Word]:
    return [word for piece in reader.recognize(join_blocks(sound, sizes)) for word in piece.words]


def make_talk(seconds: float, *, seed: int = 0) -> Waveform:
    """Words and pauses of many lengths."""
    rng = np.random.default_rng(seed)
    parts: list[Waveform] = []
    while sum(map(len, parts)) < seconds * 16_000:
        token = int(rng.integers(BIR, BES + 1))
        parts.append(say(token, frames=int(rng.integers(10, 30)), gap=int(rng.integers(2, 150))))
    return np.concatenate(parts)


def test_writes_words_with_their_times() -> None:
    sound = np.concatenate([rest(1.0), say(BIR, UC, UNCU, DOT, gap=1), rest(3.0), say(BES), rest(0.5)])
    transcript = make_reader(LevelWriter()).transcribe(sound)
    assert transcript.text == "bir üçüncü. beş"
    assert transcript.duration_s == pytest.approx(len(sound) / 16_000)
    first, second, third = transcript.words
    assert first.end_s == pytest.approx(1.42, abs=0.05)
    assert second.start_s == pytest.approx(1.42, abs=0.05)
    assert third.start_s == pytest.approx(1.0 + 4 * 0.42 + 3.0, abs=0.05)
    assert third.end_s == pytest.approx(1.0 + 4 * 0.42 + 3.0 + 0.4, abs=0.05)
    assert all(word.confidence == pytest.approx(1, abs=0.01) for word in transcript.words)


def test_silence_has_no_words_and_costs_no_inference() -> None:
    engine = LevelWriter()
    transcript = make_reader(engine).transcribe(rest(100))
    assert (transcript.text, transcript.words, transcript.duration_s, engine.heard) == ("", (), 100.0, [])


def test_the_speech_detector_keeps_noise_from_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinle.recognize.segments.SpeechDetector", SpeechDetector)
    engine = LevelWriter()
    sounds = dict(iterate_non_speech(2.0))
    for name in ("digital-silence", "white-20dB", "hum-50-30dB", "tone-440Hz-12dB"):
        assert make_reader(engine).transcribe(sounds[name]).text == ""
    assert engine.heard == []


@pytest.mark.parametrize(("min_s", "tail_s"), [(0.0, 0.0), (0.0, 0.5), (4.0, 0.5), (8.0, 1.0)])
def test_windows_are_filled_with_silence(min_s: float, tail_s: float) -> None:
    engine = LevelWriter()
    middle = (IKI, DORT, BES, BIR, IKI, BES, DORT, UC, IKI, BIR, DORT, BES)
    sound = np.concatenate([say(BIR), rest(3), say(*middle), rest(3), say(UC)])
    transcript = make_reader(engine, min_s=min_s, tail_s=tail_s).transcribe(sound)
    assert transcript.text == f"bir {' '.join(VOCABULARY.decode([token]) for token in middle)} üç"
    lengths = [length / 16_000 for (length,) in engine.heard]
    assert len(lengths) == 3
    assert min(lengths) >= max(min_s, 0.4 + tail_s)
    words_s = 5.9  # 12 words with 11 gaps
    assert lengths[1] == pytest.approx(max(min_s, words_s + 2 * SILENCE_S + tail_s), abs=0.01)


def test_sentences_have_windows_of_their_own() -> None:
    rules = WindowRules(min_s=8.0, tail_s=0.5, max_s=30.0, frame_shift_s=0.02, sentence_min_s=5.0, sentence_tail_s=1.0)
    assert [rules.fill(seconds) for seconds in (0.4, 1.99, 2.0, 3.9, 4.5, 29.0)] == [8.0, 8.0, 5.0, 5.0, 5.5, 30.0]
    assert rules.longest_segment_s == 29.0
    as_for_all = replace(rules, sentence_min_s=0.0)
    assert [as_for_all.fill(seconds) for seconds in (1.99, 2.0, 7.8)] == [8.0, 8.0, 8.3]
    assert as_for_all.longest_segment_s == 29.5

    engine = LevelWriter()
    reader = WhisperRecognizer(engine, VOCABULARY, name="levels", window=rules)
    transcript = reader.transcribe(np.concatenate([say(BIR), rest(3), say(IKI, DORT, BES, BIR, IKI, BES, DORT)]))
    assert transcript.text == "bir iki dört beş bir iki beş dört"
    short, long = (length / 16_000 for (length,) in engine.heard)
    assert (short, long) == (8.0, pytest.approx(5.0, abs=0.1))


@pytest.mark.parametrize("max_s", [30.0, 12.0, 5.0])
def test_no_window_is_longer_than_the_model_takes(max_s: float) -> None:
    engine = LevelWriter()
    make_reader(engine, max_s=max_s).transcribe(say(*[BIR, IKI, UC] * 40, gap=0))
    assert max(length for (length,) in engine.heard) <= max_s * 16_000
    assert len(engine.heard) >= 48 / max_s


@pytest.mark.parametrize(("max_s", "gap"), [(30.0, 0), (12.0, 0), (12.0, 3), (5.0, 0), (5.0, 7)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_speech_that_is_cut_has_each_word_once(max_s: float, gap: int, batch_size: int) -> None:
    tokens = np.random.default_rng(0).choice([BIR, IKI, UC, DORT, BES], 200).tolist()
    tokens = [one for i, one in enumerate(tokens) if one != tokens[i - 1]]  # two of one level are one sound
    engine = LevelWriter()
    transcript = make_reader(engine, max_s=max_s, batch_size=batch_size).transcribe(say(*tokens, gap=gap))
    assert transcript.text.split() == [VOCABULARY.decode([one]) for one in tokens]
    assert sum(map(len, engine.heard)) > transcript.duration_s / max_s
    times = [time for word in transcript.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)


def test_a_wide_window_has_the_usual_segments() -> None:
    usual, rules = SegmentRules(), make_reader(LevelWriter(), tail_s=2.0).segments
    assert (rules.target_s, rules.cut_s, rules.max_s) == (usual.target_s, usual.cut_s, 28.0 - 2 * SILENCE_S)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_a_batch_writes_what_each_segment_gives_alone(batch_size: int) -> None:
    sound = make_talk(60)
    one, many = LevelWriter(), LevelWriter()
    alone = make_reader(one).transcribe(sound)
    together = make_reader(many, batch_size=batch_size).transcribe(sound)
    assert together.words == alone.words
    assert len(alone.words) > 20
    assert [length for batch in many.heard for length in batch] == [length for batch in one.heard for length in batch]
    assert {len(batch) for batch in many.heard[:-1]} == {batch_size}


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_times_rise_and_stay_inside_the_recording(seed: int) -> None:
    sound = make_talk(20, seed=seed)
    transcript = make_reader(LevelWriter()).transcribe(sound)
    times = [time for word in transcript.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= transcript.duration_s


@given(sizes=st.lists(st.integers(1, 50_000), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 100))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_of_any_sizes_give_the_same_words(sizes: list[int]) -> None:
    sound = make_talk(15)
    assert read(make_reader(LevelWriter()), sound, sizes) == read(make_reader(LevelWriter()), sound, [len(sound)])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_piece_runs_the_engine_once_at_most_and_the_last_has_all_samples(batch_size: int) -> None:
    engine, sound = LevelWriter(), np.concatenate([make_talk(30), rest(5), say(BES)])
    done = calls = written = 0
    for piece in make_reader(engine, batch_size=batch_size).recognize(join_blocks(sound, [40_000])):
        assert len(engine.heard) - calls <= 1
        assert done <= piece.samples <= len(sound)
        assert all(word.start_s * 16_000 >= done for word in piece.words)
        calls, done, written = len(engine.heard), piece.samples, written + len(piece.words)
    assert done == len(sound)
    assert calls > 5 / batch_size
    assert written > 10


def test_pieces_come_with_each_second_of_sound_and_ask_for_no_more() -> None:
    def play() -> Iterator[Waveform]:
        for _ in range(3):
            yield rest(2)
        pytest.fail("nobody asked for this block yet")

    pieces = make_reader(LevelWriter()).recognize(play())
    done = [next(pieces).samples for _ in range(6)]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(6 * 16_000, abs=0.45 * 16_000)  # but for the padding of what may follow


def test_a_segment_alone_has_the_times_of_the_recording() -> None:
    reader, sound = make_reader(LevelWriter()), say(BIR, UC, UNCU, DOT, gap=1)
    alone = reader.recognize_segment(Segment(sound, start=0, speech=1.0))
    moved = reader.recognize_segment(Segment(sound, start=48_000, speech=1.0))
    assert [word.text for word in moved] == ["bir", "üçüncü."]
    assert [word.start_s for word in moved] == pytest.approx([3 + word.start_s for word in alone])
    assert moved == tuple(reader.write_segments([Segment(sound, start=48_000, speech=1.0)]))


def test_a_draft_follows_one_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    decode = LevelWriter.decode

    def count_rows(engine: LevelWriter, tokens: NDArray[np.int64], *rest: Any) -> Step:
        rows.append(len(tokens))
        return decode(engine, tokens, *rest)

    monkeypatch.setattr(LevelWriter, "decode", count_rows)
    reader, segment = make_reader(LevelWriter()), Segment(say(BIR, IKI, UC), start=0, speech=1.0)
    draft = reader.recognize_segment(segment, draft=True)
    assert max(rows) == 1
    assert reader.recognize_segment(segment) == draft  # this engine is sure
    assert max(rows) == reader.beam.beam_size > 1


@pytest.mark.parametrize("seconds", [0.3, 1.0, 20.0])
def test_progress_ends_with_the_recording_after_its_last_word(seconds: float) -> None:
    engine = LevelWriter()
    told: list[tuple[float, int]] = []
    sound = np.concatenate([make_talk(seconds), say(BES)])

    def tell(done: float) -> None:
        told.append((done, len(engine.heard)))

    transcript = make_reader(engine).transcribe(sound, on_progress=tell)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    done, heard = told[-1]
    assert done == pytest.approx(transcript.duration_s)
    assert heard == len(engine.heard)
    assert len(told) >= transcript.duration_s  # about every second, although the sound came in one piece


def test_long_recordings_need_no_more_memory() -> None:
    piece = make_talk(30)

    def play(times: int) -> Iterator[Waveform]:
        for _ in range(times):
            yield piece

    def measure(times: int) -> tuple[int, int]:
        tracemalloc.start()
        words = sum(len(piece.words) for piece in make_reader(LevelWriter()).recognize(play(times)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return words, peak

    words, peak = measure(2)
    many_words, many_peak = measure(20)  # ten minutes: 38 MB of samples
    assert many_words > 8 * words
    assert many_peak < 1.3 * peak


def test_text_that_is_not_believed_is_not_written() -> None:
    transcript = make_reader(LevelWriter(certainty=1.0)).transcribe(say(BIR, IKI, UC))
    assert (transcript.text, transcript.words) == ("", ())


def test_a_piece_shorter_than_a_frame_can_be_written() -> None:
    reader = make_reader(LevelWriter())
    samples = np.full(100, BIR / 100, dtype=np.float32)
    (word,) = reader.write_segments([Segment(samples, start=0, speech=1.0)])
    assert (word.text, word.start_s) == (VOCABULARY.decode([BIR]), 0.0)
    assert 0 <= word.end_s <= 0.02
