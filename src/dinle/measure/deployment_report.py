"""The plan of a deployment as a table for the terminal and as the tables of ``docs/deployment.md``.

``python -m dinle.measure.deployment_report [DOCUMENT]`` writes the document's tables anew: each stands below the command that
prints it, ``<!-- dinle plan ... -->``, and ends at ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.config import add_arguments, build_config
from dinle.errors import DinleError, UsageError
from dinle.markdown import format_percent, format_table
from dinle.measure.deployment import Plan, check_config, plan_capacity
from dinle.measure.deployment_config import PlanConfig
from dinle.measure.deployment_figures import add_capacity, extract_figures, predict_overload, read_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCUMENT = Path("docs/deployment.md")
BLOCK = re.compile(r"(<!-- dinle plan (?P<flags>.*?) -->\n).*?(\n<!-- end -->)", re.DOTALL)
Row = tuple[str, "Callable[[Plan], str]"]


def make_plans(config: PlanConfig) -> list[dict[str, Any]]:
    """A plan for each report of the config.

    Returns:
        ``report`` (its path), ``plan`` (a :class:`Plan`) and ``overload`` (the model against the measurement, or ``None``).

    Raises:
        UsageError: a report that is not there or is none, or a value out of its range.
    """
    check_config(config)
    if not config.report:
        raise UsageError("--report names no file; expected JSON reports of dinle benchmark-service")
    tested = None if config.capacity is None else read_report(config.capacity)
    made = []
    for path in config.report:
        report = read_report(path)
        figures = extract_figures(report, str(path))
        if tested is not None:
            figures = add_capacity(figures, tested, str(config.capacity))
        plan = plan_capacity(figures, config)
        made.append({"report": str(path), "plan": plan, "overload": predict_overload(report, config.max_queue)})
    return made


def list_rows(plans: Sequence[dict[str, Any]], config: PlanConfig) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, one column for each plan."""

    def show_all(rows: Sequence[Row]) -> list[list[str]]:
        return [[name, *(show(made["plan"]) for made in plans)] for name, show in rows]

    table = [
        *show_all(_list_measured(config)),
        *_list_checks(plans),
        *show_all([*_list_headroom(config), *_list_needs(config)]),
    ]
    return ["what", *(made["plan"].figures.model for made in plans)], table


