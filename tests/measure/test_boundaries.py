"""Word times: the truth is known to the sample, errors are those by hand, and the bundled models stay below 60 ms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import dinle
from dinle.errors import ManifestError, UsageError
from dinle.measure.boundaries import (
    BoundaryError,
    JoinRules,
    SpokenWord,
    TimedWord,
    join_words,
    make_recordings,
    measure_boundaries,
    summarize_errors,
    trim_silence,
)
from dinle.measure.word_times import hear_recordings, read_single_words
from dinle.recognize.transcript import Word

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
MOST_MS = 60.0  # median boundary error of a bundled model


def make_sound(seconds: float, *, before_s: float = 0.0, after_s: float = 0.0) -> NDArray[np.float32]:
    tone = np.sin(np.arange(round(16_000 * seconds)) * 0.2) / 2
    parts = (np.zeros(round(16_000 * before_s)), tone, np.zeros(round(16_000 * after_s)))
    return np.concatenate(parts).astype(np.float32)


def test_the_silence_of_a_clip_is_cut_off() -> None:
    sound = trim_silence(make_sound(0.5, before_s=0.2, after_s=0.3))
    np.testing.assert_array_equal(sound, make_sound(0.5))
    with pytest.raises(UsageError, match="holds no sound"):
        trim_silence(np.zeros(16_000, dtype=np.float32))


def test_joined_words_are_where_they_are_said_to_be() -> None:
    words = [SpokenWord("bir", make_sound(0.4, before_s=0.1)), SpokenWord("iki", make_sound(0.6, after_s=0.25))]
    joined = join_words(words, JoinRules(0.1, 0.2, noise_db=-60), np.random.default_rng(0))
    first, second = joined.words
    assert (first.text, first.start_s, first.end_s) == ("bir", pytest.approx(0.3), pytest.approx(0.7))
    assert 0.1 <= second.start_s - first.end_s <= 0.2
    assert second.end_s - second.start_s == pytest.approx(0.6)
    for word in joined.words:
        inside = joined.waveform[round(16_000 * word.start_s) : round(16_000 * word.end_s)]
        assert float(np.sqrt(np.square(inside).mean())) == pytest.approx(0.05, rel=0.01)
    gap = joined.waveform[round(16_000 * first.end_s) : round(16_000 * second.start_s)]
    assert float(np.sqrt(np.square(gap).mean())) == pytest.approx(0.05 / 1000, rel=0.1)


def test_the_same_seed_makes_the_same_recordings_of_every_word() -> None:
    words = [SpokenWord(text, make_sound(0.3)) for text in ("bir", "iki", "üç", "dört")]
    one, other = (list(make_recordings(words, JoinRules(), recordings=2, length=2, seed=7)) for _ in range(2))
    assert {word.text for recording in one for word in recording.words} == {"bir", "iki", "üç", "dört"}
    for first, second in zip(one, other, strict=True):
        assert first.words == second.words
        np.testing.assert_array_equal(first.waveform, second.waveform)
    with pytest.raises(UsageError, match="5 words out of 4"):
        list(make_recordings(words, JoinRules(), recordings=1, length=5, seed=7))


@pytest.mark.parametrize("rules", [(0.3, 0.1), (-0.1, 0.1), (0.0, float("inf"))])
def test_gaps_that_are_no_range_are_refused(rules: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="the gaps are"):
        JoinRules(*rules)


def test_errors_are_those_of_the_words_that_are_right() -> None:
    said = [TimedWord("bir", 0.3, 0.6), TimedWord("iki", 0.8, 1.2), TimedWord("üç", 1.5, 1.9)]
    heard = [
        Word("Bir,", 0.25, 0.6, 1.0),
        Word("ile", 0.7, 0.8, 1.0),
        Word("sekiz", 0.8, 1.2, 1.0),
        Word("üç", 1.6, 1.8, 1.0),
    ]
    first, last = measure_boundaries(said, heard)
    assert (first.text, first.start_s, first.end_s) == ("bir", pytest.approx(-0.05), pytest.approx(0.0))
    assert (last.text, last.start_s, last.end_s) == ("üç", pytest.approx(0.1), pytest.approx(-0.1))


def test_a_summary_tells_size_from_direction() -> None:
    errors = [BoundaryError("a", 0.1, -0.2), BoundaryError("b", -0.1, -0.2), BoundaryError("c", 0.1, -0.2)]
    summary = summarize_errors(errors)
    assert summary["words"] == 3
    assert summary["starts"] == {"median_ms": 100.0, "p90_ms": 100.0, "bias_ms": 100.0}
    assert summary["ends"] == {"median_ms": 200.0, "p90_ms": 200.0, "bias_ms": -200.0}
    assert summary["both"]["median_ms"] == 150.0
    with pytest.raises(UsageError, match="no word was recognised right"):
        summarize_errors([])


def test_manifests_without_single_words_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "manifest.jsonl").write_text('{"audio": "a.wav", "text": "iki kuş", "duration": 1}\n', encoding="utf-8")
    with pytest.raises(ManifestError, match="none of 1 clips"):
        read_single_words([tmp_path])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinle-base-tr", "dinle-ctc-tr"])
@pytest.mark.parametrize(
    "rules",
    [JoinRules(0.05, 0.6), JoinRules(0.0, 0.05), JoinRules(0.05, 0.6, -20.0)],
    ids=["pauses", "running", "noise"],
)
def test_the_bundled_models_know_when_words_are_said(name: str, rules: JoinRules) -> None:
    words = read_single_words([ROOT / "data" / "synthetic-words", ROOT / "data" / "mini"])
    recordings = make_recordings(words, rules, recordings=12, length=6, seed=11)
    summary = summarize_errors(hear_recordings(dinle.load(ROOT / "models" / name, threads=2), recordings))
    assert summary["words"] >= 15
    assert summary["both"]["median_ms"] < MOST_MS
