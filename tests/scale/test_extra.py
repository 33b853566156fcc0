"""Without Ray the rest works, and what needs it says what is missing."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from dinle.cli import main
from dinle.errors import MissingExtraError
from tests.graphs import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ray" or name.startswith("dinle.scale.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("module", ["app"])
def test_what_needs_ray_says_how_to_get_it(module: str) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'dinle\[ray\]'"):
        importlib.import_module(f"dinle.scale.{module}")


@pytest.mark.usefixtures("no_ray")
def test_the_command_line_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = str(ROOT / "samples" / "sample.wav")
    assert main(["transcribe", "--ray", "-o", str(tmp_path / "a.parquet"), sound]) == 1
    assert "pip install 'dinle[ray]'" in capsys.readouterr().err


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("module", ["environment", "proxy", "overhead", "bulk", "bulk_overhead"])
def test_the_rest_needs_no_ray(module: str) -> None:
    importlib.import_module(f"dinle.scale.{module}")
