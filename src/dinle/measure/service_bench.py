"""The HTTP service under load -> ``service_report.md``, its JSON, its plots and every request.

The service runs as a process of its own; the load comes from this one, on the same cores.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError
from dinle.measure.benchmark import find_commit, find_json
from dinle.measure.load import (
    Row,
    check_clips,
    draw_arrivals,
    probe_recovery,
    run_closed_loop,
    run_open_loop,
    set_texts,
)
from dinle.measure.load_client import OK, LoadClip
from dinle.measure.service_clips import describe_clips, make_clips, recognize_clips
from dinle.measure.service_config import ServiceBenchConfig
from dinle.measure.service_figures import summarize_loop
from dinle.measure.service_report import RECOVERY_FACTOR, find_requests, make_report, summarize, write_service_report
from dinle.measure.service_watch import SAMPLE_EVERY_S, Watch
from dinle.measure.weights import find_model_files
from dinle.progress import progress, track
from dinle.recognize.load import load
from dinle.run import describe_machine, write_run
from dinle.serve.process import ServiceFailedError, start_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dinle.measure.weights import ModelFiles
    from dinle.serve.settings import Settings

SOAK_SAMPLE_EVERY_S = 5.0
_SHOWN = 200  # characters of an answer in an error


@dataclass(frozen=True)
class Bench:
    """What every phase needs.

    Attributes:
        url: base URL of the service.
        clips: the mix, from short to long, with the expected texts.
        config: what was asked for.
        watch: samples the service; also writes down what each phase costs.
        rows: the requests of each phase, by its name.
    """

    url: str
    clips: list[LoadClip]
    config: ServiceBenchConfig
    watch: Watch
    rows: dict[str, list[Row]]


def benchmark_service(config: ServiceBenchConfig) -> Path:
    """Measure the service: one user, many users, an overload and its end, a soak.

    Returns:
        The Markdown report; ``<stem>.json``, ``<stem>_requests.jsonl``, ``<stem>_*.png`` and, last, ``<stem>_run.json`` lie
        beside it.

    Raises:
        UsageError: a number or a setting that does not fit.
        ManifestError, AudioError: the clips cannot be read.
        BundleError: the model cannot be found or loaded.
        ServiceFailedError: the service does not start, or refuses a clip when nothing else is asked of it.
    """
    started = time.monotonic()
    check_config(config)
    settings = read_server_settings(config.settings)
    model = find_model_files(config.model, config.backend)
    clips = prepare_clips(config, settings)
    conditions = describe_conditions(config, settings, model, clips)
    env = dict(setting.split("=", 1) for setting in config.settings) | {"ASR_BACKEND": str(config.backend)}
    with start_service(Path(config.model) if config.model else None, env=env) as service:
        measured = measure_service(service.url, service.pid, clips, config)
    report = make_report({**measured, "conditions": conditions, "machine": describe_machine()})
    path = config.report_path
    path.parent.mkdir(parents=True, exist_ok=True)
    run_name = f"{path.stem}_run.json"
    (path.parent / run_name).unlink(missing_ok=True)
    find_json(path).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_requests(find_requests(path), measured["rows"])
    write_service_report(path, report)
    write_run(
        path.parent,
        stage="benchmark-service",
        config=config,
        seconds=time.monotonic() - started,
        inputs={file.name: file for file in model.files},
        results=summarize(report),
        name=run_name,
    )
    return path


def describe_conditions(
    config: ServiceBenchConfig, settings: Settings, model: ModelFiles, clips: list[LoadClip]
) -> dict[str, Any]:
    """What figures depend on; ``conditions`` of the report's JSON."""
    return {
        "model": {"name": model.name, "backend": model.backend, "stored_as": model.stored_as, "source": model.source},
        "workers": settings.engine_workers,
        "threads": settings.engine_threads,
        "settings": list(config.settings),
        "clips": describe_clips(clips, config.clips),
        "users": config.users,
        "ramp_per_s": config.ramp,
        "overload_factor": config.overload_factor,
        "timeout_s": config.timeout_s,
        "seed": config.seed,
        "load_average": os.getloadavg()[0],
        "commit": find_commit(),
    }


