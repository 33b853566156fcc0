from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dinle.errors import AudioError, BundleNotFoundError, UsageError
from dinle.measure.backends import find_models
from dinle.measure.benchmark import benchmark, find_commit, read_clip, summarize_report
from dinle.measure.benchmark_report import render_benchmark
from dinle.measure.config import BenchmarkConfig
from dinle.measure.probe import Footprint, measure_footprint, read_memory
from dinle.measure.weights import find_model_files
from dinle.recognize.bundle import write_bundle
from tests.graphs import write_level_bundle
from tests.measure.speech import write_clip

if TYPE_CHECKING:
    from pathlib import Path

FOOTPRINT = Footprint(import_s=1, load_s=0.5, first_s=0.1, library_memory_bytes=10**7, peak_memory_bytes=2 * 10**8)


@pytest.fixture(scope="module")
def report_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmarked")
    bundle = write_level_bundle(root / "model").folder
    write_clip(root / "clip.wav", "bir iki")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dinle.measure.benchmark.measure_footprint", lambda *_: FOOTPRINT)
        patch.setattr("dinle.measure.benchmark.SETTLE_S", 0.0)
        return benchmark(
            BenchmarkConfig(
                onnx_path=bundle / "model.onnx", onnx_int8_path=bundle / "model_int8.onnx", audio_path=root / "clip.wav",
                runs=4, warmup=1, threads=1, report_path=root / "out" / "speed.md",
            )
        )  # fmt: skip


def read_report(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return report


def test_a_benchmark_leaves_report_json_plots_and_run(report_path: Path) -> None:
    names = {path.name for path in report_path.parent.iterdir()}
    assert names == {"speed.md", "speed.json", "speed_latency.png", "speed_costs.png", "speed_run.json"}
    assert all(path.stat().st_size < 100_000 for path in report_path.parent.iterdir())


def test_figures_fit_together(report_path: Path) -> None:
    report = read_report(report_path)
    fp32, int8 = report["backends"]
    assert (fp32["label"], int8["label"], report["baseline"]) == ("ONNX fp32", "ONNX INT8", "ONNX fp32")
    for backend in (fp32, int8):
        assert len(backend["samples_s"]) == 4
        assert backend["latency"]["median_s"] == pytest.approx(np.median(backend["samples_s"]))
        assert backend["rtfx"] == pytest.approx(report["conditions"]["clip_s"] / backend["latency"]["median_s"])
        assert backend["size_mb"] == backend["size_bytes"] / 1e6 > 0
        assert (backend["text"], backend["same_text"], backend["cer_to_baseline"]) == ("bir iki", True, 0.0)
        assert backend["peak_memory_mb"] == 200
    assert fp32["speedup"] == {"ratio": 1.0, "interval": [1.0, 1.0]}
    low, high = int8["speedup"]["interval"]
    assert low <= int8["speedup"]["ratio"] <= high


def test_the_report_says_the_conditions(report_path: Path) -> None:
    text = report_path.read_text(encoding="utf-8")
    for part in (
        "| condition |", "4 after 1 of warm-up", "| threads | 1 |", "load average", "## Machine", "bir iki",
        "(speed_latency.png)", "(speed_costs.png)", "0.50 s",
    ):  # fmt: skip
        assert part in text


def test_the_summary_is_one_line_of_json(report_path: Path) -> None:
    line = json.dumps(summarize_report(read_report(report_path)))
    assert json.loads(line)["backends"]["ONNX INT8"]["same_text"] is True
    assert json.loads((report_path.parent / "speed_run.json").read_text())["results"] == json.loads(line)


def test_the_terminal_table_has_a_row_for_each_backend(report_path: Path) -> None:
    table = render_benchmark(read_report(report_path))
    assert list(table.columns[0].cells) == ["ONNX fp32", "ONNX INT8"]
    assert list(table.columns[-1].cells) == ["baseline", "same"]


def test_another_text_is_reported_as_a_share_of_characters(report_path: Path) -> None:
    report = read_report(report_path)
    report["backends"][1] |= {"same_text": False, "cer_to_baseline": 0.25, "text": "bir i"}
    assert list(render_benchmark(report).columns[-1].cells) == ["baseline", "25.0 % differ"]


def test_graphs_are_taken_for_what_their_bundle_says(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "model").folder
    with pytest.raises(UsageError, match=r"model_int8\.onnx is not the fp32 graph of its bundle, which holds"):
        find_models(BenchmarkConfig(onnx_path=bundle / "model_int8.onnx"))
    with pytest.raises(UsageError, match=r"there is no graph .*other\.onnx"):
        find_models(BenchmarkConfig(onnx_path=bundle / "other.onnx"))
    assert [model.backend for model in find_models(BenchmarkConfig(onnx_int8_path=bundle))] == ["onnx_int8"]
    (bundle / "bundle.json").unlink()
    with pytest.raises(UsageError, match=r"no bundle\.json beside it"):
        find_models(BenchmarkConfig(onnx_path=bundle / "model.onnx"))
    with pytest.raises(BundleNotFoundError):
        find_models(BenchmarkConfig(checkpoint_dir=str(tmp_path / "missing")))


def test_without_flags_the_bundled_model_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_level_bundle(tmp_path / "model")
    monkeypatch.setattr("dinle.measure.backends.find_default_bundle", lambda: bundle.folder)
    assert [model.backend for model in find_models(BenchmarkConfig())] == ["onnx", "onnx_int8"]
    write_bundle(replace(bundle, files={"int8": ("model_int8.onnx",)}))
    assert [model.backend for model in find_models(BenchmarkConfig())] == ["onnx_int8"]


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"threads": 0}, {"warmup": -1}])
def test_senseless_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected at least 1 thread and run"):
        benchmark(BenchmarkConfig(**wrong))  # type: ignore[arg-type]  # the fields are integers


