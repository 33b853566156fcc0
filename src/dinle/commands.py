"""What each command does: run its stage, then say where the product is and show its figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from dinle.config import Arg, read_json
from dinle.progress import open_console

if TYPE_CHECKING:
    from dinle.build.config import CutVocabularyConfig, ExportConfig, PrepareConfig, QuantizeConfig, TrainConfig
    from dinle.build.language_model import LmConfig
    from dinle.demo import DemoConfig
    from dinle.loadtest.config import LoadTestConfig
    from dinle.measure.config import BenchmarkConfig, CalibrateConfig, CompareConfig, EvaluateConfig, WordTimesConfig
    from dinle.measure.deployment_config import PlanConfig
    from dinle.measure.service_config import ServiceBenchConfig
    from dinle.transcribe import TranscribeConfig


@dataclass(frozen=True)
class LintConfig:
    """labels or a vocabulary -> Turkish mistakes in them."""

    files: Annotated[tuple[Path, ...], Arg("manifests (.jsonl), vocabularies (.json) or plain text", positional=True)]


def prepare(config: PrepareConfig) -> None:
    """Prepare a data set; print where the manifest and the report are."""
    from dinle.build.prepare import prepare as run

    folder = run(config)
    print(f"manifest: {folder / 'manifest.jsonl'}\nreport:   {folder / 'report.md'}")


def lint(config: LintConfig) -> int:
    """Print what the linter found; status 1 when it found anything."""
    from dinle.lint import lint_files

    report = lint_files(config.files)
    print(report.to_markdown())
    return 1 if report.count else 0


def cut_vocabulary(config: CutVocabularyConfig) -> None:
    """Cut a Whisper model's vocabulary; print where the new checkpoint is."""
    from dinle.build.cut_vocabulary import cut_vocabulary as run

    print(f"checkpoint: {run(config)}")


def train(config: TrainConfig) -> None:
    """Train; print where the best checkpoint is."""
    from dinle.build.train import train as run

    print(f"checkpoint: {run(config)}")


def export(config: ExportConfig) -> None:
    """Export a checkpoint; print the graphs of the bundle."""
    from dinle.build.export import export as run

    bundle = run(config)
    for precision, names in bundle.files.items():
        print(f"{precision}: {', '.join(str(bundle.folder / name) for name in names)}")


