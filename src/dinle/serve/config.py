"""The flags of ``dinle serve``: what is left out comes from the environment (see :mod:`dinle.serve.settings`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dinle.config import Arg, Backend


@dataclass(frozen=True)
class ServeConfig:
    """model -> HTTP service, until interrupted."""

    host: Annotated[str, "address to listen on; 0.0.0.0 for every interface"] = "127.0.0.1"
    port: Annotated[int, Arg("port to listen on", flags=("-p",))] = 8000
    model: Annotated[
        str | None, Arg("bundle folder, see ASR_MODEL_DIR (default: the bundled model)", flags=("-m",))
    ] = None
    backend: Annotated[
        Backend | None,
        "which engine runs the model, see ASR_BACKEND (default: auto)",
    ] = None
    threads: Annotated[int | None, "threads of one inference, see ASR_THREADS (default: cores / workers)"] = None
    workers: Annotated[int | None, "inferences side by side, see ASR_WORKERS (default: 2)"] = None
    max_bytes: Annotated[int | None, "largest upload, see ASR_MAX_BYTES (default: 25 MiB)"] = None
    max_seconds: Annotated[float | None, "longest recording, see ASR_MAX_SECONDS (default: 600)"] = None
    max_queue: Annotated[int | None, "requests that may wait for a worker, see ASR_MAX_QUEUE (default: 16)"] = None
