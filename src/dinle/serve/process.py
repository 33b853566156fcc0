"""A service as a process of its own, and a client of one call: for the demo, tests and load tests. Standard library only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from dinle.errors import DinleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_S = 60.0
STOP_S = 10.0
ANSWER_S = 120.0
LAST_WORDS = 2000


class ServiceFailedError(DinleError):
    """The service did not start, or did not answer with a transcript."""


@dataclass(frozen=True)
class RunningService:
    """A service that runs as a process of its own: its base URL, and the process."""

    url: str
    pid: int


@contextmanager
def run_service(model: Path | None = None, port: int = 0, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run ``dinle serve`` on the loopback address while the context lasts; see :func:`start_service`.

    Yields:
        The base URL, once the service is ready.
    """
    with start_service(model, port, env) as service:
        yield service.url


@contextmanager
def start_service(
    model: Path | None = None, port: int = 0, env: Mapping[str, str] | None = None
) -> Iterator[RunningService]:
    """Run ``dinle serve`` on the loopback address while the context lasts.

    Args:
        model: bundle folder (``None``: the bundled model).
        port: 0 takes a free one.
        env: variables ``ASR_*`` of the service; those of this process are not handed on.

    Yields:
        The service, once it is ready.

    Raises:
        ServiceFailedError: it ended early or was not ready within a minute; the message holds its last words.
    """
    port = port or find_free_port()
    command = [sys.executable, "-m", "dinle.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
    if model is not None:
        command += ["--model", str(model)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")} | dict(env or {})
    with tempfile.TemporaryFile() as log:  # not a pipe: one that nobody reads stops the service when it is full
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(process, address, log)
            yield RunningService(address, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def find_free_port() -> int:
    """A TCP port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            words = log.read().decode(errors="replace").strip()[-LAST_WORDS:]
            raise ServiceFailedError(f"the service ended with status {process.returncode}: {words}")
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=1):  # noqa: S310 - our own address
                return
        except OSError:
            time.sleep(0.1)
    raise ServiceFailedError(f"the service at {address} was not ready within {START_S:.0f} s")


def post_audio(url: str, path: Path) -> dict[str, Any]:
    """Send a file as the multipart field ``file`` (RFC 7578) and return the JSON answer.

    Raises:
        ServiceFailedError: the service refused it; the message holds its answer.
    """
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    request = urllib.request.Request(  # noqa: S310 - the caller's own address
        url,
        data=head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:  # noqa: S310 - as above
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise ServiceFailedError(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from error
    return answer
