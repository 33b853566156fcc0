"""The plots of the reports, in one style. Figures are made without pyplot: no global state, no display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from dinle.markdown import format_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

WIDTH_INCHES = 8.0
DOTS_PER_INCH = 150
PALETTE_SIZE = 128
# Okabe and Ito's colours, which stay apart for colour-blind eyes: https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
VERMILION, SKY, YELLOW = "#D55E00", "#56B4E9", "#F0E442"
GREY, DARK = "#BBBBBB", "#333333"
COLOURS = {
    "pytorch": ORANGE, "onnx": BLUE, "onnx_int8": GREEN, "onnx_int4": PURPLE, "openvino": VERMILION, "openvino-nncf": SKY,
    "ort-dynamic": YELLOW,
}  # fmt: skip
# Upper edges of the classes of clips by their WER; the last class is above 100 %.
CLIP_EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
MOST_CHANGE = 6  # word errors; larger changes are counted with this one


def plot_group_rates(path: Path, groups: Sequence[Mapping[str, Any]], *, title: str, whole: float) -> None:
    """WER of groups of clips: a dot each, a line for its 95 % interval, the whole set as a dashed line.

    Args:
        path: PNG to write.
        groups: entries of ``by_duration`` or ``by_speaker`` in ``scores.json``, the first on top.
        title: what the plot shows.
        whole: WER of all clips together.
    """
    figure, axes = _make_figure(title, height=1.3 + 0.32 * max(3, len(groups)))
    rates = np.array([group["wer"]["rate"] for group in groups])
    low, high = np.array([group["wer"]["interval"] for group in groups]).T
    rows = np.arange(len(groups))
    axes.hlines(rows, low, high, color=BLUE, alpha=0.4, linewidth=5)
    axes.plot(rates, rows, "o", color=BLUE, markersize=6)
    axes.axvline(whole, color=DARK, linestyle="--", linewidth=1)
    axes.annotate(
        f"all clips {format_percent(whole)}", (whole, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
        textcoords="offset points", va="top", fontsize="small", color=DARK,
    )  # fmt: skip
    axes.set_yticks(rows, [f"{group['group']}  (n={group['clips']})" for group in groups])
    axes.set_ylim(len(groups) - 0.4, -1.1)
    axes.set_xlim(left=0, right=1.06 * max(*high.tolist(), whole, 0.01))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    axes.set_xlabel("word error rate, with its 95 % interval; n: clips")
    axes.grid(axis="x", color="0.9")
    save_figure(figure, path)


def plot_clip_rates(path: Path, rates: Sequence[float], *, title: str) -> None:
    """How many clips have how much wrong: bars of the clips' own WER in classes.

    Args:
        path: PNG to write.
        rates: WER of each clip.
        title: what the plot shows.
    """
    classes = np.searchsorted(np.array(CLIP_EDGES), np.asarray(rates))
    counts = np.bincount(classes, minlength=len(CLIP_EDGES) + 1)
    names = ["no error", *(f"to {format_percent(edge, 0)}" for edge in CLIP_EDGES[1:]), "above"]
    figure, axes = _make_figure(title)
    bars = axes.bar(names, counts, color=[GREEN, *[BLUE] * (len(CLIP_EDGES) - 1), ORANGE], width=0.75)
    axes.bar_label(
        bars, [format_percent(count / max(1, len(rates)), 0) for count in counts], padding=2, fontsize="small"
    )
    axes.margins(y=0.1)
    axes.set_xlabel("word error rate of the clip")
    axes.set_ylabel(f"clips (n={len(rates)})")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    save_figure(figure, path)


def plot_reliability(path: Path, calibration: Mapping[str, Any], *, title: str) -> None:
    """The reliability diagram: the share of right words over their confidence, a dot a bin, its size by words.

    Args:
        path: PNG to write.
        calibration: ``calibration`` of ``scores.json``.
        title: what the plot shows.
    """
    bins = calibration["bins"]
    confidence, accuracy, words = (np.array([one[key] for one in bins]) for key in ("confidence", "accuracy", "words"))
    figure, axes = _make_figure(title, height=5.0)
    axes.plot([0, 1], [0, 1], color=DARK, linestyle="--", linewidth=1)
    axes.vlines(
        confidence, np.minimum(confidence, accuracy), np.maximum(confidence, accuracy), color=ORANGE, linewidth=2
    )
    axes.scatter(confidence, accuracy, s=30 + 500 * words / words.sum(), color=BLUE, zorder=3)
    for at, share, count in zip(confidence, accuracy, words, strict=True):
        axes.annotate(
            f"{count}", (at, share), xytext=(9, -10), textcoords="offset points", fontsize="small", color=DARK
        )
    axes.annotate("confidence means what it says", (0.14, 0.05), fontsize="small", color=DARK)
    axes.set_xlim(0, 1.05)
    axes.set_ylim(-0.03, 1.05)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel(f"mean confidence of a bin (numbers: words, n={calibration['words']}; orange: the error)")
    axes.set_ylabel("share of words that are right")
    axes.grid(color="0.9")
    save_figure(figure, path)


def plot_changes(path: Path, changes: Sequence[int], *, title: str) -> None:
    """How many clips got better or worse, and by how many word errors.

    Args:
        path: PNG to write.
        changes: the candidate's word errors less the baseline's, one a clip.
        title: what the plot shows.
    """
    most = min(MOST_CHANGE, max([2, *map(abs, changes)]))
    steps = np.arange(-most, most + 1)
    clipped = np.clip(np.asarray(changes, dtype=int), -most, most)
    counts = np.array([np.count_nonzero(clipped == step) for step in steps])
    figure, axes = _make_figure(title)
    colours = [BLUE if step < 0 else ORANGE if step > 0 else GREY for step in steps]
    bars = axes.bar(steps, counts, color=colours, width=0.8)
    axes.bar_label(bars, [str(count) if count else "" for count in counts], padding=2, fontsize="small")
    names = [f"{step:+d}" if step else "same" for step in steps]
    if most == MOST_CHANGE:
        names[0], names[-1] = f"{names[0]} or less", f"{names[-1]} or more"
    axes.set_xticks(steps, names, fontsize="small")
    axes.margins(y=0.1)
    axes.set_xlabel("change of word errors in a clip (blue: the candidate is better)")
    axes.set_ylabel(f"clips (n={len(changes)})")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    save_figure(figure, path)


def plot_latency(path: Path, backends: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Every timed run of each backend as a dot over a box from the first to the third quartile, the median named.

    Args:
        path: PNG to write.
        backends: entries of ``backends`` in the benchmark's JSON, the first on top.
        title: what the plot shows.
    """
    figure, axes = _make_figure(title, height=1.4 + 0.7 * max(2, len(backends)))
    generator = np.random.default_rng(0)  # only moves dots apart
    for row, backend in enumerate(backends):
        samples_ms = 1000 * np.array(backend["samples_s"])
        colour = COLOURS[backend["backend"]]
        axes.boxplot(
            samples_ms, positions=[row], orientation="horizontal", widths=0.45, showfliers=False, patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.25, "edgecolor": colour}, medianprops={"color": colour, "linewidth": 2},
            whiskerprops={"color": colour}, capprops={"color": colour}, manage_ticks=False,
        )  # fmt: skip
        spread = generator.uniform(-0.16, 0.16, size=len(samples_ms))
        axes.plot(samples_ms, row + spread, "o", color=colour, markersize=3.5, alpha=0.8, markeredgewidth=0)
        axes.annotate(
            f"median {_format_number(float(np.median(samples_ms)))} ms", (float(samples_ms.max()), row), xytext=(8, 0),
            textcoords="offset points", va="center", fontsize="small", color=DARK,
        )  # fmt: skip
    axes.set_yticks(range(len(backends)), [f"{one['label']}\n(n={len(one['samples_s'])})" for one in backends])
    axes.set_ylim(len(backends) - 0.5, -0.5)
    axes.set_xlim(0, 1.22 * 1000 * max(max(backend["samples_s"]) for backend in backends))
    axes.set_xlabel("milliseconds from waveform to text (a dot is one run; the box holds the middle half)")
    axes.grid(axis="x", color="0.9")
    save_figure(figure, path)


