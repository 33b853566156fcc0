"""Notes are steady, voices are not, and what is too steady has no words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.manifest import read_manifest
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.recognize.recognizer import CtcRecognizer
from dinle.recognize.segments import Segment, cut_segments
from dinle.recognize.steadiness import measure_steadiness
from tests.fakes import FakeEngine
from tests.recognize.writers import LevelWriter, make_reader
from tests.sounds import iterate_non_speech, make_harmonics, make_melody, make_noise, scale_to

DATA = Path(__file__).parents[2] / "data"
NOTE = scale_to(make_harmonics(0.6, 220.0, count=8) * np.exp(-4 * np.arange(9600) / SAMPLE_RATE_HZ), -20)


def glide(seconds: float, low_hz: float, high_hz: float, count: int = 12) -> Waveform:
    """A tone with harmonics whose pitch falls, as a vowel's does."""
    hz = np.linspace(high_hz, low_hz, round(seconds * SAMPLE_RATE_HZ))
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    parts = [np.sin(n * phase) / n for n in range(1, count + 1)]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float32)


@given(
    hz=st.floats(100, 900),
    count=st.integers(2, 12),
    decay=st.floats(0, 8),
    gain=st.floats(1e-3, 1),
    seconds=st.floats(0.2, 3),
)
@settings(max_examples=60, deadline=None)
def test_a_note_is_steady_however_loud_long_or_short_lived(
    hz: float, count: int, decay: float, gain: float, seconds: float
) -> None:
    note = make_harmonics(seconds, hz, count=count)
    sound = gain * note * np.exp(-decay * np.arange(len(note)) / SAMPLE_RATE_HZ)
    assert measure_steadiness(sound.astype(np.float32)) > 0.9


@pytest.mark.parametrize("seed", range(20))
def test_notes_of_a_melody_are_steady_but_where_they_change(seed: int) -> None:
    melody = make_melody(3.0, seed=seed)
    assert measure_steadiness(melody) > measure_steadiness(glide(0.5, 120, 240))


@pytest.mark.parametrize("octaves", [0.5, 1.0])
def test_a_gliding_voice_and_noise_are_not_steady(octaves: float) -> None:
    assert measure_steadiness(glide(0.5, 150, 150 * 2**octaves)) < 0.2
    for color in ("white", "pink", "brown"):
        assert measure_steadiness(make_noise(2.0, color, seed=1)) < 0.05


def test_what_cannot_be_judged_is_not_steady() -> None:
    assert measure_steadiness(np.zeros(0, dtype=np.float32)) == 0
    assert measure_steadiness(np.zeros(16_000, dtype=np.float32)) == 0
    assert measure_steadiness(np.full(16_000, 0.3, dtype=np.float32)) == 0  # no sound, but for its level
    assert measure_steadiness(NOTE[:1200]) == 0  # 75 ms
    assert measure_steadiness(np.tile(NOTE, 20)) == 0  # 12 s


@pytest.mark.slow
def test_speech_stays_far_from_a_note() -> None:
    names = ("mini", "synthetic-sentences", "synthetic-words")
    clips = [decode_audio(clip.audio) for name in names for clip in read_manifest(DATA / name)]
    segments = [segment for clip in clips for segment in cut_segments([clip])]
    found = [measure_steadiness(one.samples[slice(*one.voice)]) for one in segments]
    assert len(found) > 400
    assert max(found) < 0.35


def test_the_melody_that_the_detector_takes_for_a_voice_is_a_note() -> None:
    sound = dict(iterate_non_speech())["melody-11"]
    assert [segment.is_note() for segment in cut_segments([sound])] == [True]


def test_only_where_the_detector_heard_speech_counts() -> None:
    voice = scale_to(glide(0.5, 120, 240), -20)
    sound = np.concatenate([NOTE, voice, NOTE])
    whole, part = (Segment(sound, 0, 1.0, voice=place) for place in ((0, len(sound)), (len(NOTE), len(NOTE) + 8000)))
    assert whole.is_note()
    assert not part.is_note()
    assert not Segment(sound, 0, 1.0).is_note()  # made by hand: nobody said where the speech is


def test_a_note_has_no_words_and_costs_no_inference() -> None:
    engine, writer = FakeEngine("hayalet"), LevelWriter()
    note = Segment(NOTE, 0, 0.9, voice=(0, len(NOTE)))
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02, speech_only=True)
    assert recognizer.recognize_segment(note) == ()
    assert make_reader(writer).recognize_segment(note) == ()
    assert engine.batches == []
    assert writer.heard == []
