"""The image is built and run; and what its bill of materials is completed with."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import dinle
from dinle.recognize.bundle import DEFAULT_BUNDLE
from scripts import sbom
from tests.fakes import make_tone
from tests.images import Image, build_image, find_missing_tools
from tests.serve.servers import ROOT
from tests.sounds import encode_wav
from tests.test_docker_files import find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MB = 1_000_000
MAX_IMAGE_MB = 450
# python:3.11-slim-bookworm cannot be measured here; Debian's slim image and Python make less than this.
OFFICIAL_BASE_MB = 135


# The bill of materials.


def make_site_packages(folder: Path) -> Path:
    """Two packages: one brings a library, the other tells what was compiled into it."""
    (folder / "py_av.libs").mkdir()
    (folder / "py_av.libs" / "libx-1.so.2").write_bytes(b"elf")
    (folder / "core-2.0.dist-info" / "sboms").mkdir(parents=True)
    parts = [
        {"type": "library", "name": "Core", "version": "2.0"},
        {
            "type": "library",
            "name": "crate",
            "version": "1",
            "purl": "pkg:cargo/crate@1",
            "bom-ref": "x",
            "author": "?",
        },
        {"type": "library", "name": "crate", "version": "1", "purl": "pkg:cargo/crate@1", "bom-ref": "y"},
    ]
    (folder / "core-2.0.dist-info" / "sboms" / "core.cdx.json").write_text(json.dumps({"components": parts}))
    (folder / "dinle" / "models").mkdir(parents=True)
    (folder / "dinle" / "models" / "base").symlink_to(ROOT / "models" / DEFAULT_BUNDLE)
    return folder


def test_wheels_are_asked_what_is_inside_of_them(tmp_path: Path) -> None:
    bill: dict[str, Any] = {
        "components": [{"type": "library", "name": name, "version": "2.0"} for name in ("py-av", "core", "plain")]
    }
    sbom.complete(bill, make_site_packages(tmp_path), [sbom.describe_debian_package("g++", "4:1.2+b1", "amd64")])
    inside = {component["name"]: component.get("components") for component in bill["components"]}
    assert inside["plain"] is None
    assert inside["core"] == [{"type": "library", "name": "crate", "version": "1", "purl": "pkg:cargo/crate@1"}]
    assert inside["py-av"] == [sbom.make_file("libx-1.so.2", hashlib.sha256(b"elf").hexdigest())]
    assert {"python", DEFAULT_BUNDLE} <= inside.keys()
    debian = next(component for component in bill["components"] if component["name"] == "g++")
    assert debian["purl"] == "pkg:deb/debian/g%2B%2B@4%3A1.2%2Bb1?arch=amd64"
    kinds = [(component["type"], component["name"]) for component in bill["components"]]
    assert kinds == sorted(kinds)


def test_a_model_is_listed_with_its_files_origins_and_licences(tmp_path: Path) -> None:
    (model,) = sbom.list_models(make_site_packages(tmp_path))
    bundle = json.loads((ROOT / "models" / DEFAULT_BUNDLE / "bundle.json").read_text())
    files = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert files == bundle["sha256"]
    assert [licence["license"]["id"] for licence in model["licenses"]] == ["Apache-2.0", "MIT"]
    assert [ancestor["name"] for ancestor in model["pedigree"]["ancestors"]] == ["Whisper base"]
    datasets = model["modelCard"]["modelParameters"]["datasets"]
    assert len(datasets) + len(model["pedigree"]["ancestors"]) == len(bundle["provenance"])
    assert all(re.search(r"; licence: \S", dataset["description"]) for dataset in datasets)


# The image.


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if missing := find_missing_tools():
        pytest.skip(
            f"no image can be built here: {', '.join(missing)} missing; its files are read by test_docker_files.py"
        )
    (base,) = {value.split()[0] for value in find("FROM") if value.startswith("python:")}
    with build_image(tmp_path_factory.mktemp("image") / "storage", base) as built:
        yield built


@pytest.mark.slow
def test_the_image_is_small(image: Image) -> None:
    base_mb, *added_mb = [size / MB for size in image.layers]
    print(f"base here {base_mb:.1f} MB; on top of it {sum(added_mb):.1f} MB")  # noqa: T201 - pytest -s shows it
    assert base_mb + sum(added_mb) < MAX_IMAGE_MB
    assert OFFICIAL_BASE_MB + sum(added_mb) < MAX_IMAGE_MB


@pytest.mark.slow
def test_the_image_serves_what_is_recognised_outside_of_it(image: Image, tmp_path: Path) -> None:
    sample = ROOT / "samples" / "sample.wav"
    long = encode_wav(0.001 * make_tone(70.0))  # over 1 MB: it is put down in /tmp
    expected = dinle.load(ROOT / "models" / DEFAULT_BUNDLE, backend="onnx_int8", threads=1).transcribe(sample).text
    with image.serve(tmp_path / "log") as url:
        answer = httpx2.post(f"{url}/transcribe", files={"file": sample.read_bytes()}, timeout=60).json()
        assert answer["text"] == expected
        assert httpx2.post(f"{url}/transcribe", files={"file": long}, timeout=60).json()["text"] == ""
        assert httpx2.get(f"{url}/static/sample.wav").content == sample.read_bytes()
        check = list(image.config["Healthcheck"]["Test"])
        assert check.pop(0) == "CMD"
        image.run([part.replace("http://127.0.0.1:8000", url) for part in check])


INSPECT = """
import importlib.util, json, os, pathlib
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
folders = ("/", "/tmp", "/var/tmp", "/srv/dinle", "/opt/dinle", "/opt/bytecode", "/home", "/etc")
names = ("pip", "setuptools", "torch", "transformers", "damga", "opentelemetry.sdk")
def can_write(folder):
    try:
        (pathlib.Path(folder) / "written").touch()
    except OSError:
        return False
    return True
