"""Word and character error rates and the share of exact clips: counted once for each clip, read in many ways.

A rate is errors over reference units, pooled over clips: ``(S + I + D) / (H + S + D)``, never a mean of clips' rates.
The exact share is clips without an error over clips: the hypothesis equals the reference, both normalised.

Cases without a reference, as jiwer has them:

==================  ===================  =====================================================
reference           hypothesis           rate
==================  ===================  =====================================================
empty               empty                0.0
empty               N words              N (a clip of silence with words is wrong N times over)
some words          empty                1.0 (all deleted)
==================  ===================  =====================================================

In a pool, the insertions of a clip without a reference count like any others.

Intervals are percentile bootstraps over clips (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
performance evaluation", ICASSP 2004): clips are drawn with replacement and pooled anew. They take clips as independent,
so with few speakers they are too narrow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

import jiwer
import numpy as np

from dinle.errors import UsageError
from dinle.text import NORMALIZERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# What is compared and resampled: the error rate in a unit, or the share of clips without an error.
Measure = Literal["words", "characters", "exact"]
# A word of the reference and what stands for it in the hypothesis; None: inserted (left) or deleted (right).
AlignedPair = tuple[str | None, str | None]

CONFIDENCE = 0.95
RESAMPLES = 1000
# Draws held in memory at a time: 4 million of 8 bytes.
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Edits:
    """What turns hypotheses into references, counted in words or in characters."""

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    def __add__(self, other: Edits) -> Edits:
        return Edits(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def reference(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def hypothesis(self) -> int:
        """Units of the hypothesis."""
        return self.hits + self.substitutions + self.insertions

    @property
    def rate(self) -> float:
        """Errors for each unit of the reference; for an empty reference the number of insertions (see the module)."""
        return self.errors / max(1, self.reference)

    def to_dict(self) -> dict[str, int]:
        """The counts and the number of reference units, as plain values."""
        return {
            "reference": self.reference,
            "hits": self.hits,
            "substitutions": self.substitutions,
            "insertions": self.insertions,
            "deletions": self.deletions,
        }


@dataclass(frozen=True)
class ErrorCounts:
    """One clip: its edits in words and in characters (spaces included), and the words side by side."""

    id: str
    words: Edits
    characters: Edits
    alignment: tuple[AlignedPair, ...]

    @property
    def exact(self) -> bool:
        """Whether the whole clip is right."""
        return self.words.errors == 0


@dataclass(frozen=True)
class PooledCounts:
    """Several clips together."""

    clips: int
    exact: int
    words: Edits
    characters: Edits

    @property
    def wer(self) -> float:
        """Word error rate: 0.1 is ten errors for each hundred reference words; can exceed 1."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character error rate, spaces included."""
        return self.characters.rate

    @property
    def exact_share(self) -> float:
        """Share of clips without an error; 0.0 where there are no clips."""
        return self.exact / max(1, self.clips)

    def read(self, measure: Measure) -> float:
        """The figure of a measure: WER (``words``), CER (``characters``) or the exact share (``exact``)."""
        return {"words": self.wer, "characters": self.cer, "exact": self.exact_share}[measure]


@dataclass(frozen=True)
class Interval:
    """Bounds of a percentile bootstrap interval of :data:`CONFIDENCE`."""

    low: float
    high: float

    def to_list(self) -> list[float]:
        """``[low, high]``."""
        return [self.low, self.high]


@dataclass(frozen=True)
class PairedDifference:
    """The candidate's figure minus the baseline's on the same clips.

    Below zero the candidate is better; of the exact share, above zero.

    Attributes:
        difference: of the pooled rates, or of the exact shares.
        interval: of the difference.
        share_better: share of the resamples in which the candidate is better.
    """

    difference: float
    interval: Interval
    share_better: float

    @property
    def significant(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True)
class Confusions:
    """The most frequent errors, each with its count, most frequent first."""

    substitutions: tuple[tuple[tuple[str, str], int], ...]
    insertions: tuple[tuple[str, int], ...]
    deletions: tuple[tuple[str, int], ...]


def count_errors(
    references: Sequence[str], hypotheses: Sequence[str], ids: Sequence[str] | None = None, *, normalizer: str
) -> list[ErrorCounts]:
    """Align each hypothesis with its reference and count.

    Args:
        references: what was said, one text a clip.
        hypotheses: what was recognised, in the same order.
        ids: names of the clips (default: their numbers from 0).
        normalizer: which of :data:`dinle.text.NORMALIZERS` both sides go through first: ``raw``, ``whisper-basic``
            or ``tr``.

    Raises:
        UsageError: sequences of different lengths, or an unknown normaliser.
    """
    ids = [str(number) for number in range(len(references))] if ids is None else ids
    if not len(references) == len(hypotheses) == len(ids):
        raise UsageError(
            f"{len(references)} references, {len(hypotheses)} hypotheses and {len(ids)} ids; expected one of each a clip"
        )
    if normalizer not in NORMALIZERS:
        raise UsageError(f"unknown normaliser {normalizer!r}; choose from {', '.join(NORMALIZERS)}")
    normalize = NORMALIZERS[normalizer]
    # Runs of white space part words, and count as one character.
    wanted = [" ".join(normalize(text).split()) for text in references]
    got = [" ".join(normalize(text).split()) for text in hypotheses]
    if not wanted:
        return []
    words = _pair_units(jiwer.process_words(wanted, got))
    characters = _pair_units(jiwer.process_characters(wanted, got))
    return [
        ErrorCounts(name, _count_pairs(pairs), _count_pairs(letters), pairs)
        for name, pairs, letters in zip(ids, words, characters, strict=True)
    ]


