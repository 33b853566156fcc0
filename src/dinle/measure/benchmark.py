"""Stage 6: backends side by side on one clip -> ``benchmark_report.md``, its JSON and its plots."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.errors import UsageError
from dinle.measure.backends import LABELS, find_models, open_model
from dinle.measure.benchmark_report import write_benchmark_report
from dinle.measure.engine_peers import quantize_plainly
from dinle.measure.precisions import measure_precisions, time_recognizers, write_choice
from dinle.measure.probe import measure_footprint
from dinle.measure.throughput import measure_throughput
from dinle.measure.timing import SETTLE_S, Timings, measure_speedup, summarize
from dinle.measure.wer import count_errors, pool
from dinle.progress import progress
from dinle.recognize.audio import SAMPLE_RATE_HZ, decode_audio
from dinle.recognize.load import PRECISIONS
from dinle.run import describe_machine, write_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dinle.measure.config import BenchmarkConfig
    from dinle.measure.probe import Footprint
    from dinle.measure.weights import ModelFiles
    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer

_MB, _MIB = 1e6, 2**20


def benchmark(config: BenchmarkConfig) -> Path:
    """Measure PyTorch, ONNX and ONNX INT8 (those that are given) on the same clip with the same number of threads.

    With ``precisions``: every precision of a bundle, by threads and with what it loses in WER; what came out best is
    written into the bundle. With ``peers``: other ways to int8 in the same turns.

    Load time and peak memory come from a fresh process for each backend; latency from all of them in one process, in
    turns, from the decoded waveform to the text.

    Returns:
        The Markdown report; ``<stem>.json``, ``<stem>_*.png`` and, last, ``<stem>_run.json`` lie beside it.

    Raises:
        UsageError: a graph that is not what its flag says, no such clip, or fewer than one run or thread.
        AudioError: the clip cannot be read.
        BundleError, HubUnreachableError: a model cannot be found or loaded.
        MissingExtraError: a package that a backend or a peer needs is not installed.
    """
    started = time.monotonic()
    threads = config.threads if config.threads is not None else os.cpu_count() or 1
    if threads < 1 or config.runs < 1 or config.warmup < 0:
        raise UsageError(
            f"threads {threads}, runs {config.runs}, warmup {config.warmup}; expected at least 1 thread and run, 0 warm-up"
        )
    if not config.audio_path.is_file():
        raise UsageError(f"there is no clip {config.audio_path}; give a recording with --audio_path")
    with find_all_models(config) as models:
        report = measure_report(models, config, threads)
    path = config.report_path
    path.parent.mkdir(parents=True, exist_ok=True)
    run_name = f"{path.stem}_run.json"
    (path.parent / run_name).unlink(missing_ok=True)
    find_json(path).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_benchmark_report(path, report)
    if config.precisions and config.write_choice:
        write_choice(find_bundle(models), report)
    write_run(
        path.parent,
        stage="benchmark",
        config=config,
        seconds=time.monotonic() - started,
        inputs={"clip": config.audio_path, **list_inputs(models)},
        results=summarize_report(report),
        name=run_name,
    )
    return path


@contextmanager
def find_all_models(config: BenchmarkConfig) -> Iterator[list[ModelFiles]]:
    """Those of :func:`dinle.measure.backends.find_models`, and the peers', whose files last as long as the context."""
    models = find_models(config)
    with TemporaryDirectory(prefix="dinle-peer-") as folder:
        for peer in config.peers:
            with progress(f"quantising for {LABELS[peer]}"):
                models.append(quantize_plainly(find_bundle(models), peer, Path(folder, peer)))
        yield models


def find_bundle(models: list[ModelFiles]) -> str:
    """The bundle that is measured: the source of fp32 in onnxruntime, or of another graph.

    Raises:
        UsageError: only a checkpoint is measured.
    """
    sources = {model.backend: model.source for model in models if model.backend in PRECISIONS}
    if not sources:
        raise UsageError("only PyTorch is measured; give a bundle too, with --model or --onnx_path")
    return sources.get("onnx") or next(iter(sources.values()))


def list_inputs(models: list[ModelFiles]) -> dict[str, Path]:
    """The files that were measured, by backend and name; the peers' are gone."""
    return {f"{model.backend}_{file.name}": file for model in models for file in model.files if file.is_file()}


def measure_report(models: list[ModelFiles], config: BenchmarkConfig, threads: int) -> dict[str, Any]:
    """Measure the models and say under which conditions; what ``<stem>.json`` holds."""
    waveform = read_clip(config)
    load_average = os.getloadavg()[0]
    measured = measure_models(models, waveform, config, threads)
    report: dict[str, Any] = {
        "conditions": {
            "clip": str(config.audio_path),
            "clip_s": len(waveform) / SAMPLE_RATE_HZ,
            "runs": config.runs,
            "warmup": config.warmup,
            "pause_s": SETTLE_S,
            "threads": threads,
            "load_average": load_average,
            "commit": find_commit(),
        },
        "machine": describe_machine(),
        "baseline": LABELS[models[0].backend],
        "backends": measured,
    }
    if config.precisions:
        latency = {one["backend"]: one["latency"] for one in measured}
        report["precisions"] = measure_precisions(models, waveform, config, threads, latency)
        best = next(iter(report["precisions"]["ranking"]), models[0].backend)
        report["throughput"] = measure_throughput(next(model for model in models if model.backend == best), waveform)
    return report


