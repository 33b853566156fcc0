"""Real servers on the loopback: one in a thread of this process, one in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastapi import FastAPI

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0


@contextmanager
def serve_in_thread(app: FastAPI) -> Iterator[int]:
    """Run an application in uvicorn; gives its port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=START_TIMEOUT_S)


@contextmanager
def serve_in_process(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run ``python -m command`` (uvicorn inside, port 0) with only the ``ASR_*`` variables given; gives its URL."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")} | dict(env or {})
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=clean, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: "Uvicorn running on" in log.read_text() or process.poll() is not None)
        found = re.search(r"Uvicorn running on (http://[\d.:]+)", log.read_text())
        assert found, log.read_text()
        yield found[1], process
    finally:
        process.terminate()
        process.wait(timeout=START_TIMEOUT_S)


def wait_for(condition: object, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return when ``condition()`` is true; fail when it takes too long."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not true within {timeout_s} s"
        time.sleep(0.01)
