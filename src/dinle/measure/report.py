"""``report.md`` of an evaluation and of a comparison, with their plots; the table that the command line prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.markdown import format_alignment, format_machine, format_percent, format_rate, format_table
from dinle.measure.plots import plot_clip_rates, plot_group_rates, plot_reliability
from dinle.measure.scores import count_predictions
from dinle.measure.speed import format_speed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dinle.measure.predictions import Prediction
    from dinle.measure.wer import ErrorCounts

# The normalisation of tables, plots and alignments; the headline figures are given in all.
MAIN = "tr"
HEADLINE = (
    "text",
    "WER [95 %]",
    "CER [95 %]",
    "exact [95 %]",
    "substituted",
    "inserted",
    "deleted",
    "reference words",
)
_EXPLANATION = (
    "Rates are pooled over clips; exact is the share of clips without an error; in brackets the 95 % interval ({method}, "
    "{samples} resamples). `raw` scores the texts as they are; `whisper-basic` after Whisper's basic normaliser, for comparison "
    "with published figures; `{text}` after Turkish normalisation of both sides. Everything below is in `{text}`. "
    "The intervals take clips as independent: with few speakers they are too narrow."
)
_ECE_EXPLANATION = (
    "The expected calibration error (ECE) is how far confidence and the share of right words lie apart, in ten bins of equal "
    "width, or of equally many words; 0 is perfect. Noise alone raises it where words are few."
)
_RULE_OF_THREE = 3  # upper 95 % bound of a share that did not occur in n draws: 3 / n
WORST_CLIPS = 10
RELIABILITY_PLOT = "reliability.png"
CONFUSIONS_SHOWN = 15
SPEAKERS_SHOWN = 30
FAILURES_SHOWN = 20


def write_evaluation_report(folder: Path, scores: Mapping[str, Any], predictions: Sequence[Prediction]) -> None:
    """Write ``report.md`` and its plots into an evaluation's folder.

    Args:
        folder: where to.
        scores: what ``scores.json`` holds.
        predictions: what it was computed from.
    """
    counts = count_predictions(predictions, MAIN)
    main = scores["scores"][MAIN]
    name = name_system(scores)
    plot_group_rates(
        folder / "wer_by_duration.png",
        main["by_duration"],
        whole=main["wer"]["rate"],
        title=f"{name}: WER by length of clip",
    )
    speakers = main["by_speaker"][-SPEAKERS_SHOWN:]
    of_all = (
        f" (the {SPEAKERS_SHOWN} worst of {len(main['by_speaker'])})" if len(speakers) < len(main["by_speaker"]) else ""
    )
    plot_group_rates(
        folder / "wer_by_speaker.png", speakers, whole=main["wer"]["rate"], title=f"{name}: WER by speaker{of_all}"
    )
    plot_clip_rates(
        folder / "wer_by_clip.png", [clip.words.rate for clip in counts], title=f"{name}: how much of a clip is wrong"
    )
    if scores.get("calibration"):
        plot_reliability(folder / RELIABILITY_PLOT, scores["calibration"], title=f"{name}: what confidence means")
    (folder / "report.md").write_text(format_evaluation(scores, predictions, counts), encoding="utf-8")


def format_evaluation(
    scores: Mapping[str, Any], predictions: Sequence[Prediction], counts: Sequence[ErrorCounts]
) -> str:
    """An evaluation as Markdown; ``counts`` are the predictions' in the normalisation :data:`MAIN`."""
    main = scores["scores"][MAIN]
    sections = [
        f"# Evaluation: {name_system(scores)}",
        _format_facts(scores),
        "## Error rates",
        _format_headline(scores),
        _EXPLANATION.format(**scores["intervals"], text=MAIN),
        *_format_warnings(scores),
        *([f"## Speed against {scores['peer']['name']}", format_speed(scores)] if scores.get("speed") else []),
        "## By length of clip",
        _format_groups("length", main["by_duration"]),
        "![WER by length of clip](wer_by_duration.png)",
        "## By speaker",
        _format_groups("speaker", main["by_speaker"][-SPEAKERS_SHOWN:]),
        "![WER by speaker](wer_by_speaker.png)",
        *format_calibration(scores.get("calibration")),
        "## Most frequent errors",
        _format_confusions(main["confusions"]),
        "## Clips",
        "![how much of a clip is wrong](wer_by_clip.png)",
        *_format_worst(counts),
        *_format_failures(predictions),
        *(["## Machine", format_machine(scores["machine"])] if "machine" in scores else []),
    ]
    return "\n\n".join(sections) + "\n"


def render_scores(scores: Mapping[str, Any]) -> Table:
    """The headline figures of ``scores.json`` as a table for the terminal."""
    failed = f", {scores['failed']} failed" if scores["failed"] else ""
    speed = f", RTFx {scores['rtfx']:.1f}" if scores["rtfx"] else ""
    table = Table(title=f"{name_system(scores)}: {scores['clips']} clips{failed}{speed}", title_justify="left")
    for name in ("text", "WER [95 %]", "CER [95 %]", "exact [95 %]", "sub", "ins", "del", "words"):
        table.add_column(name, justify="left" if name == "text" else "right")
    for row in list_headline(scores):
        table.add_row(*row)
    return table


def name_system(scores: Mapping[str, Any]) -> str:
    """Name and backend of what was measured, as far as known."""
    model = scores.get("model")
    return f"{model['name']} ({model['backend']})" if model else "predictions"


def list_headline(scores: Mapping[str, Any]) -> list[list[str]]:
    """The rows under :data:`HEADLINE`: one for each normalisation of ``scores.json``."""
    rows = []
    for name, score in scores["scores"].items():
        words = score["wer"]
        edits = [f"{words[key]}" for key in ("substitutions", "insertions", "deletions", "reference")]
        rows.append([name, *(format_rate(score[key]) for key in ("wer", "cer", "exact")), *edits])
    return rows


