"""What ``dinle transcribe --ray`` costs: the same folder by the plain tool, by one process a core, and by Ray, in turns.

    python -m dinle.scale.bulk_overhead data/mini data/synthetic-sentences --model models/dinle-ctc-tr

``one process a core`` has one thread each and every n-th file, as a shell would share them out; it is what Ray is to be
measured by. The work is what lies between the first and the last text (with Ray: batch of texts) that comes out; what is
left of the time is start and end, of which Ray has more. Prints a table, and one line of JSON last, for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from rich.table import Table

from dinle.config import Arg, add_arguments, build_config
from dinle.errors import UsageError
from dinle.progress import open_console
from dinle.recognize.audio import find_duration
from dinle.scale.bulk import BATCH_FILES
from dinle.transcribe import expand_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOOK_EVERY_S = 0.05
PLAIN, PROCESSES, RAY = "dinle transcribe", "one process a core", "dinle transcribe --ray"


@dataclass(frozen=True)
class BulkOverheadConfig:
    """the same folder by the plain tool and by Ray -> throughput of each, and the time to start."""

    files: Annotated[tuple[str, ...], Arg("audio files, folders or glob patterns", positional=True)]
    model: Annotated[str | None, "bundle folder (default: the bundled model)"] = None
    rounds: Annotated[int, "runs of each"] = 3


def measure_bulk_overhead(config: BulkOverheadConfig) -> dict[str, Any]:
    """Seconds of work, and of start and end, of each way in each round; their medians, and those of throughput.

    Raises:
        UsageError: too few files.
        subprocess.CalledProcessError: a run failed.
    """
    files = expand_sources(config.files)
    audio_s = sum(find_duration(Path(file)) or 0.0 for file in files)
    cores = os.cpu_count() or 1
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for number in range(config.rounds):
        for name in list(WAYS) if number % 2 == 0 else reversed(WAYS):
            watched = WAYS[name](files, config.model, cores)
            runs[name].append(describe_run(watched, len(files), audio_s / cores))
            sys.stderr.write(f"round {number + 1}: {name}: {runs[name][-1]}\n")
    medians = {
        name: {key: statistics.median(run[key] for run in each) for key in each[0]} for name, each in runs.items()
    }
    return {"files": len(files), "audio_s": audio_s, "cores": cores, "runs": runs, "medians": medians}


@dataclass(frozen=True)
class Watched:
    """A run: its wall seconds, and at which of them how many files were done, whenever that number grew."""

    seconds: float
    steps: list[tuple[float, int]]


def describe_run(run: Watched, files: int, audio_per_core_s: float) -> dict[str, float]:
    """Seconds of work, and of start and end; seconds of sound transcribed in a second of each core while it worked.

    Raises:
        UsageError: too few files to see any work.
    """
    (first_s, first), (last_s, last) = run.steps[0], run.steps[-1]
    if last == first:
        raise UsageError(
            f"all {files} files were done at once; give some hundred, so that the work can be told from the start"
        )
    work_s = last_s - first_s
    rate = audio_per_core_s * (last - first) / files / work_s
    return {"start_and_end_s": run.seconds - work_s, "work_s": work_s, "audio_s_per_core_s": rate}


def run_plain(files: Sequence[str], model: str | None, _: int) -> Watched:
    """The plain tool, its engine on all cores."""
    return _watch_lines([make_command(model, files)])


def run_processes(files: Sequence[str], model: str | None, cores: int) -> Watched:
    """A plain tool for each core, with one thread and every n-th file."""
    shares = [files[first::cores] for first in range(min(cores, len(files)))]
    return _watch_lines([make_command(model, share, "--threads", "1") for share in shares])


def run_ray(files: Sequence[str], model: str | None, _: int) -> Watched:
    """The tool with Ray, which starts and ends with it; a batch is done when its part is there."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.parquet"
        parts = output.with_name(f"{output.name}.parts")
        command = make_command(model, files, "--ray", "-o", str(output))
        return _watch([command], lambda _: len(list(parts.glob("*.parquet"))) * BATCH_FILES)


WAYS: dict[str, Callable[[Sequence[str], str | None, int], Watched]] = {
    PLAIN: run_plain,
    PROCESSES: run_processes,
    RAY: run_ray,
}


def make_command(model: str | None, files: Sequence[str], *options: str) -> list[str]:
    """The command line that transcribes files."""
    named = [] if model is None else ["--model", model]
    return [sys.executable, "-m", "dinle.cli", "transcribe", *named, *options, *files]


def _watch_lines(commands: Sequence[Sequence[str]]) -> Watched:
    return _watch(commands, lambda logs: sum(Path(log.name).read_bytes().count(b"\n") for log in logs))


def _watch(commands: Sequence[Sequence[str]], count: Callable[[Sequence[IO[bytes]]], int]) -> Watched:
    """Run commands side by side and count, from their outputs, what is done."""
    started, steps = time.perf_counter(), list[tuple[float, int]]()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with ExitStack() as stack:
        logs = [stack.enter_context(tempfile.NamedTemporaryFile()) for _ in commands]
        running = [
            subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL, env=environment)
            for command, log in zip(commands, logs, strict=True)
        ]
        while any(process.poll() is None for process in running):
            done = count(logs)
            if done > (steps[-1][1] if steps else 0):
                steps.append((time.perf_counter() - started, done))
            time.sleep(LOOK_EVERY_S)
    for process in running:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return Watched(time.perf_counter() - started, steps)


def render_bulk_overhead(report: dict[str, Any]) -> Table:
    """The medians as a table; shares of throughput are those of one process a core."""
    best = report["medians"][PROCESSES]["audio_s_per_core_s"]
    table = Table("", "start and end s", "work s", "seconds of sound in a second of a core", "share")
    for name, each in report["medians"].items():
        rate = each["audio_s_per_core_s"]
        table.add_row(
            name, f"{each['start_and_end_s']:.1f}", f"{each['work_s']:.1f}", f"{rate:.1f}", f"{rate / best:.1%}"
        )
    return table


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m dinle.scale.bulk_overhead", description=BulkOverheadConfig.__doc__)
    add_arguments(parser, BulkOverheadConfig)
    report = measure_bulk_overhead(build_config(BulkOverheadConfig, vars(parser.parse_args()), where="bulk_overhead"))
    open_console().print(render_bulk_overhead(report))
    sys.stdout.write(f"{json.dumps(report, ensure_ascii=False)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
