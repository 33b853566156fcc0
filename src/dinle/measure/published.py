"""The committed reports -> ``numbers.json``, the few figures that the service's web page draws.

``python -m dinle.measure.published [ARTIFACTS] [OUTPUT]`` writes it. Nothing is measured here and nothing is computed beyond
percentiles of samples that a report holds: the same reports always give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.errors import DinleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ARTIFACTS = Path("artifacts")
OUTPUT = Path("src/dinle/serve/static/numbers.json")
BENCHMARKS = {"benchmark": "benchmark_report.json", "wav2vec2_base": "wav2vec2_base_report.json"}
EVALUATIONS = ("evaluation_fp32/scores.json", "evaluation_int8/scores.json")
COMPARISON = "int8_against_fp32/comparison.json"
SERVICES = ("service_report.json", "service_ctc_report.json", "service_wav2vec2_report.json")
# Bundle folders that are called after what they are, not after their model; then the folder above has the model's name.
PLAIN_FOLDERS = frozenset({"bundle", "checkpoint"})
# More than any report prints, and few enough to keep the page light.
SIGNIFICANT_DIGITS = 6


def collect_numbers(artifacts: Path) -> tuple[dict[str, Any], list[Path]]:
    """Gather what the page shows.

    Args:
        artifacts: the folder with the committed reports.

    Returns:
        ``benchmark`` and ``wav2vec2_base`` (one each), ``evaluation`` and ``service`` (lists), ``int8_against_fp32``; every
        report with its file's name ``report``, ``conditions``, and rates as shares, times in seconds, sizes in 10⁶ bytes.
        And the paths of the reports that are not there, which are left out.

    Raises:
        UsageError: there is no such folder, or a report is not what its stage writes.
    """
    if not artifacts.is_dir():
        raise UsageError(
            f"there is no folder {artifacts}; expected the one with the committed reports, such as artifacts"
        )
    missing: list[Path] = []

    def take(name: str, summarize: Callable[[Any, str], dict[str, Any]]) -> list[dict[str, Any]]:
        path = artifacts / name
        if not path.is_file():
            missing.append(path)
            return []
        try:
            finished = _read_json(_find_run(path))["finished"][:10]
            return [{"report": f"artifacts/{name}"} | _round(summarize(_read_json(path), finished))]
        except (KeyError, TypeError, IndexError) as error:
            raise UsageError(
                f"{path} is not the report that was expected ({error!r}); make it anew with make bench"
            ) from error

    numbers: dict[str, Any] = {}
    for section, name in BENCHMARKS.items():
        numbers[section] = next(iter(take(name, summarize_benchmark)), None)
    numbers["evaluation"] = [one for name in EVALUATIONS for one in take(name, summarize_evaluation)]
    numbers["int8_against_fp32"] = next(iter(take(COMPARISON, summarize_comparison)), None)
    numbers["service"] = [one for name in SERVICES for one in take(name, summarize_service)]
    return {name: section for name, section in numbers.items() if section}, missing


def summarize_benchmark(report: Mapping[str, Any], finished: str) -> dict[str, Any]:
    """Backends with latency, size, memory and, where it was measured, the WER that they lose.

    Args:
        report: what ``dinle benchmark`` writes.
        finished: its day, ``YYYY-MM-DD``.
    """
    given = report["conditions"]
    quality = report["precisions"]["quality"]
    return {
        "conditions": _describe_conditions(report["machine"], finished)
        | {name: given[name] for name in ("clip", "clip_s", "runs", "threads", "load_average", "commit")},
        "model": next(_name_model(one["source"]) for one in report["backends"] if one["backend"] == "pytorch"),
        "baseline": report["baseline"],
        "choice": next(iter(report["precisions"]["ranking"]), None),
        "max_wer_loss": report["precisions"]["max_wer_loss"],
        "backends": [_describe_backend(one, quality.get(one["backend"])) for one in report["backends"]],
    }


def _describe_backend(one: Mapping[str, Any], quality: Mapping[str, Any] | None) -> dict[str, Any]:
    described = {
        name: one[name] for name in ("label", "backend", "stored_as", "size_mb", "peak_memory_mb", "load_s", "rtfx")
    }
    described |= {
        "median_s": one["latency"]["median_s"],
        "p5_s": float(np.percentile(one["samples_s"], 5)),
        "p95_s": one["latency"]["p95_s"],
        "speedup": one["speedup"],
        "cer_to_baseline": one["cer_to_baseline"],
    }
    if quality is not None:
        described["quality"] = {
            name: quality[name] for name in ("clips", "wer", "cer", "wer_loss", "wer_loss_interval")
        }
    return described


def summarize_evaluation(scores: Mapping[str, Any], finished: str) -> dict[str, Any]:
    """A model's error rates on one set, in both normalisations, with their 95 % intervals.

    Args:
        scores: what ``dinle evaluate`` writes.
        finished: its day, ``YYYY-MM-DD``.
    """
    return {
        "conditions": _describe_conditions(scores["machine"], finished)
        | {"threads": scores["threads"], "data": scores["data"]["manifest"]},
        "model": scores["model"]["name"],
        "backend": scores["model"]["backend"],
        "stored_as": scores["model"]["precision"],
        "clips": scores["clips"],
        "failed": scores["failed"],
        "audio_s": scores["audio_s"],
        "rtfx": scores["rtfx"],
        "scores": {
            text: {
                measure: {name: rates[measure][name] for name in ("rate", "interval")}
                for measure in ("wer", "cer", "exact")
            }
            for text, rates in scores["scores"].items()
        },
    }


def summarize_comparison(comparison: Mapping[str, Any], finished: str) -> dict[str, Any]:
    """Two evaluations of the same clips, difference by difference.

    Args:
        comparison: what ``dinle compare`` writes.
        finished: its day, ``YYYY-MM-DD``.
    """
    kept = ("baseline", "candidate", "clips", "clips_changed", "differences")
    return {"conditions": {"date": finished, "resamples": comparison["intervals"]["samples"]}} | {
        name: comparison[name] for name in kept
    }


def summarize_service(report: Mapping[str, Any], finished: str) -> dict[str, Any]:
    """The service under load: alone, at capacity, over capacity, and its memory over time.

    Args:
        report: what ``dinle benchmark-service`` writes.
        finished: its day, ``YYYY-MM-DD``.
    """
    given = report["conditions"]
    kept = ("workers", "threads", "users", "overload_factor", "load_average", "commit")
    clips = {name: given["clips"][name] for name in ("manifest", "count", "mean_s")}
    loads = {name: _describe_load(report[name]) for name in ("unloaded", "users", "soak") if report[name]}
    return {
        "conditions": _describe_conditions(report["machine"], finished)
        | {name: given[name] for name in kept}
        | {"clips": clips},
        "model": _name_model(given["model"]["source"]),
        "backend": given["model"]["backend"],
        "stored_as": given["model"]["stored_as"],
        "loads": loads,
        "overload": _describe_overload(report) if report["overload"] else None,
        "soak": _describe_soak(report) if report["soak"] else None,
    }


def _describe_load(load: Mapping[str, Any]) -> dict[str, Any]:
    latency = load["latency"]
    return {
        "requests": load["answers"]["requests"],
        "failed": load["answers"]["failed"],
        "per_second": load["per_second"],
        "rtfx": load["rtfx"],
    } | {name: latency[name] for name in ("p50_s", "p95_s", "p99_s")}


def _describe_overload(report: Mapping[str, Any]) -> dict[str, Any]:
    overload = report["overload"]
    answers = overload["answers"]
    columns = ("at_s", "length_s", "accepted", "refused", "failed", "p95_s")
    return {
        "arrivals_per_s": overload["rate_per_s"],
        "requests": answers["requests"],
        "ok": answers["ok"],
        "refused": sum(answers["refused"].values()),
        "failed": answers["failed"],
        "p95_s": overload["accepted"]["p95_s"],
        "refused_p95_s": overload["refused"]["p95_s"] if overload["refused"] else None,
        "recovered_after_s": report["recovery"]["recovered_after_s"],
        "over_time": {name: [one[name] for one in overload["over_time"]] for name in columns},
    }


def _describe_soak(report: Mapping[str, Any]) -> dict[str, Any]:
    span = next(phase for phase in report["phases"] if phase["name"] == "soak")
    samples = [one for one in report["samples"] if span["began_s"] <= one["at_s"] <= span["ended_s"]]
    memory = report["soak"]["memory"]
    return {name: memory[name] for name in ("base_mb", "last_mb", "most_mb", "growth")} | {
        "seconds": span["seconds"],
        "at_s": [round(one["at_s"] - span["began_s"], 1) for one in samples],
        "rss_mb": [one["rss_mb"] for one in samples],
    }


def _describe_conditions(machine: Mapping[str, Any], finished: str) -> dict[str, Any]:
    return {name: machine[name] for name in ("cpu", "cpu_kind", "cores")} | {"date": finished}


def _name_model(source: str) -> str:
    path = PurePosixPath(source)
    return path.parent.name if path.name in PLAIN_FOLDERS else path.name


def _find_run(path: Path) -> Path:
    """The record of the stage that wrote a report: ``run.json`` beside a folder's product, ``<stem>_run.json`` beside others."""
    own = path.with_name(f"{path.stem}_run.json")
    return own if own.is_file() else path.with_name("run.json")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error}); make the report anew with make bench") from error


def _round(value: Any) -> Any:
    """The same value with :data:`SIGNIFICANT_DIGITS` in every float of it."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _round(one) for name, one in value.items()}
    return [_round(one) for one in value] if isinstance(value, list | tuple) else value


def format_numbers(numbers: Mapping[str, Any]) -> str:
    """JSON with sorted names and a line for each section, so that a change of one report changes one line."""
    lines = (
        f"{json.dumps(name)}:{json.dumps(numbers[name], ensure_ascii=False, sort_keys=True, separators=(',', ':'))}"
        for name in sorted(numbers)
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; reports that are missing are said on stderr. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dinle.measure.published", description=__doc__.splitlines()[0])
    parser.add_argument(
        "artifacts", nargs="?", type=Path, default=ARTIFACTS, help="folder of the reports (%(default)s)"
    )
    parser.add_argument("output", nargs="?", type=Path, default=OUTPUT, help="file to write (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        numbers, missing = collect_numbers(arguments.artifacts)
        arguments.output.write_text(format_numbers(numbers), encoding="utf-8")
    except (DinleError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for path in missing:
        sys.stderr.write(f"left out, as it is not there: {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