def quantize(config: QuantizeConfig) -> None:
    """Quantise a bundle; print the graph and the gate's verdict."""
    from dinle.build.quantize import PRECISIONS
    from dinle.build.quantize import quantize as run

    bundle, precision = run(config), PRECISIONS[config.preset]
    files = ", ".join(map(str, bundle.paths(precision)))
    print(f"{precision}: {files} (quality gate: {bundle.gate[precision]['status']})")


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate a model, and a peer beside it; print the scores and where the report is."""
    from dinle.measure.compare import COMPARISON_FILE, render_comparison
    from dinle.measure.diff_page import DIFF_FILE, DIFF_FOLDER
    from dinle.measure.evaluate import COMPARISON_FOLDER, PEER_FOLDER
    from dinle.measure.evaluate import evaluate as run
    from dinle.measure.report import render_scores
    from dinle.measure.scores import SCORES_FILE
    from dinle.measure.speed import render_speed

    folder, console = run(config), open_console()
    scores = read_json(folder / SCORES_FILE)
    console.print(render_scores(scores))
    if config.peer is not None:
        console.print(render_scores(read_json(folder / PEER_FOLDER / SCORES_FILE)))
        console.print(render_speed(scores))
        console.print(render_comparison(read_json(folder / COMPARISON_FOLDER / COMPARISON_FILE)))
    print(f"report: {folder / 'report.md'}")
    if config.html:
        print(f"page: {folder / DIFF_FOLDER / DIFF_FILE}")


def lm(config: LmConfig) -> None:
    """Build, tune or adapt a language model; print what came of it."""
    from dinle.build import language_model

    if config.action == "tune":
        from dinle.build.language_model_weights import choose_best, tune_weights

        trials = tune_weights(config)
        best = choose_best(trials[1:])
        for trial in trials:
            mark = "  <- written into the bundle" if trial is best else ""
            weights = f"weight {trial.model_weight:<5g} letter {trial.letter_bonus:<5g}"
            print(f"{weights} WER {trial.wer:6.1%} CER {trial.cer:6.2%} {trial.seconds:6.1f} s{mark}")
        return
    found = (
        language_model.build_into_bundle(config) if config.action == "build" else language_model.adapt_bundle(config)
    )
    print(json.dumps(found, ensure_ascii=False))


def compare(config: CompareConfig) -> None:
    """Compare two evaluations; print the difference and where the report is."""
    from dinle.measure.compare import COMPARISON_FILE, render_comparison
    from dinle.measure.compare import compare as run

    folder = run(config)
    open_console().print(render_comparison(read_json(folder / COMPARISON_FILE)))
    print(f"report: {folder / 'report.md'}")


def word_times(config: WordTimesConfig) -> None:
    """Measure word times; print the table, and one line of JSON last, for programs."""
    from dinle.measure.word_times import measure_word_times, render_word_times

    report = measure_word_times(config)
    open_console().print(render_word_times(report))
    print(json.dumps(report, ensure_ascii=False))


def calibrate(config: CalibrateConfig) -> None:
    """Fit a confidence map; print what it does, and one line of JSON last, for programs."""
    from dinle.measure.calibrate import calibrate as run
    from dinle.measure.calibrate import render_calibration

    report = run(config)
    open_console().print(render_calibration(report))
    print(json.dumps(report, ensure_ascii=False))


def benchmark(config: BenchmarkConfig) -> None:
    """Benchmark; print the table, where the report is, and one line of JSON last, for programs."""
    from dinle.measure.benchmark import benchmark as run
    from dinle.measure.benchmark import find_json, summarize_report
    from dinle.measure.benchmark_report import render_benchmark

    path = run(config)
    report = read_json(find_json(path))
    open_console().print(render_benchmark(report))
    print(f"report: {path}")
    print(json.dumps(summarize_report(report), ensure_ascii=False))


def transcribe(config: TranscribeConfig) -> int:
    """Transcribe files; status 1 when one of them failed."""
    from dinle.transcribe import transcribe_files

    return transcribe_files(config)


def serve(config: Any) -> None:
    """Serve until interrupted."""
    from dinle.serve.server import serve as run

    run(config)


def benchmark_service(config: ServiceBenchConfig) -> None:
    """Put the service under load; print the figures, where the report is, and one line of JSON last, for programs."""
    from dinle.measure.benchmark import find_json
    from dinle.measure.service_bench import benchmark_service as run
    from dinle.measure.service_report import render_service, summarize

    path = run(config)
    report = read_json(find_json(path))
    open_console().print(render_service(report))
    print(f"report: {path}")
    print(json.dumps(summarize(report), ensure_ascii=False))


def plan(config: PlanConfig) -> None:
    """Plan a deployment; print the table, and one line of JSON last, for programs."""
    from dinle.measure.deployment_report import make_plans, render_plans, to_json

    plans = make_plans(config)
    open_console().print(render_plans(plans, config))
    print(json.dumps(to_json(plans), ensure_ascii=False))


def loadtest(config: LoadTestConfig) -> int:
    """Find what the service carries; print the card, where the report is, and one line of JSON last, for programs.

    Returns:
        Status 1 when a request failed, or was answered with another text than it should be.
    """
    from dinle.loadtest.capacity import measure_capacity
    from dinle.loadtest.report import is_flawless, render_card, summarize
    from dinle.measure.benchmark import find_json

    path = measure_capacity(config)
    report = read_json(find_json(path))
    open_console().print(render_card(report))
    print(f"report: {path}")
    print(json.dumps(summarize(report), ensure_ascii=False))
    return 0 if is_flawless(report) else 1


def demo(config: DemoConfig) -> None:
    """Run every stage on a small data set and print one table."""
    from dinle.demo import run_demo

    run_demo(config)
