"""What is in the data, written as Markdown, JSON and plots."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dinle.build.data_plots import plot_characters, plot_histogram
from dinle.build.data_summary import DataSummary, sort_splits
from dinle.lint import lint_labels
from dinle.manifest import MANIFEST_NAME, iterate_lines
from dinle.markdown import clean_cell, format_table

if TYPE_CHECKING:
    from pathlib import Path


def write_report(folder: Path, summary: DataSummary) -> dict[str, Any]:
    """Write ``report.md``, ``data.json`` and the plots; return what ``data.json`` holds but the long lists.

    The labels are checked as they stand in the manifest, which must already be there.
    """
    lines = iterate_lines(folder / MANIFEST_NAME)
    lint = lint_labels((f"{MANIFEST_NAME}:{number}", fields["text"]) for number, fields in lines)
    splits = sort_splits(summary.clips)
    plot_histogram(
        folder / "durations.png",
        {split: summary.durations_s[split] for split in splits},
        title=f"{summary.name}: length of clips",
        unit="seconds",
    )
    plot_histogram(
        folder / "speech_rate.png",
        {split: summary.chars_per_s[split] for split in splits},
        title=f"{summary.name}: speed of speech (normalised text)",
        unit="characters per second",
    )
    plot_characters(
        folder / "characters.png", summary.characters, title=f"{summary.name}: letters of the normalised text"
    )
    data = summary.to_dict()
    data["labels"] = lint.to_dict()
    (folder / "data.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(format_report(data, lint.to_markdown()), encoding="utf-8")
    return {key: data[key] for key in ("source", "clips_taken", "splits", "dropped", "shared_texts", "shared_audio")}


def format_report(data: dict[str, Any], labels: str) -> str:
    """The report as Markdown, from what ``data.json`` holds and the linter's own page about the labels."""
    kept = sum(split["clips"] for split in data["splits"].values())
    hours = sum(split["hours"] for split in data["splits"].values())
    sections = [
        f"# Data report: {data['source']}",
        f"{kept} of {data['clips_taken']} clips kept, {_format_hours(hours)}.",
        _format_splits(data["splits"]),
        "![length of clips](durations.png)",
        "![speed of speech](speech_rate.png)",
        "![letters](characters.png)",
        "## Dropped",
        _format_dropped(data),
        "## Shared between splits",
        _format_shared(data),
        "## Labels",
        labels,
        "## Sources and licences",
        format_table(
            ("source", "licence", "clips", "length"),
            [(row["source"], row["licence"], row["clips"], _format_hours(row["hours"])) for row in data["licences"]],
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _format_hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _format_splits(splits: dict[str, Any]) -> str:
    header = ("split", "clips", "length", "speakers", "words", "shortest", "median", "longest", "dropped")
    rows = [
        (
            name,
            split["clips"],
            _format_hours(split["hours"]),
            _format_speakers(split),
            split["words"],
            *(f"{split[key]:.1f} s" for key in ("shortest_s", "median_s", "longest_s")),
            split["dropped"],
        )
        for name, split in splits.items()
    ]
    return format_table(header, rows)


def _format_speakers(split: dict[str, Any]) -> str:
    unnamed = split["clips_without_speaker"]
    if unnamed == split["clips"]:
        return "not stated"
    return f"{split['speakers']} ({unnamed} clips without)" if unnamed else str(split["speakers"])


def _format_dropped(data: dict[str, Any]) -> str:
    if not data["dropped"]:
        return "Nothing was dropped."
    rows = [
        (reason, count, f"{count / data['clips_taken']:.1%}", _format_examples(data["dropped_examples"][reason]))
        for reason, count in sorted(data["dropped"].items(), key=lambda item: -item[1])
    ]
    return f"{format_table(('why', 'clips', 'share', 'such as'), rows)}\n\nEach one is named in `dropped.jsonl`."


def _format_examples(examples: list[list[str]]) -> str:
    return "; ".join(f"`{name}` ({detail})" for name, detail in examples)


def _format_shared(data: dict[str, Any]) -> str:
    """Sharing that makes scores too good comes with examples."""
    lines = []
    for what, counts, examples in (
        ("text", data["shared_texts"], data["shared_texts_examples"]),
        ("audio (the same samples)", data["shared_audio"], data["shared_audio_examples"]),
    ):
        found = [f"- {what} in {pair}: {count}" for pair, count in counts.items()]
        lines += found or [f"- {what}: none"]
        lines += [f"  - such as: {'; '.join(clean_cell(example) for example in examples[:5])}"] if found else []
    speakers = data["shared_speakers"]
    lines.append(f"- speakers: {len(speakers)} ({', '.join(speakers[:5])})" if speakers else "- speakers: none")
    lines.append(f"- audio repeated within a split: {data['repeated_audio']}")
    if data["shared_texts"] or data["shared_audio"]:
        lines.append("\nScores on a split that shares clips with the training split are too good.")
    return "\n".join(lines)
