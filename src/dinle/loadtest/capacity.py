"""``dinle loadtest``: load on a service, more and more of it -> ``capacity.md``, its JSON, its plots and every request.

The service runs as a process of its own, the load generator as another; this one searches for the most that is carried.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError
from dinle.loadtest.clips import CLIPS_OF_A_LENGTH, make_clips, make_mix, make_scripts, read_sources, write_finals
from dinle.loadtest.driver import start_generator
from dinle.loadtest.figures import make_report
from dinle.loadtest.report import summarize, write_capacity_report
from dinle.loadtest.rows import write_rows
from dinle.loadtest.session import Session, Sounds, put_under_load
from dinle.loadtest.stages import PAUSE_S, Row, write_material
from dinle.loadtest.watch import Watch
from dinle.measure.benchmark import find_commit, find_json
from dinle.measure.load import set_texts
from dinle.measure.load_client import OK, Client, LoadClip
from dinle.measure.service_bench import read_server_settings
from dinle.measure.service_clips import describe_clips, recognize_clips
from dinle.measure.weights import find_model_files
from dinle.progress import track
from dinle.recognize.load import load
from dinle.run import describe_machine, write_run
from dinle.serve.process import ServiceFailedError, start_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.loadtest.config import LoadTestConfig
    from dinle.measure.weights import ModelFiles
    from dinle.serve.settings import Settings

MAX_STREAMS = "ASR_MAX_STREAMS"


def measure_capacity(config: LoadTestConfig) -> Path:
    """Test each model's service, or the one that runs already.

    Returns:
        The Markdown report; ``<stem>.json``, ``<stem>_requests.csv``, ``<stem>_samples.csv``, ``<stem>_*.png`` and, last,
        ``<stem>_run.json`` lie beside it.

    Raises:
        UsageError: a number or a setting that does not fit.
        MissingExtraError: Locust is not installed.
        ManifestError, AudioError: the clips cannot be read.
        BundleError: a model cannot be found or loaded.
        ServiceFailedError: the service does not start, or refuses a clip when nothing else is asked of it.
        GeneratorFailedError: the load generator failed.
    """
    started = time.monotonic()
    check_config(config)
    settings = read_server_settings(config.settings)
    tested = find_models(config)
    sounds = make_sounds(config)
    conditions = describe_conditions(config, settings, sounds)
    rows, samples, models, phases = list[Row](), list[Row](), list[dict[str, Any]](), list[dict[str, Any]]()
    files: dict[str, Path] = {}
    for model, found in tested:
        with open_session(config, model, found, sounds, settings) as (session, described):
            put_under_load(session)
        rows += session.rows
        samples += [{"model": session.label, **sample} for sample in session.watch.samples]
        models.append(described)
        phases += session.phases
        files |= {f"{session.label}/{file.name}": file for file in (found.files if found else ())}
    facts = {"conditions": conditions, "machine": describe_machine(), "models": models, "phases": phases}
    write_products(config, facts, rows, samples, files=files, started=started)
    return config.report_path


def write_products(
    config: LoadTestConfig, facts: dict[str, Any], rows: Sequence[Row], samples: Sequence[Row], *, files: dict[str, Path],
    started: float,
) -> None:  # fmt: skip
    """Write the report and what lies beside it."""
    path = config.report_path
    path.parent.mkdir(parents=True, exist_ok=True)
    run_name = f"{path.stem}_run.json"
    (path.parent / run_name).unlink(missing_ok=True)
    write_rows(path.with_name(f"{path.stem}_requests.csv"), rows)
    write_rows(path.with_name(f"{path.stem}_samples.csv"), samples)
    report = make_report(facts, rows, samples)
    find_json(path).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_capacity_report(path, report)
    write_run(
        path.parent,
        stage="loadtest",
        config=config,
        seconds=time.monotonic() - started,
        inputs=files,
        results=summarize(report),
        name=run_name,
    )


def check_config(config: LoadTestConfig) -> None:
    """Refuse numbers that no load can be made of.

    Raises:
        UsageError: see the message.
    """
    for name in ("ramp", "seconds", "step_seconds", "live_seconds", "target_s", "timeout_s"):
        if not getattr(config, name) > 0:
            raise UsageError(f"{name} is {getattr(config, name):g}; expected more than 0")
    for name in ("users", "think_s", "max_streams"):
        if getattr(config, name) < 0:
            raise UsageError(f"{name} is {getattr(config, name):g}; expected 0 or more")
    for name in ("loads", "lengths"):
        if any(not value > 0 for value in getattr(config, name)):
            raise UsageError(f"{name} holds {min(getattr(config, name)):g}; expected numbers above 0")
    if config.users and config.seconds <= config.users / config.ramp:
        ramp_s = config.users / config.ramp
        raise UsageError(
            f"seconds is {config.seconds:g}; expected more than the {ramp_s:g} s in which all users have begun"
        )
    if config.host is not None and len(config.model) > 1:
        raise UsageError(f"{len(config.model)} models for the service at {config.host}; expected the one that it runs")
    if config.host is not None and config.settings:
        raise UsageError(f"settings for the service at {config.host}, which runs already; leave one of them out")


def find_models(config: LoadTestConfig) -> list[tuple[str | None, ModelFiles | None]]:
    """The models, and their files where they are known.

    Raises:
        UsageError: two have the same name and precision, by which rows are told apart.
        BundleError: one cannot be found.
    """
    given: tuple[str | None, ...] = config.model or (None,)
    known = bool(config.model) or config.host is None
    found = [(model, find_model_files(model, config.backend) if known else None) for model in given]
    labels = [name_model(files) for _, files in found if files]
    if len(set(labels)) < len(labels):
        raise UsageError(f"the models are called {', '.join(labels)}; expected different names, or one run for each")
    return found


def name_model(files: ModelFiles) -> str:
    """What rows and tables call a model: its name and how its weights are stored."""
    return f"{files.name} {files.stored_as}"


def make_sounds(config: LoadTestConfig) -> Sounds:
    """Everything that is sent, without the texts that it should be answered with."""
    sources = read_sources(config.clips)
    mix = make_mix(sources, config.clip_count, config.seed)
    by_length: dict[float, list[LoadClip]] = {}
    for length_s in config.lengths:
        first = len(mix) + CLIPS_OF_A_LENGTH * len(by_length)
        by_length[length_s] = make_clips(sources, [length_s] * CLIPS_OF_A_LENGTH, config.seed, first)
    scripts = make_scripts(sources, config.live_seconds, config.seed) if config.max_streams else []
    return Sounds(mix, by_length, scripts)


def transcribe_sounds(sounds: Sounds, model: str | None, config: LoadTestConfig, settings: Settings) -> Sounds:
    """The sounds with the texts that the same model makes of the same bytes when nobody else asks."""
    recognizer = load(model, backend=config.backend, threads=settings.engine_threads)

    def write(clips: list[LoadClip]) -> list[LoadClip]:
        return set_texts(clips, [recognize_clips([clip], recognizer)[0] for clip in clips])

    groups = [sounds.mix, *sounds.by_length.values()]
    mix, *others = [write(clips) for clips in track(groups, "transcribing the clips offline")]
    scripts = [
        replace(script, finals=write_finals(script, recognizer, settings.live_silence_s))
        for script in track(sounds.scripts, "transcribing the live scripts offline")
    ]
    return Sounds(mix, dict(zip(sounds.by_length, others, strict=True)), scripts)


@contextmanager
def open_session(
    config: LoadTestConfig, model: str | None, files: ModelFiles | None, sounds: Sounds, settings: Settings
) -> Iterator[tuple[Session, dict[str, Any]]]:
    """A service with the load generator beside it, and what it is.

    Args:
        config: of the load test.
        model: bundle folder (``None``: the bundled one, or what the running service has).
        files: of the model; ``None``: it is not known, and answers are compared with the first one.
        sounds: what will be sent.
        settings: of the service.
    """
    heard = sounds if files is None else transcribe_sounds(sounds, model, config, settings)
    with tempfile.TemporaryDirectory() as folder, _find_service(config, model) as url:
        write_material(Path(folder), heard.list_clips(), heard.scripts)
        described = describe_model(url, files, config, settings)
        with start_generator(Path(folder), url, config.timeout_s) as generator:
            watch = Watch(url, local=config.host is None)
            cores = config.cores or os.cpu_count() or 1
            yield Session(described["label"], generator, watch, heard, config, cores), described


@contextmanager
def _find_service(config: LoadTestConfig, model: str | None) -> Iterator[str]:
    """The base URL of the service that runs already, or of one that runs as long as it is needed."""
    if config.host is not None:
        yield config.host.rstrip("/")
        return
    given = dict(setting.split("=", 1) for setting in config.settings)
    env = {MAX_STREAMS: str(max(1, config.max_streams)), **given, "ASR_BACKEND": str(config.backend)}
    with start_service(Path(model) if model else None, env=env) as service:
        yield service.url


def describe_model(url: str, files: ModelFiles | None, config: LoadTestConfig, settings: Settings) -> dict[str, Any]:
    """What is tested; an entry of ``models``.

    Raises:
        ServiceFailedError: nothing answers there.
    """
    client = Client(url)
    try:
        status, content = client.get("/healthz")
        health = json.loads(content) if status == OK else {}
    except (OSError, ValueError) as error:
        raise ServiceFailedError(f"no service answers at {url}: {error}; start one with 'dinle serve'") from error
    finally:
        client.close()
    started = config.host is None
    name, backend = health.get("model", "unknown model"), health.get("backend", "unknown engine")
    return {
        "label": name_model(files) if files else f"{name} {backend}",
        "name": name,
        "backend": backend,
        "source": files.source if files else None,
        "workers": settings.engine_workers if started else None,
        "threads": settings.engine_threads if started else None,
        "compared_with": "offline" if files else "first answer",
    }


def describe_conditions(config: LoadTestConfig, settings: Settings, sounds: Sounds) -> dict[str, Any]:
    """What figures depend on; ``conditions`` of the report's JSON."""
    return {
        "target_s": config.target_s,
        "cores": config.cores or os.cpu_count() or 1,
        "lengths": list(config.lengths),
        "users": config.users,
        "ramp_per_s": config.ramp,
        "think_s": config.think_s,
        "clips": describe_clips(sounds.mix, config.clips),
        "clips_of_a_length": CLIPS_OF_A_LENGTH,
        "live_scripts": len(sounds.scripts),
        "max_streams": config.max_streams,
        "max_queue": settings.max_queue if config.host is None else None,
        "silence_s": settings.live_silence_s,
        "pause_s": PAUSE_S,
        "started": config.host is None,
        "settings": list(config.settings),
        "timeout_s": config.timeout_s,
        "seed": config.seed,
        "load_average": os.getloadavg()[0],
        "commit": find_commit(),
    }
