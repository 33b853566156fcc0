"""Rows of requests -> the figures of the service benchmark. Pure: the same rows give the same figures.

Rows are described in :mod:`dinle.measure.load`, samples and phases in :mod:`dinle.measure.service_watch`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.measure.load_client import OK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Row = Mapping[str, Any]

REFUSALS = (503, 429)  # no place now, and too many requests: RFC 9110 section 15.6.4, RFC 6585 section 4
LENGTH_EDGES_S = (3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0)
TIME_BIN_S = 2.0
SOAK_BASE_S = 120.0  # memory is compared with what it is here: caches and pools have filled by then
SOAK_BASE_SHARE = 0.2  # ... or after this share of a soak that is shorter than two minutes
SLOPE_MIN_S = 240.0  # a slope of less would be made of what one request holds
_HOUR_S = 3600.0


def summarize_seconds(seconds: Sequence[float]) -> dict[str, float] | None:
    """``count, mean_s, p50_s, p95_s, p99_s, max_s`` (percentiles interpolate, numpy's ``linear``); None of nothing."""
    if not len(seconds):
        return None
    values = np.asarray(seconds, dtype=np.float64)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "count": len(values),
        "mean_s": float(values.mean()),
        "p50_s": float(p50),
        "p95_s": float(p95),
        "p99_s": float(p99),
        "max_s": float(values.max()),
    }


def is_right(row: Row) -> bool:
    """Whether a transcript came back, whatever it says."""
    return row["status"] == OK and row["error"] is None


def count_answers(rows: Sequence[Row]) -> dict[str, Any]:
    """What became of the requests.

    Returns:
        ``requests``; ``ok``, with a transcript, of which ``different_text`` hold another text than expected; ``refused`` by
        status, of which ``without_retry_after`` did not say when to come back; ``other_status`` by status; ``errors`` by
        kind (no answer, or none that can be read); ``failed``, the sum of the last two.
    """
    refused = [row for row in rows if row["status"] in REFUSALS]
    errors = Counter(row["error"] for row in rows if row["error"] is not None)
    known = (OK, *REFUSALS, None)
    others = Counter(str(row["status"]) for row in rows if row["status"] not in known)
    return {
        "requests": len(rows),
        "ok": sum(is_right(row) for row in rows),
        "different_text": sum(row["same_text"] is False for row in rows),
        "refused": dict(sorted(Counter(str(row["status"]) for row in refused).items())),
        "without_retry_after": sum(row["retry_after"] is None for row in refused),
        "other_status": dict(sorted(others.items())),
        "errors": dict(sorted(errors.items())),
        "failed": errors.total() + others.total(),
    }


def summarize_loop(rows: Sequence[Row], from_s: float, until_s: float) -> dict[str, Any]:
    """A closed loop: all answers counted, latency and throughput of what was answered in the steady part.

    Args:
        rows: of the phase.
        from_s: when all users had begun.
        until_s: when no new request was sent any more.
    """
    steady = [row for row in rows if is_right(row) and from_s <= row["start_s"] + row["seconds"] <= until_s]
    length_s = until_s - from_s
    return {
        "answers": count_answers(rows),
        "steady_from_s": from_s,
        "steady_s": length_s,
        "latency": summarize_seconds([row["seconds"] for row in steady]),
        "per_second": len(steady) / length_s,
        "rtfx": sum(row["audio_s"] for row in steady) / length_s,
        "mean_audio_s": sum(row["audio_s"] for row in steady) / len(steady) if steady else None,
        "by_length": bin_by_length(steady),
    }


