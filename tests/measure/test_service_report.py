from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from dinle.config import build_config
from dinle.errors import UsageError
from dinle.manifest import Clip, write_manifest
from dinle.measure import load, service_bench
from dinle.measure.service_bench import benchmark_service, check_config, measure_service, read_server_settings
from dinle.measure.service_config import ServiceBenchConfig
from dinle.measure.service_report import make_report, render_service, summarize, write_service_report
from dinle.progress import open_console
from dinle.recognize.load import load as load_model
from dinle.serve.process import RunningService, ServiceFailedError
from tests.graphs import write_level_bundle
from tests.measure.services import fake_service, small_clips
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHORT = ServiceBenchConfig(users=3, ramp=20, seconds=0.6, unloaded_seconds=0.3, overload_seconds=0.6, soak_seconds=0.4)
CONDITIONS: dict[str, Any] = {
    "model": {"name": "m", "backend": "onnx_int8", "stored_as": "int8", "source": "models/m"}, "workers": 2, "threads": 1,
    "settings": ["ASR_WORKERS=2"], "users": 10, "ramp_per_s": 2.0, "overload_factor": 3.0, "timeout_s": 120.0, "seed": 1,
    "load_average": 0.1, "commit": None,
    "clips": {"manifest": "data/mini", "count": 3, "mean_s": 9.0, "shortest_s": 3.0, "longest_s": 15.0, "opus": 1,
              "mean_bytes": 2e5},
}  # fmt: skip
MACHINE = {
    "cpu": "a CPU",
    "cpu_flags": ["avx2"],
    "cores": 2,
    "memory_gb": 8,
    "system": "Linux",
    "versions": {"numpy": "2"},
}


def make_rows(seconds: float, count: int, busy_every: int = 0) -> list[dict[str, Any]]:
    rows = []
    for number, start_s in enumerate(np.linspace(0, seconds, count, endpoint=False).tolist()):
        busy = busy_every and number % busy_every == 0
        rows.append({
            "start_s": start_s, "late_s": 0.001, "seconds": 0.005 if busy else 0.2 + 0.01 * (number % 7),
            "status": 503 if busy else 200, "error": None, "clip": f"{number % 5}.wav", "audio_s": 3.0 + 2.4 * (number % 5),
            "same_text": None if busy else number != 8, "retry_after": "1" if busy else None,
        })  # fmt: skip
    return rows


@pytest.fixture
def measured() -> dict[str, Any]:
    """A benchmark of 10 s unloaded, 60 s of users, 20 s of overload, 2 s of recovery and 600 s of soak, as saved."""
    spans = [("unloaded", 0, 10), ("users", 10, 70), ("overload", 70, 90), ("recovery", 90, 92), ("soak", 92, 692)]
    lag = {
        "before": {"buckets": {"0.01": 0.0, "+Inf": 0.0}, "max_s": 0.0},
        "after": {"buckets": {"0.01": 9.0, "+Inf": 9.0}, "max_s": 0.02},
    }
    return {
        "rows": {"unloaded": make_rows(10, 40), "users": make_rows(60, 600), "overload": make_rows(20, 400, 3),
                 "recovery": make_rows(2, 2, 2), "soak": make_rows(600, 3000)},
        "facts": {"unloaded_s": 10.0, "users_s": 60.0, "ramp_s": 5.0, "overload_s": 20.0, "rate_per_s": 20.0,
                  "target_s": 0.5, "probe_audio_s": 9.2, "soak_s": 600.0},
        "samples": [{"at_s": float(at), "rss_mb": 200.0 + at / 100, "cpu_s": at / 2, "healthz_s": 0.002} for at in range(693)],
        "phases": [{"name": name, "began_s": float(began), "ended_s": float(ended), "server_cpu_s": 1.5 * (ended - began),
                    "client_cpu_s": 0.1 * (ended - began),
                    "machine_cpu_s": 1.7 * (ended - began), "lag": lag, "sleeper_late_s": 0.087} for name, began, ended in spans],
        "conditions": CONDITIONS,
        "machine": MACHINE,
    }  # fmt: skip


def check_image(path: Path) -> None:
    assert path.stat().st_size < 100_000
    with Image.open(path) as image:
        assert image.width == 1200
        assert len(np.unique(np.asarray(image.convert("L")))) > 5  # not empty


