"""Rows of requests and samples of the service -> the figures of the capacity report. Pure: the same rows give the same figures.

Facts are what was done: ``conditions``, ``machine``, ``models`` and ``phases``. A phase::

    {"model": "dinle-base-tr int8", "name": "open 0.5", "kind": "open", "seconds": 12.0, "from_s": 0.0, "wall_s": 13.1,
     "generator_cpu_s": 0.4, "users": 1, "rate_per_s": 2.1, "length_s": null}

``kind`` is ``warm-up, closed, open, length`` or ``live``; ``seconds`` is how long new load came, ``from_s`` when all users had
begun, ``wall_s`` when the last answer had come. Rows and samples are described in :mod:`dinle.loadtest.rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dinle.measure.service_figures import count_answers, is_right, list_differences, summarize_loop, summarize_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = Mapping[str, Any]
    Phase = Mapping[str, Any]

AnyRow = TypeVar("AnyRow", bound="Row")
SHARE = 0.95  # of the answers must come in time


def find_share_within(rows: Sequence[Row], target_s: float) -> float:
    """The share of requests that were answered with a transcript within so many seconds; 0 of none."""
    in_time = [row for row in rows if is_right(row) and row["seconds"] <= target_s]
    return len(in_time) / max(1, len(rows))


def is_carried(rows: Sequence[Row], target_s: float) -> bool:
    """Whether a load is carried: 95 % of its requests are answered in time. What is refused or fails is never in time."""
    return find_share_within(rows, target_s) >= SHARE


def choose_counted(phase: Phase, rows: Sequence[AnyRow]) -> list[AnyRow]:
    """The rows of a phase that count: of live streams those whose sentence ended after all streams had begun.

    One that was refused counts whenever it was.
    """
    if phase["kind"] != "live":
        return list(rows)
    return [row for row in rows if row["start_s"] >= phase["from_s"] or row["same_text"] is None]


def make_report(facts: Mapping[str, Any], rows: Sequence[Row], samples: Sequence[Row]) -> dict[str, Any]:
    """All figures; what ``<stem>.json`` holds.

    Args:
        facts: what was done.
        rows: of all models and phases.
        samples: as well.

    Returns:
        ``conditions, machine, phases`` as they were given, and ``models``: for each its description and ``closed, open,
        lengths, live, phases`` (null or empty where they were left out), ``other_cores`` (the most of any phase), ``answers``
        of all phases and ``differences``, how often which sound was answered with another text. It holds the facts, and may
        be given as such to make it again.
    """
    models = []
    for model in facts["models"]:
        label = model["label"]
        mine = [phase for phase in facts["phases"] if phase["model"] == label]
        models.append(_summarize_model(
            model, mine, facts["conditions"], [row for row in rows if row["model"] == label],
            [sample for sample in samples if sample["model"] == label],
        ))  # fmt: skip
    done = {key: facts[key] for key in ("conditions", "machine", "phases")}
    return {**done, "models": models}


def _summarize_model(
    model: Mapping[str, Any], phases: Sequence[Phase], conditions: Mapping[str, Any], rows: Sequence[Row],
    samples: Sequence[Row],
) -> dict[str, Any]:  # fmt: skip
    target_s, cores = conditions["target_s"], conditions["cores"]
    rows_of = {phase["name"]: [row for row in rows if row["phase"] == phase["name"]] for phase in phases}
    samples_of = {phase["name"]: [one for one in samples if one["phase"] == phase["name"]] for phase in phases}
    kinds: dict[str, list[Phase]] = {}
    for phase in phases:
        kinds.setdefault(phase["kind"], []).append(phase)
    closed = [
        {"users": phase["users"], **summarize_loop(rows_of[phase["name"]], phase["from_s"], phase["seconds"])}
        for phase in kinds.get("closed", [])
    ]
    open_steps = [
        summarize_arrivals(phase, rows_of[phase["name"]], target_s)
        | summarize_service(phase, samples_of[phase["name"]])
        for phase in kinds.get("open", [])
    ]
    steps = [summarize_arrivals(phase, rows_of[phase["name"]], target_s) for phase in kinds.get("length", [])]
    live = [summarize_live(phase, rows_of[phase["name"]], target_s) for phase in kinds.get("live", [])]
    services = [
        {"name": phase["name"], "wall_s": phase["wall_s"], **summarize_service(phase, samples_of[phase["name"]])}
        for phase in phases
    ]
    return {
        **model,
        "closed": closed[0] if closed else None,
        "open": sorted(open_steps, key=lambda step: float(step["rate_per_s"])),
        "lengths": [
            count_users(length_s, [step for step in steps if step["length_s"] == length_s], rows, target_s, cores)
            for length_s in conditions["lengths"]
        ],
        "live": count_streams(live, cores) if live else None,
        "phases": services,
        "other_cores": max((one["other_cores"] for one in services if one["other_cores"] is not None), default=None),
        "answers": count_answers(rows),
        "differences": list_differences(rows),
    }


def summarize_arrivals(phase: Phase, rows: Sequence[Row], target_s: float) -> dict[str, Any]:
    """A step of arrivals that wait for nobody: what was offered, and what became of it.

    Args:
        phase: of the step.
        rows: of the step.
        target_s: what counts as in time.
    """
    seconds = phase["seconds"]
    right = [row for row in rows if is_right(row)]
    answers = count_answers(rows)
    return {
        "length_s": phase["length_s"],
        "rate_per_s": phase["rate_per_s"],
        "audio_per_s": sum(row["audio_s"] for row in rows) / seconds,
        "per_second": sum(row["start_s"] + row["seconds"] <= seconds for row in right) / seconds,
        "refused_per_s": sum(answers["refused"].values()) / seconds,
        "answers": answers,
        "latency": summarize_seconds([row["seconds"] for row in right]),
        "mean_audio_s": sum(row["audio_s"] for row in rows) / max(1, len(rows)),
        "within": find_share_within(rows, target_s),
        "carried": is_carried(rows, target_s),
        "late_p95_s": (summarize_seconds([row["late_s"] for row in rows]) or {}).get("p95_s"),
    }


def summarize_live(phase: Phase, rows: Sequence[Row], target_s: float) -> dict[str, Any]:
    """A step of live streams: how soon finals came after the end of their sentence."""
    counted = choose_counted(phase, rows)
    right = [row for row in counted if is_right(row)]
    return {
        "streams": phase["users"],
        "answers": count_answers(counted),
        "latency": summarize_seconds([row["seconds"] for row in right]),
        "mean_audio_s": sum(row["audio_s"] for row in right) / max(1, len(right)),
        "within": find_share_within(counted, target_s),
        "carried": is_carried(counted, target_s),
        "late_p95_s": (summarize_seconds([row["late_s"] for row in counted]) or {}).get("p95_s"),
    }


def count_users(
    length_s: float, steps: Sequence[Mapping[str, Any]], rows: Sequence[Row], target_s: float, cores: int
) -> dict[str, Any]:
    """How many users a service carries who send clips of one length.

    A user says a clip, posts it when it is said, and says the next when the answer is there: one request each ``audio + answer``
    seconds. So arrivals at a rate X are the requests of ``users = X (audio + answer)`` of them, with the mean length and the
    mean time to the answer of that step (Little's law).

    Args:
        length_s: what the clips' length should be.
        steps: those that were tried for it.
        rows: of the model, whose warm-up says what a single request takes.
        target_s: what counts as in time.
        cores: of the service's machine.

    Returns:
        ``length_s``, ``alone`` (latency of single requests), ``steps`` by rate, and of the highest that was carried ``rate_per_s,
        users, users_per_core, p95_s``: null where none was, 0 users where single requests take too long already. ``at_least``
        says that no step was too much.
    """
    alone = [row for row in rows if row["phase"] == name_warm_up(length_s)]
    ordered = sorted(steps, key=lambda step: float(step["rate_per_s"]))
    carried = [step for step in ordered if step["carried"]]
    found: dict[str, Any] = {
        "length_s": length_s,
        "alone": summarize_seconds([row["seconds"] for row in alone if is_right(row)]),
    }
    best: dict[str, Any] = {"rate_per_s": None, "users": None, "users_per_core": None, "p95_s": None, "at_least": False}
    if carried:
        step = carried[-1]
        users = step["rate_per_s"] * (step["mean_audio_s"] + step["latency"]["mean_s"])
        best = {
            "rate_per_s": step["rate_per_s"], "users": users, "users_per_core": users / cores, "p95_s": step["latency"]["p95_s"],
            "at_least": len(carried) == len(ordered),
        }  # fmt: skip
    elif alone and not is_carried(alone, target_s):
        best |= {"users": 0.0, "users_per_core": 0.0}
    return found | best | {"steps": ordered}


def name_warm_up(length_s: float | None) -> str:
    """The phase in which clips of one length, or of the mix, are posted one after another."""
    return "warm-up" if length_s is None else f"warm-up {length_s:g} s"


def count_streams(steps: Sequence[Mapping[str, Any]], cores: int) -> dict[str, Any]:
    """The steps of live streams by their number, and the highest number that was carried (0: none)."""
    ordered = sorted(steps, key=lambda step: int(step["streams"]))
    carried = [step for step in ordered if step["carried"]]
    streams = carried[-1]["streams"] if carried else 0
    failed = {step["streams"] for step in ordered} - {step["streams"] for step in carried}
    return {
        "streams": streams,
        "streams_per_core": streams / cores,
        "p95_s": carried[-1]["latency"]["p95_s"] if carried else None,
        "too_many": min(failed, default=None),  # null: no step was too much
        "steps": ordered,
    }


def summarize_service(phase: Phase, samples: Sequence[Row]) -> dict[str, Any]:
    """What the service said of itself in a phase: its queue while load came, cores kept busy, memory, refusals.

    ``other_cores`` is what neither the service nor the load generator used. What was not told is null.
    """
    inside = [one for one in samples if one["at_s"] <= phase["seconds"] or not phase["seconds"]]
    queue = [one["queue_depth"] for one in inside if one["queue_depth"] is not None]
    memory = [one["rss_mb"] for one in samples if one["rss_mb"] is not None]
    service, machine = _find_rate(samples, "cpu_s"), _find_rate(samples, "machine_cpu_s")
    generator = phase["generator_cpu_s"] / phase["wall_s"] if phase["wall_s"] else None
    return {
        "queue_mean": float(np.mean(queue)) if queue else None,
        "queue_most": max(queue, default=None),
        "service_cores": service,
        "generator_cores": generator,
        "other_cores": _find_rest(machine, service, generator),
        "rss_mb": max(memory, default=None),
        "rejected": _find_difference(samples, "rejected"),
    }


def _find_rest(whole: float | None, *parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return max(0.0, whole - sum(known)) if whole is not None and len(known) == len(parts) else None


def _find_difference(samples: Sequence[Row], key: str) -> float | None:
    known = [one[key] for one in samples if one[key] is not None]
    return known[-1] - known[0] if known else None


def _find_rate(samples: Sequence[Row], key: str) -> float | None:
    known = [one for one in samples if one[key] is not None]
    seconds = known[-1]["at_s"] - known[0]["at_s"] if known else 0.0
    return (known[-1][key] - known[0][key]) / seconds if seconds > 0 else None
