"""``dinle serve``: the application in uvicorn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

from dinle.errors import UsageError
from dinle.recognize.load import load
from dinle.serve.app import create_app
from dinle.serve.settings import read_settings

if TYPE_CHECKING:
    from dinle.serve.config import ServeConfig

# On a signal, requests that were accepted get this long to finish.
SHUTDOWN_S = 30
MAX_PORT = 65_535


def serve(config: ServeConfig) -> None:
    """Serve until interrupted. Flags win over ``ASR_*`` variables.

    Raises:
        UsageError: a flag or a variable does not fit.
        BundleError: the model cannot be loaded.
    """
    if not 0 <= config.port <= MAX_PORT:
        raise UsageError(f"--port is {config.port}; expected 0 (any free one) to {MAX_PORT}")
    settings = read_settings(
        backend=config.backend,
        model_dir=config.model,
        threads=config.threads,
        workers=config.workers,
        max_bytes=config.max_bytes,
        max_seconds=config.max_seconds,
        max_queue=config.max_queue,
    )
    # Loaded here, not at the application's start: a wrong folder is one line on the terminal, not a traceback.
    recognizer = load(settings.model_dir, backend=settings.backend, threads=settings.engine_threads)
    app = create_app(recognizer, settings)
    uvicorn.run(app, host=config.host, port=config.port, timeout_graceful_shutdown=SHUTDOWN_S)
