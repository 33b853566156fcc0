"""Confidence: known errors by hand, none where it means what it says, and a map that keeps order and range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.measure.calibration import (
    JudgedWords,
    bin_by_count,
    bin_by_width,
    compare_ece,
    compute_ece,
    fit_map,
    judge_predictions,
    judge_words,
    map_words,
    summarize_calibration,
)
from dinle.measure.predictions import Prediction
from dinle.recognize.corrections import ConfidenceMap


def make_words(confidence: list[float], right: list[int]) -> JudgedWords:
    return JudgedWords(np.array(confidence, dtype=np.float64), np.array(right, dtype=np.bool_))


def draw_words(count: int, seed: int, slope: float = 1.0, intercept: float = 0.0) -> JudgedWords:
    """Words that are right as often as a map of their confidence says; perfectly calibrated as it is by default."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.02, 0.98, count)
    true = ConfidenceMap(slope, intercept)
    shares = np.array([true.apply(one) for one in confidence.tolist()])
    return JudgedWords(confidence, rng.uniform(size=count) < shares)


def test_the_error_is_that_by_hand() -> None:
    words = make_words([0.95, 0.91, 0.99, 0.55, 0.53], [1, 0, 1, 1, 0])
    # one bin of three: |0.95 - 2/3|, one of two: |0.54 - 1/2|
    assert compute_ece(bin_by_width(words)) == pytest.approx((3 * (0.95 - 2 / 3) + 2 * 0.04) / 5)
    # two bins of three and two words, the same by chance; three of two, two and one
    assert compute_ece(bin_by_count(words, 2)) == pytest.approx(
        (3 * abs((0.53 + 0.55 + 0.91) / 3 - 1 / 3) + 2 * abs(0.97 - 1)) / 5
    )


@pytest.mark.parametrize(
    ("confidence", "right", "error"), [([1.0] * 4, [1] * 4, 0.0), ([1.0] * 4, [0] * 4, 1.0), ([], [], 0.0)]
)
def test_the_ends_of_the_scale_are_counted(confidence: list[float], right: list[int], error: float) -> None:
    words = make_words(confidence, right)
    assert compute_ece(bin_by_width(words)) == compute_ece(bin_by_count(words)) == error


def test_words_that_are_right_as_often_as_they_say_have_nearly_no_error() -> None:
    words = draw_words(100_000, seed=1)
    assert compute_ece(bin_by_width(words)) < 0.01  # 10 000 words a bin: a standard error of 0.005 at most
    assert compute_ece(bin_by_count(words)) < 0.01
    assert compute_ece(bin_by_width(draw_words(100_000, seed=1, slope=0.4, intercept=-0.5))) > 0.1


def test_bins_hold_every_word_once() -> None:
    words = draw_words(1003, seed=2)
    for bins in (bin_by_width(words), bin_by_count(words)):
        assert sum(one.words for one in bins) == 1003
        assert sum(one.words * one.accuracy for one in bins) == pytest.approx(words.right.sum())
        assert sum(one.words * one.confidence for one in bins) == pytest.approx(words.confidence.sum())
    assert {one.words for one in bin_by_count(words)} == {100, 101}


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -0.8), (2.0, 1.0)])
def test_the_map_that_made_the_words_is_found(slope: float, intercept: float) -> None:
    fitted = fit_map(draw_words(100_000, seed=3, slope=slope, intercept=intercept))
    assert (fitted.slope, fitted.intercept) == (pytest.approx(slope, abs=0.05), pytest.approx(intercept, abs=0.05))


def test_a_fitted_map_takes_the_error_away_on_other_words() -> None:
    fitted = fit_map(draw_words(5_000, seed=4, slope=0.5, intercept=-0.8))
    others = draw_words(20_000, seed=5, slope=0.5, intercept=-0.8)
    before, after = (compute_ece(bin_by_width(one)) for one in (others, map_words(others, fitted)))
    assert before > 0.1
    assert after < 0.02


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30),
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_whatever_it_is_fitted_to_a_map_keeps_order_and_range(
    words: list[tuple[float, bool]], confidences: list[float]
) -> None:
    fitted = fit_map(make_words([one for one, _ in words], [int(right) for _, right in words]))
    mapped = [fitted.apply(one) for one in sorted(confidences)]
    assert mapped == sorted(mapped)
    assert all(0 <= one <= 1 for one in mapped)


def test_a_confidence_that_says_the_opposite_is_not_turned_round() -> None:
    fitted = fit_map(make_words([0.9, 0.95, 0.8, 0.1, 0.2, 0.15], [0, 0, 0, 1, 1, 1]))
    assert fitted.slope == pytest.approx(1e-3)
    assert fitted.apply(0.5) == pytest.approx(0.5, abs=0.01)


def test_words_are_judged_by_their_alignment() -> None:
    words = ["Bugün", "—", "1923'te", "havalar", "güzel"]
    judged = judge_words("Bugün bin dokuz yüz yirmi üçte hava güzel", words, [0.9, 0.1, 0.8, 0.7, 0.6])
    assert judged.confidence.tolist() == [0.9, 0.8, 0.7, 0.6]  # a dash is no word
    assert judged.right.tolist() == [True, True, False, True]


def test_predictions_without_confidences_are_left_out() -> None:
    known = Prediction("a", "bir iki", "bir üç", confidences=(0.9, 0.4))
    (judged,) = judge_predictions([known, Prediction("b", "bir", "bir")])
    assert judged.right.tolist() == [True, False]
    assert summarize_calibration([]) is None


def test_a_summary_holds_its_figures_and_intervals() -> None:
    clips = [draw_words(20, seed) for seed in range(40)]
    summary = summarize_calibration(clips, samples=50)
    assert summary is not None
    assert summary["words"] == 800
    assert sum(one["words"] for one in summary["bins"]) == 800
    for name in ("ece", "ece_adaptive"):
        low, high = summary[name]["interval"]
        assert 0 <= low < high < 0.2


def test_a_change_is_measured_on_the_same_draws() -> None:
    clips = [draw_words(20, seed, slope=0.4, intercept=-0.5) for seed in range(40)]
    mapped = [map_words(clip, ConfidenceMap(0.4, -0.5)) for clip in clips]
    change = compare_ece(clips, mapped, samples=100)
    assert change["interval"][0] <= change["difference"] <= change["interval"][1] < 0
    assert compare_ece(clips, clips, samples=5) == {"difference": 0.0, "interval": [0.0, 0.0]}
    with pytest.raises(UsageError, match="the same for all"):
        compare_ece(clips, mapped[:-1])


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(UsageError, match="2 words and 1 confidences"):
        judge_words("bir iki", ["bir", "iki"], [0.5])
    with pytest.raises(UsageError, match="from 0 to 1"):
        judge_words("bir", ["bir"], [1.5])
    with pytest.raises(UsageError, match="no words to fit"):
        fit_map(make_words([], []))
