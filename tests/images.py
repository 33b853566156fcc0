"""Builds and runs the project's image without a container engine and without an image registry: buildah, chroot, debootstrap.

The Dockerfile's base image cannot be fetched here. A small Debian of the same release with Python takes its name; what the
Dockerfile does on it is the same.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.serve.servers import ROOT, START_TIMEOUT_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOOLS = ("buildah", "debootstrap", "unshare", "setpriv")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dinle"
RELEASE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv"
# The names by which the official Python image has its programs.
FINISH = (
    "python3 -m venv /opt/pip && ln -s /opt/pip/bin/pip /usr/local/bin/pip && ln -s /usr/bin/python3 /usr/local/bin/python "
    "&& apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/locale"
)
# A root file system that cannot be written, with what every container has: /proc, /dev, /sys and a /tmp in memory.
ENTER = """
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --bind /dev "$ROOT/dev"
mount --bind /sys "$ROOT/sys"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount -o remount,bind,ro "$ROOT/sys"
mount -o remount,bind,ro "$ROOT"
exec chroot "$ROOT" setpriv --reuid "$RUN_AS" --regid "$RUN_AS" --clear-groups --no-new-privs --bounding-set=-all \
    --inh-caps=-all env --ignore-environment --chdir="$FOLDER" "$@"
"""


def find_missing_tools() -> list[str]:
    """What must be installed before an image can be built here; also when this is not root's own Linux."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return missing + ([] if sys.platform == "linux" and os.geteuid() == 0 else ["root on Linux"])


def make_base() -> Path:
    """A tar of a minimal Debian with Python, made once and kept in the user's cache."""
    key = hashlib.sha256(f"{RELEASE} {PACKAGES} {FINISH}".encode()).hexdigest()[:12]
    tar = CACHE / f"base-{RELEASE}-{key}.tar"
    if not tar.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        folder = CACHE / f"base-{os.getpid()}"
        try:
            run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(folder)])
            run(["chroot", str(folder), "sh", "-c", FINISH])
            run(["tar", "--create", "--numeric-owner", f"--directory={folder}", f"--file={folder}.tar", "."])
            Path(f"{folder}.tar").rename(tar)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(f"{folder}.tar").unlink(missing_ok=True)
    return tar