def summarize_overload(rows: Sequence[Row], seconds: float, rate_per_s: float) -> dict[str, Any]:
    """An open loop: what was offered, what became of it, how punctual the generator was.

    Args:
        rows: of the phase.
        seconds: its length; answers that came later count in ``answers`` but not in ``per_second``.
        rate_per_s: of the arrivals.
    """
    right = [row for row in rows if is_right(row)]
    in_time = [row for row in right if row["start_s"] + row["seconds"] <= seconds]
    return {
        "seconds": seconds,
        "rate_per_s": rate_per_s,
        "answers": count_answers(rows),
        "accepted": summarize_seconds([row["seconds"] for row in right]),
        "refused": summarize_seconds([row["seconds"] for row in rows if row["status"] in REFUSALS]),
        "per_second": len(in_time) / seconds,
        "rtfx": sum(row["audio_s"] for row in in_time) / seconds,
        "late": summarize_seconds([row["late_s"] for row in rows]),
        "most_at_once": count_most_at_once(rows),
        "over_time": bin_by_time(rows, seconds),
    }


def count_most_at_once(rows: Sequence[Row]) -> int:
    """The most requests that were under way at the same time."""
    changes = [(row["start_s"] + row["late_s"], 1) for row in rows]
    changes += [(row["start_s"] + row["seconds"], -1) for row in rows]
    return int(np.cumsum([change for _, change in sorted(changes)]).max(initial=0))


def summarize_recovery(probes: Sequence[Row], target_s: float) -> dict[str, Any]:
    """When a single request was quick again: ``recovered_after_s``, its answer's time (None: never while it was tried)."""
    quick = [row for row in probes if is_right(row) and row["seconds"] <= target_s]
    return {
        "target_s": target_s,
        "recovered_after_s": quick[0]["start_s"] + quick[0]["seconds"] if quick else None,
        "probes": [{key: row[key] for key in ("start_s", "seconds", "status", "error")} for row in probes],
    }


def summarize_memory(samples: Sequence[Mapping[str, Any]], from_s: float, until_s: float) -> dict[str, Any] | None:
    """The service's resident memory over a stretch of the watch, in MB; None where it was not measured.

    Returns:
        ``base_after_s``: when, in the stretch, ``base_mb`` was; ``last_mb`` at its end, ``growth`` between the two as a
        share, ``most_mb``, and the least-squares ``slope_mb_per_h`` from the base on (None of less than four minutes).
    """
    known = [one for one in samples if one["rss_mb"] is not None and from_s <= one["at_s"] <= until_s]
    if not known:
        return None
    base_after_s = min(SOAK_BASE_S, SOAK_BASE_SHARE * (until_s - from_s))
    at_s = np.array([one["at_s"] - from_s for one in known])
    rss_mb = np.array([one["rss_mb"] for one in known])
    base = int(np.abs(at_s - base_after_s).argmin())
    slope = np.polyfit(at_s[base:], rss_mb[base:], 1)[0] if at_s[-1] - at_s[base] >= SLOPE_MIN_S else None
    return {
        "base_after_s": float(at_s[base]),
        "base_mb": float(rss_mb[base]),
        "last_mb": float(rss_mb[-1]),
        "growth": float(rss_mb[-1] / rss_mb[base] - 1),
        "most_mb": float(rss_mb.max()),
        "slope_mb_per_h": float(slope * _HOUR_S) if slope is not None else None,
    }


def find_memory(samples: Sequence[Mapping[str, Any]], at_s: float) -> float | None:
    """Resident memory in MB in the sample nearest to a time."""
    known = [one for one in samples if one["rss_mb"] is not None]
    nearest = min(known, key=lambda one: abs(one["at_s"] - at_s), default=None)
    return float(nearest["rss_mb"]) if nearest else None


