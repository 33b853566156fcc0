"""The load generator as a process: started, told what to do, and listened to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

from dinle.errors import DinleError, MissingExtraError
from dinle.loadtest.stages import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dinle.loadtest.stages import Stage

MODULES = ("locust", "websocket")
STOP_S = 10.0
LAST_WORDS = 2000


class GeneratorFailedError(DinleError):
    """The load generator ended before it had answered."""


@dataclass(frozen=True)
class StageResult:
    """What a stage gave: its rows, and the processor time of the generator in seconds."""

    rows: list[Row]
    cpu_s: float


class Generator:
    """The process that makes the load; see :func:`start_generator`."""

    def __init__(self, process: subprocess.Popen[str], log: IO[bytes]) -> None:
        self._process, self._log = process, log

    def run(self, stage: Stage, on_time: Callable[[float], None] | None = None) -> StageResult:
        """Run a stage and wait for its end.

        Args:
            stage: what is to be done.
            on_time: told the seconds that have passed, now and then.

        Raises:
            GeneratorFailedError: the process ended; the message holds its last words.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise GeneratorFailedError("the load generator has no pipes; expected both")
        try:
            self._process.stdin.write(stage.to_json() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._fail(stage) from None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if "rows" in message:
                return StageResult(message["rows"], message["cpu_s"])
            if on_time is not None:
                on_time(message["passed_s"])
        raise self._fail(stage)

    def _fail(self, stage: Stage) -> GeneratorFailedError:
        status = self._process.wait()
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip()[-LAST_WORDS:]
        return GeneratorFailedError(f"the load generator ended in stage {stage.name} with status {status}: {words}")


@contextmanager
def start_generator(folder: Path, url: str, timeout_s: float) -> Iterator[Generator]:
    """Run the load generator while the context lasts.

    Args:
        folder: what :func:`dinle.loadtest.stages.write_material` wrote.
        url: base URL of the service.
        timeout_s: seconds of silence after which a request has failed.

    Raises:
        MissingExtraError: Locust or its WebSocket client is not installed.
    """
    for module in MODULES:
        if find_spec(module) is None:
            raise MissingExtraError("loadtest", module)
    command = [sys.executable, "-m", "dinle.loadtest.generator", str(folder), url, str(timeout_s)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    with tempfile.TemporaryFile() as log:  # not a pipe: one that nobody reads stops the process when it is full
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
        )
        try:
            yield Generator(process, log)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