def test_saved_rows_become_figures_and_a_report(tmp_path: Path, measured: dict[str, Any]) -> None:
    saved = json.loads(json.dumps(measured))
    report = make_report(saved)
    assert json.loads(json.dumps(report)) == report
    line = summarize(report)
    steady = [row["seconds"] for row in measured["rows"]["users"] if 5 <= row["start_s"] + row["seconds"] <= 60]
    assert line["p95_s"] == pytest.approx(np.percentile(steady, 95), abs=5e-4)
    assert line["per_second"] == pytest.approx(len(steady) / 55, abs=5e-3)
    assert (line["overload_requests"], line["overload_accepted"], line["overload_refused"]) == (400, 266, 134)
    assert line["overload_without_retry_after"] == line["overload_failed"] == 0
    assert line["recovered_after_s"] == pytest.approx(1.21)
    assert line["soak_memory_growth"] == pytest.approx(206.92 / 202.12 - 1, abs=1e-4)
    assert line["different_text"] == 4  # one in each loop and one in the overload
    assert [phase["server_cores"] for phase in report["phases"]] == [1.5] * 5
    assert [phase["other_cores"] for phase in report["phases"]] == pytest.approx([0.1] * 5)
    write_service_report(tmp_path / "service_report.md", report)
    text = (tmp_path / "service_report.md").read_text(encoding="utf-8")
    for phrase in (
        "m with onnx_int8, 2 workers of 1 thread", "| refused with 503 | 134 |", "206.9 MB: +2.37 %", "+36.0 MB an hour",
        "10 users", "9.0 s on average", "a clip of 9.2 s", "`3.wav` (4)", "service_report_requests.jsonl", "1.21 s after",
    ):  # fmt: skip
        assert phrase in text
    for name in ("latency", "overload", "memory"):
        check_image(tmp_path / f"service_report_{name}.png")
        assert f"](service_report_{name}.png)" in text


def test_phases_that_were_left_out_are_left_out_of_the_report(tmp_path: Path, measured: dict[str, Any]) -> None:
    kept = ("unloaded", "users")
    measured["rows"] = {name: measured["rows"][name] for name in kept}
    measured["phases"] = [
        phase | {"lag": None, "server_cpu_s": None} for phase in measured["phases"] if phase["name"] in kept
    ]
    measured["samples"] = [sample | {"rss_mb": None} for sample in measured["samples"]]
    report = make_report(measured)
    assert report["overload"] is report["recovery"] is report["soak"] is None
    line = summarize(report)
    assert line["overload_requests"] is line["recovered_after_s"] is line["soak_memory_growth"] is None
    write_service_report(tmp_path / "r.md", report)
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "## Overload" not in text
    assert "## Memory" not in text
    assert "not measured" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.md", "r_latency.png"]


def test_a_service_that_answered_nothing_has_a_report_too(tmp_path: Path, measured: dict[str, Any]) -> None:
    for rows in measured["rows"].values():
        for row in rows:
            row |= {"status": None, "error": "timeout", "same_text": None, "retry_after": None}
    report = make_report(measured)
    assert summarize(report)["p95_s"] is None
    assert summarize(report)["failed"] == 600
    write_service_report(tmp_path / "r.md", report)
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "| no answer: timeout | 400 |" in text
    assert "not within 2 requests" in text
    check_image(tmp_path / "r_overload.png")


def test_the_table_for_the_terminal_has_a_row_for_each_load(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    open_console().print(render_service(make_report(measured)))
    printed = capsys.readouterr().out
    for name in ("1 user", "10 users", "soak"):
        assert name in printed


def test_every_phase_is_run_against_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PROBE_EVERY_S", 0.1)
    with fake_service(delay_s=0.02, capacity=4) as service:
        measured = measure_service(service.url, os.getpid(), small_clips(), SHORT)
    assert list(measured["rows"]) == ["unloaded", "users", "recovery", "overload", "soak"]
    assert [phase["name"] for phase in measured["phases"]] == ["unloaded", "users", "overload", "recovery", "soak"]
    report = make_report({**measured, "conditions": CONDITIONS, "machine": MACHINE})
    assert report["users"]["answers"]["failed"] == report["soak"]["answers"]["failed"] == 0
    assert report["users"]["per_second"] > report["unloaded"]["per_second"]
    assert report["overload"]["rate_per_s"] == pytest.approx(3 * report["users"]["per_second"])
    answers = report["overload"]["answers"]
    assert answers["requests"] == answers["ok"] + answers["refused"].get("503", 0)
    assert answers["without_retry_after"] == 0
    assert report["recovery"]["recovered_after_s"] is not None


@pytest.mark.parametrize(
    ("what", "message"), [("busy", "status 503"), ("garbage", "an answer without a text"), ("drop", "connection")]
)
def test_a_clip_that_is_refused_without_load_ends_the_benchmark(what: str, message: str) -> None:
    with (
        fake_service(lambda number: what if number == 1 else "ok") as service,
        pytest.raises(ServiceFailedError, match=rf"1 of 3 clips .* clip-1.wav: {message}"),
    ):
        measure_service(service.url, os.getpid(), small_clips(), SHORT)


def test_users_who_get_nothing_end_the_benchmark() -> None:
    with (
        fake_service(lambda number: "ok" if number < 4 else "broken") as service,
        pytest.raises(ServiceFailedError, match="nothing was answered in the steady part"),
    ):
        measure_service(service.url, os.getpid(), small_clips(), SHORT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"users": 0}, "users 0"),
        ({"ramp": 0.0}, "ramp 0.0"),
        ({"seconds": 5.0}, "seconds is 5; expected more than the 5 s"),
        ({"soak_seconds": 2.0}, "soak_seconds is 2"),
        ({"overload_factor": 0.0}, "overload_factor 0"),
        ({"timeout_s": -1.0}, "timeout_s -1"),
    ],
)
def test_numbers_that_no_phase_can_run_with_are_refused(values: Mapping[str, Any], message: str) -> None:
    check_config(build_config(ServiceBenchConfig, {"soak_seconds": 0}, where="test"))
    with pytest.raises(UsageError, match=message):
        check_config(build_config(ServiceBenchConfig, values, where="test"))


