"""``dinle demo``: every stage in order on a small data set, then one table.

The experiment file (``configs/demo.toml``) holds what a person would tune; this module decides where things go.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from rich.table import Table

from dinle.build.config import ExportConfig, PrepareConfig, QuantizeConfig, TrainConfig
from dinle.config import build_config, read_json, read_toml
from dinle.errors import UsageError
from dinle.measure.config import BenchmarkConfig, CompareConfig, EvaluateConfig
from dinle.progress import open_console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

Config = TypeVar("Config")
MARKER = "demo.json"


@dataclass(frozen=True)
class DemoConfig:
    """every stage on a small data set -> one table."""

    experiment: Annotated[Path, "settings of the stages, one table each"] = Path("configs/demo.toml")
    output_dir: Annotated[Path, "folder for everything that the demo makes; emptied first"] = Path("demo-out")
    port: Annotated[int, "port of the service at the end (0: a free one)"] = 0


@dataclass(frozen=True)
class Places:
    """Where the demo's products go."""

    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    @property
    def manifest(self) -> Path:
        """The prepared clips."""
        return self.root / "data" / "manifest.jsonl"


class Stages:
    """The stages with the settings of one experiment."""

    def __init__(self, experiment: Path, console: Console) -> None:
        self.path = experiment
        self.tables = read_toml(experiment)
        self.console = console
        self.seconds: dict[str, float] = {}

    def make(self, config_class: type[Config], table: str, **places: Any) -> Config:
        """A stage's config: the experiment's table, and where its input and output are."""
        return build_config(config_class, {**self.tables.get(table, {}), **places}, where=f"{self.path} [{table}]")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and keep its time."""
        self.console.rule(f"[bold]{len(self.seconds) + 1}. {title}", align="left")
        started = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - started
        self.console.print(f"[dim]{self.seconds[title]:.1f} s[/dim]")


def run_demo(config: DemoConfig) -> Path:
    """Prepare, fine-tune, export, quantise, evaluate, benchmark, transcribe and serve; print one table.

    Returns:
        The folder with everything made.

    Raises:
        UsageError: the output folder holds something that no demo made, or the experiment file is wrong.
        DinleError: a stage failed.
    """
    console = open_console()
    stages = Stages(config.experiment, console)
    places = Places(clear_folder(config.output_dir))
    make_bundles(stages, places)
    judge_bundles(stages, places)
    sample = stages.tables.get("benchmark", {}).get("audio_path", "samples/sample.wav")
    transcribe_sample(stages, places, Path(sample))
    answer = ask_service(stages, places, Path(sample), config.port)
    record = {"service": answer, "seconds": stages.seconds}
    (places / MARKER).write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print_summary(console, places, stages.seconds)
    return places.root


def clear_folder(folder: Path) -> Path:
    """An empty folder at this place.

    Raises:
        UsageError: it holds files, and none that says a demo made them.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise UsageError(f"{folder} holds files that no demo made; give another --output_dir or empty it")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("{}\n", encoding="utf-8")
    return folder


def make_bundles(stages: Stages, places: Places) -> None:
    """The starting weights and the fine-tuned ones, both as bundles with fp32 and int8."""
    from dinle.build.export import export
    from dinle.build.prepare import prepare
    from dinle.build.quantize import quantize
    from dinle.build.train import train

    with stages.step("prepare the data"):
        prepare(stages.make(PrepareConfig, "prepare", output_dir=places / "data"))
    with stages.step("export the starting weights"):
        start = stages.tables.get("train", {}).get("model_name", "")
        export(
            stages.make(
                ExportConfig, "export", checkpoint_dir=start, onnx_dir=places / "before", name="before", int8=True
            )
        )
    with stages.step("fine-tune"):
        best = train(
            stages.make(
                TrainConfig, "train", dataset_name=str(places.manifest),
                output_dir=places / "checkpoints", log_dir=places / "runs",
            )
        )  # fmt: skip
    with stages.step("export the fine-tuned weights"):
        export(
            stages.make(
                ExportConfig, "export", checkpoint_dir=str(best), onnx_dir=places / "after", name="after", int8=False
            )
        )
    with stages.step("quantise, behind the quality gate"):
        quantize(stages.make(QuantizeConfig, "quantize", bundle_dir=places / "after", manifest=places.manifest))


