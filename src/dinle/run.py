"""``run.json``: what a stage did, written last beside its product, so that its presence means "finished"."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.config import to_plain
from dinle.recognize.bundle import hash_file
from dinle.recognize.cpu import find_cpu_kind, read_cpu_flags, read_cpuinfo

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = (
    "dinle", "numpy", "onnxruntime", "torch", "transformers", "datasets", "av", "soxr", "onnx", "jiwer",
    "tokenizers", "peft", "faster-whisper", "ctranslate2", "openvino", "nncf", "ray",
)  # fmt: skip


def write_run(
    folder: Path,
    *,
    stage: str,
    config: object,
    seconds: float,
    inputs: Mapping[str, Path],
    results: Mapping[str, object] | None = None,
    name: str = "run.json",
) -> Path:
    """Write a stage's record.

    Args:
        folder: the product's folder.
        stage: such as ``train``.
        config: the frozen dataclass that the stage was given.
        seconds: wall seconds of the stage.
        inputs: name to file; hashed with SHA-256.
        results: the figures worth keeping.
        name: file name, where several stages share a folder.
    """
    record = {
        "stage": stage,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
        "config": to_plain(config),
        "inputs": {key: {"path": shorten_path(path), "sha256": hash_file(path)} for key, path in inputs.items()},
        "results": dict(results or {}),
        "versions": list_versions(),
    }
    path = folder / name
    partial = path.with_name(f"{name}.partial")
    partial.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return partial.replace(path)


def shorten_path(path: Path) -> str:
    """A path as it is seen from the working folder, where it lies below it: reports name no folders of a machine."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def list_versions() -> dict[str, str]:
    """Python and the installed packages that influence results."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe_machine() -> dict[str, Any]:
    """The machine that figures were measured on: processor, the flags that matter, cores, memory, system, versions."""
    return {
        "cpu": read_cpuinfo().get("model name") or platform.processor() or platform.machine(),
        "cpu_kind": find_cpu_kind(),
        "cpu_flags": read_cpu_flags(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": list_versions(),
    }