def _list_checks(plans: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The model against the measurement, where there is one."""
    checks: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("overload: refused, computed (measured)", "refused", format_percent),
        ("overload: mean time of the accepted, computed (measured)", "seconds", "{:.2f} s".format),
    )
    return [
        [
            name,
            *(
                f"{show(made['overload'][key])} ({show(made['overload'][f'{key}_measured'])})"
                if made["overload"]
                else "not measured"
                for made in plans
            ),
        ]
        for name, key, show in checks
    ]


def _list_measured(config: PlanConfig) -> list[Row]:
    tested: list[Row] = [
        ("measured: users a core, by length of clip", _show_users),
        ("measured: live streams a core", lambda plan: _show(plan.figures.streams_per_core)),
    ]
    return [
        ("cores of a pod, workers", lambda plan: f"{plan.figures.cores}, {plan.figures.workers}"),
        ("measured: sound in a second, one core", lambda plan: f"{plan.figures.rtfx / plan.figures.cores:.1f} s"),
        (
            "measured: a clip keeps a worker for",
            lambda plan: f"{plan.figures.service_s:.2f} s (clips of {plan.figures.clip_s:.1f} s)",
        ),
        (
            "measured: most memory of a pod",
            lambda plan: "not measured" if plan.figures.memory_mb is None else f"{plan.figures.memory_mb:.0f} MB",
        ),
        *(tested if config.capacity else ()),
    ]


def _show_users(plan: Plan) -> str:
    return ", ".join(f"{length:g} s: {_show(users)}" for length, users in plan.figures.users_per_core) or "not measured"


def _show(value: float | None) -> str:
    return "not measured" if value is None else _format(value)


def _list_headroom(config: PlanConfig) -> list[Row]:
    reasons = {"wait": f"95 % wait at most {config.wait_s:g} s", "cap": f"at most {config.utilisation:g}"}
    return [
        ("utilisation of the workers at the peak", lambda plan: f"{plan.utilisation:.2f} ({reasons[plan.bound]})"),
        ("wait for a worker: mean, p95", lambda plan: f"{plan.mean_wait_s:.2f} s, {plan.p95_wait_s:.2f} s"),
        ("p95 if all pods shared one queue", lambda plan: f"{plan.p95_wait_common_s:.2f} s"),
        ("refused by a full queue", lambda plan: f"{_format(100 * plan.refused_share)} %"),
        (f"users a core, each a clip {config.think_s:g} s after the answer", lambda plan: f"{plan.users_per_core:.0f}"),
    ]


def _list_needs(config: PlanConfig) -> list[Row]:
    costs: list[Row] = [
        (f"{name}, at {config.price_per_core_hour:g} a core-hour", lambda plan, key=key: f"{getattr(plan, key):,.0f}")  # type: ignore[misc]
        for name, key in (
            ("cost with a fixed number of pods", "cost_fixed"),
            ("cost following the load", "cost_following"),
        )
        if config.price_per_core_hour is not None
    ]
    streams: list[Row] = [
        (f"pods for {config.live_streams:g} live streams at the peak", lambda plan: f"{plan.stream_pods}")
    ] * (config.live_streams > 0)
    reserve = "no reserve for a zone" if config.zones == 1 else f"one of {config.zones} zones in reserve"
    return [
        (
            "peak: sound in a second, requests a second",
            lambda plan: f"{_format(plan.peak_load)} s, {_format(plan.peak_requests_per_s)}",
        ),
        *streams,
        (f"**pods** needed, with {reserve}", lambda plan: f"{plan.pods_needed}, **{plan.live_pods}**"),
        ("pods for what may wait", lambda plan: f"{plan.batch_pods}"),
        ("cores in all", lambda plan: f"{plan.cores:,}"),
        (
            f"nodes of {config.node_cores} cores and {config.node_memory_gb:g} GB, pods of each",
            lambda plan: f"{plan.nodes}, {plan.pods_per_node}",
        ),
        ("network at the peak", lambda plan: f"{_format(plan.peak_mbit_per_s)} Mbit/s"),
        (
            f"audio of a month, kept for {config.keep_days:g} days",
            lambda plan: f"{_format(plan.month_tb)} TB, {_format(plan.kept_tb)} TB",
        ),
        (
            "core-hours a month: fixed, following the load",
            lambda plan: f"{plan.core_hours_fixed:,.0f}, {plan.core_hours_following:,.0f}",
        ),
        *costs,
    ]


def _format(value: float) -> str:
    """Three digits, or whole numbers with commas where they are larger."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def describe_load(config: PlanConfig) -> str:
    """The load in one line."""
    waiting = f", {format_percent(config.batch_share, 0)} of them may wait" if config.batch_share else ""
    return (
        f"{config.hours_per_month:,.0f} hours of audio a month, the peak {config.peak_factor:g} times the mean{waiting}"
    )


def render_plans(plans: Sequence[dict[str, Any]], config: PlanConfig) -> Table:
    """The table for the terminal."""
    header, rows = list_rows(plans, config)
    table = Table(title=describe_load(config), title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(cell.replace("**", "") for cell in row))
    return table


def format_plans(plans: Sequence[dict[str, Any]], config: PlanConfig) -> str:
    """The table in Markdown, below one line that names the load."""
    return f"{describe_load(config)}:\n\n{format_table(*list_rows(plans, config))}"


def to_json(plans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plans as JSON-ready values, in full precision."""
    return [made | {"plan": asdict(made["plan"])} for made in plans]


def read_flags(flags: str) -> PlanConfig:
    """The config that ``dinle plan FLAGS`` stands for."""
    parser = argparse.ArgumentParser(prog="dinle plan", exit_on_error=False)
    add_arguments(parser, PlanConfig)
    return build_config(PlanConfig, vars(parser.parse_args(shlex.split(flags))), where="dinle plan")


def update_tables(text: str) -> str:
    """The document with every table below a ``<!-- dinle plan ... -->`` made anew from the reports that it names."""

    def make(found: re.Match[str]) -> str:
        config = read_flags(found["flags"])
        return f"{found[1]}\n{format_plans(make_plans(config), config)}\n{found[3]}"

    return BLOCK.sub(make, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables of a document anew; status 0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m dinle.measure.deployment_report", description=__doc__)
    parser.add_argument("document", type=Path, nargs="?", default=DOCUMENT, help=f"default: {DOCUMENT}")
    path = parser.parse_args(argv).document
    try:
        text = path.read_text(encoding="utf-8")
        path.write_text(update_tables(text), encoding="utf-8")
    except (DinleError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
