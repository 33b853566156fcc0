"""Two evaluations of the same clips, compared pair by pair."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.errors import UsageError
from dinle.markdown import format_alignment, format_percent, format_table
from dinle.measure.plots import plot_changes
from dinle.measure.predictions import PREDICTIONS_FILE, read_predictions
from dinle.measure.report import MAIN, name_system
from dinle.measure.scores import MEASURES, SCORES_FILE, count_predictions
from dinle.measure.wer import paired_bootstrap, pool
from dinle.run import write_run
from dinle.text import NORMALIZERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dinle.measure.config import CompareConfig
    from dinle.measure.predictions import Prediction
    from dinle.measure.wer import ErrorCounts

COMPARISON_FILE = "comparison.json"
CHANGES_SHOWN = 10
_EXPLANATION = (
    "{clips} clips, the same for both. Below zero the candidate is better; of `exact`, the share of clips without an error, "
    "above zero. The interval is a paired percentile bootstrap over clips ({samples} resamples); a difference counts as sure "
    "when its interval does not hold zero."
)
_CHANGES = "Word errors fell in {better} clips, rose in {worse} and stayed in {same} (text `{text}`)."
_NAMED = 3  # clips that an error message names
_LABELS = {"wer": "WER", "cer": "CER", "exact": "exact"}


def compare(config: CompareConfig) -> Path:
    """Compare two evaluations of the same clips.

    Returns:
        The folder with ``comparison.json``, ``report.md``, ``changes.png`` and, last, ``run.json``.

    Raises:
        ManifestError: a folder holds no predictions.
        UsageError: the evaluations are of different clips, or of different references.
    """
    started = time.monotonic()
    baseline, candidate = read_predictions(config.baseline), read_predictions(config.candidate)
    candidate = match_clips(baseline, candidate)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    (config.output_dir / "run.json").unlink(missing_ok=True)
    before, after = count_predictions(baseline, MAIN), count_predictions(candidate, MAIN)
    comparison: dict[str, Any] = {
        "baseline": _name_folder(config.baseline),
        "candidate": _name_folder(config.candidate),
        "clips": len(baseline),
        "intervals": {"samples": config.bootstrap_samples, "seed": config.seed},
        "differences": {
            name: _compare_counts(count_predictions(baseline, name), count_predictions(candidate, name), config)
            for name in NORMALIZERS
        },
        "clips_changed": _count_changes(before, after),
    }
    path = config.output_dir / COMPARISON_FILE
    path.write_text(json.dumps(comparison, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    plot_changes(
        config.output_dir / "changes.png",
        [two.words.errors - one.words.errors for one, two in zip(before, after, strict=True)],
        title=f"{comparison['candidate']} against {comparison['baseline']}: clips by change",
    )
    (config.output_dir / "report.md").write_text(format_comparison(comparison, before, after), encoding="utf-8")
    write_run(
        config.output_dir,
        stage="compare",
        config=config,
        seconds=time.monotonic() - started,
        inputs={
            name: _find_file(folder)
            for name, folder in (("baseline", config.baseline), ("candidate", config.candidate))
        },
        results=comparison["differences"][MAIN],
    )
    return config.output_dir


def match_clips(baseline: Sequence[Prediction], candidate: Sequence[Prediction]) -> list[Prediction]:
    """The candidate's predictions in the baseline's order.

    Raises:
        UsageError: the clips or their references differ.
    """
    wanted, got = {one.id: one for one in baseline}, {one.id: one for one in candidate}
    lacking, extra = [name for name in wanted if name not in got], [name for name in got if name not in wanted]
    if lacking or extra:
        raise UsageError(
            f"the evaluations are of different clips ({len(baseline)} and {len(candidate)}): the candidate lacks "
            f"{_name_some(lacking)} and has besides {_name_some(extra)}; evaluate both on the same manifest and split"
        )
    changed = [name for name in wanted if wanted[name].reference != got[name].reference]
    if changed:
        raise UsageError(
            f"{len(changed)} clips have other references in the candidate ({_name_some(changed)}); "
            "evaluate both on the same manifest"
        )
    return [got[one.id] for one in baseline]


def format_comparison(
    comparison: Mapping[str, Any], before: Sequence[ErrorCounts], after: Sequence[ErrorCounts]
) -> str:
    """A comparison as Markdown; counts are in the normalisation of the reports, clip by clip in the same order."""
    pairs = sorted(zip(before, after, strict=True), key=lambda pair: pair[1].words.errors - pair[0].words.errors)
    better = [pair for pair in pairs if pair[1].words.errors < pair[0].words.errors]
    worse = [pair for pair in reversed(pairs) if pair[1].words.errors > pair[0].words.errors]
    sections = [
        f"# {comparison['candidate']} against {comparison['baseline']}",
        _EXPLANATION.format(clips=comparison["clips"], samples=comparison["intervals"]["samples"]),
        format_table(
            ("text", "rate", "baseline", "candidate", "difference [95 %]", "verdict"), _list_differences(comparison)
        ),
        _CHANGES.format(**comparison["clips_changed"], text=MAIN),
        "![clips by change of word errors](changes.png)",
        *_format_pairs("Most improved clips", better),
        *_format_pairs("Most worsened clips", worse),
    ]
    return "\n\n".join(sections) + "\n"


def render_comparison(comparison: Mapping[str, Any]) -> Table:
    """The differences of ``comparison.json`` as a table for the terminal."""
    title = f"{comparison['candidate']} against {comparison['baseline']}: {comparison['clips']} clips"
    table = Table(
        "text", "rate", "baseline", "candidate", "difference [95 %]", "verdict", title=title, title_justify="left"
    )
    for row in _list_differences(comparison):
        table.add_row(*row)
    return table


def _compare_counts(
    before: Sequence[ErrorCounts], after: Sequence[ErrorCounts], config: CompareConfig
) -> dict[str, dict[str, Any]]:
    differences = {}
    for name, measure in MEASURES:
        result = paired_bootstrap(before, after, measure=measure, samples=config.bootstrap_samples, seed=config.seed)
        differences[name] = {
            "baseline": round(pool(before).read(measure), 6),
            "candidate": round(pool(after).read(measure), 6),
            "difference": round(result.difference, 6),
            "interval": [round(bound, 6) for bound in result.interval.to_list()],
            "share_better": result.share_better,
            "significant": result.significant,
        }
    return differences


def _list_differences(comparison: Mapping[str, Any]) -> list[list[str]]:
    def points(share: float) -> str:
        return f"{round(100 * share, 2) + 0.0:+.2f}"  # no -0.00

    rows = []
    for text, rates in comparison["differences"].items():
        for rate, result in rates.items():
            low, high = result["interval"]
            direction = "better" if (result["difference"] < 0) != (rate == "exact") else "worse"
            rows.append([
                text,
                _LABELS[rate],
                format_percent(result["baseline"]),
                format_percent(result["candidate"]),
                f"{points(result['difference'])} points [{points(low)}, {points(high)}]",
                direction if result["significant"] else "no sure difference",
            ])  # fmt: skip
    return rows


def _count_changes(before: Sequence[ErrorCounts], after: Sequence[ErrorCounts]) -> dict[str, int]:
    changes = [two.words.errors - one.words.errors for one, two in zip(before, after, strict=True)]
    return {
        "better": sum(change < 0 for change in changes),
        "same": sum(change == 0 for change in changes),
        "worse": sum(change > 0 for change in changes),
    }


def _format_pairs(title: str, pairs: Sequence[tuple[ErrorCounts, ErrorCounts]]) -> list[str]:
    parts = [f"## {title}"] if pairs else []
    for one, two in pairs[:CHANGES_SHOWN]:
        texts = (format_alignment(clip.alignment) for clip in (one, two))
        shown = "\n\n".join(f"{name}\n{text}" for name, text in zip(("baseline", "candidate"), texts, strict=True))
        parts.append(f"`{one.id}`: {one.words.errors} → {two.words.errors} errors\n\n```text\n{shown}\n```")
    return parts


def _find_file(folder: Path) -> Path:
    return folder / PREDICTIONS_FILE if folder.is_dir() else folder


def _name_folder(folder: Path) -> str:
    """The system's name from the scores beside the predictions, or else the folder's."""
    scores = _find_file(folder).with_name(SCORES_FILE)
    known = json.loads(scores.read_text(encoding="utf-8")) if scores.is_file() else {}
    return name_system(known) if "model" in known else _find_file(folder).resolve().parent.name


def _name_some(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