print(json.dumps({
    "ids": [os.getuid(), os.getgid(), *os.getgroups()],
    "capabilities": status["CapEff"].strip("0"),
    "privileges": status["NoNewPrivs"],
    "writable": [folder for folder in folders if can_write(folder)],
    "modules": [name for name in names if importlib.util.find_spec(name)],
}))
"""


@pytest.mark.slow
def test_nothing_in_the_image_can_be_changed_from_inside(image: Image) -> None:
    found = json.loads(image.run(["python", "-c", INSPECT]))
    assert (found["ids"], found["capabilities"], found["privileges"]) == ([10001, 10001], "", "1")
    assert found["writable"] == ["/tmp"]  # noqa: S108 - in memory, and the image's own
    assert found["modules"] == ["opentelemetry.sdk"]
    files = [(path, path.lstat()) for path in image.root.rglob("*")]
    assert [path for path, status in files if stat.S_ISREG(status.st_mode) and status.st_mode & 0o6000] == []
    assert [path for path, status in files if status.st_uid == int(image.config["User"])] == []


@pytest.mark.slow
def test_the_image_holds_the_default_model_and_no_trace_of_the_build(image: Image) -> None:
    models = [
        path.parent.name for path in image.root.glob("opt/dinle/lib/python3*/site-packages/dinle/models/*/bundle.json")
    ]
    assert models == [DEFAULT_BUNDLE]
    assert not (image.root / "etc" / "pip.conf").exists() or not (image.root / "etc" / "pip.conf").read_bytes()
    assert not [entry for entry in image.config["Env"] if entry.startswith("PIP_")]
    assert not (image.root / "src").exists()
    assert image.config["User"] == "10001"
    assert "dinle" in image.run(["dinle", "--help"])


@pytest.mark.slow
def test_a_start_compiles_nothing_but_the_application_itself(image: Image) -> None:
    told = image.run(["sh", "-c", "python -v -c 'import app.main' 2>&1"])
    read = re.findall(r"# code object from '?([^'\n]+?)'?$", told, re.MULTILINE)
    assert len([path for path in read if path.startswith("/opt/bytecode/opt/dinle/")]) > 100
    assert [path for path in read if not path.startswith("/opt/bytecode/")] == ["/srv/dinle/app/main.py"]


@pytest.mark.slow
def test_the_bill_of_materials_lists_what_is_installed(image: Image) -> None:
    bill = json.loads((image.root / "usr" / "share" / "sbom" / "dinle.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    purls = {component.get("purl", "") for component in bill["components"]}
    listed = {sbom.normalize_name(purl.split("/")[1].split("@")[0]) for purl in purls if purl.startswith("pkg:pypi/")}
    (site_packages,) = image.root.glob("opt/dinle/lib/python3*/site-packages")
    installed = {sbom.normalize_name(path.name.split("-")[0]) for path in site_packages.glob("*.dist-info")}
    assert listed | {"dinle"} == installed
    assert bill["metadata"]["component"]["name"] == "dinle"
    debian = image.run(["dpkg-query", "--show", "--showformat=${Package} "])
    assert {purl.split("/")[2].split("@")[0].replace("%2B", "+") for purl in purls if "pkg:deb/" in purl} == set(
        debian.split()
    )
    libraries = {
        part["name"]
        for component in bill["components"]
        if component["name"] == "av"
        for part in component["components"]
    }
    assert any(name.startswith("libx265") for name in libraries)
    assert DEFAULT_BUNDLE in {part["name"] for part in bill["components"] if part["type"] == "machine-learning-model"}
    unlicensed = [
        part["name"] for part in bill["components"] if "pkg:pypi/" in part.get("purl", "") and not part.get("licenses")
    ]
    assert unlicensed == ["protobuf"]  # its "3-Clause BSD License" is no name that CycloneDX knows
