"""The wheel: what is in it, what it asks for, and that it recognises speech on its own."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_core_asks_for_no_torch(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    core = [requirement for requirement in metadata.get_all("Requires-Dist", []) if "extra ==" not in requirement]
    names = sorted(re.split(r"[<>=]", requirement)[0] for requirement in core)
    assert names == ["av", "numpy", "onnxruntime", "rich", "safetensors", "soxr"]


@pytest.mark.slow
def test_the_wheel_has_the_page_and_its_recording(wheel: Path) -> None:
    prefix = "dinle/serve/static/"
    static = ROOT / "src" / prefix
    wanted = {path.relative_to(static).as_posix(): path for path in static.rglob("*") if path.is_file()}
    wanted["sample.wav"] = ROOT / "samples" / "sample.wav"
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix(prefix): archive.read(name) for name in archive.namelist() if name.startswith(prefix)
        }
    assert packed.keys() == wanted.keys()
    assert "index.html" in packed
    assert [name for name, path in wanted.items() if path.read_bytes() != packed[name]] == []


@pytest.mark.slow
def test_the_wheel_finds_its_page_and_its_recording(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from dinle.serve import page; print(page.STATIC_DIR); print(page.find_sample_dir())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(tmp_path / "dinle" / "serve" / "static")] * 2


@pytest.mark.slow
def test_the_wheel_transcribes_with_its_own_model(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    assert (tmp_path / "dinle" / "py.typed").exists()
    code = "import dinle, sys; print(dinle.__file__); print(dinle.load().transcribe(sys.argv[1]).text)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "samples" / "sample.wav")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    place, text = done.stdout.splitlines()
    assert place.startswith(str(tmp_path))
    assert len(text.split()) >= 5


def test_the_version_is_the_same_everywhere() -> None:
    import tomllib

    import dinle

    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == dinle.__version__
    )
    assert f"## {dinle.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