def _format_headline(scores: Mapping[str, Any]) -> str:
    return format_table(HEADLINE, list_headline(scores))


def _format_facts(scores: Mapping[str, Any]) -> str:
    rows: list[tuple[str, object]] = []
    if "model" in scores:
        model = scores["model"]
        rows += [
            ("model", f"{model['name']}, {model['backend']} ({model['precision']}), from `{model['source']}`"),
            ("weights", f"SHA-256 `{model['weights_sha256'][:16]}`"),
        ]
    if "data" in scores:
        rows.append(("data", _describe_data(scores["data"])))
    rows.append(("clips", f"{scores['clips']}, {scores['audio_s'] / 60:.1f} minutes, {scores['failed']} failed"))
    if scores["rtfx"]:
        threads = f", {scores['threads']} threads" if "threads" in scores else ""
        latency = scores["clip_latency"]
        each = f"a clip took {latency['median_s']:.3f} s in the median, {latency['mean_s']:.3f} s in the mean"
        rows.append(
            ("speed", f"RTFx {scores['rtfx']:.1f}: seconds of audio in a second, from file to text{threads}; {each}")
        )
    return format_table(("what", ""), rows)


def _describe_data(data: Mapping[str, Any]) -> str:
    parts = [f"`{data['manifest']}`"]
    if data.get("dataset"):
        named = ", ".join(f"`{data[key]}`" for key in ("dataset", "dataset_config") if data[key])
        dropped = ", ".join(f"{count} {reason}" for reason, count in data["dropped"].items())
        parts = [named, f"left out: {dropped or 'no clip'}"]
    if data["split"]:
        parts.insert(1, f"split {data['split']}")
    return ", ".join(parts)


def _format_warnings(scores: Mapping[str, Any]) -> list[str]:
    lines = []
    if scores["clips"] == 1:
        lines.append("One clip only: the intervals have no width and say nothing about other clips.")
    elif scores["scores"][MAIN]["exact"]["rate"] in (0.0, 1.0):
        # Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 1983.
        kind, clips = ("Every" if scores["scores"][MAIN]["exact"]["rate"] else "No"), scores["clips"]
        lines.append(
            f"{kind} clip is exact, so resampling cannot widen that interval; the rule of three puts the exceptions of other "
            f"clips below {format_percent(min(1.0, _RULE_OF_THREE / clips))}."
        )
    if not scores["scores"][MAIN]["wer"]["reference"]:
        lines.append("No clip has a reference with words: the rates are numbers of inserted words and characters.")
    if scores["failed"]:
        lines.append(f"{scores['failed']} clips failed and count as empty hypotheses; they are listed at the end.")
    return lines


def _format_groups(name: str, groups: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            group["group"],
            group["clips"],
            f"{group['audio_s'] / 60:.1f}",
            group["wer"]["reference"],
            format_rate(group["wer"]),
            format_rate(group["cer"]),
            format_rate(group["exact"]),
        )
        for group in groups
    ]
    return format_table((name, "clips", "minutes", "words", "WER [95 %]", "CER [95 %]", "exact [95 %]"), rows)


def format_calibration(calibration: Mapping[str, Any] | None) -> list[str]:
    """The section on confidence; nothing where no confidences are known."""
    if not calibration:
        return []
    rows = [
        (
            calibration["words"],
            format_percent(calibration["confidence"]),
            format_percent(calibration["accuracy"]),
            format_rate(calibration["ece"]),
            format_rate(calibration["ece_adaptive"]),
        )
    ]
    return [
        "## Confidence",
        format_table(("words", "mean confidence", "right", "ECE [95 %]", "ECE, adaptive bins [95 %]"), rows),
        _ECE_EXPLANATION,
        f"![what confidence means]({RELIABILITY_PLOT})",
    ]


def _format_confusions(confusions: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    columns = [
        [f"{one['reference']} → {one['hypothesis']} ({one['count']})" for one in confusions["substitutions"]],
        [f"{one['hypothesis']} ({one['count']})" for one in confusions["insertions"]],
        [f"{one['reference']} ({one['count']})" for one in confusions["deletions"]],
    ]
    height = min(CONFUSIONS_SHOWN, max(map(len, columns)))
    if not height:
        return "None."
    rows = [[column[row] if row < len(column) else "" for column in columns] for row in range(height)]
    return format_table(("substituted (times)", "inserted (times)", "deleted (times)"), rows)


def _format_worst(counts: Sequence[ErrorCounts]) -> list[str]:
    worst = sorted(
        (clip for clip in counts if not clip.exact), key=lambda clip: (-clip.words.errors, -clip.words.rate, clip.id)
    )
    if not worst:
        return ["Every clip is right."]
    parts = [f"### The {min(WORST_CLIPS, len(worst))} clips with the most word errors"]
    for clip in worst[:WORST_CLIPS]:
        title = f"`{clip.id}`: {clip.words.errors} errors, {clip.words.reference} words"
        parts.append(f"{title}\n\n```text\n{format_alignment(clip.alignment)}\n```")
    return parts


def _format_failures(predictions: Sequence[Prediction]) -> list[str]:
    failed = [one for one in predictions if one.error is not None]
    if not failed:
        return []
    rows = [(one.id, one.error) for one in failed[:FAILURES_SHOWN]]
    more = [f"and {len(failed) - FAILURES_SHOWN} more in predictions.jsonl"] if len(failed) > FAILURES_SHOWN else []
    return ["## Failed clips", format_table(("clip", "error"), rows), *more]