def plot_size_and_latency(path: Path, backends: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """What a backend costs on disk, in time and in memory: three panels of bars, one bar a backend.

    Args:
        path: PNG to write.
        backends: entries of ``backends`` in the benchmark's JSON, the first on top.
        title: what the plot shows.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 1.3 + 0.45 * max(2, len(backends))), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold")
    panels = (
        ("weights on disk, MB", [backend["size_mb"] for backend in backends]),
        ("median latency, ms", [1000 * backend["latency"]["median_s"] for backend in backends]),
        ("peak memory of a process, MB", [backend["peak_memory_mb"] for backend in backends]),
    )
    labels = [backend["label"] for backend in backends]
    for axes, (name, values) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        style_axes(axes)
        bars = axes.barh(labels, values, color=[COLOURS[backend["backend"]] for backend in backends], height=0.65)
        axes.bar_label(bars, [_format_number(value) for value in values], padding=3, fontsize="small")
        axes.set_xlim(0, 1.25 * max(values))
        axes.set_xlabel(name, fontsize="small")
        axes.tick_params(axis="x", labelsize="small")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x", color="0.9")
        axes.set_ylim(len(backends) - 0.5, -0.5)
    save_figure(figure, path)


def plot_thread_latency(
    path: Path, latency: Mapping[str, Mapping[str, Mapping[str, float]]], labels: Mapping[str, str], *, title: str
) -> None:
    """Median latency of each backend by the number of threads: a group of bars for each backend.

    Args:
        path: PNG to write.
        latency: ``latency`` of the benchmark's ``precisions``: threads to backend to figures.
        labels: backend to what it is called, the first on top.
        title: what the plot shows.
    """
    counts = sorted(latency, key=int)
    figure, axes = _make_figure(title, height=1.3 + 0.3 * len(labels) * len(counts))
    height = 0.8 / len(counts)
    for row, count in enumerate(counts):
        medians = [1000 * latency[count][name]["median_s"] for name in labels]
        places = np.arange(len(labels)) + (row - (len(counts) - 1) / 2) * height
        shade = 0.45 + 0.55 * (row + 1) / len(counts)
        bars = axes.barh(places, medians, height=0.9 * height, color=[COLOURS[name] for name in labels], alpha=shade)
        threads = f"{count} thread{'s' if int(count) > 1 else ''}"
        axes.bar_label(bars, [f"{_format_number(one)} ms, {threads}" for one in medians], padding=3, fontsize="small")
    axes.set_yticks(np.arange(len(labels)), list(labels.values()))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.2)
    axes.set_xlabel("milliseconds from waveform to text, median")
    axes.grid(axis="x", color="0.9")
    save_figure(figure, path)


def _format_number(value: float) -> str:
    """Three digits, and more only before the decimal point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - the first number of three digits


def _make_figure(title: str, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    style_axes(axes)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """No frame at the top and the right, the grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG of few colours: a third of the bytes, and no difference to the eye."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DOTS_PER_INCH, format="png")
    with Image.open(drawn) as image:
        small = image.convert("RGB").quantize(PALETTE_SIZE, dither=Image.Dither.NONE)
    small.save(path, optimize=True, dpi=(DOTS_PER_INCH, DOTS_PER_INCH))
