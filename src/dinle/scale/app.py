"""The service as Ray Serve replicas: ``serve run dinle.scale.app:app``.

Every replica is the whole application of :func:`dinle.serve.app.create_app` with a model of its own, which it loads from a
path: no model is ever serialised. The settings are those of ``dinle serve``, from ``ASR_*`` variables or as arguments::

    serve run dinle.scale.app:app model_dir=models/dinle-ctc-tr workers=2 max_replicas=4
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import MissingExtraError, UsageError
from dinle.scale.environment import PROXY_CALLBACK, PROXY_VARIABLE, SERVE_ENVIRONMENT, set_up_environment
from dinle.serve.app import create_app, load_default
from dinle.serve.logs import set_up_logging
from dinle.serve.settings import Settings, read_settings

try:
    import ray
    from ray import serve
    from ray.serve.config import AutoscalingConfig, BackpressureConfig
except ModuleNotFoundError as error:
    raise MissingExtraError("ray", error.name or "ray") from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from ray.serve import Application

logger = logging.getLogger(__name__)

NAME = "DinleService"  # of the deployment, in config files
RETRY_S = 1.0  # what a refused client is told to wait
UPSCALE_S, DOWNSCALE_S = 10.0, 300.0  # a model is loaded in seconds; an idle replica is worth keeping for minutes
# Requests under way, for each worker, that autoscaling aims at: one that is heard and one that waits.
ONGOING_PER_WORKER = 2
LIGHT_REQUESTS = 8  # health checks, the page, metrics: they pass beside the recordings
SCALING = ("min_replicas", "max_replicas")
SECRET = "api_keys"  # noqa: S105 - a setting's name
PATHS = ("model_dir", "models_dir", "hotwords_file", "api_keys_file")

if not ray.is_initialized():  # `serve run` imports this first, and starts Ray after it
    set_up_environment(SERVE_ENVIRONMENT)


def app(args: dict[str, Any]) -> Application:
    """The application that Ray Serve runs.

    Args:
        args: settings by their names, ``model_dir=...``, which win over ``ASR_*`` variables; also ``min_replicas`` and
            ``max_replicas`` (1 each by default).

    Raises:
        UsageError: an unknown argument, a value that does not fit, or keys as an argument.
    """
    check_arguments(args)
    settings = read_settings(**{name: value for name, value in args.items() if name not in SCALING})
    if os.environ.get(PROXY_VARIABLE) != PROXY_CALLBACK:
        logger.warning(
            "%s is not %s where Ray was started: a request whose replica dies is answered 500 and not tried again",
            PROXY_VARIABLE, PROXY_CALLBACK,
        )  # fmt: skip
    ingress = serve.ingress(make_builder(freeze_settings(settings), needs_keys=settings.api_keys is not None))
    return serve.deployment(name=NAME, **list_options(settings, args))(ingress()).bind()


def check_arguments(args: dict[str, Any]) -> None:
    """Refuse arguments that mean nothing, and keys: arguments are readable in the cluster's state.

    Raises:
        UsageError: see above.
    """
    known = [*SCALING, *(name for name in Settings.model_fields if name != SECRET)]
    if SECRET in args:
        raise UsageError(
            f"{SECRET} is given as an argument, which Ray shows to everybody; set ASR_API_KEYS on every node"
        )
    if unknown := sorted(set(args) - set(known)):
        raise UsageError(f"unknown arguments {', '.join(unknown)}; known are {', '.join(known)}")


def freeze_settings(settings: Settings) -> dict[str, Any]:
    """What replicas on other machines get: all that was set here, how many threads they have, paths in full, no keys."""
    given = settings.model_dump(exclude={SECRET}, exclude_unset=True)
    given |= {"workers": settings.engine_workers, "threads": settings.engine_threads}
    for name in PATHS:
        if given.get(name) is not None and Path(given[name]).exists():  # a hub id is no path
            given[name] = str(Path(given[name]).resolve())
    return given


def list_options(settings: Settings, args: dict[str, Any]) -> dict[str, Any]:
    """The deployment's options: a replica takes what its workers and its queue hold, and the cores that its threads need.

    Raises:
        UsageError: numbers of replicas that are none.
    """
    workers, places = settings.engine_workers, settings.engine_workers * settings.batch_size + settings.max_queue
    least, most = (read_count(name, args.get(name, 1)) for name in SCALING)
    if most < least:
        raise UsageError(f"max_replicas is {most} and min_replicas {least}; expected at least as many")
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=least,
            max_replicas=most,
            target_ongoing_requests=ONGOING_PER_WORKER * workers,
            upscale_delay_s=UPSCALE_S,
            downscale_delay_s=DOWNSCALE_S,
        ),
        "max_ongoing_requests": places + settings.max_streams + LIGHT_REQUESTS,
        "max_queued_requests": settings.max_queue + LIGHT_REQUESTS,
        "backpressure_config": BackpressureConfig(retry_after_s=RETRY_S),
        "ray_actor_options": {"num_cpus": workers * settings.engine_threads},
        "graceful_shutdown_timeout_s": float(settings.shutdown_s),
        "graceful_shutdown_wait_loop_s": 0.5,
        "logging_config": {"enable_access_log": False},  # the application writes its own
    }


def read_count(name: str, value: object) -> int:
    """A number of replicas, as the command line or YAML gives it.

    Raises:
        UsageError: not a whole number of at least 1.
    """
    if isinstance(value, (int, str)) and str(value).isdecimal() and int(value) >= 1:
        return int(value)
    raise UsageError(f"{name} is {value!r}; expected a whole number of at least 1")


def make_builder(given: dict[str, Any], *, needs_keys: bool) -> Callable[[], FastAPI]:
    """A function that makes the application where it will run. Ray sends the function, with its plain values, to the replica."""

    def build() -> FastAPI:
        return build_replica(given, needs_keys=needs_keys)

    return build


def build_replica(given: dict[str, Any], *, needs_keys: bool) -> FastAPI:
    """The application of one replica, its model loaded; keys come from the replica's own environment.

    Raises:
        UsageError: a setting does not fit here, or the keys that the service was deployed with are missing here.
        BundleError: the model cannot be loaded.
    """
    settings = read_settings(**given)
    if needs_keys and settings.api_keys is None:
        raise UsageError(
            "the service was deployed with API keys, and ASR_API_KEYS is not set here; set it on every node"
        )
    set_up_logging(settings.log_format)
    return create_app(load_default(settings), settings)
