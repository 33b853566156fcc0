"""The default model: what it writes of the sample, and that it writes nothing where nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dinle
from dinle.text import normalize_tr
from tests.sounds import iterate_non_speech

if TYPE_CHECKING:
    from dinle.recognize.recognizer import Recognizer

SAMPLE = Path(__file__).parents[2] / "samples" / "sample.wav"
SAID = "Gezdikleri yerde her gördükleri şeyin kendilerini sevindirmek için yaratıldığını sanıyorlardı."


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return dinle.load(threads=2)


def test_the_sample_is_read_as_it_was_said_but_for_a_word(recognizer: Recognizer) -> None:
    """In fp32 too the model hears "kandilerini" in the accented "kendilerini"."""
    transcript = recognizer.transcribe(SAMPLE)
    heard, said = (normalize_tr(text).split() for text in (transcript.text, SAID))
    assert len(heard) == len(said)
    assert sum(one != other for one, other in zip(heard, said, strict=True)) <= 1
    assert [word.text for word in transcript.words] == transcript.text.split()
    starts = [word.start_s for word in transcript.words]
    assert starts == sorted(starts)
    assert transcript.words[-1].end_s <= transcript.duration_s


@pytest.mark.slow
def test_nothing_is_written_where_nothing_is_said(recognizer: Recognizer) -> None:
    written = {name: recognizer.transcribe(sound).text for name, sound in iterate_non_speech()}
    assert len(written) >= 100
    assert {name: text for name, text in written.items() if text} == {}