def check_config(config: ServiceBenchConfig) -> None:
    """Refuse numbers that no phase can be run with.

    Raises:
        UsageError: see the message.
    """
    ramp_s = config.users / config.ramp if config.ramp > 0 else 0.0
    if config.users < 1 or ramp_s <= 0:
        raise UsageError(
            f"users {config.users}, ramp {config.ramp}; expected at least 1 user, and more than 0 a second"
        )
    for name in ("seconds", "soak_seconds"):
        seconds = getattr(config, name)
        if seconds <= ramp_s and not (name == "soak_seconds" and seconds == 0):
            raise UsageError(
                f"{name} is {seconds:g}; expected more than the {ramp_s:g} s in which all users have begun"
            )
    if (
        config.unloaded_seconds <= 0
        or config.overload_seconds < 0
        or config.overload_factor <= 0
        or config.timeout_s <= 0
    ):
        raise UsageError(
            f"unloaded_seconds {config.unloaded_seconds:g}, overload_seconds {config.overload_seconds:g}, overload_factor "
            f"{config.overload_factor:g}, timeout_s {config.timeout_s:g}; expected more than 0 (overload_seconds may be 0)"
        )


def read_server_settings(given: tuple[str, ...]) -> Settings:
    """The settings that the service will run with, from ``ASR_NAME=value``; this process's own variables do not count.

    Raises:
        UsageError: not of that form, an unknown name, or a value that does not fit.
    """
    from pydantic import ValidationError

    from dinle.serve.settings import PREFIX, Settings

    make: Callable[..., Settings] = Settings
    values = {}
    for setting in given:
        name, mark, value = setting.partition("=")
        field = name.removeprefix(PREFIX).casefold()
        if (
            not mark
            or not name.startswith(PREFIX)
            or field not in Settings.model_fields
            or field in {"backend", "model_dir"}
        ):
            raise UsageError(
                f"the setting {setting!r} is none of the service's; expected {PREFIX}NAME=value, such as {PREFIX}WORKERS=2 "
                "(model and backend have flags of their own)"
            )
        values[field] = value
    try:
        return make(_env_prefix="DINLE_BENCHMARK_UNSET_", **values)
    except ValidationError as error:
        raise UsageError(f"the settings {' '.join(given)} do not fit: {error}") from error


def prepare_clips(config: ServiceBenchConfig, settings: Settings) -> list[LoadClip]:
    """The mix, and what the same model makes of the same bytes when nobody else asks."""
    clips = make_clips(config.clips, config.clip_count, config.seed)
    recognizer = load(config.model, backend=config.backend, threads=settings.engine_threads)
    texts = [recognize_clips([clip], recognizer)[0] for clip in track(clips, "transcribing the clips offline")]
    return set_texts(clips, texts)


def measure_service(url: str, pid: int, clips: list[LoadClip], config: ServiceBenchConfig) -> dict[str, Any]:
    """Run every phase against a service that is up.

    Args:
        url: its base URL.
        pid: its process.
        clips: the mix, from short to long.
        config: of the phases.

    Returns:
        ``rows`` by phase, ``facts`` (lengths and rates of phases), and the watch's ``samples`` and ``phases``: what
        :func:`dinle.measure.service_report.make_report` takes beside conditions and machine.

    Raises:
        ServiceFailedError: it refuses a clip when nothing else is asked of it, or answers nothing under load.
    """
    with Watch(url, pid) as watch:
        bench = Bench(url, clips, config, watch, {})
        facts: dict[str, Any] = {}
        for run in PHASES:
            facts |= run(bench, facts)
    return {"rows": bench.rows, "facts": facts, "samples": watch.samples, "phases": watch.phases}


@contextmanager
def follow_phase(bench: Bench, name: str, description: str, seconds: float) -> Iterator[Callable[[float], None]]:
    """A phase under the watch, with a progress bar of its seconds; yields what is told the time."""
    with progress(description, total=seconds) as bar, bench.watch.phase(name):
        yield lambda passed_s: bar.update(completed=min(passed_s, seconds))
        bar.update(completed=seconds)


