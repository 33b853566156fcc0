"""The whole load test with a service of its own and a bundle that spells levels of sound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from dinle.config import build_config
from dinle.errors import UsageError
from dinle.loadtest import session
from dinle.loadtest.capacity import check_config, measure_capacity
from dinle.loadtest.clips import read_sources
from dinle.loadtest.config import LoadTestConfig
from dinle.loadtest.rows import read_rows
from dinle.manifest import write_manifest
from dinle.serve.process import ServiceFailedError
from tests.graphs import write_level_bundle
from tests.measure.services import fake_service

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOADS", (0.05, 0.1))
    monkeypatch.setattr(session, "STEP_REQUESTS", 5)
    monkeypatch.setattr(session, "STEP_LEAST_S", 0.3)
    monkeypatch.setattr(session, "STEP_MOST_S", 0.3)


@pytest.mark.slow
def test_a_service_is_started_loaded_and_described(tmp_path: Path) -> None:
    write_level_bundle(tmp_path / "levels")
    sentences = [clip for clip in read_sources("mini") if 2.5 <= clip.duration_s <= 2.6]
    write_manifest(tmp_path / "manifest.jsonl", sentences)
    config = LoadTestConfig(
        model=(str(tmp_path / "levels"),), clips=str(tmp_path), clip_count=3,
        users=2, ramp=4, seconds=1.0, think_s=0.1, loads=(0.05,),
        step_seconds=0.5, lengths=(2.0,), max_streams=1, live_seconds=4.2, settings=("ASR_WORKERS=1",),
        report_path=tmp_path / "out" / "capacity.md",
    )  # fmt: skip
    assert measure_capacity(config) == config.report_path
    folder = config.report_path.parent
    report = json.loads((folder / "capacity.json").read_text())
    (model,) = report["models"]
    assert (model["label"], model["workers"], model["compared_with"]) == ("levels int8", 1, "offline")
    assert model["answers"]["failed"] == model["answers"]["different_text"] == 0
    assert model["closed"]["per_second"] > 0
    assert model["live"]["steps"][0]["answers"]["ok"] >= 1
    assert model["phases"][2]["service_cores"] is not None
    rows = read_rows(folder / "capacity_requests.csv")
    assert len(rows) == model["answers"]["requests"]
    assert {row["same_text"] for row in rows} == {True}
    assert {row["kind"] for row in rows} == {"file", "live"}
    assert {row["phase"] for row in rows} >= {"warm-up", "warm-up 2 s", "closed loop", "open 0.05", "live 1"}
    samples = read_rows(folder / "capacity_samples.csv")
    assert {sample["phase"] for sample in samples} == {phase["name"] for phase in model["phases"]}
    assert max(sample["live_streams"] for sample in samples) == 1
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.width == 1200
    assert {path.name for path in folder.iterdir()} == {
        "capacity.md", "capacity.json", "capacity_requests.csv", "capacity_samples.csv", "capacity_run.json",
        "capacity_card.png", "capacity_open1.png", "capacity_lengths.png", "capacity_live.png",
    }  # fmt: skip


@pytest.mark.slow
def test_a_service_that_runs_already_is_compared_with_its_first_answers(tmp_path: Path) -> None:
    config = LoadTestConfig(
        clip_count=2, users=0, loads=(), lengths=(), max_streams=0, report_path=tmp_path / "capacity.md"
    )
    with fake_service() as service:
        measure_capacity(build_config(LoadTestConfig, vars(config) | {"host": service.url + "/"}, where="test"))
    text = config.report_path.read_text()
    assert "0 of 2 answers and finals hold another text than the first answer for the same sound." in text
    assert "which may be wrong itself" in text


@pytest.mark.slow
def test_a_service_that_refuses_a_single_clip_is_not_measured(tmp_path: Path) -> None:
    with fake_service(lambda _: "broken") as service:
        config = LoadTestConfig(
            host=service.url, clip_count=2, lengths=(), max_streams=0, report_path=tmp_path / "c.md"
        )
        with pytest.raises(ServiceFailedError, match=r"2 of 2 clips were not transcribed .* first was 00-.*status 500"):
            measure_capacity(config)
    with pytest.raises(ServiceFailedError, match="no service answers at http://127.0.0.1:9"):
        measure_capacity(LoadTestConfig(host="http://127.0.0.1:9", clip_count=1, lengths=(), max_streams=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 5.0}, "seconds is 5; expected more than the 5 s"),
        ({"target_s": 0.0}, "target_s is 0; expected more than 0"),
        ({"max_streams": -1}, "max_streams is -1; expected 0 or more"),
        ({"lengths": (3.0, -1.0)}, "lengths holds -1; expected numbers above 0"),
        ({"host": "http://a", "model": ("a", "b")}, "2 models for the service at http://a"),
        ({"host": "http://a", "settings": ("ASR_WORKERS=1",)}, "which runs already"),
    ],
)
def test_numbers_that_make_no_load_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_config(build_config(LoadTestConfig, changes, where="test"))
    check_config(LoadTestConfig())
