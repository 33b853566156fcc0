"""What Ray Serve costs: the same load on ``dinle serve`` and on ``serve run``, in turns, each started anew.

    python -m dinle.scale.overhead --rounds 3 --seconds 25

Ten users post one clip after another; both services run the same model with the same workers and threads on the same
machine, and only one of them is up at a time. Prints a table, and one line of JSON last, for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from rich.table import Table

from dinle.config import add_arguments, build_config
from dinle.measure.load import check_clips, run_closed_loop, set_texts
from dinle.measure.load_client import OK
from dinle.measure.service_clips import make_clips, recognize_clips
from dinle.measure.service_figures import summarize_loop
from dinle.progress import open_console, track
from dinle.recognize.load import load
from dinle.scale.environment import SERVE_ENVIRONMENT, make_token
from dinle.serve.process import ServiceFailedError, find_free_port, start_service
from dinle.serve.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dinle.measure.load_client import LoadClip

START_S = 120.0
STOP_S = 60.0
LAST_WORDS = 2000
PLAIN, RAY = "dinle serve", "serve run"


@dataclass(frozen=True)
class OverheadConfig:
    """the same load on plain uvicorn and on Ray Serve -> what the latter costs."""

    model: Annotated[str | None, "bundle folder (default: the bundled model)"] = None
    clip_count: Annotated[int, "clips in the mix, of 3 to 15 s"] = 12
    users: Annotated[int, "users of the closed loop"] = 10
    seconds: Annotated[float, "seconds of each loop"] = 25.0
    rounds: Annotated[int, "loops of each service"] = 3
    workers: Annotated[int | None, "workers of each service (default: one for each core)"] = None
    threads: Annotated[int | None, "threads of each worker (default: cores / workers)"] = None


def measure_overhead(config: OverheadConfig) -> dict[str, Any]:
    """Throughput and latency of both services in each round, their medians, and the share of throughput that is lost.

    Raises:
        ServiceFailedError: a service does not start, or does not transcribe a clip.
    """
    env = {
        f"{PREFIX}{name.upper()}": str(value)
        for name, value in (("workers", config.workers), ("threads", config.threads))
        if value is not None
    }
    recognizer = load(config.model)
    clips = make_clips("mini", config.clip_count, seed=1)
    clips = set_texts(clips, [recognize_clips([clip], recognizer)[0] for clip in track(clips, "transcribing offline")])
    rounds: list[dict[str, Any]] = []
    for number in range(config.rounds):
        order = (PLAIN, RAY) if number % 2 == 0 else (RAY, PLAIN)
        rounds.append({name: measure_service(name, config, clips, env) for name in order})
        sys.stderr.write(f"round {number + 1}: {json.dumps(rounds[-1], ensure_ascii=False)}\n")
    medians = {
        name: {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
        for name in (PLAIN, RAY)
    }
    lost = 1 - medians[RAY]["per_second"] / medians[PLAIN]["per_second"]
    return {"rounds": rounds, "medians": medians, "throughput_lost": round(lost, 4)}


def measure_service(name: str, config: OverheadConfig, clips: list[LoadClip], env: dict[str, str]) -> dict[str, float]:
    """One service, started for it, under the load of many users; every clip goes through it once before."""
    started = time.monotonic()
    model = Path(config.model) if config.model is not None else None
    with run_plain(model, env) if name == PLAIN else run_ray(model, env) as url:
        ready_s = time.monotonic() - started
        bad = [row for row in check_clips(url, clips) if row["status"] != OK or row["error"]]
        if bad:
            raise ServiceFailedError(f"{name} did not transcribe {bad[0]['clip']}: {bad[0]}")
        ramp_s = min(2.0, config.seconds / 5)
        rows = run_closed_loop(
            url, clips, users=config.users, seconds=config.seconds, ramp_per_s=config.users / ramp_s, seed=1
        )
    figures = summarize_loop(rows, ramp_s, config.seconds)
    return {
        "per_second": figures["per_second"],
        "p50_s": figures["latency"]["p50_s"],
        "p95_s": figures["latency"]["p95_s"],
        "failed": sum(row["status"] != OK for row in rows),
        "other_text": sum(row["same_text"] is False for row in rows),
        "ready_s": round(ready_s, 1),
    }


@contextmanager
def run_plain(model: Path | None, env: dict[str, str]) -> Iterator[str]:
    """``dinle serve``; yields its URL."""
    with start_service(model, env=env) as service:
        yield service.url


@contextmanager
def run_ray(model: Path | None, env: dict[str, str]) -> Iterator[str]:
    """``serve run`` with a Ray of its own on this machine, one replica; yields its URL.

    Raises:
        ServiceFailedError: not ready within two minutes; the message holds its last words.
    """
    port = find_free_port()
    app: dict[str, Any] = {"name": "dinle", "route_prefix": "/", "import_path": "dinle.scale.app:app"}
    if model is not None:
        app["args"] = {"model_dir": str(model.resolve())}
    serve_config = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [app]}
    serve_config["logging_config"] = {"enable_access_log": False}
    clean = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "RAY_"))}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        path = Path(folder) / "serve.yaml"
        path.write_text(json.dumps(serve_config), encoding="utf-8")  # every JSON is YAML
        command = [str(Path(sys.executable).with_name("serve")), "run", "--address", "local", str(path)]
        process = subprocess.Popen(command, env=clean | SERVE_ENVIRONMENT | make_token() | env, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(process, url, log)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):  # noqa: S310 - our own address
                return
        except OSError:  # nothing listens yet, or no application is there yet: 404
            time.sleep(0.2)
    log.seek(0)
    words = log.read().decode(errors="replace").strip()[-LAST_WORDS:]
    raise ServiceFailedError(f"serve run was not ready within {START_S:.0f} s (status {process.poll()}): {words}")


def render_overhead(report: dict[str, Any]) -> Table:
    """The medians as a table."""
    table = Table("service", "requests/s", "p50 s", "p95 s", "failed", "other text", "ready s")
    for name, figures in report["medians"].items():
        table.add_row(name, *(f"{figures[key]:.3g}" for key in figures))
    return table


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m dinle.scale.overhead", description=OverheadConfig.__doc__)
    add_arguments(parser, OverheadConfig)
    report = measure_overhead(build_config(OverheadConfig, vars(parser.parse_args()), where="overhead"))
    open_console().print(render_overhead(report))
    sys.stdout.write(f"throughput lost: {report['throughput_lost']:.1%}\n{json.dumps(report, ensure_ascii=False)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
