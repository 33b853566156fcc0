"""The capacity report as Markdown with plots, as a table for the terminal and as one line of JSON. Pure: from figures alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.loadtest.plots import plot_card, plot_lengths, plot_live, plot_open
from dinle.markdown import format_machine, format_percent, format_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_NONE = "not measured"
OTHER_CORES = 0.25  # of other work are told beside the card

_DEFINITIONS = """\
- **Carried** is a load of whose requests at least 95 % are answered with a transcript within {target_s:g} s. A refusal or
  an error is never in time.
- A **user** says a clip, posts it when it is said, and says the next one when the answer is there: one request each *length +
  answer* seconds. What is measured is the highest rate of arrivals that is carried; users are that rate times (mean length +
  mean time to the answer), by Little's law. Who pauses for *z* seconds between clips asks less: multiply the rate by (length +
  answer + z) instead.
- A **live stream** is somebody who speaks in real time over `WS /stream`: sentences with {pause_s:g} s between them. Its time
  counts from the moment at which the last loud sample of a sentence was spoken to the arrival of the final text;
  {silence_s:g} s of it is the silence that ends a segment.
- **Per core** is what the whole machine carries, divided by its {cores} cores. The load generator runs on the same cores; what
  it took of them stands in the tables of the phases."""

_HOW_MEASURED = """\
- Load is made by Locust, in a process of its own; bodies are made beforehand, connections are kept. Only transcriptions count.
- Closed loop: {users} users, {ramp:g} more each second; each posts a clip of the mix, waits for the answer, thinks {think:g} s on
  average, posts the next. Latency and throughput count what was answered after all users had begun and before the end.
- Open loop and users by length: arrivals wait for nobody. A step has a fixed number of requests at random moments (a Poisson
  process of which the number is known); latency counts from the moment when a request was due.
- The steps of the open loop are shares of an estimate: the rate at which every core would work as quickly as one does when single
  clips are posted. The most that is carried is found by halving among a tenth to twelve tenths of that estimate, for each
  length anew.
- Live streams: 1, 2, 4, 8 and so on until a step is not carried, then one step between. A step of fewer than 20
  sentences, of which none may be late, is tried again where it is not carried. Streams begin up to 0.37 s apart; sentences that
  ended before all had begun do not count.
