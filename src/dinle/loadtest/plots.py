"""The plots of the capacity report, in the style of :mod:`dinle.measure.plots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from dinle.measure.plots import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH_INCHES,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)  # of models, in their order
SHOWN_TARGETS = 3
_SMALL = "small"


def plot_card(path: Path, models: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """The card as bars: users per core by the length of their clips, and live streams per core, a colour a model.

    Args:
        path: PNG to write.
        models: of the report.
        title: what the plot shows.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.4))
    lengths = [one["length_s"] for one in models[0]["lengths"]]
    _draw_bars(
        left, models, [f"{length_s:g} s" for length_s in lengths],
        [[one["users_per_core"] for one in model["lengths"]] for model in models],
    )  # fmt: skip
    left.set_xlabel("length of the clips")
    left.set_ylabel("users per core")
    _draw_bars(
        right, models, ["live"], [[model["live"]["streams_per_core"] if model["live"] else None] for model in models]
    )
    right.set_xlabel("streams in real time")
    right.set_ylabel("streams per core")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=_SMALL
    )
    save_figure(figure, path)


def _draw_bars(
    axes: Axes, models: Sequence[Mapping[str, Any]], names: Sequence[str], values: Sequence[Sequence[float | None]]
) -> None:
    _prepare(axes, "")
    width = 0.8 / len(models)
    for number, (model, row) in enumerate(zip(models, values, strict=True)):
        at = np.arange(len(names)) + (number - (len(models) - 1) / 2) * width
        known = [0.0 if value is None else value for value in row]
        bars = axes.bar(at, known, 0.92 * width, color=COLOURS[number % len(COLOURS)], label=model["label"])
        axes.bar_label(
            bars,
            ["less than\nwas tried" if value is None else f"{value:.1f}" for value in row],
            padding=2,
            fontsize=_SMALL,
        )
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    if len(names) == 1:
        axes.set_xlim(-0.8, 0.8)


def plot_open(path: Path, steps: Sequence[Mapping[str, Any]], *, title: str, target_s: float) -> None:
    """Offered load against what became of it: answers and refusals, latency, the queue, cores. A dot is a step.

    Args:
        path: PNG to write.
        steps: of the open loop, by rate.
        title: what the plot shows.
        target_s: what counts as in time.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 5.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold")
    (done, latency), (queue, cores) = figure.subplots(2, 2, sharex=True)
    rates = [step["rate_per_s"] for step in steps]
    _prepare(done, "answered and refused, a second")
    done.plot([0, max(rates)], [0, max(rates)], color=GREY, linewidth=1, label="offered")
    done.plot(rates, [step["per_second"] for step in steps], ".-", color=GREEN, label="answered in the step")
    done.plot(rates, [step["refused_per_s"] for step in steps], ".-", color=VERMILION, label="refused with 503")
    _prepare(latency, "seconds to the answer")
    for key, colour in (("p99", PURPLE), ("p95", BLUE), ("p50", SKY)):
        known = [step for step in steps if step["latency"]]
        latency.plot(
            [step["rate_per_s"] for step in known], [step["latency"][f"{key}_s"] for step in known], ".-", color=colour,
            label=key,
        )  # fmt: skip
    latency.axhline(target_s, color=DARK, linestyle="--", linewidth=1, label=f"{target_s:g} s")
    _prepare(queue, "requests that wait")
    _plot_known(queue, steps, "queue_most", ORANGE, "most")
    _plot_known(queue, steps, "queue_mean", BLUE, "mean")
    _prepare(cores, "cores kept busy")
    _plot_known(cores, steps, "service_cores", BLUE, "service")
    _plot_known(cores, steps, "generator_cores", ORANGE, "load generator")
    for axes in (done, latency, queue, cores):
        axes.set_ylim(bottom=0, top=1.18 * axes.get_ylim()[1])
        axes.set_xlim(left=0)
        axes.legend(frameon=False, loc="upper left", fontsize="x-small", ncols=2)
    for axes in (queue, cores):
        axes.set_xlabel("arrivals a second")
    save_figure(figure, path)


def _plot_known(axes: Axes, steps: Sequence[Mapping[str, Any]], key: str, colour: str, label: str) -> None:
    known = [step for step in steps if step[key] is not None]
    axes.plot([step["rate_per_s"] for step in known], [step[key] for step in known], ".-", color=colour, label=label)


def plot_live(path: Path, models: Sequence[Mapping[str, Any]], *, title: str, target_s: float) -> None:
    """How soon finals come as more streams speak at once: median and 95 % of each step, a colour a model.

    Args:
        path: PNG to write.
        models: of the report; those without live steps are left out.
        title: what the plot shows.
        target_s: what counts as in time.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
    axes = _prepare(figure.subplots(), title)
    numbers: set[int] = set()
    for model, colour in zip(models, COLOURS, strict=False):
        steps = [step for step in (model["live"] or {"steps": []})["steps"] if step["latency"]]
        streams = [step["streams"] for step in steps]
        numbers.update(streams)
        axes.plot(
            streams, [step["latency"]["p95_s"] for step in steps], ".-", color=colour, label=f"{model['label']}, p95"
        )
        axes.plot(
            streams, [step["latency"]["p50_s"] for step in steps], ".:", color=colour, label=f"{model['label']}, median"
        )
    axes.axhline(target_s, color=DARK, linestyle="--", linewidth=1, label=f"{target_s:g} s")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(numbers), [str(number) for number in sorted(numbers)])
    axes.minorticks_off()
    axes.set_ylim(0, 1.4 * max(target_s, axes.get_ylim()[1]))  # the legend stands above the lines
    axes.set_xlabel("live streams at once")
    axes.set_ylabel("seconds from the end of speech to the final")
    axes.legend(frameon=False, loc="upper left", fontsize=_SMALL, ncols=2)
    save_figure(figure, path)


def plot_lengths(path: Path, models: Sequence[Mapping[str, Any]], *, title: str, target_s: float) -> None:
    """Every step of the search for users, a panel a length: the p95 of its answers over its arrivals a second.

    What takes longer than three times the target is cut off.

    Args:
        path: PNG to write.
        models: of the report.
        title: what the plot shows.
        target_s: what counts as in time.
    """
    lengths = [one["length_s"] for one in models[0]["lengths"]]
    figure = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold")
    panels = np.atleast_1d(figure.subplots(1, len(lengths), sharey=True))
    for number, (axes, length_s) in enumerate(zip(panels, lengths, strict=True)):
        _prepare(axes, f"clips of {length_s:g} s")
        for model, colour in zip(models, COLOURS, strict=False):
            steps = [step for step in model["lengths"][number]["steps"] if step["latency"]]
            axes.plot(
                [step["rate_per_s"] for step in steps], [step["latency"]["p95_s"] for step in steps], ".-", color=colour,
                label=model["label"],
            )  # fmt: skip
        axes.axhline(target_s, color=DARK, linestyle="--", linewidth=1)
        axes.set_xlim(left=0)
        axes.set_ylim(0, SHOWN_TARGETS * target_s)
        axes.set_xlabel("arrivals a second")
    panels[0].set_ylabel("p95, seconds to the answer")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=_SMALL
    )
    save_figure(figure, path)


def _prepare(axes: Axes, title: str) -> Axes:
    axes.set_title(title, loc="left", fontsize=_SMALL if title and title[0].islower() else "medium")
    style_axes(axes)
    axes.grid(axis="y", color="0.9")
    return axes
