"""A recording that kills its process, here a process that ends itself."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dinle.scale.attempts import FILE_TRIES, Attempts, ProcessLostError

if TYPE_CHECKING:
    from pathlib import Path

DIE = """
import os, sys
from pathlib import Path
from dinle.scale.attempts import Attempts
with Attempts("run", Path(sys.argv[1])).begin("a.wav"):
    os._exit(9)
"""


def test_what_kills_its_process_is_given_up(tmp_path: Path) -> None:
    for _ in range(FILE_TRIES):
        assert subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], check=False).returncode == 9
    with pytest.raises(ProcessLostError, match="transcribe it alone"), Attempts("run", tmp_path).begin("a.wav"):
        pass
    for run, file in (("run", "b.wav"), ("another", "a.wav")):
        with Attempts(run, tmp_path).begin(file):
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_no_death(tmp_path: Path) -> None:
    for _ in range(2 * FILE_TRIES):
        with pytest.raises(ValueError, match="damaged"), Attempts("run", tmp_path).begin("a.wav"):
            raise ValueError("damaged")
