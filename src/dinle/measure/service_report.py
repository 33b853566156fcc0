"""The service's load benchmark as JSON, as Markdown with plots, and as a table for the terminal. Pure: from rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.markdown import format_machine, format_percent, format_table
from dinle.measure.service_figures import (
    find_memory,
    list_differences,
    summarize_loop,
    summarize_memory,
    summarize_overload,
    summarize_phase,
    summarize_recovery,
)
from dinle.measure.service_plots import plot_length_latency, plot_memory, plot_overload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RECOVERY_FACTOR = 2.0  # a single request within so many times the p95 of the unloaded service counts as recovered
LOOPS = ("unloaded", "users", "soak")
_NONE = "not measured"

_HOW_MEASURED = """\
- The load generator runs on the same cores as the service: threads, kept connections, bodies made beforehand. What it and
  other work took of the cores stands in the table of the phases.
- Users post one clip after another without a pause; one whose request was refused waits as long as `Retry-After` says. Latency,
  throughput and RTFx (seconds of sound in a second) count the requests that were answered with a transcript after all users had
  begun and before the last new request. Percentiles interpolate between requests.
- The overload is a Poisson process that waits for no answer. Latency counts from the moment when a request was due, so that a
  generator that falls behind is not to the service's credit; how late requests were sent is stated.
- Recovery: from the end of the overload a clip of {probe_s:.1f} s is posted each second, or as soon as the one before is
  answered, until it takes no more than {factor:g} times the p95 of the unloaded service.
- Texts: every answer is compared with what the same model made of the same bytes offline, before the service was started.
- Memory: resident memory of the service's process, read from /proc; 1 MB is 10⁶ bytes. `/healthz` is asked as often.
- Lag of the event loop: from the service's own histogram, where it has one; the maximum is since its start. Beside it, how late
  at most a process woke that does nothing but sleep a hundredth of a second: where it is as late, the machine stood still (as
  virtual machines do when their cores are given to others), not the loop.
- Every request with its times, status and clip is written beside the report, `{requests}`; the repository leaves it out."""


def make_report(measured: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of a benchmark; what ``<stem>.json`` holds.

    Args:
        measured: ``rows, facts, samples, phases`` of :func:`dinle.measure.service_bench.measure_service`, ``conditions`` and
            ``machine``.

    Returns:
        ``conditions, machine, unloaded, users, overload, recovery, soak`` (null where a phase was left out), ``phases``,
        ``samples`` and ``differences``, how often which clip was answered with another text.
    """
    rows, facts, samples = measured["rows"], measured["facts"], measured["samples"]
    spans = {phase["name"]: phase for phase in measured["phases"]}
    report: dict[str, Any] = {"conditions": dict(measured["conditions"]), "machine": measured["machine"]}
    for name in LOOPS:
        from_s = 0.0 if name == "unloaded" else facts["ramp_s"]
        report[name] = summarize_loop(rows[name], from_s, facts[f"{name}_s"]) if name in rows else None
        if name in rows:
            report[name]["memory"] = summarize_memory(samples, spans[name]["began_s"], spans[name]["ended_s"])
    report["overload"] = report["recovery"] = None
    if "overload" in rows:
        report["overload"] = summarize_overload(rows["overload"], facts["overload_s"], facts["rate_per_s"])
        report["overload"]["memory"] = {
            "before_mb": find_memory(samples, spans["overload"]["began_s"]),
            "end_mb": find_memory(samples, spans["overload"]["ended_s"]),
            "after_mb": find_memory(samples, spans["recovery"]["ended_s"]),
        }
        report["recovery"] = summarize_recovery(rows["recovery"], facts["target_s"])
        report["recovery"]["probe_audio_s"] = facts["probe_audio_s"]
    report["phases"] = [summarize_phase(phase, samples) | _get_span(phase) for phase in measured["phases"]]
    report["differences"] = list_differences(row for requests in rows.values() for row in requests)
    report["samples"] = list(samples)
    return report


