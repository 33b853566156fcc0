"""``dinle serve``: the application in uvicorn."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

import uvicorn

from dinle.errors import UsageError
from dinle.serve.app import create_app, load_default
from dinle.serve.config import list_flags
from dinle.serve.logs import set_up_logging
from dinle.serve.settings import read_settings

MAX_PORT = 65_535
# Messages of WebSockets carry sound: a second of it, or a recording piece by piece, never a whole one.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024

# A client that sends faster than it is heard is not read for a while, its pongs neither; dead ones are found in other ways.
WS_PING_TIMEOUT_S = 60


def serve(config: Any) -> None:
    """Serve until interrupted. Flags win over ``ASR_*`` variables.

    Args:
        config: a :data:`dinle.serve.config.ServeConfig`.

    Raises:
        UsageError: a flag or a variable does not fit.
        BundleError: the model cannot be loaded.
    """
    if not 0 <= config.port <= MAX_PORT:
        raise UsageError(f"--port is {config.port}; expected 0 (any free one) to {MAX_PORT}")
    settings = read_settings(**{name: getattr(config, flag) for name, flag in list_flags().items()})
    # Loaded here, not at the application's start: a wrong folder is one line on the terminal, not a traceback.
    app = create_app(load_default(settings), settings)
    logging.getLogger().handlers.clear()  # the command line's own
    set_up_logging(settings.log_format)
    # uvicorn raises the signal again when everything is done: a service that was told to stop has not failed.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_timeout=WS_PING_TIMEOUT_S,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
