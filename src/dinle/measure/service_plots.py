"""The plots of the service's load benchmark, in the style of :mod:`dinle.measure.plots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from dinle.measure.load_client import OK
from dinle.measure.plots import (
    BLUE,
    DARK,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    WIDTH_INCHES,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

_SHADES = ("0.93", "0.98")
_MINUTES_FROM_S = 180.0  # longer times are drawn in minutes


def plot_length_latency(path: Path, loads: Mapping[str, Sequence[Mapping[str, float]]], *, title: str) -> None:
    """Latency by the length of the clip: for each class a box of the middle half with whiskers from p5 to p95.

    Args:
        path: PNG to write.
        loads: what is compared, such as ``1 user``, to its ``by_length``.
        title: what the plot shows.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 3.8), layout="constrained")
    axes = _prepare(figure.subplots(), title)
    starts = sorted({one["from_s"] for bins in loads.values() for one in bins})
    ends = {one["from_s"]: one["to_s"] for bins in loads.values() for one in bins}
    width = 0.7 / len(loads)
    for number, ((name, bins), colour) in enumerate(zip(loads.items(), (BLUE, ORANGE, GREEN), strict=False)):
        shift = (number - (len(loads) - 1) / 2) * width
        stats = [
            {"whislo": one["p5_s"], "q1": one["p25_s"], "med": one["p50_s"], "q3": one["p75_s"], "whishi": one["p95_s"]}
            for one in bins
        ]
        axes.bxp(
            stats, positions=[starts.index(one["from_s"]) + shift for one in bins], widths=0.8 * width, showfliers=False,
            patch_artist=True, boxprops={"facecolor": colour, "alpha": 0.3, "edgecolor": colour},
            medianprops={"color": colour, "linewidth": 2}, whiskerprops={"color": colour}, capprops={"color": colour},
            manage_ticks=False,
        )  # fmt: skip
        axes.plot([], [], "s", color=colour, alpha=0.6, label=f"{name} (n={sum(int(one['count']) for one in bins)})")
    axes.set_xticks(range(len(starts)), [f"{start:g} to {ends[start]:g}" for start in starts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds of sound in the clip")
    axes.set_ylabel("seconds to the answer")
    axes.legend(frameon=False, loc="upper left", fontsize="small")
    save_figure(figure, path)


def plot_overload(path: Path, overload: Mapping[str, Any], recovery: Mapping[str, Any] | None, *, title: str) -> None:
    """An overload over time: what became of the arrivals of each moment, and how long the accepted took.

    Args:
        path: PNG to write.
        overload: the report's ``overload``.
        recovery: the report's ``recovery``; its probes stand behind the end of the overload.
        title: what the plot shows.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    bins = overload["over_time"]
    at_s, length_s = (np.array([one[key] for one in bins]) for key in ("at_s", "length_s"))
    _prepare(top, title)
    base = np.zeros(len(bins))
    for name, colour in (("accepted", GREEN), ("refused", ORANGE), ("failed", VERMILION)):
        rates = np.array([one[name] for one in bins]) / length_s
        total = sum(one[name] for one in bins)
        top.bar(at_s, rates, bottom=base, width=0.92 * length_s, color=colour, label=f"{name} ({total})")
        base += rates
    top.set_ylabel("arrivals a second")
    top.set_ylim(0, 1.3 * max(1e-9, float(base.max(initial=0))))
    top.legend(frameon=False, loc="upper left", ncols=3, fontsize="small")
    _prepare(bottom, "")
    known = [one for one in bins if one["p50_s"] is not None]
    for name, key, colour in (("p95 of the accepted", "p95_s", PURPLE), ("median of the accepted", "p50_s", BLUE)):
        bottom.plot(
            [one["at_s"] for one in known], [one[key] for one in known], ".-", color=colour, label=name, markersize=4
        )
    _mark_recovery(bottom, overload["seconds"], recovery)
    bottom.set_xlabel("seconds since the overload began")
    bottom.set_ylabel("seconds to the answer")
    bottom.set_ylim(0, 1.35 * bottom.get_ylim()[1])
    bottom.set_xlim(left=0)
    bottom.legend(frameon=False, loc="upper left", ncols=2, fontsize="small")
    save_figure(figure, path)


def _mark_recovery(axes: Axes, end_s: float, recovery: Mapping[str, Any] | None) -> None:
    if recovery is None:
        return
    axes.axvline(end_s, color=DARK, linestyle=":", linewidth=1)
    for label, marker, right in (("single requests afterwards", "o", True), ("... refused or failed", "x", False)):
        probes = [probe for probe in recovery["probes"] if (probe["status"] == OK and probe["error"] is None) == right]
        if probes:
            axes.plot(
                [end_s + probe["start_s"] for probe in probes], [probe["seconds"] for probe in probes], marker, color=DARK,
                markersize=4, label=label,
            )  # fmt: skip
    axes.axhline(
        recovery["target_s"], color=DARK, linestyle="--", linewidth=1, label="twice the p95 of the unloaded service"
    )


_NAMED_SHARE = 0.02  # of the axis, below which a phase goes without a name


def plot_memory(
    path: Path, samples: Sequence[Mapping[str, Any]], phases: Sequence[Mapping[str, Any]], *, title: str
) -> None:
    """The service's resident memory over the whole benchmark, its phases shaded and named.

    Args:
        path: PNG to write.
        samples: of the watch; those without a measured memory are left out.
        phases: each with ``name, began_s, ended_s``.
        title: what the plot shows.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
    axes = _prepare(figure.subplots(), title)
    known = [one for one in samples if one["rss_mb"] is not None]
    end_s = max([0.0, *(phase["ended_s"] for phase in phases), *(one["at_s"] for one in known)])
    unit, name = (60.0, "minutes") if end_s > _MINUTES_FROM_S else (1.0, "seconds")
    axes.plot([one["at_s"] / unit for one in known], [one["rss_mb"] for one in known], color=BLUE, linewidth=1.5)
    axes.set_ylim(0, 1.25 * max([1.0, *(one["rss_mb"] for one in known)]))
    axes.set_xlim(0, max(end_s, 1e-9) / unit)
    for number, phase in enumerate(phases):
        axes.axvspan(phase["began_s"] / unit, phase["ended_s"] / unit, color=_SHADES[number % 2], zorder=0, linewidth=0)
        if phase["ended_s"] - phase["began_s"] < _NAMED_SHARE * end_s:
            continue  # its name would lie over the next one's
        axes.annotate(
            phase["name"], ((phase["began_s"]) / unit, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
            textcoords="offset points", fontsize="x-small", color=DARK, va="top", rotation=90,
        )  # fmt: skip
    axes.set_xlabel(f"{name} since the service was ready")
    axes.set_ylabel("resident memory, MB")
    save_figure(figure, path)


def _prepare(axes: Axes, title: str) -> Axes:
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    style_axes(axes)
    axes.grid(axis="y", color="0.9")
    return axes
