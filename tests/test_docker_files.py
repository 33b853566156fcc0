"""No container engine runs here: the files are read, and the image's own commands are run outside of it."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dinle.recognize.bundle import DEFAULT_BUNDLE
from dinle.serve.settings import PREFIX, Settings
from tests.graphs import write_level_bundle
from tests.serve.servers import ROOT, serve_in_process

yaml: Any = importlib.import_module("yaml")  # it ships no types, and its stubs would be one more package


def read_instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and arguments, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name, value.strip()) for name, _, value in (line.partition(" ") for line in joined)]


def find(name: str) -> list[str]:
    return [value for instruction, value in read_instructions() if instruction == name]


def read_exec(name: str) -> list[str]:
    """The command of ``CMD`` or ``HEALTHCHECK`` in exec form."""
    command = json.loads(re.sub(r"^[^\[]*", "", find(name)[-1]))
    assert all(isinstance(part, str) for part in command)
    return list(command)


def test_hadolint_is_content() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_one_pinned_slim_python() -> None:
    bases = {value.split()[0] for value in find("FROM")}
    assert len(find("FROM")) == 2
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", bases.pop())


def test_the_service_is_not_root_and_is_watched() -> None:
    instructions = read_instructions()
    last_stage = instructions[max(i for i, (name, _) in enumerate(instructions) if name == "FROM") :]
    users = [value for name, value in last_stage if name == "USER"]
    assert users
    assert int(users[-1]) > 0
    assert not [value for name, value in last_stage if name == "RUN" and "pip" in value]
    assert find("EXPOSE") == ["8000"]
    assert "/healthz" in read_exec("HEALTHCHECK")[-1]
    assert read_exec("CMD")[:2] == ["uvicorn", "app.main:app"]


def test_the_image_takes_the_tested_versions_and_no_torch() -> None:
    install = next(value for value in find("RUN") if "pip" in value)
    assert "--constraint constraints.txt" in install
    assert "'.[serve]'" in install
    project = (ROOT / "pyproject.toml").read_text()
    core, serve = (
        re.search(rf"^{name} = \[(.*?)\]", project, re.DOTALL | re.MULTILINE) for name in ("dependencies", "serve")
    )
    assert core
    assert serve
    assert not re.search("torch|transformers|dinle", core[1] + serve[1])


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [value.split() for value in find("COPY") if "--from" not in value]
    sources = [source for *parts, _ in copies for source in parts]
    assert sorted(sources) == sorted(allowed)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "models/*/checkpoint" in (ROOT / ".dockerignore").read_text().splitlines()
    assert (ROOT / "models" / DEFAULT_BUNDLE).is_dir()


def test_compose_builds_this_image_and_passes_every_setting() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    api, loadtest = compose["services"]["api"], compose["services"]["loadtest"]
    assert api["build"] == "."
    assert api["ports"][0].endswith(":8000")
    passed = {entry.partition("=")[0] for entry in api["environment"]}
    assert {name for name in passed if name.startswith(PREFIX)} == {
        PREFIX + name.upper() for name in Settings.model_fields
    }
    assert "profiles" not in api
    assert {"interval", "timeout", "start_period", "retries"} == api["healthcheck"].keys()
    assert api["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert loadtest["profiles"] == ["loadtest"]
    assert loadtest["depends_on"] == {"api": {"condition": "service_healthy"}}
    sources = [volume.split(":")[0] for volume in loadtest["volumes"]]
    assert [source for source in sources if not (ROOT / source).is_dir()] == []
    locust_version = re.search(r"^locust==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locust_version
    assert loadtest["image"] == f"locustio/locust:{locust_version[1]}"


@pytest.mark.slow
def test_the_commands_of_the_image_serve_and_check(tmp_path: Path) -> None:
    """With what the image has in its working folder, and only the port changed."""
    shutil.copytree(ROOT / "app", tmp_path / "srv" / "app")
    bundle = write_level_bundle(tmp_path / "levels").folder
    command = read_exec("CMD")
    command[command.index("--port") + 1] = "0"
    command[command.index("--host") + 1] = "127.0.0.1"
    env = {"ASR_MODEL_DIR": str(bundle)}
    with serve_in_process(command, tmp_path / "log", env, folder=tmp_path / "srv") as (url, process):
        check = [sys.executable, *read_exec("HEALTHCHECK")[1:]]
        check[-1] = check[-1].replace("http://127.0.0.1:8000", url)
        assert check[-1].count(url) == 1
        assert subprocess.run(check, check=False).returncode == 0
        assert httpx2.get(f"{url}/docs").status_code == 200
        process.terminate()
        process.wait(timeout=30)
        assert "Application shutdown complete" in (tmp_path / "log").read_text()
        assert subprocess.run(check, capture_output=True, check=False).returncode != 0
