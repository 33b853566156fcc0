"""The demo's own rules; that it runs from end to end is what continuous integration calls ``make demo`` for."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from dinle.build.config import PrepareConfig, TrainConfig
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
    assert set(stages.tables) <= {"prepare", "train", "export", "quantize", "evaluate", "benchmark"}
    assert "dataset_name" not in stages.tables.get("prepare", {}) or stages.make(PrepareConfig, "prepare")


def test_the_summary_shows_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = Places(tmp_path)
    for bundle in ("before", "after"):
        for name, size in (("model.onnx", 2_000_000), ("model_int8.onnx", 500_000)):
            (tmp_path / bundle).mkdir(exist_ok=True)
            (tmp_path / bundle / name).write_bytes(bytes(size))
    rate = {"rate": 0.123, "interval": [0.1, 0.15]}
    scores = {
        f"{bundle}_{precision}": {"rtfx": 42.0, "scores": {"tr": {"wer": rate, "cer": rate}}}
        for bundle in ("before", "after")
        for precision in ("fp32", "int8")
    }
    print_summary(Console(width=160), places, scores, {"prepare": 2.0, "train": 60.0})
    shown = capsys.readouterr().out
    assert shown.count("12.3 % [10.0, 15.0]") == 8
    assert all(text in shown for text in ("2.0", "0.5", "62 s", "benchmark_report.md", "report.md"))