def judge_bundles(stages: Stages, places: Places) -> None:
    """Evaluate both bundles in both precisions, compare before with after, and benchmark the fine-tuned one."""
    from dinle.measure.benchmark import benchmark
    from dinle.measure.compare import compare
    from dinle.measure.evaluate import evaluate

    with stages.step("evaluate before and after, fp32 and int8"):
        for bundle in ("before", "after"):
            for precision, backend in (("fp32", "onnx"), ("int8", "onnx_int8")):
                evaluate(
                    stages.make(
                        EvaluateConfig, "evaluate", manifest=places.manifest, model=str(places / bundle),
                        backend=backend, output_dir=places / "evaluation" / f"{bundle}_{precision}",
                    )
                )  # fmt: skip
        compare(
            stages.make(
                CompareConfig, "compare", baseline=places / "evaluation" / "before_int8",
                candidate=places / "evaluation" / "after_int8", output_dir=places / "comparison",
            )
        )  # fmt: skip
    with stages.step("benchmark PyTorch, ONNX and ONNX INT8"):
        benchmark(
            stages.make(
                BenchmarkConfig, "benchmark", checkpoint_dir=str(places / "checkpoints" / "best"),
                onnx_path=places / "after" / "model.onnx", onnx_int8_path=places / "after" / "model_int8.onnx",
                report_path=places / "benchmark_report.md",
            )
        )  # fmt: skip


def transcribe_sample(stages: Stages, places: Places, sample: Path) -> None:
    """The sample through the fine-tuned int8 bundle."""
    from dinle.recognize.load import load

    with stages.step(f"transcribe {sample}"):
        stages.console.print(load(places / "after").transcribe(sample).text)


def ask_service(stages: Stages, places: Places, sample: Path, port: int) -> dict[str, Any]:
    """The service's answer to the sample: start it, post, stop it."""
    from dinle.serve.process import post_audio, run_service

    with stages.step(f"serve, and post {sample}"), run_service(places / "after", port) as address:
        answer = post_audio(f"{address}/transcribe", sample)
        stages.console.print_json(data=answer)
    return answer


# What a row of the summary is called, its evaluation, and its backend in the benchmark.
ROWS = (
    ("before fine-tuning, ONNX fp32", "before_fp32", None),
    ("before fine-tuning, ONNX INT8", "before_int8", None),
    ("after fine-tuning, PyTorch fp32", None, "PyTorch fp32"),
    ("after fine-tuning, ONNX fp32", "after_fp32", "ONNX fp32"),
    ("after fine-tuning, ONNX INT8", "after_int8", "ONNX INT8"),
)


def print_summary(console: Console, places: Places, seconds: dict[str, float]) -> None:
    """One table of all that was measured, and where to look."""
    from dinle.markdown import format_rate

    benchmark = read_json(places / "benchmark_report.json")
    speeds = {one["label"]: one for one in benchmark["backends"]}
    clip = f"{benchmark['conditions']['clip_s']:.1f} s clip"
    table = Table(title="What was measured: normalised text, 95 % intervals", title_justify="left")
    for column in ("", "WER", "CER", clip, "speed-up", "size"):
        table.add_column(column, justify="right" if column else "left")
    for title, evaluation, backend in ROWS:
        rates = ["", ""]
        if evaluation:
            scores = read_json(places / "evaluation" / evaluation / "scores.json")["scores"]["tr"]
            rates = [format_rate(scores[unit]) for unit in ("wer", "cer")]
        costs = ["", "", ""]
        if backend:
            one = speeds[backend]
            latency, ratio = one["latency"]["median_s"], one["speedup"]["ratio"]
            costs = [f"{1000 * latency:.0f} ms", f"{ratio:.2f}x", f"{one['size_mb']:.1f} MB"]
        table.add_row(title, *rates, *costs)
    console.print()
    console.print(table)
    console.print(describe_gain(read_json(places / "comparison" / "comparison.json")["differences"]["tr"]["wer"]))
    for label, path in {
        "data report": places / "data" / "report.md",
        "evaluation, with plots": places / "evaluation" / "after_int8" / "report.md",
        "before against after": places / "comparison" / "report.md",
        "benchmark, with plots": places / "benchmark_report.md",
        "the bundle": places / "after",
        "training curves": f"tensorboard --logdir {places / 'runs'}",
    }.items():
        console.print(f"{label + ':':<24}{path}", highlight=False, soft_wrap=True)
    console.print(f"\nEverything took {sum(seconds.values()):.0f} s. Next: make serve", highlight=False)


def describe_gain(difference: dict[str, Any]) -> str:
    """The paired change of WER by fine-tuning, in points, and whether chance alone could have made it."""
    low, high = (100 * bound for bound in difference["interval"])
    sure = "more than chance" if difference["significant"] else "within chance on so few clips"
    change = f"Fine-tuning changed the WER of INT8 by {100 * difference['difference']:+.1f} points"
    return f"{change} [{low:+.1f}, {high:+.1f}]: {sure}."
