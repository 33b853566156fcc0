"""What Ray reads from the environment before it starts: nothing is reported anywhere, and lost requests are tried again."""

from __future__ import annotations

import os
import secrets

PROXY_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
PROXY_CALLBACK = "dinle.scale.proxy:make_middlewares"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would send figures of the cluster to its makers every hour
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the future behaviour, and no warning about it; there is no GPU here
}
# Of a command that runs to its end: Ray's C++ parts write warnings about themselves on the terminal.
SILENT = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
# Every worker is a process of its own: threads of numpy's OpenBLAS would spin beside the engines' own.
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
SERVE_ENVIRONMENT = QUIET | ONE_BLAS_THREAD | {PROXY_VARIABLE: PROXY_CALLBACK}


def set_up_environment(variables: dict[str, str]) -> None:
    """Set what is not set yet. Processes that Ray has started already do not see it: call this before ``ray.init``."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def make_token() -> dict[str, str]:
    """A password for a Ray of our own: it listens on every interface, and who reaches it can run code.

    Ray reads it when it is imported; without it, it writes one into the home folder, for all.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
