from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dinle.errors import ManifestError, UsageError
from dinle.measure.compare import compare, render_comparison
from dinle.measure.config import CompareConfig
from dinle.measure.predictions import Prediction, write_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REFERENCES = {f"clip{number}": f"söz {number} ile bitti" for number in range(10)}


def write_system(folder: Path, hypotheses: Mapping[str, str], references: Mapping[str, str] = REFERENCES) -> Path:
    folder.mkdir()
    write_predictions(
        folder / "predictions.jsonl", [Prediction(name, references[name], text) for name, text in hypotheses.items()]
    )
    return folder


def test_a_better_system_is_found_better(tmp_path: Path) -> None:
    before = write_system(tmp_path / "before", dict.fromkeys(REFERENCES, "söz"))
    after = {name: REFERENCES[name] for name in reversed(REFERENCES)} | {"clip3": ""}  # order does not matter
    config = CompareConfig(before, write_system(tmp_path / "after", after), tmp_path / "out", bootstrap_samples=200)
    folder = compare(config)
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert (comparison["baseline"], comparison["candidate"], comparison["clips"]) == ("before", "after", 10)
    assert comparison["clips_changed"] == {"better": 9, "same": 0, "worse": 1}
    result = comparison["differences"]["tr"]["wer"]
    assert (result["baseline"], result["candidate"], result["difference"]) == (0.75, 0.1, -0.65)
    assert result["interval"][0] < -0.65 < result["interval"][1] < 0
    assert result["significant"]
    exact = comparison["differences"]["tr"]["exact"]
    assert (exact["baseline"], exact["candidate"], exact["difference"]) == (0.0, 0.9, 0.9)
    assert 0 < exact["interval"][0] < 0.9 < exact["interval"][1]
    assert (exact["share_better"], exact["significant"]) == (1.0, True)
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "| tr | WER | 75.0 % | 10.0 % | -65.00 points [" in report
    assert "| tr | exact | 0.0 % | 90.0 % | +90.00 points [" in report
    assert "## Most improved clips" in report
    assert "`clip3`: 3 → 4 errors" in report
    assert (folder / "changes.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "run.json").read_text())["stage"] == "compare"
    assert list(render_comparison(comparison).columns[5].cells) == ["better"] * 9


def test_fewer_exact_clips_are_worse(tmp_path: Path) -> None:
    before = write_system(tmp_path / "before", REFERENCES)
    after = write_system(tmp_path / "after", dict.fromkeys(REFERENCES, "söz"))
    folder = compare(CompareConfig(before, after, tmp_path / "out", bootstrap_samples=50))
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert comparison["differences"]["tr"]["exact"]["share_better"] == 0.0
    assert list(render_comparison(comparison).columns[5].cells) == ["worse"] * 9


def test_a_system_does_not_differ_from_itself(tmp_path: Path) -> None:
    system = write_system(tmp_path / "system", dict.fromkeys(REFERENCES, "söz"))
    folder = compare(CompareConfig(system, system, tmp_path / "out", bootstrap_samples=50))
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "+0.00 points [+0.00, +0.00] | no sure difference |" in report
    assert "Most improved" not in report


def test_other_clips_are_refused_by_name(tmp_path: Path) -> None:
    before = write_system(tmp_path / "before", dict.fromkeys(REFERENCES, ""))
    after = write_system(tmp_path / "after", {"clip0": "", "x": ""}, {**REFERENCES, "x": ""})
    with pytest.raises(UsageError, match=r"lacks clip1, clip2, clip3 and 6 more and has besides x; evaluate both"):
        compare(CompareConfig(before, after, tmp_path / "out"))


def test_other_references_are_refused_by_name(tmp_path: Path) -> None:
    before = write_system(tmp_path / "before", dict.fromkeys(REFERENCES, ""))
    after = write_system(tmp_path / "after", dict.fromkeys(REFERENCES, ""), {**REFERENCES, "clip7": "başka"})
    with pytest.raises(UsageError, match=r"1 clips have other references in the candidate \(clip7\)"):
        compare(CompareConfig(before, after, tmp_path / "out"))


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no"):
        compare(CompareConfig(tmp_path, tmp_path, tmp_path / "out"))
