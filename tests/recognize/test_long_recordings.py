"""Six minutes of known clips, silence, noise and music has the words of the clips, and those alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import dinle
from dinle.measure.wer import paired_bootstrap, pool
from dinle.recognize.recognizer import CtcRecognizer
from tests.graphs import CTC_BUNDLE
from tests.long_recording import Comparison, Maker, Tokens, compare, count_changes, trim_silence
from tests.moved_cuts import Hearing
from tests.moved_cuts import compare as compare_cuts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    path: Path = tmp_path_factory.mktemp("long") / "long.wav"
    recognizer = dinle.load(CTC_BUNDLE, threads=2)
    assert isinstance(recognizer, CtcRecognizer)
    recognizer.warm_up()
    stretches = Maker(path, seed=1).write(6 * 60)
    return compare(recognizer, path, stretches)


@pytest.mark.slow
def test_silence_noise_and_music_have_no_words(result: Comparison) -> None:
    """But for one: right after speech the detector can take a melody for a voice (4 words in two hours)."""
    assert len(result.stray) <= 1
    assert pool(result.whole).words.reference > 350


@pytest.mark.slow
def test_clips_with_pauses_between_them_are_read_as_they_are_alone(result: Comparison) -> None:
    """Neighbours in one segment are heard together, so a word here and there is another: none more is wrong than by chance."""
    assert paired_bootstrap(*result.select(pauses=True)).interval.low <= 0.01


@pytest.mark.slow
def test_clips_without_pauses_lose_little(result: Comparison) -> None:
    """Sentences of many voices, one every 60 ms, are harder than each alone: measured 0.03 to 0.05 more WER."""
    assert paired_bootstrap(*result.select(pauses=False)).difference < 0.1


@pytest.mark.slow
def test_no_word_is_doubled_at_a_cut_and_no_more_are_lost_than_elsewhere(result: Comparison) -> None:
    """Speech without pauses is read less well than clips, at cuts and elsewhere: a lost word at a cut would come on top."""
    assert result.cuts >= 15
    assert result.near["doubled"] == 0
    shares = [changes["lost"] / changes["words"] for changes in (result.near, result.elsewhere)]
    assert shares[0] < shares[1] + 0.05


@pytest.mark.slow
def test_progress_is_told_to_the_end_and_memory_is_flat(result: Comparison) -> None:
    assert result.told_s == sorted(result.told_s)
    assert result.told_s[-1] == pytest.approx(3600 * result.hours)
    assert np.diff([0.0, *result.told_s]).max() <= 10  # the longest segment and a second
    assert result.peak_mb < result.first_mb + 30


def tokens(text: str, start_s: float = 0.0) -> Tokens:
    texts = text.split()
    return Tokens(tuple(texts), tuple(start_s + i for i in range(len(texts))))


def test_changes_are_counted_near_cuts_and_elsewhere() -> None:
    near, elsewhere = count_changes([tokens("a b c d e f g h")], [tokens("a b b c d x e f g")], cuts_s=[1.0])
    assert near == {"words": 3, "changed": 0, "lost": 0, "added": 1, "doubled": 1}
    assert elsewhere == {"words": 5, "changed": 1, "lost": 1, "added": 1, "doubled": 0}


def test_trimming_leaves_the_sound() -> None:
    sound = np.concatenate([np.zeros(8_000), np.full(1_000, 0.5), np.zeros(4_000)]).astype(np.float32)
    trimmed = trim_silence(sound)
    assert len(trimmed) == 480 + 1_000 + 480 - 1
    assert trimmed.sum() == sound.sum()


def test_the_same_words_are_compared_near_a_cut_and_away_from_one() -> None:
    """Of six words the fourth is a cut's in one hearing and nobody's in the other; the last one is wrong in both."""
    wrong_at_the_cut = Hearing(np.eye(6)[3] + np.eye(6)[5], np.eye(6)[3], np.array([9, 9, 9, 0.1, 0.4, 0.9]))
    right = Hearing(np.eye(6)[5], np.zeros(6), np.array([0.1, 9, 9, 9, 9, 9]))
    places = np.array([0, 0, 0, 1, 1, 1])
    figures = compare_cuts([wrong_at_the_cut, right], places, 0.5)
    assert (figures["words"], figures["changed"], figures["lost"]) == (3, [0.3333, 0.0], [0.3333, 0.0])
    assert compare_cuts([wrong_at_the_cut, right], places, 1.0)["changed"] == [0.5, 0.25]