def read_clip(config: BenchmarkConfig) -> Waveform:
    """The clip (S,), as long as it is asked for.

    Raises:
        UsageError: a length that is none.
        AudioError: the clip cannot be read.
    """
    waveform = decode_audio(config.audio_path)
    if config.repeat_to_s is None:
        return waveform
    samples = round(config.repeat_to_s * SAMPLE_RATE_HZ)
    if samples < 1:
        raise UsageError(f"--repeat_to_s is {config.repeat_to_s}; expected the seconds of a clip, such as 10")
    return np.resize(waveform, samples)


def find_json(report_path: Path) -> Path:
    """The figures of a report, for programs."""
    return report_path.with_suffix(".json")


def summarize_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few figures of a benchmark that belong into one line of JSON."""
    keys = ("size_mb", "load_s", "rtfx", "peak_memory_mb", "same_text")
    return {
        "clip_s": round(report["conditions"]["clip_s"], 3),
        "threads": report["conditions"]["threads"],
        "backends": {
            one["label"]: {
                "median_s": round(one["latency"]["median_s"], 5),
                "p95_s": round(one["latency"]["p95_s"], 5),
                "speedup": round(one["speedup"]["ratio"], 3),
                **{key: round(one[key], 3) if isinstance(one[key], float) else one[key] for key in keys},
            }
            for one in report["backends"]
        },
        **({"choice": report["precisions"]["ranking"]} if "precisions" in report else {}),
    }


def measure_models(
    models: list[ModelFiles], waveform: Waveform, config: BenchmarkConfig, threads: int
) -> list[dict[str, Any]]:
    """All figures of all models; entries of ``backends`` in the report's JSON.

    Args:
        models: the first is the baseline.
        waveform: (S,) the clip, decoded.
        config: runs, warm-up, and the clip's file for the processes of their own.
        threads: of every backend.
    """
    rounds = config.warmup + config.runs
    with progress("benchmarking", total=len(models) * (rounds + 2)) as bar:
        footprints = []
        for model in models:
            bar.update(description=f"benchmarking: {LABELS[model.backend]} in a process of its own")
            footprints.append(measure_footprint(model, config.audio_path, threads, len(waveform)))
            bar.advance()
        recognizers: dict[str, Recognizer] = {}
        for model in models:
            bar.update(description=f"benchmarking: loading {LABELS[model.backend]}")
            recognizers[model.backend] = open_model(
                model.source, model.backend, threads, language_model=model.language_model
            )
            bar.advance()
        texts = {name: recognizer.transcribe(waveform).text for name, recognizer in recognizers.items()}
        bar.update(description="benchmarking: timed runs, in turns")
        timings = time_recognizers(recognizers, waveform, config, bar.advance)
        bar.update(description="benchmarking")
    clip_s = len(waveform) / SAMPLE_RATE_HZ
    return [
        describe_backend(model, footprint, timings, texts, baseline=models[0].backend, clip_s=clip_s)
        for model, footprint in zip(models, footprints, strict=True)
    ]


def describe_backend(
    model: ModelFiles,
    footprint: Footprint,
    timings: Timings,
    texts: Mapping[str, str],
    *,
    baseline: str,
    clip_s: float,
) -> dict[str, Any]:
    """One model's figures, ready for JSON.

    Args:
        model: the files.
        footprint: of its own process.
        timings: of all backends, by backend.
        texts: what each backend recognised.
        baseline: the backend that speed-up and agreement refer to.
        clip_s: length of the clip.
    """
    samples_s = timings.samples_s[model.backend]
    latency = summarize(samples_s)
    speedup = measure_speedup(timings.samples_s[baseline], samples_s)
    agreement = pool(count_errors([texts[baseline]], [texts[model.backend]], normalizer="raw"))
    return {
        "label": LABELS[model.backend],
        "backend": model.backend,
        "model": model.name,
        "source": model.source,
        "files": [file.name for file in model.files],
        "stored_as": model.stored_as,
        "size_bytes": model.size_bytes,
        "size_mb": model.size_bytes / _MB,
        "size_mib": model.size_bytes / _MIB,
        "import_s": footprint.import_s,
        "load_s": footprint.load_s,
        "first_s": footprint.first_s,
        "library_memory_mb": footprint.library_memory_bytes / _MB,
        "peak_memory_mb": footprint.peak_memory_bytes / _MB,
        "latency": latency.to_dict(),
        "samples_s": list(samples_s),
        "rtfx": clip_s / latency.median_s,
        "speedup": {"ratio": speedup.ratio, "interval": speedup.interval.to_list()},
        "text": texts[model.backend],
        "cer_to_baseline": agreement.cer,
        "same_text": texts[model.backend] == texts[baseline],
    }


def find_commit() -> str | None:
    """The commit of the source that runs, with ``+`` where it was changed since; None outside a git checkout."""
    source = Path(__file__)
    try:
        if not _ask_git(source.parent, "ls-files", source.name):
            return None  # an installed package inside someone else's repository
        changed = _ask_git(source.parent, "status", "--porcelain", "--untracked-files=no", "..")
        return _ask_git(source.parent, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _ask_git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
