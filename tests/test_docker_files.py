"""What the container files say, read quickly; test_image.py builds and runs the image, test_monitoring.py the rest."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
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


def read_last_stage() -> list[tuple[str, str]]:
    instructions = read_instructions()
    return instructions[max(i for i, (name, _) in enumerate(instructions) if name == "FROM") :]


def test_the_base_is_one_pinned_slim_python() -> None:
    stages = {value.partition(" AS ")[2] for value in find("FROM")}
    bases = {value.split()[0] for value in find("FROM")} - stages
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", bases.pop())
    assert read_last_stage()[0][1].startswith("python:")


def test_the_service_is_not_root_and_is_watched() -> None:
    last_stage = read_last_stage()
    users = [value for name, value in last_stage if name == "USER"]
    assert users
    assert int(users[-1]) > 0
    assert not [value for name, value in last_stage if name == "RUN" and "pip" in value and "install" in value.split()]
    assert find("EXPOSE") == ["8000"]
    assert "/healthz" in read_exec("HEALTHCHECK")[-1]
    assert read_exec("CMD")[:2] == ["uvicorn", "app.main:app"]


def test_the_image_takes_the_tested_versions_and_no_torch() -> None:
    variables = dict(part.split("=", 1) for value in find("ENV") for part in value.split() if part.startswith("PIP_"))
    folder = find("WORKDIR")[0]
    assert variables["PIP_CONSTRAINT"] == f"{folder}/constraints.txt"
    (extras,) = (value.removeprefix("EXTRAS=").split(",") for value in find("ARG"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in extras for name in project["optional-dependencies"][extra]]
    assert not [name for name in wanted if re.match("torch|transformers|dinle", name)]


def test_the_wanted_packages_are_those_of_the_project() -> None:
    """By the Dockerfile's own program."""
    install = next(value for value in find("RUN") if "tomllib" in value)
    program = re.search(r"python -c '([^']+)'", install)
    assert program
    command = [sys.executable, "-c", program[1], "serve,itn"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert listed == project["dependencies"] + extras["serve"] + extras["itn"]


def test_every_package_is_pinned() -> None:
    """Those that the Dockerfile names for pip; all others come from the project, under its constraints."""
    installs = [part for value in find("RUN") for part in re.findall(r"pip [^&]*?\binstall ([^&]+)", value)]
    named = [word for part in installs for word in part.split() if re.match(r"\w", word) and word != "wanted.txt"]
    assert len(installs) == 3
    assert [word.partition("==")[0] for word in named if "==" in word] == ["cyclonedx-bom"]
    assert {word for word in named if "==" not in word} <= {"/code"}


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [value.split() for value in find("COPY") if "--from" not in value]
    sources = [source for *parts, _ in copies for source in parts]
    assert set(sources) == set(allowed)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if source.startswith("models")] == [f"models/{DEFAULT_BUNDLE}"]


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
    assert {"read_only": api["read_only"], "cap_drop": api["cap_drop"]} == {"read_only": True, "cap_drop": ["ALL"]}
    locust_version = re.search(r"^locust==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locust_version
    assert loadtest["image"] == f"locustio/locust:{locust_version[1]}"


def test_monitoring_is_asked_for_pinned_closed_and_calls_nobody() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = {
        name: service for name, service in compose["services"].items() if service.get("profiles") == ["monitoring"]
    }
    assert services.keys() == {"prometheus", "grafana"}
    for service in services.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        sources = [volume.split(":")[0] for volume in service["volumes"]]
        assert [source for source in sources if not (ROOT / source).is_dir() and source not in compose["volumes"]] == []
        assert all(volume.endswith(":ro") for volume in service["volumes"] if volume.startswith("."))
    told = services["grafana"]["environment"]
    off = ("ANALYTICS_REPORTING", "ANALYTICS_CHECK_FOR_UPDATES", "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "NEWS_NEWS_FEED")
    assert {told.get(f"GF_{name}_ENABLED", told.get(f"GF_{name}")) for name in off} == {"false"}
    assert (told["GF_AUTH_ANONYMOUS_ENABLED"], told["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert told["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == told["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"


def test_grafana_finds_prometheus_and_prometheus_the_service() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{services['prometheus']['ports'][0].rpartition(':')[2]}"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "dinle.yml").read_text())["providers"]
    mounted = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    assert mounted == {"/etc/grafana/provisioning", provider["options"]["path"]}
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].startswith(
        provider["options"]["path"]
    )
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"api:{services['api']['ports'][0].rpartition(':')[2]}"


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
