"""``dinle transcribe --ray``: the texts of the plain tool, bad files, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.graphs import CTC_BUNDLE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
BAD = "bozuk.wav"
COMMAND = [
    sys.executable,
    "-m",
    "dinle.cli",
    "transcribe",
    "--model",
    str(CTC_BUNDLE),
    "--written",
    "--no-language_model",
]
WAIT_S = 60.0
SAME = ("text", "raw_text", "words", "duration_s", "model")


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sockets, whose names must be short; at the end no process of it is left."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as name:
        yield Path(name)
        wait_until_gone(Path(name))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bad file among forty clips of data/mini (links)."""
    folder = tmp_path_factory.mktemp("clips")
    sources = sorted(
        path for path in (ROOT / "data" / "mini").rglob("*") if path.suffix in {".wav", ".flac", ".opus", ".ogg"}
    )
    for number in range(40):
        source = sources[number % len(sources)]
        (folder / f"{number:03d}{source.suffix}").symlink_to(source)
    (folder / BAD).write_bytes(b"x")
    return folder


def list_processes(mark: str) -> list[int]:
    """Processes with a text in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_bytes().decode(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def wait_until_gone(folder: Path) -> None:
    end = time.monotonic() + WAIT_S
    while list_processes(str(folder)):
        assert time.monotonic() < end, "processes of Ray are left"
        time.sleep(0.1)


def start(folder: Path, output: Path, ray_folder: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, "--ray", "-o", str(output), str(folder)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment | {"RAY_TMPDIR": str(ray_folder)},
    )  # fmt: skip


@NEEDS_RAY
@pytest.mark.slow
def test_a_killed_job_goes_on_and_ends_as_the_plain_tool(clips: Path, tmp_path: Path, ray_folder: Path) -> None:
    from pyarrow import parquet

    output = tmp_path / "out.parquet"
    parts = tmp_path / "out.parquet.parts"
    job = start(clips, output, ray_folder)
    end = time.monotonic() + WAIT_S
    while not list(parts.glob("*.parquet")):
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    wait_until_gone(ray_folder)
    assert not output.exists()
    before = {row["file"]: row for path in parts.glob("*.parquet") for row in parquet.read_table(path).to_pylist()}
    assert 0 < len(before) < 41

    job = start(clips, output, ray_folder)
    out, err = job.communicate(timeout=WAIT_S)
    assert (job.returncode, out) == (1, f"{output}\n"), err
    assert f"{len(before)} of 41 files were done before" in err
    assert "1 of 41 files could not be transcribed" in err
    rows = {row["file"]: row for row in parquet.read_table(output).to_pylist()}
    assert len(rows) == 40
    # A file that is transcribed again takes another time.
    assert all(rows[name]["inference_s"] == row["inference_s"] for name, row in before.items() if row["error"] is None)
    (bad,) = parquet.read_table(tmp_path / "out.errors.parquet").to_pylist()
    assert bad["file"].endswith(BAD)
    assert "cannot be read as audio" in bad["error"]
    assert not parts.exists()

    plain = subprocess.run(
        [*COMMAND, "-f", "json", str(clips)], capture_output=True, text=True, check=False
    )  # fmt: skip
    told = [json.loads(line) for line in plain.stdout.splitlines()]
    assert len(told) == 40
    for answer in told:
        row = rows[answer["file"]]
        assert [row[name] for name in SAME] == [answer[name] for name in SAME]

    again = start(clips, output, ray_folder)
    assert "is there already" in again.communicate()[1]
    assert again.returncode == 2


@NEEDS_RAY
def test_what_cannot_be_is_said_before_ray_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dinle.cli import main

    sound = str(ROOT / "samples" / "sample.wav")
    for wrong, reason in (
        ([sound], "add -o out.parquet"),
        (["-f", "srt", "-o", str(tmp_path / "a.parquet"), sound], "leave out - and --format"),
        (["-o", str(tmp_path / "a"), sound], "expected a file, such as -o out.parquet"),
        (["--model", str(tmp_path), "-o", str(tmp_path / "a.parquet"), sound], "has no bundle.json"),
    ):
        assert main(["transcribe", "--ray", *wrong]) != 0
        assert reason in capsys.readouterr().err
