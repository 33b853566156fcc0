"""Predictions -> ``scores.json``: rates, counts and intervals, in every normalisation, whole and in groups."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dinle.measure.calibration import judge_predictions, summarize_calibration
from dinle.measure.timing import summarize
from dinle.measure.wer import CONFIDENCE, Confusions, bootstrap_interval, count_errors, find_confusions, pool
from dinle.text import NORMALIZERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dinle.measure.predictions import Prediction
    from dinle.measure.wer import ErrorCounts, Measure

SCORES_FILE = "scores.json"
# Rates and shares of a scored set, by their key in SCORES_FILE.
MEASURES: tuple[tuple[str, Measure], ...] = (("wer", "words"), ("cer", "characters"), ("exact", "exact"))
# Shorter than a command, a phrase, a sentence, a long sentence, longer than most engines' windows.
DURATION_EDGES_S = (0.0, 2.0, 5.0, 10.0, 20.0, math.inf)
UNKNOWN_SPEAKER = "(unknown)"


def compute_scores(predictions: Sequence[Prediction], *, samples: int, seed: int) -> dict[str, Any]:
    """Everything that ``scores.json`` says about the predictions themselves.

    Args:
        predictions: at least one.
        samples: bootstrap resamples of each interval.
        seed: of the resampling.

    Returns:
        ``clips, failed, audio_s, inference_s, rtfx, clip_latency, intervals``; ``calibration`` (see
        :func:`dinle.measure.calibration.summarize_calibration`; ``None`` where no confidences are known); and ``scores``:
        normaliser to ``clips, audio_s, wer, cer, exact, by_duration, by_speaker, confusions``; ``wer``, ``cer`` and
        ``exact`` (the share of clips whose hypothesis equals the reference, both normalised) hold ``rate, interval`` and the
        counts.
    """
    done = [one for one in predictions if one.error is None]
    latencies_s = [one.inference_s for one in done if one.inference_s]
    audio_s, inference_s = sum(one.duration_s for one in done), sum(one.inference_s for one in done)
    return {
        "clips": len(predictions),
        "failed": len(predictions) - len(done),
        "audio_s": round(audio_s, 3),
        "inference_s": round(inference_s, 3),
        "rtfx": round(audio_s / inference_s, 3) if inference_s else None,
        "clip_latency": (
            {name: round(value, 5) for name, value in summarize(latencies_s).to_dict().items()} if latencies_s else None
        ),
        "intervals": {
            "confidence": CONFIDENCE,
            "method": "percentile bootstrap over clips",
            "samples": samples,
            "seed": seed,
        },
        "calibration": summarize_calibration(judge_predictions(done), samples=samples, seed=seed),
        "scores": {name: _score(predictions, name, samples, seed) for name in NORMALIZERS},
    }


def count_predictions(predictions: Sequence[Prediction], normalizer: str) -> list[ErrorCounts]:
    """The clips' errors in one normalisation."""
    return count_errors(
        [one.reference for one in predictions],
        [one.hypothesis for one in predictions],
        [one.id for one in predictions],
        normalizer=normalizer,
    )


def name_bucket(duration_s: float, edges_s: Sequence[float] = DURATION_EDGES_S) -> str:
    """The duration bucket of a clip, such as ``2-5 s``; a lower edge belongs to its bucket, and the last edge is infinite."""
    for low, high in pairwise(edges_s):
        if duration_s < high:
            return f"{low:g} s and more" if math.isinf(high) else f"{low:g}-{high:g} s"
    return name_bucket(edges_s[-2], edges_s)


def _score(predictions: Sequence[Prediction], normalizer: str, samples: int, seed: int) -> dict[str, Any]:
    counts = count_predictions(predictions, normalizer)

    def group_by(key: Callable[[Prediction], str]) -> list[dict[str, Any]]:
        groups: dict[str, list[int]] = {}
        for number, one in enumerate(predictions):
            groups.setdefault(key(one), []).append(number)
        return [{"group": name, **score_members(members)} for name, members in groups.items()]

    def score_members(members: Sequence[int]) -> dict[str, Any]:
        scored = _score_counts([counts[number] for number in members], samples, seed)
        return {"audio_s": round(sum(predictions[number].duration_s for number in members), 3), **scored}

    buckets = [name_bucket(low) for low in DURATION_EDGES_S[:-1]]
    return {
        **score_members(range(len(predictions))),
        "by_duration": sorted(
            group_by(lambda one: name_bucket(one.duration_s)), key=lambda g: buckets.index(g["group"])
        ),
        "by_speaker": sorted(
            group_by(lambda one: one.speaker or UNKNOWN_SPEAKER), key=lambda g: (g["wer"]["rate"], g["group"])
        ),
        "confusions": _list_confusions(find_confusions(counts)),
    }


def _score_counts(counts: Sequence[ErrorCounts], samples: int, seed: int) -> dict[str, Any]:
    pooled = pool(counts)

    def describe(measure: Measure) -> dict[str, Any]:
        interval = bootstrap_interval(counts, measure=measure, samples=samples, seed=seed)
        counted = {"clips": pooled.exact} if measure == "exact" else getattr(pooled, measure).to_dict()
        return {
            "rate": round(pooled.read(measure), 6),
            "interval": [round(x, 6) for x in interval.to_list()],
            **counted,
        }

    return {"clips": pooled.clips, **{name: describe(measure) for name, measure in MEASURES}}


def _list_confusions(confusions: Confusions) -> dict[str, list[dict[str, Any]]]:
    return {
        "substitutions": [
            {"reference": wanted, "hypothesis": got, "count": count}
            for (wanted, got), count in confusions.substitutions
        ],
        "insertions": [{"hypothesis": word, "count": count} for word, count in confusions.insertions],
        "deletions": [{"reference": word, "count": count} for word, count in confusions.deletions],
    }