def run_unloaded(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Every clip once to warm up, then one user."""
    warm_up = check_clips(bench.url, bench.clips, bench.config.timeout_s)
    bad = [row for row in warm_up if row["status"] != OK or row["error"]]
    if bad:
        what = {"answer": "an answer without a text"}.get(
            bad[0]["error"], bad[0]["error"]
        ) or f"status {bad[0]['status']}"
        raise ServiceFailedError(
            f"{len(bad)} of {len(warm_up)} clips were not transcribed though nothing else was asked of the service; the first "
            f"was {bad[0]['clip']}: {what}"[:_SHOWN]
        )
    seconds = bench.config.unloaded_seconds
    with follow_phase(bench, "unloaded", "one user", seconds) as tell:
        bench.rows["unloaded"] = run_closed_loop(
            bench.url, bench.clips, users=1, seconds=seconds, seed=bench.config.seed, on_time=tell,
            timeout_s=bench.config.timeout_s,
        )  # fmt: skip
    return {"unloaded_s": seconds}


def run_users(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """Many users, one after another."""
    _run_loop(bench, "users", f"{bench.config.users} users", bench.config.seconds)
    return {"users_s": bench.config.seconds, "ramp_s": bench.config.users / bench.config.ramp}


def _run_loop(bench: Bench, name: str, description: str, seconds: float) -> None:
    config = bench.config
    with follow_phase(bench, name, description, seconds) as tell:
        bench.rows[name] = run_closed_loop(
            bench.url, bench.clips, users=config.users, seconds=seconds, ramp_per_s=config.ramp, seed=config.seed,
            timeout_s=config.timeout_s, on_time=tell,
        )  # fmt: skip


def run_overload(bench: Bench, facts: dict[str, Any]) -> dict[str, Any]:
    """Arrivals that wait for nobody, more than the service can take; then single requests until it is quick again."""
    config = bench.config
    if not config.overload_seconds:
        return {}
    users = summarize_loop(bench.rows["users"], facts["ramp_s"], facts["users_s"])
    unloaded = summarize_loop(bench.rows["unloaded"], 0.0, facts["unloaded_s"])
    if not users["per_second"] or unloaded["latency"] is None:
        raise ServiceFailedError(
            f"nothing was answered in the steady part of the load of {config.users} users: {users['answers']}"
        )
    rate_per_s = config.overload_factor * users["per_second"]
    target_s = RECOVERY_FACTOR * unloaded["latency"]["p95_s"]
    probe = bench.clips[len(bench.clips) // 2]

    with ExitStack() as overload:
        tell = overload.enter_context(
            follow_phase(bench, "overload", f"overload, {rate_per_s:.1f} a second", config.overload_seconds)
        )

        def follow_recovery() -> None:
            overload.close()  # what is still under way belongs to the recovery
            with bench.watch.phase("recovery"):
                bench.rows["recovery"] = probe_recovery(bench.url, probe, target_s=target_s, timeout_s=config.timeout_s)

        bench.rows["overload"] = run_open_loop(
            bench.url, bench.clips, draw_arrivals(rate_per_s, config.overload_seconds, config.seed),
            seconds=config.overload_seconds, seed=config.seed, timeout_s=config.timeout_s, on_time=tell,
            at_end=follow_recovery,
        )  # fmt: skip
    return {
        "overload_s": config.overload_seconds,
        "rate_per_s": rate_per_s,
        "target_s": target_s,
        "probe_audio_s": probe.audio_s,
    }


def run_soak(bench: Bench, _: dict[str, Any]) -> dict[str, Any]:
    """The load of many users for long: does memory grow."""
    seconds = bench.config.soak_seconds
    if not seconds:
        return {}
    bench.watch.every_s = SOAK_SAMPLE_EVERY_S
    _run_loop(bench, "soak", "soak", seconds)
    bench.watch.every_s = SAMPLE_EVERY_S
    return {"soak_s": seconds}


def write_requests(path: Path, rows: dict[str, list[Row]]) -> None:
    """Every request, one JSON object a line, with the name of its phase; the file appears complete or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for phase, requests in rows.items():
            for row in requests:
                file.write(json.dumps({"phase": phase, **row}, ensure_ascii=False) + "\n")
    partial.replace(path)


# In their order; each takes the bench and the facts of those before it, adds its rows to the bench and returns its facts.
PHASES: tuple[Callable[[Bench, dict[str, Any]], dict[str, Any]], ...] = (
    run_unloaded,
    run_users,
    run_overload,
    run_soak,
)
