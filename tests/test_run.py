from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dinle.build.config import QuantizeConfig
from dinle.run import describe_machine, list_versions, shorten_path, write_run

if TYPE_CHECKING:
    import pytest


def test_a_record_holds_config_inputs_and_versions(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes(b"ses")
    config = QuantizeConfig(bundle_dir=Path("x"))
    path = write_run(
        tmp_path, stage="quantize", config=config, seconds=1.23456, inputs={"text": source}, results={"wer": 0.1}
    )
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (path.name, record["stage"], record["seconds"]) == ("run.json", "quantize", 1.235)
    assert record["config"]["bundle_dir"] == "x"
    assert record["inputs"]["text"]["sha256"] == hashlib.sha256(b"ses").hexdigest()
    assert record["results"] == {"wer": 0.1}
    assert record["versions"]["numpy"] == list_versions()["numpy"]
    assert not list(tmp_path.glob("*.partial"))


def test_paths_are_told_as_seen_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shorten_path(tmp_path / "models" / "a.onnx") == "models/a.onnx"
    assert shorten_path(Path("models/a.onnx")) == "models/a.onnx"
    assert shorten_path(tmp_path.parent / "a.onnx") == str(tmp_path.parent / "a.onnx")


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["memory_gb"] > 0.1
    assert machine["cpu"]
    json.dumps(machine)