def pool(counts: Sequence[ErrorCounts]) -> PooledCounts:
    """Add up clips."""
    return PooledCounts(
        clips=len(counts),
        exact=sum(clip.exact for clip in counts),
        words=sum((clip.words for clip in counts), Edits()),
        characters=sum((clip.characters for clip in counts), Edits()),
    )


def bootstrap_interval(
    counts: Sequence[ErrorCounts], *, measure: Measure = "words", samples: int = RESAMPLES, seed: int = 1
) -> Interval:
    """The 95 % interval of the pooled WER (``words``), CER (``characters``) or exact share over resampled clips.

    One clip gives an interval without width: nothing is known about other clips then.

    Raises:
        UsageError: no clips, or fewer than one resample.
    """
    return _percentiles(_resample([counts], measure, samples, seed)[0])


def paired_bootstrap(
    baseline: Sequence[ErrorCounts],
    candidate: Sequence[ErrorCounts],
    *,
    measure: Measure = "words",
    samples: int = RESAMPLES,
    seed: int = 1,
) -> PairedDifference:
    """Compare two systems on the same clips: both are pooled over the same draws, so what is hard for both cancels out.

    Raises:
        UsageError: the clips differ (by id, in order), there are none, or fewer than one resample.
    """
    if [clip.id for clip in baseline] != [clip.id for clip in candidate]:
        raise UsageError(
            f"the systems were measured on different clips ({len(baseline)} and {len(candidate)}); "
            "a paired comparison needs the same clips in the same order"
        )
    before, after = _resample([baseline, candidate], measure, samples, seed)
    return PairedDifference(
        difference=pool(candidate).read(measure) - pool(baseline).read(measure),
        interval=_percentiles(after - before),
        share_better=float(np.mean(after > before if measure == "exact" else after < before)),
    )


def find_confusions(counts: Sequence[ErrorCounts], top: int = 20) -> Confusions:
    """The ``top`` most frequent substituted pairs (reference, hypothesis), inserted words and deleted words."""
    substitutions: Counter[tuple[str, str]] = Counter()
    insertions: Counter[str] = Counter()
    deletions: Counter[str] = Counter()
    for clip in counts:
        for wanted, got in clip.alignment:
            if wanted is None and got is not None:
                insertions[got] += 1
            elif wanted is not None and got is None:
                deletions[wanted] += 1
            elif wanted is not None and got is not None and wanted != got:
                substitutions[wanted, got] += 1
    return Confusions(
        tuple(substitutions.most_common(top)), tuple(insertions.most_common(top)), tuple(deletions.most_common(top))
    )


def _pair_units(output: Any) -> Iterator[tuple[AlignedPair, ...]]:
    """Units side by side, clip by clip, from jiwer's minimal alignment."""
    for reference, hypothesis, chunks in zip(output.references, output.hypotheses, output.alignments, strict=True):
        yield tuple(
            pair
            for chunk in chunks
            # An inserted chunk has no reference units and a deleted one no hypothesis units; the others have as many of both.
            for pair in zip_longest(
                reference[chunk.ref_start_idx : chunk.ref_end_idx], hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            )
        )


def _count_pairs(pairs: Sequence[AlignedPair]) -> Edits:
    insertions = sum(wanted is None for wanted, _ in pairs)
    deletions = sum(got is None for _, got in pairs)
    hits = sum(wanted == got for wanted, got in pairs)
    return Edits(hits, len(pairs) - hits - insertions - deletions, insertions, deletions)


def _resample(
    systems: Sequence[Sequence[ErrorCounts]], measure: Measure, samples: int, seed: int
) -> list[NDArray[np.float64]]:
    """Pooled rates or shares (samples,) of each system, all over the same draws of clips."""
    clips = len(systems[0])
    if not clips:
        raise UsageError("there are no clips to resample; expected at least one")
    if samples < 1:
        raise UsageError(f"{samples} bootstrap resamples; expected at least 1")
    counted = [_count_measure(system, measure) for system in systems]
    generator = np.random.default_rng(seed)
    rates: list[list[NDArray[np.float64]]] = [[] for _ in systems]
    step = max(1, _DRAWS_AT_ONCE // clips)
    for start in range(0, samples, step):
        drawn = generator.integers(clips, size=(min(step, samples - start), clips))
        for parts, (counts, units) in zip(rates, counted, strict=True):
            parts.append(counts[drawn].sum(axis=1) / np.maximum(1, units[drawn].sum(axis=1)))
    return [np.concatenate(parts) for parts in rates]


def _count_measure(system: Sequence[ErrorCounts], measure: Measure) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is counted in each clip and out of how many: errors of reference units, or 1 for an exact clip of one clip."""
    if measure == "exact":
        return np.array([clip.exact for clip in system], dtype=np.int64), np.ones(len(system), dtype=np.int64)
    edits: list[Edits] = [getattr(clip, measure) for clip in system]
    return np.array([one.errors for one in edits]), np.array([one.reference for one in edits])


def _percentiles(values: NDArray[np.float64]) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))