def test_settings_of_the_service_are_read_as_it_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_MAX_QUEUE", "3")  # of this process: not handed on
    settings = read_server_settings(("ASR_WORKERS=3", "ASR_THREADS=2"))
    assert (settings.engine_workers, settings.engine_threads, settings.max_queue) == (3, 2, 16)
    for bad in ("WORKERS=2", "ASR_WORKERS", "ASR_YOK=1", "ASR_BACKEND=onnx"):
        with pytest.raises(UsageError, match=r"expected ASR_NAME=value"):
            read_server_settings((bad,))
    with pytest.raises(UsageError, match="do not fit"):
        read_server_settings(("ASR_WORKERS=many",))


def write_noise(folder: Path) -> Path:
    """A manifest of clips of 3 to 7 s that the level bundle makes something of."""
    folder.mkdir()
    clips = []
    for number in range(5):
        levels = np.random.default_rng(number).integers(0, 30, size=(3 + number) * 10)
        (folder / f"{number}.wav").write_bytes(encode_wav(np.repeat(levels / 100, 1600).astype(np.float32)))
        clips.append(Clip(folder / f"{number}.wav", "merhaba", 3.0 + number))
    write_manifest(folder / "manifest.jsonl", clips)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> ServiceBenchConfig:
    values = {
        "model": str(write_level_bundle(tmp_path / "model").folder),
        "clips": str(write_noise(tmp_path / "data")),
        "report_path": tmp_path / "out" / "service_report.md",
        "settings": ("ASR_WORKERS=2",), "clip_count": 4, "users": 2, "ramp": 10.0, "seconds": 0.8, "unloaded_seconds": 0.3,
        "overload_seconds": 0.5, "soak_seconds": 0.0,
    }  # fmt: skip
    return build_config(ServiceBenchConfig, values, where="test")


@pytest.mark.slow
def test_the_products_lie_side_by_side_and_the_record_comes_last(
    config: ServiceBenchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    @contextmanager
    def start_fake(model: Path | None, *, env: Mapping[str, str]) -> Iterator[RunningService]:
        assert model is not None
        started.append((model, dict(env)))
        recognizer = load_model(model)
        with fake_service(text=lambda body: recognizer.transcribe(body[body.index(b"\r\n\r\n") + 4 :]).text) as service:
            yield RunningService(service.url, os.getpid())

    monkeypatch.setattr(service_bench, "start_service", start_fake)
    path = benchmark_service(config)
    assert started == [(Path(str(config.model)), {"ASR_WORKERS": "2", "ASR_BACKEND": "auto"})]
    names = [f"service_report{suffix}" for suffix in (
        ".json", ".md", "_latency.png", "_memory.png", "_overload.png", "_requests.jsonl", "_run.json"
    )]  # fmt: skip
    assert sorted(file.name for file in path.parent.iterdir()) == names
    report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["conditions"]["clips"]["count"] == 4
    assert report["differences"] == {}
    requests = [json.loads(line) for line in (path.parent / names[5]).read_text(encoding="utf-8").splitlines()]
    assert sum(row["phase"] == "overload" for row in requests) == report["overload"]["answers"]["requests"]
    run = json.loads((path.parent / names[6]).read_text(encoding="utf-8"))
    assert run["stage"] == "benchmark-service"
    assert run["results"] == summarize(report)


@pytest.mark.slow
def test_the_real_service_is_measured_in_a_process_of_its_own(config: ServiceBenchConfig) -> None:
    path = benchmark_service(config)
    report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["users"]["answers"]["failed"] == 0
    assert report["users"]["per_second"] > 0
    assert report["differences"] == {}
    assert report["phases"][0]["server_cores"] > 0
    assert report["conditions"]["workers"] == 2