def summarize_phase(phase: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a phase cost: cores that the service, the generator and other work kept busy, the event loop's lag, ``/healthz``.

    ``lag`` is null where the service does not measure it; its ``max_s`` is of the whole life of the service so far.
    """
    length_s = phase["ended_s"] - phase["began_s"]
    inside = [one["healthz_s"] for one in samples if phase["began_s"] <= one["at_s"] <= phase["ended_s"]]
    lag = phase["lag"]
    after = (lag or {}).get("after")
    server_s, machine_s = phase["server_cpu_s"], phase["machine_cpu_s"]
    known = server_s is not None and machine_s is not None
    return {
        "name": phase["name"],
        "seconds": length_s,
        "server_cores": server_s / length_s if server_s is not None else None,
        "client_cores": phase["client_cpu_s"] / length_s,
        "other_cores": max(0.0, machine_s - server_s - phase["client_cpu_s"]) / length_s if known else None,
        "healthz": summarize_seconds([one for one in inside if one is not None]),
        "healthz_failed": sum(one is None for one in inside),
        "lag": summarize_lag(lag["before"]["buckets"], after["buckets"], after["max_s"]) if after else None,
        "sleeper_late_s": phase["sleeper_late_s"],
    }


def summarize_lag(
    before: Mapping[str, float], after: Mapping[str, float], max_s: float | None
) -> dict[str, float | None]:
    """Quantiles of a cumulative histogram that grew from ``before`` to ``after``, upper edge to count.

    Inside a bucket, values are taken to be spread evenly, as Prometheus's ``histogram_quantile`` does; in the last bucket,
    which has no upper edge, the answer is its lower one.
    """
    edges = sorted(after, key=float)
    counts = np.array([after[edge] - before.get(edge, 0.0) for edge in edges])
    bounds = [float(edge) for edge in edges]
    return {"p50_s": _find_quantile(bounds, counts, 0.5), "p99_s": _find_quantile(bounds, counts, 0.99), "max_s": max_s}


def _find_quantile(
    bounds: Sequence[float], counts: Sequence[float] | np.ndarray[Any, Any], share: float
) -> float | None:
    if not len(counts) or counts[-1] <= 0:
        return None
    rank = share * counts[-1]
    index = int(np.searchsorted(counts, rank))
    low, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    if not np.isfinite(bounds[index]):
        return float(low)
    return float(low + (bounds[index] - low) * (rank - below) / (counts[index] - below))


def bin_by_length(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Latency by the clip's length: ``from_s, to_s, count, p5_s, p25_s, p50_s, p75_s, p95_s`` of each class that occurs.

    Shorter and longer clips than the outer edges belong to the outer classes.
    """
    inner = LENGTH_EDGES_S[1:-1]
    classes = np.searchsorted(inner, [row["audio_s"] for row in rows], side="right")
    bins = []
    for number in range(len(inner) + 1):
        seconds = [row["seconds"] for row, one in zip(rows, classes, strict=True) if one == number]
        if seconds:
            shares = (5, 25, 50, 75, 95)
            values = np.percentile(seconds, shares).tolist()
            figures = {f"p{share}_s": value for share, value in zip(shares, values, strict=True)}
            edges = {"from_s": LENGTH_EDGES_S[number], "to_s": LENGTH_EDGES_S[number + 1]}
            bins.append({**edges, "count": len(seconds), **figures})
    return bins


def bin_by_time(rows: Sequence[Row], seconds: float) -> list[dict[str, Any]]:
    """Two seconds of arrivals at a time: ``at_s`` (the middle), how many were ``accepted, refused, failed`` in the end, and
    ``p50_s, p95_s`` of the accepted (None of none).
    """
    bins = []
    for start_s in np.arange(0.0, seconds, TIME_BIN_S).tolist():
        inside = [row for row in rows if start_s <= row["start_s"] < start_s + TIME_BIN_S]
        latency = summarize_seconds([row["seconds"] for row in inside if is_right(row)]) or {}
        answers = count_answers(inside)
        bins.append(
            {
                "at_s": start_s + min(TIME_BIN_S, seconds - start_s) / 2,
                "length_s": min(TIME_BIN_S, seconds - start_s),
                "accepted": answers["ok"],
                "refused": sum(answers["refused"].values()),
                "failed": answers["failed"],
                "p50_s": latency.get("p50_s"),
                "p95_s": latency.get("p95_s"),
            }
        )
    return bins


def list_differences(rows: Iterable[Row]) -> dict[str, int]:
    """How often each clip was answered with another text than expected; clips that never were are left out."""
    return dict(sorted(Counter(row["clip"] for row in rows if row["same_text"] is False).items()))
