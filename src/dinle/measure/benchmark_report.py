"""The benchmark as Markdown with plots, and as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.markdown import format_machine, format_percent, format_table
from dinle.measure.plots import plot_latency, plot_size_and_latency, plot_thread_latency

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HOW_MEASURED = """\
- Latency: wall time from the decoded waveform to the text, all backends loaded in one process and run in turns: each of the
  {runs} rounds runs every backend once, in an order drawn anew, after {warmup} untimed rounds and {pause_ms:.0f} ms of rest
  before each run (threads of the backend before spin for a while). RTFx: seconds of audio in a second, at the median.
- Speed-up: ratio of the medians to {baseline}'s; in brackets its 95 % interval, a percentile bootstrap over rounds.
- Size: the weights' files on disk, links followed; 1 MB is 10⁶ bytes. A checkpoint stored as fp16 runs in fp32.
- Load and peak memory: a fresh process for each backend. Load is from files (in the system's cache) to a model that is ready,
  without the import of its libraries; the peak is of the whole process: Python, libraries, weights and one transcription.
- Agreement: characters that differ from {baseline}'s text (CER of the raw texts)."""


def write_benchmark_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the Markdown report and its plots, ``<stem>_latency.png`` and ``<stem>_costs.png``.

    Args:
        path: the Markdown file.
        report: what the report's JSON holds.
    """
    conditions = report["conditions"]
    where = f"{conditions['clip_s']:.1f} s of speech, {_count_threads(conditions['threads'])}"
    latency, costs = (path.with_name(f"{path.stem}_{name}.png") for name in ("latency", "costs"))
    plot_latency(latency, report["backends"], title=f"Latency of {where}")
    plot_size_and_latency(costs, report["backends"], title=f"What a backend costs: {where}")
    sections = [
        "# Benchmark",
        f"{where} on {report['machine']['cpu']}.",
        format_table(_list_header(report), _list_rows(report)),
        f"![latency of each run]({latency.name})",
        f"![size, latency and memory]({costs.name})",
        *_format_precisions(path, report),
        "## Conditions",
        _format_conditions(report),
        _HOW_MEASURED.format(
            runs=conditions["runs"],
            warmup=conditions["warmup"],
            pause_ms=1000 * conditions["pause_s"],
            baseline=report["baseline"],
        ),
        "## Process start",
        _format_starts(report),
        "## Machine",
        format_machine(report["machine"]),
        "## Transcripts",
        format_table(("backend", "text"), [(one["label"], one["text"] or "(no words)") for one in report["backends"]]),
    ]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _format_precisions(path: Path, report: Mapping[str, Any]) -> list[str]:
    """The sections of ``--precisions``."""
    if "precisions" not in report:
        return []
    table, throughput = report["precisions"], report["throughput"]
    plot = path.with_name(f"{path.stem}_threads.png")
    labels = {one["backend"]: one["label"] for one in report["backends"]}
    plot_thread_latency(plot, table["latency"], labels, title="Latency by threads")
    ranking = [labels[name] for name in table["ranking"]]
    taken = (
        f"`backend=auto` takes **{ranking[0]}** on processors of this kind" if ranking else "No precision may be taken"
    )
    policies = [(each["name"], f"{each['median_s']:.2f} s", f"{each['rtfx']:.1f}") for each in throughput["policies"]]
    return [
        "## Precisions",
        format_table(*_list_precisions(report)),
        f"{taken} (`{table['cpu_kind']}`); in order of speed: {', '.join(ranking) or 'none'}. {_describe_quality(table)}",
        f"![latency by threads]({plot.name})",
        "## Throughput",
        (
            f"{throughput['clips']} clips of {report['conditions']['clip_s']:.1f} s with {labels[throughput['backend']]} on "
            f"{table['cores']} cores, {throughput['rounds']} rounds of each policy in turns; RTFx: seconds of sound in a second."
        ),
        format_table(("policy", "median", "RTFx"), policies),
    ]


def _list_precisions(report: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    table = report["precisions"]
    counts = [str(count) for count in table["thread_counts"]]
    header = ("precision", "size", *(_count_threads(int(count)) for count in counts), "peak memory")
    header += ("WER", "lost against fp32", "RTFx on the clips") if table["quality"] else ()
    rows = []
    for one in report["backends"]:
        name = one["backend"]
        row = [one["label"], f"{one['size_mb']:.1f} MB"]
        row += [f"{1000 * table['latency'][count][name]['median_s']:.0f} ms" for count in counts]
        row.append(f"{one['peak_memory_mb']:.0f} MB")
        quality = table["quality"].get(name)
        if quality:
            low, high = (100 * bound for bound in quality["wer_loss_interval"])
            row += [
                format_percent(quality["wer"]),
                f"{100 * quality['wer_loss']:+.2f} points [{low:+.2f}, {high:+.2f}]",
            ]
            row.append(f"{quality['rtfx']:.1f}")
        rows.append(row)
    return header, rows


def _describe_quality(table: Mapping[str, Any]) -> str:
    if not table["quality"]:
        return "No manifest was given: what a precision loses in WER was not measured."
    clips = next(iter(table["quality"].values()))["clips"]
    return (
        f"WER of normalised text on {clips} clips of `{table['manifest']}`, {100 * table['max_wer_loss']:.1f} points may be "
        "lost; brackets: 95 % interval, paired bootstrap over clips. RTFx on the clips counts decoding the files, and for "
        "OpenVINO the preparation for each new length."
    )


def render_benchmark(report: Mapping[str, Any]) -> Table:
    """The main table for the terminal."""
    conditions = report["conditions"]
    threads = _count_threads(conditions["threads"])
    title = f"{conditions['clip']}: {conditions['clip_s']:.1f} s, {threads}, {conditions['runs']} runs"
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(_list_header(report)):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in _list_rows(report):
        table.add_row(*row)
    return table


def _list_header(report: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "backend", "size", "load", "mean", "median", "p95", "RTFx", f"speed-up over {report['baseline']}", "peak memory",
        "text",
    )  # fmt: skip


def _list_rows(report: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for one in report["backends"]:
        low, high = one["speedup"]["interval"]
        is_baseline = one["label"] == report["baseline"]
        ratio = f"{one['speedup']['ratio']:.2f}x [{low:.2f}, {high:.2f}]"
        rows.append([
            one["label"],
            f"{one['size_mb']:.1f} MB ({one['stored_as']})",
            f"{one['load_s']:.2f} s",
            *(f"{1000 * one['latency'][name]:.1f} ms" for name in ("mean_s", "median_s", "p95_s")),
            f"{one['rtfx']:.1f}",
            "1 (baseline)" if is_baseline else ratio,
            f"{one['peak_memory_mb']:.0f} MB",
            "baseline" if is_baseline else "same" if one["same_text"] else f"{format_percent(one['cer_to_baseline'])} differ",
        ])  # fmt: skip
    return rows


def _format_conditions(report: Mapping[str, Any]) -> str:
    conditions = report["conditions"]
    rows = [
        ("clip", f"`{conditions['clip']}`, {conditions['clip_s']:.2f} s"),
        *(
            (one["label"], ", ".join(f"`{one['source']}/{file}`" for file in one["files"]))
            for one in report["backends"]
        ),
        ("runs", f"{conditions['runs']} after {conditions['warmup']} of warm-up"),
        ("threads", conditions["threads"]),
        (
            "other work",
            f"load average {conditions['load_average']:.1f} before the first run, {report['machine']['cores']} cores",
        ),
        ("commit", conditions["commit"] or "unknown: the source is not tracked by git"),
    ]
    return format_table(("condition", ""), rows)


def _format_starts(report: Mapping[str, Any]) -> str:
    rows = [
        (
            one["label"],
            f"{one['import_s']:.2f} s",
            f"{one['load_s']:.2f} s",
            f"{one['first_s']:.2f} s",
            f"{one['library_memory_mb']:.0f} MB",
            f"{one['peak_memory_mb']:.0f} MB",
        )
        for one in report["backends"]
    ]
    header = ("backend", "import", "load", "first transcription", "memory after import", "peak memory")
    return format_table(header, rows)


def _count_threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"