- Texts: {texts}
- Queue, memory, processor time and refusals are read from the service's own `/metrics` twice a second.
- Every request is written beside this page, `{requests}`, and every sample, `{samples}`."""


def write_capacity_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the Markdown report and its plots, ``<stem>_card.png`` and others.

    Args:
        path: the Markdown file.
        report: what :func:`dinle.loadtest.figures.make_report` gave.
    """
    conditions, models = report["conditions"], report["models"]
    place = " on" if conditions["started"] else "; the load came from"
    sections = [
        "# What a core carries",
        f"{_list_names(models)}{place} {report['machine']['cpu']}, {report['machine']['cores']} cores.",
        format_table(*list_card(report)),
        *_draw(path, report, "card"),
        *_warn_of_other_work(models),
        _DEFINITIONS.format(
            target_s=conditions["target_s"], cores=conditions["cores"], silence_s=conditions["silence_s"],
            pause_s=conditions["pause_s"],
        ),
        *(part for number in range(len(models)) for part in _format_model(path, report, number)),
        *_draw(path, report, "lengths"),
        *_draw(path, report, "live"),
        "## Texts",
        _describe_texts(report),
        "## Conditions",
        _format_conditions(report),
        _HOW_MEASURED.format(
            users=conditions["users"], ramp=conditions["ramp_per_s"], think=conditions["think_s"],
            texts=_describe_comparison(models), requests=f"{path.stem}_requests.csv", samples=f"{path.stem}_samples.csv",
        ),
        "## Machine",
        format_machine(report["machine"]),
    ]  # fmt: skip
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _warn_of_other_work(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence where something else took a part of the cores that matters."""
    most = max((model["other_cores"] for model in models if model["other_cores"] is not None), default=0.0)
    if most < OTHER_CORES:
        return []
    return [f"**Other work kept up to {most:.1f} cores busy while this was measured: a quiet machine carries more.**"]


def list_card(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The card: header and a row a model."""
    lengths = report["conditions"]["lengths"]
    header = ["per core", *(f"users, clips of {length_s:g} s" for length_s in lengths), "live streams"]
    return header, [
        [model["label"], *(_format_users(one) for one in model["lengths"]), _format_streams(model["live"])]
        for model in report["models"]
    ]


def _format_users(one: Mapping[str, Any]) -> str:
    if one["users_per_core"] is None:
        return "less than was tried" if one["steps"] else _NONE
    if not one["users_per_core"]:
        return f"0 (one alone: {format_seconds((one['alone'] or {}).get('p95_s'))})"
    least = "at least " if one["at_least"] else ""
    return f"{least}{one['users_per_core']:.1f} ({one['rate_per_s']:.2f} requests a second in all)"


def _format_streams(live: Mapping[str, Any] | None) -> str:
    if live is None:
        return _NONE
    least = "at least " if live["too_many"] is None else ""
    return f"{least}{live['streams_per_core']:g} ({live['streams']} in all)"


def format_seconds(seconds: float | None) -> str:
    """Milliseconds below a second; seconds with two digits above."""
    if seconds is None:
        return "none"
    return f"{1000 * seconds:.0f} ms" if abs(seconds) < 1 else f"{seconds:.2f} s"


def _list_names(models: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(_describe_model(model) for model in models)


def _describe_model(model: Mapping[str, Any]) -> str:
    if model["workers"] is None:
        return f"{model['label']}, a service that ran already"
    workers, threads = (f"{model[key]} {key[:-1]}{'' if model[key] == 1 else 's'}" for key in ("workers", "threads"))
    return f"{model['label']} with {model['backend']} ({workers} of {threads})"


def _draw(path: Path, report: Mapping[str, Any], name: str, number: int = 0) -> list[str]:
    """Draw a plot beside the report; the line that shows it, or nothing where there is nothing to draw."""
    models, target_s = report["models"], report["conditions"]["target_s"]
    plot = path.with_name(f"{path.stem}_{name}{number + 1 if name == 'open' else ''}.png")
    if name == "card" and any(model["lengths"] or model["live"] for model in models):
        plot_card(plot, models, title=f"What a core carries, 95 % within {target_s:g} s")
    elif name == "open" and models[number]["open"]:
        title = f"Offered load, clips of 2 to 60 s: {models[number]['label']}"
        plot_open(plot, models[number]["open"], title=title, target_s=target_s)
    elif name == "lengths" and any(one["steps"] for model in models for one in model["lengths"]):
        plot_lengths(plot, models, title="Arrivals of clips of one length", target_s=target_s)
    elif name == "live" and any(model["live"] for model in models):
        plot_live(plot, models, title="Finals of live streams", target_s=target_s)
    else:
        return []
    return [f"![{name}]({plot.name})"]


def _format_model(path: Path, report: Mapping[str, Any], number: int) -> list[str]:
    model = report["models"][number]
    parts = [f"## {model['label']}"]
    if model["closed"]:
        parts += [f"### {model['closed']['users']} users", format_table(*_list_closed(model["closed"]))]
    if model["open"]:
        parts += ["### Rising load", format_table(*_list_open(model["open"])), *_draw(path, report, "open", number)]
    steps = [step for one in model["lengths"] for step in one["steps"]]
    if steps:
        parts += ["### Clips of one length", format_table(*_list_lengths(steps))]
    if model["live"]:
        parts += ["### Live streams", format_table(*_list_live(model["live"]))]
    return [*parts, "### Phases", format_table(*_list_phases(model))]


def _list_closed(closed: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    header = ("requests", "a second", "RTFx", "p50", "p95", "p99", "mean clip", "failed", "refused", "other text")
    answers = closed["answers"]
    row = [
        f"{answers['requests']}",
        f"{closed['per_second']:.2f}",
        f"{closed['rtfx']:.1f}",
        *_list_latency(closed["latency"]),
        format_seconds(closed["mean_audio_s"]),
        *_list_faults(answers),
    ]
    return header, [row]


def _list_latency(latency: Mapping[str, float] | None) -> list[str]:
    return [format_seconds((latency or {}).get(key)) for key in ("p50_s", "p95_s", "p99_s")]


def _list_faults(answers: Mapping[str, Any]) -> list[str]:
    return [str(answers["failed"]), str(sum(answers["refused"].values())), str(answers["different_text"])]


def _list_open(steps: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    header = (
        "arrivals a second", "seconds of sound a second", "answered a second", "p50", "p95", "p99", "failed", "refused",
        "other text", "queue: mean, most", "cores", "of the generator", "sent late, p95",
    )  # fmt: skip
    return header, [
        [
            f"{step['rate_per_s']:.2f}",
            f"{step['audio_per_s']:.1f}",
            f"{step['per_second']:.2f}",
            *_list_latency(step["latency"]),
            *_list_faults(step["answers"]),
            _NONE if step["queue_mean"] is None else f"{step['queue_mean']:.1f}, {step['queue_most']:.0f}",
            _format_cores(step["service_cores"]),
            _format_cores(step["generator_cores"]),
            format_seconds(step["late_p95_s"]),
        ]
        for step in steps
    ]


def _format_cores(cores: float | None) -> str:
    return _NONE if cores is None else f"{cores:.2f}"


def _list_lengths(steps: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    header = (
        "clips", "arrivals a second", "requests", "p50", "p95", "p99", "in time", "failed", "refused", "other text", "carried"
    )  # fmt: skip
    return header, [
        [
            f"{step['mean_audio_s']:.1f} s",
            f"{step['rate_per_s']:.2f}",
            str(step["answers"]["requests"]),
            *_list_latency(step["latency"]),
            format_percent(step["within"], 0),
            *_list_faults(step["answers"]),
            "yes" if step["carried"] else "no",
        ]
        for step in steps
    ]


def _list_live(live: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    header = (
        "streams", "sentences", "mean", "p50", "p95", "p99", "in time", "failed", "refused", "other text", "sent late, p95",
        "carried",
    )  # fmt: skip
    return header, [
        [
            str(step["streams"]),
            str(step["answers"]["requests"]),
            format_seconds(step["mean_audio_s"]),
            *_list_latency(step["latency"]),
            format_percent(step["within"], 0),
            *_list_faults(step["answers"]),
            format_seconds(step["late_p95_s"]),
            "yes" if step["carried"] else "no",
        ]
        for step in live["steps"]
    ]


def _list_phases(model: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    header = (
        "phase", "seconds", "cores of the service", "of the generator", "of other work", "most memory", "queue: mean, most"
    )  # fmt: skip
    return header, [
        [
            phase["name"],
            f"{phase['wall_s']:.1f}",
            *(_format_cores(phase[key]) for key in ("service_cores", "generator_cores", "other_cores")),
            _NONE if phase["rss_mb"] is None else f"{phase['rss_mb']:.0f} MB",
            _NONE if phase["queue_mean"] is None else f"{phase['queue_mean']:.1f}, {phase['queue_most']:.0f}",
        ]
        for phase in model["phases"]
    ]


def _describe_comparison(models: Sequence[Mapping[str, Any]]) -> str:
    if all(model["compared_with"] == "offline" for model in models):
        return (
            "every answer is compared with what the same model made of the same bytes offline, before the load; every final of a "
            "live stream with the offline text of the same segment."
        )
    return (
        "the model behind the service was not given, so every answer is compared with the first one for the same sound, which "
        "may be wrong itself."
    )


def _describe_texts(report: Mapping[str, Any]) -> str:
    answered = sum(model["answers"]["ok"] for model in report["models"])
    different = sum(model["answers"]["different_text"] for model in report["models"])
    sounds = [f"`{name}` ({count})" for model in report["models"] for name, count in model["differences"].items()]
    offline = all(model["compared_with"] == "offline" for model in report["models"])
    other = "the same model gave offline" if offline else "the first answer for the same sound"
    text = f"{different} of {answered} answers and finals hold another text than {other}"
    return f"{text}{': ' + ', '.join(sounds) if sounds else ''}."


def _format_conditions(report: Mapping[str, Any]) -> str:
    conditions, clips = report["conditions"], report["conditions"]["clips"]
    sources = ", ".join(f"`{model['source']}`" for model in report["models"] if model["source"]) or "not known"
    started = (
        f"{conditions['max_streams']} live streams allowed" if conditions["started"] else "not known: it ran already"
    )
    rows = [
        ("models", sources),
        ("settings of the service", ", ".join([started, *(f"`{setting}`" for setting in conditions["settings"])])),
        ("places in the queue", conditions["max_queue"] if conditions["started"] else "not known"),
        (
            "the mix",
            (
                f"{clips['count']} clips of `{clips['manifest']}`, joined to {clips['shortest_s']:.1f} to "
                f"{clips['longest_s']:.1f} s, {clips['mean_s']:.1f} s on average; {clips['opus']} as opus in ogg, the "
                "others as wav of 16 bits"
            ),
        ),
        ("clips of one length", f"{conditions['clips_of_a_length']} of each"),
        ("live scripts", conditions["live_scripts"]),
        ("a client gives up after", f"{conditions['timeout_s']:g} s of silence"),
        ("seed", conditions["seed"]),
        ("other work", f"load average {conditions['load_average']:.1f} before, {conditions['cores']} cores"),
        ("commit", conditions["commit"] or "unknown: the source is not tracked by git"),
    ]
    return format_table(("condition", ""), rows)


def render_card(report: Mapping[str, Any]) -> Table:
    """The card for the terminal."""
    header, rows = list_card(report)
    table = Table(title=f"95 % within {report['conditions']['target_s']:g} s", title_justify="left")
    for name in header:
        table.add_column(name, justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def summarize(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few figures that belong into one line of JSON: by model, null where something was not measured."""
    return {model["label"]: _summarize_model(model) for model in report["models"]}


def _summarize_model(model: Mapping[str, Any]) -> dict[str, Any]:
    closed, live, answers = model["closed"] or {}, model["live"] or {}, model["answers"]
    latency = closed.get("latency") or {}
    return {
        "per_second": _round(closed.get("per_second")),
        **{f"{key}_s": _round(latency.get(f"{key}_s")) for key in ("p50", "p95", "p99")},
        "users_per_core": {f"{one['length_s']:g}": _round(one["users_per_core"]) for one in model["lengths"]},
        "streams_per_core": live.get("streams_per_core"),
        "requests": answers["requests"],
        "refused": sum(answers["refused"].values()),
        "failed": answers["failed"],
        "different_text": answers["different_text"],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def is_flawless(report: Mapping[str, Any]) -> bool:
    """Whether nothing failed and every text was right; refusals at capacity are no fault."""
    return all(not model["answers"]["failed"] and not model["answers"]["different_text"] for model in report["models"])
