"""The service's settings, from environment variables ``ASR_*``. This is the one place that describes them."""

from __future__ import annotations

import logging
import os
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dinle.config import Backend  # noqa: TC001 - pydantic evaluates it
from dinle.errors import UsageError

logger = logging.getLogger(__name__)

PREFIX = "ASR_"


class Settings(BaseSettings):
    """What the service runs and what it accepts. A field ``max_bytes`` is the variable ``ASR_MAX_BYTES``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    backend: Backend = Field(
        default="auto",
        description="which engine runs the model: auto (the best measured), onnx_int8, onnx_int4, onnx, openvino or pytorch",
    )
    model_dir: str | None = Field(
        default=None,
        description="bundle folder; for pytorch also a checkpoint folder or a hub id (default: the bundled model)",
    )
    threads: int | None = Field(default=None, ge=1, description="threads of one inference (default: cores / workers)")
    # Two: a short clip is not stuck behind an hour-long file, and the decoding of one overlaps the inference of another.
    workers: int = Field(default=2, ge=1, le=256, description="inferences that run side by side")
    # 25 MiB is what OpenAI's transcription API takes: clients that split for it need no change.
    max_bytes: int = Field(default=25 * 1024 * 1024, ge=1, description="largest accepted upload in bytes")
    # A decoded recording is held in memory: 64 kB a second for each worker.
    max_seconds: float = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="longest accepted recording in seconds"
    )
    max_queue: int = Field(
        default=16, ge=0, description="requests that may wait for a worker; one more is answered 503"
    )

    @property
    def engine_threads(self) -> int:
        """Threads of one inference: as set, else the machine's cores shared among the workers."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)


def read_settings(**given: Any) -> Settings:
    """Settings from the environment, with the values ``given`` in code or by flags winning (``None``: not given).

    Raises:
        UsageError: a value that does not fit; the message names its variable, the value and what is expected.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        logger.warning("ignored unknown variables %s; known are %s", ", ".join(unknown), ", ".join(sorted(known)))
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise UsageError("; ".join(_describe(dict(problem)) for problem in error.errors())) from error


def _describe(problem: dict[str, Any]) -> str:
    name = str(problem["loc"][0])
    name = name.upper() if name.upper().startswith(PREFIX) else PREFIX + name.upper()
    field = Settings.model_fields.get(name.removeprefix(PREFIX).casefold())
    meaning = f" ({field.description})" if field else ""
    return f"{name} is {problem['input']!r}: {problem['msg'][:1].casefold()}{problem['msg'][1:]}{meaning}"
