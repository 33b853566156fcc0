"""The recogniser against a graph whose text is written in the sound itself."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dinle.errors import AudioLimitError, EmptyAudioError, UsageError
from dinle.recognize.audio import AudioLimits
from dinle.recognize.engine import OnnxEngine
from dinle.recognize.recognizer import CtcRecognizer, Recognizer
from dinle.recognize.segments import Segment
from dinle.recognize.vocabulary import Vocabulary
from tests.fakes import FakeEngine, fake_recognizer, make_tone
from tests.graphs import save_level_graph, spell_levels
from tests.recognize.writers import LevelDetector
from tests.sounds import encode_wav, iterate_non_speech

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("steady_speech")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> CtcRecognizer:
    path = tmp_path_factory.mktemp("graph") / "levels.onnx"
    save_level_graph(path)
    return CtcRecognizer(OnnxEngine(path, threads=1), Vocabulary.turkish(), name="levels", frame_shift_s=0.02)


def test_reads_a_clip_with_times(reader: Recognizer) -> None:
    transcript = reader.transcribe(spell_levels("işte ırmak"))
    assert transcript.text == "işte ırmak"
    assert [word.text for word in transcript.words] == ["işte", "ırmak"]
    # each character lasts 4 frames of 20 ms and is followed by 4 blank ones; the space takes 8 frames as well
    assert (transcript.words[1].start_s, transcript.words[1].end_s) == (pytest.approx(0.8), pytest.approx(1.52))
    assert transcript.duration_s == pytest.approx(1.6)
    assert (transcript.model, transcript.inference_s > 0) == ("levels", True)


@pytest.mark.parametrize("seconds", [19.99, 20.0, 20.01, 36.0, 75.3])
def test_a_cut_recording_has_the_words_of_the_whole(reader: Recognizer, seconds: float) -> None:
    letters = "abcçdefgğhıijklmnoöprsştuüvyz"
    words = [f"{letters[i % 29]}{letters[i * 7 % 29]}{letters[i * 3 % 29]}" for i in range(200)]
    sound = spell_levels(" ".join(words))[: round(seconds * 16_000)]
    transcript = reader.transcribe(sound)
    expected = " ".join(words)
    assert len(transcript.text) > 0.9 * seconds / 0.16
    assert expected.startswith(transcript.text)
    starts = [word.start_s for word in transcript.words]
    assert starts == pytest.approx([round(start / 0.64) * 0.64 for start in starts], abs=0.001)  # 4 characters a word
    assert transcript.duration_s == pytest.approx(len(sound) / 16_000)


def test_windows_never_exceed_what_the_model_takes() -> None:
    engine = FakeEngine("a")
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02, max_seconds=7.5)
    recognizer.transcribe(make_tone(30))
    assert max(max(batch) for batch in engine.batches) == 7.5 * 16_000


def test_silence_is_empty_and_costs_no_inference() -> None:
    engine = FakeEngine("hayalet")
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)
    transcript = recognizer.transcribe(np.zeros(100 * 16_000, dtype=np.float32))
    assert (transcript.text, transcript.words, transcript.duration_s) == ("", (), 100.0)
    assert engine.batches == []


@pytest.mark.slow
def test_three_hours_of_silence_stay_flat_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "sessizlik.flac"
    path.write_bytes(encode_wav(np.zeros(3 * 3600 * 8000, dtype=np.float32), 8000, form="FLAC"))
    tracemalloc.start()
    transcript = fake_recognizer().transcribe(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (transcript.text, transcript.duration_s) == ("", pytest.approx(3 * 3600, abs=0.01))
    assert peak < 20e6  # a window and its neighbours; the samples alone would be 690 MB


def test_a_piece_is_a_window_and_the_last_has_all_samples() -> None:
    engine = FakeEngine("a b")
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)
    sound = np.concatenate([make_tone(20), np.zeros(40 * 16_000, dtype=np.float32), make_tone(5)])
    calls, pieces = [], []
    for piece in recognizer.recognize([sound]):
        pieces.append(piece)
        calls.append(len(engine.batches))
    assert [piece.samples / 16_000 for piece in pieces] == [18, 34, 50, 65]
    assert calls == [1, 2, 2, 3]  # the window from 32 to 52 s is silent
    assert [word.text for word in pieces[0].words] == ["a"]  # "b" may go on
    assert pieces[-1].words


def test_nothing_gives_no_piece(reader: Recognizer) -> None:
    assert list(reader.recognize([])) == []


def test_a_segment_alone_has_the_times_of_the_recording(reader: Recognizer) -> None:
    alone = [word for piece in reader.recognize([spell_levels("işte ırmak")]) for word in piece.words]
    moved = reader.recognize_segment(Segment(spell_levels("işte ırmak"), start=48_000, speech=1.0))
    assert [(word.text, word.confidence) for word in moved] == [(word.text, word.confidence) for word in alone]
    assert [word.start_s for word in moved] == pytest.approx([3 + word.start_s for word in alone])
    assert [word.end_s for word in moved] == pytest.approx([3 + word.end_s for word in alone])
    assert reader.recognize_segment(Segment(spell_levels("işte ırmak"), start=48_000, speech=1.0), draft=True) == moved


@pytest.mark.parametrize("max_seconds", [None, 7.5, 0.5])
def test_a_segment_fits_into_a_window_and_a_longer_one_is_cut(max_seconds: float | None) -> None:
    engine = FakeEngine("a")
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02, max_seconds=max_seconds)
    assert recognizer.segments.max_s <= recognizer.window_s
    recognizer.recognize_segment(Segment(make_tone(recognizer.segments.max_s), 0, 1.0))
    assert len(engine.batches) == 1
    recognizer.recognize_segment(Segment(make_tone(recognizer.window_s + 1), 0, 1.0))
    assert len(engine.batches) > 2
    assert max(max(batch) for batch in engine.batches) <= recognizer.window_s * 16_000


def test_progress_is_told_in_seconds() -> None:
    told: list[float] = []
    fake_recognizer().transcribe(make_tone(50), on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(50.0)
    assert len(told) == 3


@pytest.fixture
def searcher(reader: CtcRecognizer, monkeypatch: pytest.MonkeyPatch) -> CtcRecognizer:
    """A reader of sound in which speech is found first; a detector hears anything but silence."""
    monkeypatch.setattr("dinle.recognize.segments.SpeechDetector", LevelDetector)
    return CtcRecognizer(reader.engine, reader.vocabulary, name="levels", frame_shift_s=0.02, speech_only=True)


@pytest.mark.parametrize("words", [1, 6, 12, 60])
@pytest.mark.parametrize("gap_s", [0.3, 1.0, 5.0])
def test_speech_that_is_searched_for_has_the_words_and_the_times_of_the_whole(
    reader: CtcRecognizer, searcher: CtcRecognizer, words: int, gap_s: float
) -> None:
    """Without a pause in sixty words speech is cut, and the words around the cuts stand there once."""
    letters = "abcçdefgğhıijklmnoöprsştuüvyz"
    text = " ".join(f"{letters[i % 29]}{letters[i * 7 % 29]}{letters[i * 3 % 29]}" for i in range(words))
    gap = np.zeros(round(gap_s * 16_000) // 320 * 320, dtype=np.float32)
    talk = spell_levels(text)
    sound = np.concatenate([gap, talk, gap, spell_levels(" son"), gap])  # a model hears where words are parted
    whole, found = reader.transcribe(sound), searcher.transcribe(sound)
    assert found.text == whole.text == f"{text} son"
    assert [word.start_s for word in found.words] == pytest.approx([word.start_s for word in whole.words], abs=0.03)
    assert [word.end_s for word in found.words] == pytest.approx([word.end_s for word in whole.words], abs=0.03)
    assert found.duration_s == whole.duration_s


def test_two_hours_of_known_clips_have_the_words_of_the_clips_alone(searcher: CtcRecognizer) -> None:
    """What cuts and stitches loses and doubles no word where the model hears each part as it hears the whole."""
    rng = np.random.default_rng(0)
    letters = "abcçdefgğhıijklmnoöprsştuüvyz"
    words = ["".join(rng.choice(list(letters), rng.integers(1, 9))) for _ in range(300)]
    clips = [" ".join(rng.choice(words, rng.integers(1, 25))) for _ in range(100)]
    alone = {text: searcher.transcribe(spell_levels(f" {text}")).text for text in clips}
    assert {text for text, written in alone.items() if written != text} == set()

    said: list[str] = []

    def play() -> Iterator[NDArray[np.float32]]:
        seconds = 0.0
        while seconds < 7200:
            text = clips[rng.integers(len(clips))]
            pause_s = rng.choice([0.0, 0.3, 0.7, 1.5, 4.0], p=[0.8, 0.05, 0.05, 0.05, 0.05])  # 4 of 5 follow at once
            sound = [spell_levels(f" {text}"), np.zeros(round(pause_s * 50) * 320, dtype=np.float32)]
            said.append(text)
            yield from sound
            seconds += sum(map(len, sound)) / 16_000

    written = [word.text for piece in searcher.recognize(play()) for word in piece.words]
    assert written == " ".join(said).split()
    assert len(written) > 5000


def test_what_is_not_speech_costs_no_inference_and_has_no_words() -> None:
    engine = FakeEngine("hayalet")
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02, speech_only=True)
    sounds = dict(iterate_non_speech(3.0))
    for name in ("digital-silence", "white-20dB", "melody-2", "drums-1", "band-2"):
        assert recognizer.transcribe(sounds[name]).words == ()
    assert engine.batches == []


def test_searching_a_piece_runs_the_engine_once_at_most_and_tells_each_second(searcher: CtcRecognizer) -> None:
    runs: list[int] = []
    engine = FakeEngine("a")
    searcher.engine = engine
    sound = np.concatenate([make_tone(20) + 1, np.zeros(9 * 16_000, dtype=np.float32), make_tone(5) + 1])
    done = []
    for piece in searcher.recognize([sound]):
        runs.append(len(engine.batches))
        done.append(piece.samples)
    assert max(np.diff([0, *runs])) == 1
    assert done == sorted(done)
    assert done[-1] == len(sound)
    assert len(done) >= 34


def test_limits_reach_the_decoder() -> None:
    with pytest.raises(AudioLimitError):
        fake_recognizer().transcribe(encode_wav(make_tone(3)), limits=AudioLimits(max_seconds=2))


@pytest.mark.parametrize(
    ("waveform", "error", "message"),
    [
        (np.zeros((2, 100), np.float32), UsageError, r"shape \(2, 100\)"),
        (np.zeros(100, np.int16), UsageError, "type int16"),
        (np.zeros(0, np.float32), EmptyAudioError, "no samples"),
        (np.full(100, np.nan, np.float32), UsageError, "NaN"),
    ],
)
def test_a_waveform_of_another_kind_is_refused(
    waveform: NDArray[np.float32], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fake_recognizer().transcribe(waveform)
