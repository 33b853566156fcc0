"""What was measured to be wrong with a model's word times and confidences, and how it is put right.

The numbers stand in the bundle; :mod:`dinle.measure.boundaries` and :mod:`dinle.measure.calibration` measure them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

from dinle.errors import BundleCorruptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.recognize.bundle import Bundle
    from dinle.recognize.transcript import Word

SURE = 1e-6  # a confidence of 0 or 1 has infinite log-odds


@dataclass(frozen=True)
class ConfidenceMap:
    """From a model's own confidence to the share of words that are right at it: linear in the log-odds (Platt, 1999).

    Attributes:
        slope: above 0, so that the order of words stays; below 1 where the model is too sure of itself.
        intercept: above 0 where it is too modest.

    Raises:
        UsageError: a slope that is not above 0, or a number that is not finite.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.intercept)):
            raise UsageError(
                f"a confidence map has slope {self.slope} and intercept {self.intercept}; expected a slope above 0 and finite "
                "numbers: fit it anew with dinle calibrate"
            )

    def apply(self, confidence: float) -> float:
        """The calibrated confidence, from 0 to 1; never falls where ``confidence`` rises. Without effect as it is by default."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return confidence
        sure = min(max(confidence, SURE), 1 - SURE)
        odds = self.slope * math.log(sure / (1 - sure)) + self.intercept
        return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))


@dataclass(frozen=True)
class WordCorrections:
    """What is done to the words of every recogniser, whatever its family.

    Attributes:
        start_offset_s: added to the starts of words.
        end_offset_s: added to their ends.
        confidence: what their confidence becomes.
    """

    start_offset_s: float = 0.0
    end_offset_s: float = 0.0
    confidence: ConfidenceMap = ConfidenceMap()

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> WordCorrections:
        """Those that stand in a bundle.

        Raises:
            BundleCorruptError: its offsets are no seconds, or its confidence map is none.
        """
        offsets = (bundle.word_start_offset_s, bundle.word_end_offset_s)
        if not all(_is_number(one) and math.isfinite(one) for one in offsets):
            raise BundleCorruptError(f"{bundle.folder}: the offsets of words are {offsets}; expected seconds")
        try:
            return cls(*offsets, read_map(bundle.confidence_map))
        except UsageError as error:
            raise BundleCorruptError(f"{bundle.folder}: {error}") from error

    def shift(self, words: Sequence[Word], *, first_s: float, last_s: float) -> list[Word]:
        """The words with their times put right; they stay in order and inside the sound, and none runs into the next.

        Args:
            words: in order.
            first_s: where the sound begins, or the word before ends; a word that starts there stays there.
            last_s: where the sound ends; a word that ends there stays there.
        """
        starts = [
            first_s if word.start_s <= first_s else min(max(first_s, word.start_s + self.start_offset_s), last_s)
            for word in words
        ]
        ends = [
            last_s if word.end_s >= last_s else min(max(first_s, word.end_s + self.end_offset_s), last_s)
            for word in words
        ]
        bounds = [*starts, last_s][1:]
        return [
            replace(word, start_s=start, end_s=max(start, min(end, bound)))
            for word, start, end, bound in zip(words, starts, ends, bounds, strict=True)
        ]

    def calibrate(self, words: Sequence[Word]) -> list[Word]:
        """The words with calibrated confidences."""
        return [replace(word, confidence=self.confidence.apply(word.confidence)) for word in words]


def read_map(fields: Mapping[str, Any] | None) -> ConfidenceMap:
    """The map that a bundle holds; the one without effect where it holds none.

    Raises:
        UsageError: no numbers, or numbers that are no map.
    """
    if fields is None:
        return ConfidenceMap()
    slope, intercept = (fields.get("slope"), fields.get("intercept")) if isinstance(fields, Mapping) else (None, None)
    if not (_is_number(slope) and _is_number(intercept)):
        raise UsageError(f"the bundle's confidence_map is {fields!r:.200}; expected numbers slope and intercept")
    return ConfidenceMap(float(slope), float(intercept))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
