"""The demo's own rules; that it runs from end to end is what continuous integration calls ``make demo`` for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from dinle.build.config import CutVocabularyConfig, PrepareConfig, TrainConfig
from dinle.demo import MARKER, Places, Stages, clear_folder, print_summary
from dinle.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


def test_only_a_folder_that_a_demo_made_is_emptied(tmp_path: Path) -> None:
    folder = clear_folder(tmp_path / "out")
    (folder / "old.txt").write_text("x", encoding="utf-8")
    assert [path.name for path in clear_folder(folder).iterdir()] == [MARKER]
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="holds files that no demo made"):
        clear_folder(precious)
    assert (precious / "thesis.txt").exists()


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.toml")), ids=lambda p: p.name)
def test_every_experiment_fits_the_stages(path: Path) -> None:
    stages = Stages(path, Console(quiet=True))
    assert stages.make(TrainConfig, "train", dataset_name="x").model_name
    assert set(stages.tables) <= {"prepare", "cut-vocabulary", "train", "export", "quantize", "evaluate", "benchmark"}
    assert "cut-vocabulary" not in stages.tables or stages.make(CutVocabularyConfig, "cut-vocabulary").texts
    assert "dataset_name" not in stages.tables.get("prepare", {}) or stages.make(PrepareConfig, "prepare")


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_the_summary_shows_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rate = {"rate": 0.123, "interval": [0.1, 0.15]}
    for name in ("before_fp32", "before_int8", "after_fp32", "after_int8"):
        write_json(tmp_path / "evaluation" / name / "scores.json", {"scores": {"tr": {"wer": rate, "cer": rate}}})
    gain = {"difference": -0.051, "interval": [-0.08, -0.01], "significant": True}
    write_json(tmp_path / "comparison" / "comparison.json", {"differences": {"tr": {"wer": gain}}})
    backends = [
        {"label": label, "latency": {"median_s": 0.2 / ratio}, "speedup": {"ratio": ratio}, "size_mb": 23.66}
        for label, ratio in (("PyTorch fp32", 1.0), ("ONNX fp32", 1.25), ("ONNX INT8", 2.0))
    ]
    write_json(tmp_path / "benchmark_report.json", {"backends": backends, "conditions": {"clip_s": 7.725}})
    print_summary(Console(width=160), Places(tmp_path), {"prepare": 2.0, "train": 60.0})
    shown = capsys.readouterr().out
    assert shown.count("12.3 % [10.0, 15.0]") == 8
    assert "-5.1 points [-8.0, -1.0]: more than chance" in shown
    assert all(text in shown for text in ("7.7 s clip", "200 ms", "160 ms", "2.00x", "23.7 MB", "62 s"))
