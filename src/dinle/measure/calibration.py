"""Whether a word's confidence means what it says: of the words with confidence 0.8, eight in ten should be right.

The expected calibration error (ECE) is the mean distance between confidence and accuracy, words in bins of confidence (Guo et
al., "On Calibration of Modern Neural Networks", ICML 2017). Bins of equal width are the usual form; adaptive bins hold equally
many words each (Nguyen and O'Connor, 2015), so that none is nearly empty.

Intervals are percentile bootstraps over clips, as of all rates. An ECE is never negative, so that noise raises it: resampled
figures lie a little above the measured one, and few words show an ECE above zero whatever the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinle.errors import UsageError
from dinle.measure.wer import CONFIDENCE, RESAMPLES
from dinle.measure.word_marks import mark_words
from dinle.recognize.corrections import SURE, ConfidenceMap
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.measure.predictions import Prediction

BINS = 10  # Guo et al. take 15 for a hundred thousand images; we have hundreds of words
_TAILS = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
_NEWTON_STEPS = 100
_CONVERGED = 1e-9
_LEAST_SLOPE = 1e-3  # where confidence says nothing or the opposite: nearly flat, and still rising


@dataclass(frozen=True)
class JudgedWords:
    """The recognised words of one clip: ``confidence`` (W,) from 0 to 1, and whether each is ``right``, (W,) of bool."""

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class ReliabilityBin:
    """Words of similar confidence: how many, their mean confidence, and the share that is right."""

    words: int
    confidence: float
    accuracy: float


def judge_predictions(predictions: Sequence[Prediction]) -> list[JudgedWords]:
    """The words of the clips whose confidences are known; a word without letters or digits is neither right nor wrong."""
    return [
        judge_words(one.reference, one.hypothesis.split(), one.confidences)
        for one in predictions
        if one.confidences is not None
    ]


def judge_words(reference: str, words: Sequence[str], confidences: Sequence[float]) -> JudgedWords:
    """Which words of a clip are right, by a minimal alignment in the form ``tr``, beside their confidences.

    Raises:
        UsageError: not one confidence a word, or one outside 0 to 1.
    """
    if len(words) != len(confidences):
        raise UsageError(f"{len(words)} words and {len(confidences)} confidences; expected one of each")
    if not all(0 <= one <= 1 for one in confidences):
        raise UsageError(f"the confidences {list(confidences)!r:.200} are not all from 0 to 1")
    kept = [
        (confidence, place is not None)
        for word, confidence, place in zip(words, confidences, mark_words(reference, words), strict=True)
        if normalize_tr(word)
    ]
    return JudgedWords(
        np.array([confidence for confidence, _ in kept], dtype=np.float64),
        np.array([right for _, right in kept], dtype=np.bool_),
    )


def pool_words(clips: Sequence[JudgedWords]) -> JudgedWords:
    """All words of several clips."""
    return JudgedWords(
        np.concatenate([np.zeros(0), *(clip.confidence for clip in clips)]),
        np.concatenate([np.zeros(0, dtype=np.bool_), *(clip.right for clip in clips)]),
    )


def bin_by_width(words: JudgedWords, bins: int = BINS) -> list[ReliabilityBin]:
    """Bins of equal width from 0 to 1, an upper edge belonging to the bin above it but for 1; empty ones are left out."""
    places = np.minimum((words.confidence * bins).astype(int), bins - 1)
    return _describe_bins(words, [np.flatnonzero(places == place) for place in range(bins)])


def bin_by_count(words: JudgedWords, bins: int = BINS) -> list[ReliabilityBin]:
    """Adaptive bins: equally many words in each, in order of confidence; words of the same confidence stay in their order."""
    return _describe_bins(words, np.array_split(np.argsort(words.confidence, kind="stable"), bins))


def compute_ece(bins: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error: the distance of confidence and accuracy, weighted by words; 0.0 without words."""
    words = sum(one.words for one in bins)
    return sum(one.words * abs(one.confidence - one.accuracy) for one in bins) / max(1, words)


def fit_map(words: JudgedWords) -> ConfidenceMap:
    """The map under which the words' being right or wrong is likeliest: logistic regression on the log-odds (Platt, 1999).

    Platt's targets, ``(N+ + 1) / (N+ + 2)`` for right and ``1 / (N- + 2)`` for wrong words, keep the numbers finite where
    all words are right or a confidence parts right from wrong.

    Raises:
        UsageError: no words.
    """
    if not len(words.right):
        raise UsageError("there are no words to fit a confidence map to; expected clips in which words are recognised")
    right = int(words.right.sum())
    targets = np.where(words.right, (right + 1) / (right + 2), 1 / (len(words.right) - right + 2))
    sure = np.clip(words.confidence, SURE, 1 - SURE)
    odds = np.stack([np.log(sure / (1 - sure)), np.ones(len(sure))], axis=1)
    weights = _regress(odds, targets)
    if weights[0] < _LEAST_SLOPE:
        odds[:, 0] *= _LEAST_SLOPE
        weights = np.array([_LEAST_SLOPE, _regress(odds[:, 1:], targets, offset=odds[:, 0])[0]])
    return ConfidenceMap(round(float(weights[0]), 4), round(float(weights[1]), 4))