def test_a_clip_that_is_none_is_refused(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "model").folder
    with pytest.raises(UsageError, match=r"there is no clip .*clip\.wav"):
        benchmark(BenchmarkConfig(onnx_path=bundle, audio_path=tmp_path / "clip.wav"))
    (tmp_path / "clip.wav").write_bytes(b"not sound")
    with pytest.raises(AudioError):
        benchmark(BenchmarkConfig(onnx_path=bundle, audio_path=tmp_path / "clip.wav", report_path=tmp_path / "r.md"))


def test_a_clip_can_be_made_as_long_as_is_asked_for(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.wav", "bir")
    whole = read_clip(BenchmarkConfig(audio_path=tmp_path / "clip.wav"))
    for seconds in (0.1, 3.0):
        made = read_clip(BenchmarkConfig(audio_path=tmp_path / "clip.wav", repeat_to_s=seconds))
        assert len(made) == 16_000 * seconds
        np.testing.assert_array_equal(made, np.tile(whole, 10)[: len(made)])
    with pytest.raises(UsageError, match=r"--repeat_to_s is 0\.0; expected the seconds"):
        read_clip(BenchmarkConfig(audio_path=tmp_path / "clip.wav", repeat_to_s=0.0))


def test_the_commit_is_that_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ls-files": "benchmark.py", "status": " M x.py", "rev-parse": "0123456789ab"}
    monkeypatch.setattr("dinle.measure.benchmark._ask_git", lambda _, command, *__: answers[command])
    assert find_commit() == "0123456789ab+"
    answers["status"] = ""
    assert find_commit() == "0123456789ab"
    answers["ls-files"] = ""  # installed inside someone else's repository
    assert find_commit() is None


def test_no_git_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise FileNotFoundError("git")

    monkeypatch.setattr("dinle.measure.benchmark._ask_git", fail)
    assert find_commit() is None


@pytest.mark.slow
def test_a_footprint_is_that_of_the_child_alone(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "model").folder
    write_clip(tmp_path / "clip.wav", "bir")
    ballast = np.ones(60_000_000)  # 480 MB that a child started from here must not count as its own
    footprint = measure_footprint(find_model_files(bundle, "onnx"), tmp_path / "clip.wav", threads=1)
    assert read_memory() > ballast.nbytes > footprint.peak_memory_bytes
    assert footprint.peak_memory_bytes >= footprint.library_memory_bytes > 20e6
    assert min(footprint.import_s, footprint.load_s, footprint.first_s) > 0


@pytest.mark.slow
def test_a_failure_of_the_child_is_told_in_its_words(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path / "model").folder
    with pytest.raises(UsageError, match=r"levels with the backend onnx failed in a process of its own: .*clip\.wav"):
        measure_footprint(find_model_files(bundle, "onnx"), tmp_path / "clip.wav", threads=1)


def test_memory_grows_with_what_is_held() -> None:
    before = read_memory()
    held = np.ones(10_000_000)
    assert read_memory() - before > 0.9 * held.nbytes
    assert read_memory(peak=True) >= read_memory() - 2**20


def test_light_modules_stay_light() -> None:
    heavy = "matplotlib", "torch", "jiwer", "numpy"
    code = f"import sys, dinle.measure.config, dinle.measure.probe; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
