"""Time per clip of two systems that took turns on the same clips: medians, means, and the ratio with its interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.markdown import format_table
from dinle.measure.scores import name_bucket
from dinle.measure.timing import SETTLE_S, measure_speedup, summarize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dinle.measure.predictions import Prediction

# A command, a phrase, a sentence, more than a sentence.
LENGTH_EDGES_S = (0.0, 2.0, 5.0, 10.0, math.inf)
ALL_CLIPS = "all clips"
_DIGITS = 5
_EXPLANATION = (
    "Wall seconds for each clip, from the file to the text, both systems in one process with {threads} each, after a "
    "warm-up, clip by clip in turns whose order changes, {pause_ms:.0f} ms of rest before each. The ratio is {peer}'s median "
    "over {own}'s (above 1, {own} is faster); in brackets its 95 % interval, a paired percentile bootstrap over clips "
    "({samples} resamples). Clips on which a system failed are left out."
)


def compare_speed(
    own: Sequence[Prediction], peer: Sequence[Prediction], *, samples: int, seed: int
) -> list[dict[str, Any]]:
    """Compare the times of two systems on the same clips, over all of them and by their length.

    Args:
        own: predictions of our system.
        peer: the other system's, of the same clips in the same order.
        samples: bootstrap resamples of each interval.
        seed: of the resampling.

    Returns:
        One entry for all clips, and one for each length that occurs: ``group, clips, audio_s, own_s, peer_s`` (each with
        ``median_s`` and ``mean_s``) and ``speedup``: ``ratio`` of the medians, peer over own, with its ``interval``. Empty
        where no clip was recognised by both.
    """
    pairs = [(one, two) for one, two in zip(own, peer, strict=True) if one.error is None and two.error is None]
    groups: dict[str, list[tuple[Prediction, Prediction]]] = {ALL_CLIPS: pairs} if pairs else {}
    for low in LENGTH_EDGES_S[:-1]:
        name = name_bucket(low, LENGTH_EDGES_S)
        members = [pair for pair in pairs if name_bucket(pair[0].duration_s, LENGTH_EDGES_S) == name]
        if members:
            groups[name] = members
    return [_describe_group(name, members, samples, seed) for name, members in groups.items()]


def format_speed(scores: Mapping[str, Any]) -> str:
    """The section of a report; ``scores`` is what ``scores.json`` holds and has a ``peer``."""
    peer = scores["peer"]["name"]
    explanation = _EXPLANATION.format(
        threads=f"{scores['threads']} thread{'s' if scores['threads'] > 1 else ''}",
        pause_ms=1000 * SETTLE_S,
        peer=peer,
        own=scores["model"]["name"],
        samples=scores["intervals"]["samples"],
    )
    return f"{format_table(_list_header(scores), _list_rows(scores))}\n\n{explanation}"


def render_speed(scores: Mapping[str, Any]) -> Table:
    """The same as a table for the terminal."""
    table = Table(title="Seconds for each clip, in turns", title_justify="left")
    for number, name in enumerate(_list_header(scores)):
        table.add_column(name, justify="right" if number else "left")
    for row in _list_rows(scores):
        table.add_row(*row)
    return table


def _describe_group(
    name: str, pairs: Sequence[tuple[Prediction, Prediction]], samples: int, seed: int
) -> dict[str, Any]:
    own_s, peer_s = ([pair[which].inference_s for pair in pairs] for which in (0, 1))
    speedup = measure_speedup(peer_s, own_s, samples=samples, seed=seed)
    return {
        "group": name,
        "clips": len(pairs),
        "audio_s": round(sum(one.duration_s for one, _ in pairs), 3),
        "own_s": _describe_times(own_s),
        "peer_s": _describe_times(peer_s),
        "speedup": {
            "ratio": round(speedup.ratio, 4),
            "interval": [round(bound, 4) for bound in speedup.interval.to_list()],
        },
    }


def _describe_times(seconds: Sequence[float]) -> dict[str, float]:
    latency = summarize(seconds)
    return {"median_s": round(latency.median_s, _DIGITS), "mean_s": round(latency.mean_s, _DIGITS)}


def _list_header(scores: Mapping[str, Any]) -> list[str]:
    own, peer = scores["model"]["name"], scores["peer"]["name"]
    times = [f"{name}, {figure}" for name in (own, peer) for figure in ("median", "mean")]
    return ["length", "clips", *times, "ratio of medians [95 %]"]


def _list_rows(scores: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for group in scores["speed"]:
        times = [f"{group[who][figure]:.3f} s" for who in ("own_s", "peer_s") for figure in ("median_s", "mean_s")]
        low, high = group["speedup"]["interval"]
        ratio = f"{group['speedup']['ratio']:.2f} [{low:.2f}, {high:.2f}]"
        rows.append([group["group"], str(group["clips"]), *times, ratio])
    return rows