def _regress(
    features: NDArray[np.float64], targets: NDArray[np.float64], offset: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """Weights of a logistic regression by Newton's method; a step that does not help is halved."""
    weights = np.zeros(features.shape[1])
    ridge = 1e-6 * np.eye(len(weights))  # where features are all alike, the system has no single solution

    def measure_loss(tried: NDArray[np.float64]) -> float:
        scores = features @ tried + offset
        return float(np.sum(np.logaddexp(0, scores) - targets * scores) + tried @ ridge @ tried / 2)

    for _ in range(_NEWTON_STEPS):
        shares = 1 / (1 + np.exp(-np.clip(features @ weights + offset, -500, 500)))
        gradient = features.T @ (shares - targets) + ridge @ weights
        step = np.linalg.solve((features.T * (shares * (1 - shares))) @ features + ridge, gradient)
        while np.abs(step).max() > _CONVERGED and measure_loss(weights - step) > measure_loss(weights):
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= _CONVERGED:
            break
    return weights


def map_words(words: JudgedWords, confidence_map: ConfidenceMap) -> JudgedWords:
    """The words with their confidences mapped."""
    mapped = [confidence_map.apply(one) for one in words.confidence.tolist()]
    return JudgedWords(np.array(mapped, dtype=np.float64), words.right)


def summarize_calibration(
    clips: Sequence[JudgedWords], *, samples: int = RESAMPLES, seed: int = 1
) -> dict[str, Any] | None:
    """What ``scores.json`` says about the confidences, and ``None`` where there is no word.

    Returns:
        ``words, accuracy, confidence`` (its mean), ``ece`` and ``ece_adaptive`` (each ``rate, interval``), and ``bins`` of
        equal width (``words, confidence, accuracy``).
    """
    words = pool_words(clips)
    if not len(words.right):
        return None
    drawn = [_measure_both(one) for (one,) in draw_clips([clips], samples=samples, seed=seed)]
    low, high = np.percentile(np.array(drawn), _TAILS, axis=0)
    figures = zip(("ece", "ece_adaptive"), _measure_both(words), low.tolist(), high.tolist(), strict=True)
    return {
        "words": len(words.right),
        "accuracy": round(float(words.right.mean()), 6),
        "confidence": round(float(words.confidence.mean()), 6),
        **{
            name: {"rate": round(rate, 6), "interval": [round(bottom, 6), round(top, 6)]}
            for name, rate, bottom, top in figures
        },
        "bins": [
            {"words": one.words, "confidence": round(one.confidence, 6), "accuracy": round(one.accuracy, 6)}
            for one in bin_by_width(words)
        ],
    }


def compare_ece(
    before: Sequence[JudgedWords], after: Sequence[JudgedWords], *, samples: int = RESAMPLES, seed: int = 1
) -> dict[str, Any]:
    """ECE after less ECE before, on the same draws of the same clips: ``difference, interval``; below zero it is better.

    Raises:
        UsageError: different clips, none, or fewer than one resample.
    """

    def compare_words(old: JudgedWords, new: JudgedWords) -> float:
        return compute_ece(bin_by_width(new)) - compute_ece(bin_by_width(old))

    changes = [compare_words(old, new) for old, new in draw_clips([before, after], samples=samples, seed=seed)]
    low, high = np.percentile(changes, _TAILS).tolist()
    return {
        "difference": round(compare_words(pool_words(before), pool_words(after)), 6),
        "interval": [round(low, 6), round(high, 6)],
    }


def draw_clips(systems: Sequence[Sequence[JudgedWords]], *, samples: int, seed: int) -> Iterator[list[JudgedWords]]:
    """Draw by draw the words of resampled clips, for each system over the same draw.

    Raises:
        UsageError: systems of different clips, no clips, or fewer than one resample.
    """
    sizes = [[len(clip.right) for clip in system] for system in systems]
    if not sizes[0] or any(each != sizes[0] for each in sizes) or samples < 1:
        raise UsageError(
            f"{samples} resamples of {' and '.join(str(len(each)) for each in sizes)} clips; expected at least 1 resample of at "
            "least 1 clip, the same for all"
        )
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        draw = rng.integers(len(sizes[0]), size=len(sizes[0])).tolist()
        yield [pool_words([system[place] for place in draw]) for system in systems]


def _measure_both(words: JudgedWords) -> tuple[float, float]:
    return compute_ece(bin_by_width(words)), compute_ece(bin_by_count(words))


def _describe_bins(words: JudgedWords, members: Sequence[NDArray[np.intp]]) -> list[ReliabilityBin]:
    return [
        ReliabilityBin(len(each), float(words.confidence[each].mean()), float(words.right[each].mean()))
        for each in members
        if len(each)
    ]
