"""Complete the bill of materials (CycloneDX 1.6) of the image; the Dockerfile calls it.

cyclonedx-py lists the Python packages of an environment. This adds what it does not see: the models with their origins and
licences, what is compiled into wheels (their own lists, PEP 770), the shared libraries that wheels bring, Debian's packages,
and Python itself.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]

SPEC_VERSION = "1.6"
# What is taken over from a wheel's own list; the rest depends on that list's version of the format.
KEPT_FIELDS = ("type", "name", "version", "purl", "licenses", "hashes")


def main() -> None:
    """Read the list of Python packages, add the rest, check it against the format's schema, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="what cyclonedx-py wrote")
    parser.add_argument("--environment", type=Path, required=True, help="the environment that it listed")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    (site_packages,) = arguments.environment.glob("lib/python3*/site-packages")
    bill = json.loads(arguments.packages.read_text(encoding="utf-8"))
    complete(bill, site_packages, list_debian_packages())
    text = json.dumps(bill, indent=1, ensure_ascii=False) + "\n"
    validate(text)
    arguments.output.write_text(text, encoding="utf-8")


def complete(bill: dict[str, Any], site_packages: Path, debian: list[Component]) -> None:
    """Add to a bill of the packages in ``site_packages`` what else is in the image, in a fixed order.

    Args:
        bill: CycloneDX as JSON; changed in place.
        site_packages: the folder that was listed.
        debian: components of the base image.
    """
    for component in bill["components"]:
        parts = list_wheel_parts(component, site_packages)
        if parts:
            component["components"] = parts
    python = {"type": "platform", "bom-ref": "python", "name": "python", "version": platform.python_version()}
    bill["components"] += [*list_models(site_packages), python, *debian]
    bill["components"].sort(key=lambda component: (component["type"], component["name"], component.get("version", "")))


def list_wheel_parts(package: Component, site_packages: Path) -> list[Component]:
    """What a wheel says it is made of (PEP 770), and the shared libraries that were put beside it, with their SHA-256."""
    name = normalize_name(package["name"])
    parts: dict[tuple[str, str], Component] = {}
    for path in sorted(site_packages.glob("*.dist-info/sboms/*.json")):
        if normalize_name(path.parents[1].name.split("-")[0]) == name:
            for part in json.loads(path.read_text(encoding="utf-8")).get("components", ()):
                if normalize_name(part["name"]) != name:
                    parts[part["name"], part.get("version", "")] = {k: part[k] for k in KEPT_FIELDS if k in part}
    for path in sorted(site_packages.glob("*.libs/*.so*")):
        if normalize_name(path.parent.name.removesuffix(".libs")) == name:
            parts[path.name, ""] = make_file(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return [parts[key] for key in sorted(parts)]


def list_models(site_packages: Path) -> list[Component]:
    """The bundles inside of the package: files with hashes, the weights they began with, the data they have seen."""
    return [
        describe_model(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(site_packages.glob("dinle/models/*/bundle.json"))
    ]


def describe_model(bundle: dict[str, Any]) -> Component:
    """A ``bundle.json`` as a component. Licences of data are told in words: the format has no field for them."""
    origins = bundle["provenance"]
    weights = [origin for origin in origins if origin["what"] == "weights"]
    datasets = [describe_dataset(origin) for origin in origins if origin["what"] != "weights"]
    # The weights are dinle's (Apache-2.0), made from others'.
    licences = ["Apache-2.0", *sorted({origin["licence"] for origin in weights} - {"Apache-2.0"})]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{bundle['name']}",
        "name": bundle["name"],
        "licenses": [{"license": {"id": licence}} for licence in licences],
        "pedigree": {"ancestors": [describe_weights(origin) for origin in weights]},
        "modelCard": {"modelParameters": {"modelArchitecture": bundle["family"], "datasets": datasets}},
        "components": [make_file(name, sha256) for name, sha256 in sorted(bundle["sha256"].items())],
    }


def describe_weights(origin: dict[str, str]) -> Component:
    """Weights that a model was made from."""
    component = {
        "type": "machine-learning-model",
        "name": origin["name"],
        "licenses": [{"license": {"id": origin["licence"]}}],
    }
    return component | {"externalReferences": [{"type": "distribution", "url": origin["source"]}]}


def describe_dataset(origin: dict[str, str]) -> dict[str, Any]:
    """Texts or sounds that a model was made from."""
    dataset = {
        "type": "dataset",
        "name": origin["name"],
        "description": f"{origin['what']}; licence: {origin['licence']}",
    }
    return dataset | ({"contents": {"url": origin["source"]}} if origin["source"].startswith("https://") else {})


def list_debian_packages() -> list[Component]:
    """The packages of the base image; none where it is not Debian."""
    try:
        listed = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Package} ${Version} ${Architecture}\\n"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except FileNotFoundError:
        return []
    return [describe_debian_package(*line.split()) for line in listed.splitlines()]


def describe_debian_package(name: str, version: str, architecture: str) -> Component:
    """A package of the base image; see ``/usr/share/doc/NAME/copyright`` there for its licences."""
    purl = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}?arch={architecture}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def make_file(name: str, sha256: str) -> Component:
    """A file as a component."""
    return {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": sha256}]}


def normalize_name(name: str) -> str:
    """A package's name as packaging tools compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).casefold()


def validate(text: str) -> None:
    """End the program where the text does not follow the format's schema. Needs cyclonedx-python-lib."""
    schema = importlib.import_module("cyclonedx.schema").SchemaVersion.from_version(SPEC_VERSION)
    error = importlib.import_module("cyclonedx.validation.json").JsonStrictValidator(schema).validate_str(text)
    if error is not None:
        sys.exit(f"the bill of materials does not follow CycloneDX {SPEC_VERSION}: {error}")


if __name__ == "__main__":
    main()
