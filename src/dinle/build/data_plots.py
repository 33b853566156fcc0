"""The plots of the data report. Figures are made without pyplot: no global state, no display."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dinle.text import ALPHABET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

SIZE_INCHES = (8.0, 4.0)
DOTS_PER_INCH = 150
BINS = 40
# Okabe and Ito's colours, which stay apart for colour-blind eyes: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def plot_histogram(path: Path, values: Mapping[str, Sequence[float]], *, title: str, unit: str) -> None:
    """Stacked histogram of a quantity, one colour a split.

    Args:
        path: PNG to write.
        values: split to its clips' values, in ``unit``.
        title: what the plot shows.
        unit: of the horizontal axis.
    """
    figure, axes = _make_figure(title)
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(split) for split in values.values()]), bins=BINS)
    bottom = np.zeros(BINS)
    for (split, numbers), colour in zip(values.items(), _cycle_colours(len(values)), strict=True):
        counts, _ = np.histogram(numbers, edges)
        label = f"{split}: {len(numbers)} clips, median {np.median(numbers):.1f}"
        axes.bar(
            edges[:-1],
            counts,
            np.diff(edges),
            bottom,
            align="edge",
            color=colour,
            label=label,
            edgecolor="white",
            lw=0.4,
        )
        bottom += counts
    axes.set_xlabel(unit)
    axes.set_ylabel("clips")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(edgecolor="none", framealpha=1.0)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def plot_characters(path: Path, counts: Mapping[str, int], *, title: str) -> None:
    """Bars of the share of each letter of the alphabet, rare ones with their count.

    Args:
        path: PNG to write.
        counts: character to how often it occurs; the space is left out.
        title: what the plot shows.
    """
    figure, axes = _make_figure(title)
    letters = [*ALPHABET, *sorted(set(counts) - set(ALPHABET) - {" "})]
    numbers = np.array([counts.get(letter, 0) for letter in letters], dtype=float)
    shares = numbers / max(1.0, numbers.sum())
    bars = axes.bar(letters, shares, color=COLOURS[0], width=0.75)
    for bar, number in zip(bars, numbers, strict=True):
        if number < 10:  # noqa: PLR2004 - too few to learn from, and too low to see
            axes.annotate(
                f"{number:.0f}", (bar.get_x() + bar.get_width() / 2, bar.get_height()), ha="center", va="bottom"
            )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("letter (numbers: occurrences of letters that occur fewer than 10 times)")
    axes.set_ylabel("share of letters")
    axes.margins(x=0.01)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _make_figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    return figure, axes


def _cycle_colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
