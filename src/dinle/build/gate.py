"""The quality gate: what a smaller precision costs in WER and CER, against fp32 on the same clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dinle.manifest import read_manifest
from dinle.measure.wer import CONFIDENCE, ErrorCounts, Interval, PooledCounts, count_errors, paired_bootstrap, pool
from dinle.progress import track
from dinle.recognize.load import make_recognizer, open_graphs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dinle.manifest import Clip
    from dinle.recognize.bundle import Bundle

NORMALIZER = "tr"


@dataclass(frozen=True)
class Verdict:
    """fp32 and a smaller precision on the same clips, pooled, and the interval of what is lost in WER (positive: worse).

    The gate refuses when the pooled loss is above ``max_wer_loss``; the interval does not decide. It is a paired bootstrap
    over clips and says how much of the loss hangs on which clips happened to be in the manifest: int8 wins or loses a
    handful of words by chance, and on fifty short clips a handful is more than a point. The bundled model's int8 lost 1.5
    points (0.0 to 3.4) on 50 clips and 0.0 (-0.8 to 0.8) on 371. A refusal whose interval reaches down to zero therefore
    asks for more clips, or for a limit that fits so few; a pass whose interval reaches above the limit is no proof either.
    """

    fp32: PooledCounts
    smaller: PooledCounts
    interval: Interval
    max_wer_loss: float
    precision: str = "int8"

    @property
    def wer_loss(self) -> float:
        """Pooled WER of the smaller precision minus that of fp32."""
        return self.smaller.wer - self.fp32.wer

    @property
    def refused(self) -> bool:
        """Whether more is lost than allowed."""
        return self.wer_loss > self.max_wer_loss

    @property
    def inconclusive(self) -> bool:
        """Whether the interval holds the limit, so that other clips could turn the verdict."""
        return self.interval.low <= self.max_wer_loss < self.interval.high

    def describe(self) -> str:
        """The figures in words, in points of WER (hundredths)."""
        text = (
            f"{self.precision} loses {100 * self.wer_loss:.2f} points of WER on {self.fp32.clips} clips "
            f"({100 * CONFIDENCE:.0f} % interval {100 * self.interval.low:.2f} to {100 * self.interval.high:.2f}; "
            f"{100 * self.fp32.wer:.2f} -> {100 * self.smaller.wer:.2f} %), allowed are {100 * self.max_wer_loss:.2f}"
        )
        return f"{text}; these clips are too few to tell" if self.inconclusive else text

    def to_dict(self) -> dict[str, Any]:
        """For ``bundle.json``: status, the figures, and for a refusal its reason; rates are shares (0.1 is 10 %)."""
        verdict: dict[str, Any] = {"status": "refused" if self.refused else "passed"}
        if self.refused:
            verdict["reason"] = self.describe()
        return verdict | {
            "normalizer": NORMALIZER,
            "clips": self.fp32.clips,
            "max_wer_loss": self.max_wer_loss,
            "wer_loss": round(self.wer_loss, 6),
            "inconclusive": self.inconclusive,
            "wer_loss_interval": [round(bound, 6) for bound in self.interval.to_list()],
            "wer": {"fp32": round(self.fp32.wer, 6), self.precision: round(self.smaller.wer, 6)},
            "cer": {"fp32": round(self.fp32.cer, 6), self.precision: round(self.smaller.cer, 6)},
        }


def judge(
    bundle: Bundle,
    graphs: Sequence[Path],
    manifest: Path,
    *,
    precision: str = "int8",
    split: str | None,
    max_wer_loss: float,
    threads: int | None = None,
) -> Verdict:
    """Transcribe a manifest with the bundle's fp32 graphs and with others, and compare.

    Args:
        bundle: geometry, vocabulary and the fp32 graphs.
        graphs: the graphs to judge.
        manifest: clips with references.
        precision: what they are.
        split: only this split of it (``None``: all).
        max_wer_loss: allowed absolute loss of WER.
        threads: threads of the engines (default: all cores).

    Raises:
        ManifestError, AudioError: from the manifest and its clips.
    """
    clips = read_manifest(manifest, split=split)
    fp32, smaller = (_transcribe_and_count(bundle, each, clips, threads) for each in (bundle.paths("fp32"), graphs))
    return Verdict(pool(fp32), pool(smaller), paired_bootstrap(fp32, smaller).interval, max_wer_loss, precision)


def _transcribe_and_count(
    bundle: Bundle, graphs: Sequence[Path], clips: Sequence[Clip], threads: int | None
) -> list[ErrorCounts]:
    recognizer = make_recognizer(open_graphs(bundle, graphs, threads), bundle, bundle.name)
    label = f"judging {', '.join(graph.name for graph in graphs)}"
    texts = [recognizer.transcribe(clip.audio).text for clip in track(clips, label)]
    return count_errors(
        [clip.text for clip in clips], texts, [str(clip.audio) for clip in clips], normalizer=NORMALIZER
    )
