from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dinle.errors import UsageError
from dinle.measure import published
from dinle.measure.published import collect_numbers, format_numbers, main

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
COMMITTED = ROOT / published.OUTPUT
MAX_BYTES = 60_000
DIGITS = 1e-5  # what is kept: six significant digits


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    return collect_numbers(ARTIFACTS)[0]


def read(name: str) -> Any:
    return json.loads((ARTIFACTS / name).read_text(encoding="utf-8"))


def test_committed_file_is_what_the_committed_reports_give(numbers: dict[str, Any]) -> None:
    assert COMMITTED.read_text(encoding="utf-8") == format_numbers(numbers), "run python -m dinle.measure.published"


def test_every_committed_report_is_in_it(numbers: dict[str, Any]) -> None:
    assert collect_numbers(ARTIFACTS)[1] == []
    assert set(numbers) == {"benchmark", "wav2vec2_base", "evaluation", "int8_against_fp32", "service"}
    assert len(numbers["evaluation"]) == 2
    assert [one["model"] for one in numbers["service"]] == ["dinle-base-tr", "dinle-ctc-tr", "wav2vec2-base"]


def test_it_stays_light() -> None:
    assert COMMITTED.stat().st_size < MAX_BYTES


@pytest.mark.parametrize(("section", "name"), published.BENCHMARKS.items())
def test_backends_are_those_of_the_report(numbers: dict[str, Any], section: str, name: str) -> None:
    report = read(name)
    assert numbers[section]["report"] == f"artifacts/{name}"
    assert numbers[section]["conditions"]["commit"] == report["conditions"]["commit"]
    assert numbers[section]["choice"] == report["precisions"]["ranking"][0]
    for shown, measured in zip(numbers[section]["backends"], report["backends"], strict=True):
        assert shown["label"] == measured["label"]
        for key in ("rtfx", "size_mb", "peak_memory_mb", "load_s", "cer_to_baseline"):
            assert shown[key] == pytest.approx(measured[key], rel=DIGITS)
        assert shown["median_s"] == pytest.approx(measured["latency"]["median_s"], rel=DIGITS)
        assert shown["speedup"]["interval"] == pytest.approx(measured["speedup"]["interval"], rel=DIGITS)
        ends = np.percentile(measured["samples_s"], [5, 95])
        assert (shown["p5_s"], shown["p95_s"]) == pytest.approx(tuple(ends), rel=DIGITS)
        quality = report["precisions"]["quality"].get(measured["backend"])
        assert shown.get("quality", {}).get("wer") == (pytest.approx(quality["wer"], rel=DIGITS) if quality else None)


def test_error_rates_are_those_of_the_scores(numbers: dict[str, Any]) -> None:
    for shown, name in zip(numbers["evaluation"], published.EVALUATIONS, strict=True):
        scores = read(name)
        for text in ("raw", "tr"):
            for measure in ("wer", "cer", "exact"):
                assert shown["scores"][text][measure]["rate"] == pytest.approx(scores["scores"][text][measure]["rate"])
                assert shown["scores"][text][measure]["interval"] == pytest.approx(
                    scores["scores"][text][measure]["interval"]
                )
    assert numbers["int8_against_fp32"]["differences"] == read(published.COMPARISON)["differences"]


def test_loads_are_those_of_the_service_reports(numbers: dict[str, Any]) -> None:
    for shown, name in zip(numbers["service"], published.SERVICES, strict=True):
        report = read(name)
        for load, figures in shown["loads"].items():
            assert figures["per_second"] == pytest.approx(report[load]["per_second"], rel=DIGITS)
            assert figures["p95_s"] == pytest.approx(report[load]["latency"]["p95_s"], rel=DIGITS)
        over_time = shown["overload"]["over_time"]
        assert over_time["refused"] == [one["refused"] for one in report["overload"]["over_time"]]
        assert sum(over_time["accepted"]) == shown["overload"]["ok"]
        assert (shown["soak"] is None) == (report["soak"] is None)


def test_memory_is_that_of_the_soak_alone(numbers: dict[str, Any]) -> None:
    soak = numbers["service"][0]["soak"]
    report = read(published.SERVICES[0])
    span = next(phase for phase in report["phases"] if phase["name"] == "soak")
    assert 0 <= soak["at_s"][0] < soak["at_s"][-1] <= span["seconds"] + 0.1
    assert soak["rss_mb"][-1] == pytest.approx(report["soak"]["memory"]["last_mb"], rel=DIGITS)
    assert max(soak["rss_mb"]) == pytest.approx(report["soak"]["memory"]["most_mb"], rel=DIGITS)


def test_days_are_those_of_the_runs(numbers: dict[str, Any]) -> None:
    assert numbers["benchmark"]["conditions"]["date"] == read("benchmark_report_run.json")["finished"][:10]
    assert numbers["evaluation"][1]["conditions"]["date"] == read("evaluation_int8/run.json")["finished"][:10]


def test_no_absolute_path_of_a_machine_is_published() -> None:
    assert '"/' not in COMMITTED.read_text(encoding="utf-8")


def test_missing_reports_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    for name in ("benchmark_report.json", "benchmark_report_run.json"):
        shutil.copy(ARTIFACTS / name, artifacts / name)
    output = tmp_path / "numbers.json"
    assert main([str(artifacts), str(output)]) == 0
    assert list(json.loads(output.read_text(encoding="utf-8"))) == ["benchmark"]
    said = capsys.readouterr().err
    assert "service_report.json" in said
    assert "benchmark_report.json" not in said


def test_damaged_reports_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ARTIFACTS / "benchmark_report_run.json", tmp_path / "benchmark_report_run.json")
    report = tmp_path / "benchmark_report.json"
    report.write_text('{"conditions": {}}', encoding="utf-8")
    with pytest.raises(UsageError, match="not the report that was expected"):
        collect_numbers(tmp_path)
    report.write_text('{"conditions"', encoding="utf-8")
    assert main([str(tmp_path), str(tmp_path / "numbers.json")]) == 1
    assert str(report) in capsys.readouterr().err
    assert not (tmp_path / "numbers.json").exists()


def test_no_folder_of_reports_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        collect_numbers(tmp_path / "nowhere")


def test_vendored_chart_js_is_the_version_of_the_makefile() -> None:
    wanted = re.search(r"^CHART_JS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    vendor = COMMITTED.parent / "vendor"
    assert wanted is not None
    assert f"Chart.js v{wanted[1]}\n" in (vendor / "chart.umd.js").read_text(encoding="utf-8")[:200]
    assert "MIT" in (vendor / "chart.LICENSE.md").read_text(encoding="utf-8")
