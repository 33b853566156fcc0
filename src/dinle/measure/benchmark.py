"""Stage 6: backends side by side on one clip -> ``benchmark_report.md``, its JSON and its plots."""

from __future__ import annotations

import json
import os
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError
from dinle.measure.benchmark_report import write_benchmark_report
from dinle.measure.probe import measure_footprint
from dinle.measure.timing import SETTLE_S, Timings, measure_speedup, summarize, time_interleaved
from dinle.measure.weights import ModelFiles, find_model_files
from dinle.measure.wer import count_errors, pool
from dinle.progress import progress
from dinle.recognize.audio import SAMPLE_RATE_HZ, decode_audio
from dinle.recognize.bundle import BUNDLE_FILE, find_default_bundle, read_bundle
from dinle.recognize.load import PRECISIONS, load
from dinle.run import describe_machine, write_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dinle.config import Backend
    from dinle.measure.config import BenchmarkConfig
    from dinle.measure.probe import Footprint
    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer

LABELS: Mapping[Backend, str] = {
    "pytorch": "PyTorch fp32",
    "onnx": "ONNX fp32",
    "onnx_int8": "ONNX INT8",
    "onnx_int4": "ONNX INT4",
}
_MB, _MIB = 1e6, 2**20


def benchmark(config: BenchmarkConfig) -> Path:
    """Measure PyTorch, ONNX and ONNX INT8 (those that are given) on the same clip with the same number of threads.

    Load time and peak memory come from a fresh process for each backend; latency from all of them in one process, in
    turns, from the decoded waveform to the text.

    Returns:
        The Markdown report; ``<stem>.json``, ``<stem>_*.png`` and, last, ``<stem>_run.json`` lie beside it.

    Raises:
        UsageError: a graph that is not what its flag says, no such clip, or fewer than one run or thread.
        AudioError: the clip cannot be read.
        BundleError, HubUnreachableError: a model cannot be found or loaded.
    """
    started = time.monotonic()
    threads = config.threads if config.threads is not None else os.cpu_count() or 1
    if threads < 1 or config.runs < 1 or config.warmup < 0:
        raise UsageError(
            f"threads {threads}, runs {config.runs}, warmup {config.warmup}; expected at least 1 thread and run, 0 warm-up"
        )
    if not config.audio_path.is_file():
        raise UsageError(f"there is no clip {config.audio_path}; give a recording with --audio_path")
    models = find_models(config)
    report = measure_report(models, config, threads)
    path = config.report_path
    path.parent.mkdir(parents=True, exist_ok=True)
    run_name = f"{path.stem}_run.json"
    (path.parent / run_name).unlink(missing_ok=True)
    find_json(path).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_benchmark_report(path, report)
    write_run(
        path.parent,
        stage="benchmark",
        config=config,
        seconds=time.monotonic() - started,
        inputs={"clip": config.audio_path, **{f"{m.backend}_{file.name}": file for m in models for file in m.files}},
        results=summarize_report(report),
        name=run_name,
    )
    return path


def measure_report(models: list[ModelFiles], config: BenchmarkConfig, threads: int) -> dict[str, Any]:
    """Measure the models and say under which conditions; what ``<stem>.json`` holds."""
    waveform = decode_audio(config.audio_path)
    load_average = os.getloadavg()[0]
    measured = measure_models(models, waveform, config, threads)
    return {
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
    }


def find_models(config: BenchmarkConfig) -> list[ModelFiles]:
    """The models to compare, slowest kind first; the first is the baseline of the speed-ups.

    Without any in the config: those of the bundled model whose files and libraries are here.

    Raises:
        UsageError: a graph that is not what its flag says.
        BundleError, HubUnreachableError: a model cannot be found.
    """
    models = []
    if config.checkpoint_dir is not None:
        models.append(find_model_files(config.checkpoint_dir, "pytorch"))
    if config.onnx_path is not None:
        models.append(_find_graph(config.onnx_path, "onnx"))
    if config.onnx_int8_path is not None:
        models.append(_find_graph(config.onnx_int8_path, "onnx_int8"))
    return models or _find_bundled_models()


def _find_graph(path: Path, backend: Backend) -> ModelFiles:
    """A bundle's graph, given as its file or as the bundle's folder."""
    if path.is_dir():
        return find_model_files(path, backend)
    if not path.is_file():
        raise UsageError(f"there is no graph {path}; give model.onnx or model_int8.onnx inside a bundle")
    if not (path.parent / BUNDLE_FILE).is_file():
        raise UsageError(
            f"{path} has no {BUNDLE_FILE} beside it, which names its vocabulary; make a bundle with dinle export"
        )
    bundle = read_bundle(path.parent, verify=False)
    precision = PRECISIONS[backend]
    if path.name not in bundle.files.get(precision, ()):
        known = ", ".join(f"{' and '.join(files)} ({name})" for name, files in bundle.files.items())
        raise UsageError(f"{path} is not the {precision} graph of its bundle, which holds {known}")
    return find_model_files(path.parent, backend)


def _find_bundled_models() -> list[ModelFiles]:
    bundle = read_bundle(find_default_bundle(), verify=False)
    backends: list[Backend] = []
    if bundle.checkpoint_dir is not None and find_spec("torch") is not None:
        backends.append("pytorch")
    backends += [backend for backend in ("onnx", "onnx_int8") if PRECISIONS[backend] in bundle.files]
    return [find_model_files(bundle.folder, backend) for backend in backends]


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
            footprints.append(measure_footprint(model, config.audio_path, threads))
            bar.advance()
        recognizers: dict[str, Recognizer] = {}
        for model in models:
            bar.update(description=f"benchmarking: loading {LABELS[model.backend]}")
            recognizers[model.backend] = load(model.source, backend=model.backend, threads=threads)
            bar.advance()
        texts = {name: recognizer.transcribe(waveform).text for name, recognizer in recognizers.items()}
        bar.update(description="benchmarking: timed runs, in turns")
        timings = time_interleaved(
            {name: _bind(recognizer, waveform) for name, recognizer in recognizers.items()},
            runs=config.runs,
            warmup=config.warmup,
            pause_s=SETTLE_S,
            on_run=bar.advance,
        )
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


def _bind(recognizer: Recognizer, waveform: Waveform) -> Any:
    return lambda: recognizer.transcribe(waveform)
