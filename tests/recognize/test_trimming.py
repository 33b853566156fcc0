"""A trimmed segment holds the same samples for the same sound, wherever it stands, and a model reads it the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dinle
from dinle.manifest import read_manifest
from dinle.recognize.audio import SAMPLE_RATE_HZ, decode_audio
from dinle.recognize.segments import Segment
from dinle.recognize.trimming import LOUD, trim_segment
from tests.clips_apart import join_apart
from tests.graphs import CTC_BUNDLE
from tests.recognize.writers import rest
from tests.sounds import make_noise, scale_to

if TYPE_CHECKING:
    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer

DATA = Path(__file__).parents[2] / "data"
WORD = scale_to(make_noise(0.4, "pink", seed=0), -20)


@given(before_s=st.floats(0, 1), after_s=st.floats(0, 1), silence_s=st.floats(0, 0.5), start=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_the_same_sound_gives_the_same_samples(before_s: float, after_s: float, silence_s: float, start: int) -> None:
    usual = trim_segment(Segment(np.concatenate([rest(0.7), WORD, rest(0.7)]), 0, 1.0), silence_s)
    sound = np.concatenate([rest(before_s), WORD, rest(after_s)])
    trimmed = trim_segment(Segment(sound, start, 1.0), silence_s)
    np.testing.assert_array_equal(trimmed.samples, usual.samples)
    place = trimmed.start - start - round(before_s * SAMPLE_RATE_HZ)
    assert place == usual.start - round(0.7 * SAMPLE_RATE_HZ)  # relative to the word


@given(head=st.integers(0, 4000), tail=st.integers(0, 4000))
@settings(max_examples=30, deadline=None)
def test_where_speech_was_cut_nothing_is_taken_or_added(head: int, tail: int) -> None:
    sound = np.concatenate([rest(0.5), WORD, rest(0.5)])
    trimmed = trim_segment(Segment(sound, 100, 1.0, head=head, tail=tail), 0.1)
    assert (trimmed.start == 100) == bool(head)
    assert (trimmed.start + len(trimmed.samples) == 100 + len(sound)) == bool(tail)
    assert (trimmed.head, trimmed.tail) == (head, tail)


def test_only_what_is_quiet_goes() -> None:
    quiet = np.full(3200, 0.9 * LOUD, dtype=np.float32)
    sound = np.concatenate([quiet, np.ones(10, dtype=np.float32), -1.2 * LOUD * np.ones(5, dtype=np.float32), quiet])
    trimmed = trim_segment(Segment(sound, 0, 1.0, voice=(3200, 3215)), 0.1)
    assert (trimmed.start, len(trimmed.samples)) == (1600, 1600 + 15 + 1600)
    np.testing.assert_array_equal(trimmed.samples, sound[1600:-1600])
    assert trimmed.voice == (1600, 1615)


@pytest.mark.parametrize("sound", [rest(0), rest(1)])
def test_silence_stays_as_it_is(sound: Waveform) -> None:
    assert trim_segment(Segment(sound, 7, 0.0), 0.3).samples is sound


@pytest.mark.slow
@pytest.mark.parametrize("model", [None, CTC_BUNDLE])
def test_clips_in_a_recording_have_the_words_of_the_clips_alone(model: Path | None) -> None:
    """A second apart, at places that are no multiple of the detector's chunks: the very same words, of both bundled models."""
    recognizer: Recognizer = dinle.load(model, threads=2)
    clips = [
        decode_audio(clip.audio) for name in ("mini", "synthetic-sentences") for clip in read_manifest(DATA / name)[:16]
    ]
    rng = np.random.default_rng(0)
    gaps = [rest(rng.uniform(1.0, 1.5)) for _ in clips]
    whole, starts = join_apart(gaps, clips)
    words = recognizer.transcribe(whole).words
    alone = [recognizer.transcribe(clip).words for clip in clips]
    assert [word.text for word in words] == [word.text for each in alone for word in each]
    expected = [
        start / SAMPLE_RATE_HZ + word.start_s for start, each in zip(starts, alone, strict=True) for word in each
    ]
    assert [word.start_s for word in words] == pytest.approx(expected, abs=0.001)
    assert len(words) > 60
