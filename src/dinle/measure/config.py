"""The configs of the measuring stages: one frozen dataclass each, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dinle.config import Arg, Backend


@dataclass(frozen=True)
class EvaluateConfig:
    """bundle and manifest -> predictions.jsonl, scores.json and a report."""

    manifest: Annotated[Path, "JSONL manifest with references"]
    model: Annotated[str | None, "bundle folder, checkpoint folder or hub id (default: the bundled model)"] = None
    backend: Annotated[Backend, "which engine runs the model"] = "onnx_int8"
    output_dir: Annotated[Path, "folder for predictions, scores and the report"] = Path("artifacts/evaluation")
    split: Annotated[str | None, "only this split of the manifest"] = None
    threads: Annotated[int | None, "threads (default: all cores)"] = None
    bootstrap_samples: Annotated[int, "resamples for the 95 % intervals"] = 1000
    seed: Annotated[int, "seed of the resampling"] = 1


@dataclass(frozen=True)
class CompareConfig:
    """two evaluations of the same clips -> a paired comparison."""

    baseline: Annotated[Path, Arg("evaluation folder to compare with", positional=True)]
    candidate: Annotated[Path, Arg("evaluation folder to judge", positional=True)]
    output_dir: Annotated[Path, "folder for the comparison"] = Path("artifacts/comparison")
    bootstrap_samples: Annotated[int, "resamples for the 95 % intervals"] = 1000
    seed: Annotated[int, "seed of the resampling"] = 1


@dataclass(frozen=True)
class BenchmarkConfig:
    """backends side by side on one clip -> benchmark_report.md and plots."""

    checkpoint_dir: Annotated[str | None, "checkpoint folder or hub id, run by PyTorch"] = None
    onnx_path: Annotated[Path | None, "fp32 graph: model.onnx inside a bundle"] = None
    onnx_int8_path: Annotated[Path | None, "int8 graph: model_int8.onnx inside a bundle"] = None
    audio_path: Annotated[Path, "the clip"] = Path("samples/sample.wav")
    runs: Annotated[int, "timed runs of each backend, interleaved"] = 10
    warmup: Annotated[int, "untimed runs of each backend first"] = 2
    threads: Annotated[int | None, "threads of every backend (default: all cores)"] = None
    report_path: Annotated[Path, "Markdown report; plots and JSON are written beside it"] = Path(
        "artifacts/benchmark_report.md"
    )