def run(command: Sequence[str], **options: Any) -> str:
    """What a command prints; a failure carries what it complained about."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return str(done.stdout)


@dataclass(frozen=True)
class Builder:
    """buildah with storage of its own below ``folder``; nothing of the machine's images is seen or changed."""

    folder: Path
    driver: str

    def __call__(self, command: str, *arguments: str) -> str:
        """Run ``buildah COMMAND``; what it prints, stripped."""
        storage = [
            f"--root={self.folder / 'root'}",
            f"--runroot={self.folder / 'run'}",
            f"--storage-driver={self.driver}",
        ]
        registries = self.folder / "registries.conf"
        registries.write_text('unqualified-search-registries = ["docker.io"]\n')
        env = os.environ | {"BUILDAH_ISOLATION": "chroot", "CONTAINERS_REGISTRIES_CONF": str(registries)}
        return run(["buildah", *storage, command, *arguments], env=env).strip()

    @property
    def policy(self) -> str:
        """The option that lets buildah take local images without signatures."""
        path = self.folder / "policy.json"
        path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
        return f"--signature-policy={path}"

    def import_base(self, tar: Path, name: str) -> None:
        """Make an image of a tar, under a name that a Dockerfile begins with."""
        container = self("from", "scratch")
        self("add", container, str(tar), "/")
        self("config", "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self("commit", self.policy, "--rm", "--format=docker", container, f"docker.io/library/{name}")

    def build(self, name: str) -> None:
        """Build the project's Dockerfile, with the package index that this machine's pip uses."""
        config, folders = read_pip_config()
        secret = self.folder / "pip.conf"
        secret.write_text(config)
        volumes = [f"--volume={folder}:{folder}:ro" for folder in folders]
        options = ["--pull-never", "--format=docker", f"--secret=id=pip,src={secret}", *volumes, f"--tag={name}"]
        self("bud", self.policy, *options, str(ROOT))

    def measure_layers(self, name: str) -> list[int]:
        """The uncompressed sizes of an image's layers in bytes, the base first."""
        folder = self.folder / "layers"
        self("push", self.policy, "--disable-compression", name, f"dir:{folder}")
        manifest = json.loads((folder / "manifest.json").read_text())
        shutil.rmtree(folder)
        return [int(layer["size"]) for layer in manifest["layers"]]


def read_pip_config() -> tuple[str, list[str]]:
    """This machine's pip settings as one ``pip.conf``, and the local files and folders that they name."""
    listed = run([sys.executable, "-m", "pip", "config", "list"])
    found = re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(.+)$", listed, re.MULTILINE)
    settings = {name: ast.literal_eval(value) for name, value in found}
    lines = [f"{name} = " + value.replace("\n", "\n  ") for name, value in sorted(settings.items())]
    words = " ".join(settings.values()).split()
    # The files of a local index lie beside its pages.
    places = {word for word in words if word.startswith("/")}
    places |= {str(Path(word.removeprefix("file://")).parent) for word in words if word.startswith("file://")}
    return "\n".join(["[global]", *lines, ""]), sorted(place for place in places if Path(place).exists())


@dataclass(frozen=True)
class Image:
    """An image whose files lie below ``root``, and its configuration as Docker knows it."""

    root: Path
    config: Mapping[str, Any]
    layers: tuple[int, ...]

    def enter(
        self, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> tuple[list[str], dict[str, str]]:
        """Command and environment that run something as the image's user, without any capability, on a read-only root."""
        env = dict(entry.split("=", 1) for entry in self.config["Env"]) | dict(variables or {})
        inside = [*(f"{name}={value}" for name, value in env.items()), *command]
        outside = {"ROOT": str(self.root), "RUN_AS": self.config["User"], "FOLDER": self.config["WorkingDir"]}
        unshare = ["unshare", "--mount", "sh", "-c", ENTER, "sh"]
        return [*unshare, *inside], os.environ | outside

    def run(self, command: Sequence[str]) -> str:
        """What a command prints inside."""
        entered, env = self.enter(command)
        return run(entered, env=env)

    @contextmanager
    def serve(self, log: Path) -> Iterator[str]:
        """The image's own command on a free port of the loopback; gives its URL."""
        command = list(self.config["Cmd"])
        command[command.index("--host") + 1] = "127.0.0.1"
        command[command.index("--port") + 1] = "0"
        entered, env = self.enter(command)
        with log.open("wb") as output:
            process = subprocess.Popen(entered, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: "Uvicorn running on" in log.read_text() or process.poll() is not None)
            found = re.search(r"Uvicorn running on (http://[\d.:]+)", log.read_text())
            assert found, log.read_text()
            yield found[1]
        finally:
            process.terminate()
            process.wait(timeout=START_TIMEOUT_S)


def make_builder(folder: Path) -> Builder:
    """A builder that shares layers where the kernel lets it (overlay), and copies them where not (inside of a container)."""
    folder.mkdir(parents=True)
    builder = Builder(folder, "overlay")
    try:
        builder("rm", builder("from", "scratch"))
    except AssertionError:
        shutil.rmtree(folder)
        folder.mkdir()
        return Builder(folder, "vfs")
    return builder


@contextmanager
def build_image(folder: Path, base: str) -> Iterator[Image]:
    """Build the Dockerfile below ``folder`` on a stand-in for its ``base``; everything is removed at the end."""
    builder = make_builder(folder)
    try:
        builder.import_base(make_base(), base)
        builder.build("dinle")
        layers = builder.measure_layers("dinle")
        container = builder("from", "--pull-never", builder.policy, "dinle")
        root = Path(builder("mount", container))
        config = json.loads(builder("inspect", container))["Docker"]["config"]
        try:
            yield Image(root, config, tuple(layers))
        finally:
            builder("umount", container)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