def _get_span(phase: Mapping[str, Any]) -> dict[str, float]:
    return {key: phase[key] for key in ("began_s", "ended_s")}


def summarize(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few figures that belong into one line of JSON; null where a phase was left out or gave no answer."""
    conditions, users, overload, soak = (report[key] for key in ("conditions", "users", "overload", "soak"))
    over, recovery = overload or {}, report["recovery"] or {}
    answers = over.get("answers", {})
    return {
        "model": conditions["model"]["name"],
        "backend": conditions["model"]["backend"],
        "workers": conditions["workers"],
        "users": conditions["users"],
        "mean_audio_s": _round(users["mean_audio_s"], 2),
        "per_second": _round(users["per_second"], 2),
        "rtfx": _round(users["rtfx"], 1),
        **{f"{key}_s": _round((users["latency"] or {}).get(f"{key}_s")) for key in ("p50", "p95", "p99")},
        "failed": users["answers"]["failed"],
        "different_text": sum(report["differences"].values()),
        **{
            f"unloaded_{key}_s": _round((report["unloaded"]["latency"] or {}).get(f"{key}_s")) for key in ("p50", "p95")
        },
        "overload_requests": answers.get("requests"),
        "overload_accepted": answers.get("ok"),
        "overload_refused": sum(answers["refused"].values()) if answers else None,
        "overload_without_retry_after": answers.get("without_retry_after"),
        "overload_failed": answers.get("failed"),
        "overload_p95_s": _round((over.get("accepted") or {}).get("p95_s")),
        "recovered_after_s": _round(recovery.get("recovered_after_s")),
        "soak_failed": soak["answers"]["failed"] if soak else None,
        "soak_memory_growth": _round(((soak or {}).get("memory") or {}).get("growth"), 4),
    }


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def write_service_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the Markdown report and its plots, ``<stem>_latency.png``, ``<stem>_overload.png`` and ``<stem>_memory.png``.

    Args:
        path: the Markdown file.
        report: what the report's JSON holds.
    """
    conditions = report["conditions"]
    probe_s = (report["recovery"] or {}).get("probe_audio_s", conditions["clips"]["mean_s"])
    sections = [
        "# The service under load",
        f"{_describe_service(conditions)} on {report['machine']['cpu']}, {report['machine']['cores']} cores.",
        format_table(*_list_loops(report)),
        *_draw_plots(path, report, "latency"),
        *_format_overload(path, report),
        *_format_soak(path, report),
        "## Texts",
        _describe_texts(report),
        "## Phases",
        format_table(*_list_phases(report)),
        "## Conditions",
        _format_conditions(report),
        _HOW_MEASURED.format(probe_s=probe_s, factor=RECOVERY_FACTOR, requests=find_requests(path).name),
        "## Machine",
        format_machine(report["machine"]),
    ]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def find_requests(report_path: Path) -> Path:
    """The file of every request beside a report."""
    return report_path.with_name(f"{report_path.stem}_requests.jsonl")


def _describe_service(conditions: Mapping[str, Any]) -> str:
    model = conditions["model"]
    workers, threads = (
        f"{conditions[key]} {key[:-1]}{'' if conditions[key] == 1 else 's'}" for key in ("workers", "threads")
    )
    return f"{model['name']} with {model['backend']}, {workers} of {threads}"


def _draw_plots(path: Path, report: Mapping[str, Any], name: str) -> list[str]:
    """Draw a plot beside the report; the line that shows it."""
    plot = path.with_name(f"{path.stem}_{name}.png")
    conditions = report["conditions"]
    service = _describe_service(conditions)
    if name == "latency":
        loads = {"1 user": report["unloaded"], f"{conditions['users']} users": report["users"]}
        drawn = {label: load["by_length"] for label, load in loads.items() if load["by_length"]}
        if not drawn:
            return []
        plot_length_latency(plot, drawn, title=f"Latency by the clip's length: {service}")
    elif name == "overload":
        rate = f"{report['overload']['rate_per_s']:.1f} arrivals a second"
        plot_overload(plot, report["overload"], report["recovery"], title=f"Overload, {rate}: {service}")
    else:
        if all(sample["rss_mb"] is None for sample in report["samples"]):
            return []
        plot_memory(plot, report["samples"], report["phases"], title=f"Memory of the service: {service}")
    return [f"![{name}]({plot.name})"]


def _list_loops(report: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    header = (
        "load", "requests", "a second", "RTFx", "p50", "p95", "p99", "mean clip", "failed", "refused", "other text"
    )  # fmt: skip
    names = {"unloaded": "1 user", "users": f"{report['conditions']['users']} users", "soak": "soak"}
    return header, [[label, *_list_loop(report[name])] for name, label in names.items() if report[name]]


def _list_loop(loop: Mapping[str, Any]) -> list[str]:
    answers, latency = loop["answers"], loop["latency"] or {}
    return [
        str(answers["requests"]),
        f"{loop['per_second']:.2f}",
        f"{loop['rtfx']:.1f}",
        *(_format_seconds(latency.get(key)) for key in ("p50_s", "p95_s", "p99_s")),
        _format_seconds(loop["mean_audio_s"]),
        str(answers["failed"]),
        str(sum(answers["refused"].values())),
        str(answers["different_text"]),
    ]


def _format_seconds(seconds: float | None) -> str:
    """Milliseconds below a second; seconds with two digits above."""
    if seconds is None:
        return "none"
    return f"{1000 * seconds:.0f} ms" if abs(seconds) < 1 else f"{seconds:.2f} s"


def _format_mb(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f} MB"


def _format_overload(path: Path, report: Mapping[str, Any]) -> list[str]:
    overload, recovery = report["overload"], report["recovery"]
    if overload is None:
        return []
    answers, accepted, refused, late = (overload[key] or {} for key in ("answers", "accepted", "refused", "late"))
    after = recovery["recovered_after_s"]
    memory = (_format_mb(overload["memory"][key]) for key in ("before_mb", "end_mb", "after_mb"))
    rows = [
        ("arrivals", f"{answers['requests']} in {overload['seconds']:g} s: {overload['rate_per_s']:.1f} a second"),
        (
            "answered with a transcript",
            f"{answers['ok']}: {overload['per_second']:.2f} a second, RTFx {overload['rtfx']:.1f}",
        ),
        *((f"refused with {status}", count) for status, count in answers["refused"].items()),
        ("refusals without Retry-After", answers["without_retry_after"]),
        *((f"status {status}", count) for status, count in answers["other_status"].items()),
        *((f"no answer: {kind}", count) for kind, count in answers["errors"].items()),
        ("p50, p95, p99 of the accepted", _join(accepted)),
        ("p50, p95, p99 of the refused", _join(refused)),
        ("sent late by: p50, p95, p99", _join(late)),
        ("most requests at once", overload["most_at_once"]),
        ("memory before, at the end, after the recovery", ", ".join(memory)),
        (
            "quick again",
            f"not within {len(recovery['probes'])} requests" if after is None else f"{after:.2f} s after the overload",
        ),
        ("quick is at most", _format_seconds(recovery["target_s"])),
    ]
    return ["## Overload", format_table(("overload", ""), rows), *_draw_plots(path, report, "overload")]


def _join(latency: Mapping[str, float]) -> str:
    return ", ".join(_format_seconds(latency.get(key)) for key in ("p50_s", "p95_s", "p99_s"))


def _format_soak(path: Path, report: Mapping[str, Any]) -> list[str]:
    soak = report["soak"]
    plots = _draw_plots(path, report, "memory")
    if soak is None or soak["memory"] is None:
        return ["## Memory", *plots] if plots else []
    memory = soak["memory"]
    slope = memory["slope_mb_per_h"]
    rows = [
        (f"after {memory['base_after_s']:.0f} s", _format_mb(memory["base_mb"])),
        ("at the end", f"{_format_mb(memory['last_mb'])}: {100 * memory['growth']:+.2f} %"),
        ("most", _format_mb(memory["most_mb"])),
        ("slope", "the soak is too short to tell" if slope is None else f"{slope:+.1f} MB an hour"),
    ]
    return ["## Memory", format_table(("resident memory in the soak", ""), rows), *plots]


def _describe_texts(report: Mapping[str, Any]) -> str:
    loads = [report[name] for name in (*LOOPS, "overload") if report[name]]
    answered = sum(load["answers"]["ok"] for load in loads)
    different = sum(load["answers"]["different_text"] for load in loads)
    text = f"{different} of {answered} answers hold another text than the same model gave offline"
    clips = ", ".join(f"`{clip}` ({count})" for clip, count in report["differences"].items())
    return f"{text} ({format_percent(different / max(1, answered), 2)}){': ' + clips if clips else ''}."


def _list_phases(report: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    header = (
        "phase", "seconds", "cores of the service", "of the generator", "of other work", "/healthz p50, p95, most",
        "event loop's lag p50, p99", "most", "of a process that only sleeps",
    )  # fmt: skip
    rows = []
    for phase in report["phases"]:
        lag, health = phase["lag"] or {}, phase["healthz"] or {}
        asked = [_format_seconds(health.get(key)) for key in ("p50_s", "p95_s", "max_s")]
        failed = f" ({phase['healthz_failed']} failed)" if phase["healthz_failed"] else ""
        rows.append([
            phase["name"],
            f"{phase['seconds']:.1f}",
            _NONE if phase["server_cores"] is None else f"{phase['server_cores']:.2f}",
            f"{phase['client_cores']:.2f}",
            _NONE if phase["other_cores"] is None else f"{phase['other_cores']:.2f}",
            ", ".join(asked) + failed,
            ", ".join(_format_lag(lag.get(key)) for key in ("p50_s", "p99_s")) if lag else _NONE,
            _format_lag(lag.get("max_s")),
            _format_lag(phase["sleeper_late_s"]),
        ])  # fmt: skip
    return header, rows


def _format_lag(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{1000 * seconds:.1f} ms"


def _format_conditions(report: Mapping[str, Any]) -> str:
    conditions, clips = report["conditions"], report["conditions"]["clips"]
    settings = ", ".join(f"`{setting}`" for setting in conditions["settings"]) or "the defaults"
    rows = [
        ("model", f"`{conditions['model']['source']}`, {conditions['model']['stored_as']}"),
        ("workers, threads of each", f"{conditions['workers']}, {conditions['threads']}"),
        ("settings", settings),
        (
            "clips",
            (
                f"{clips['count']} of `{clips['manifest']}`, joined to {clips['shortest_s']:.1f} to {clips['longest_s']:.1f} s, "
                f"{clips['mean_s']:.1f} s on average; {clips['opus']} as opus in ogg, the others as wav of 16 bits; "
                f"{clips['mean_bytes'] / 1000:.0f} kB on average"
            ),
        ),
        ("users", f"{conditions['users']}, {conditions['ramp_per_s']:g} more each second"),
        ("overload", f"{conditions['overload_factor']:g} times the throughput of {conditions['users']} users"),
        ("a client gives up after", f"{conditions['timeout_s']:g} s of silence"),
        ("seed", conditions["seed"]),
        (
            "other work",
            f"load average {conditions['load_average']:.1f} before the service was started, {report['machine']['cores']} cores",
        ),
        ("commit", conditions["commit"] or "unknown: the source is not tracked by git"),
    ]
    return format_table(("condition", ""), rows)


def render_service(report: Mapping[str, Any]) -> Table:
    """The loads side by side for the terminal."""
    header, rows = _list_loops(report)
    table = Table(title=_describe_service(report["conditions"]), title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
