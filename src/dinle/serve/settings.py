"""The service's settings, from environment variables ``ASR_*``. This is the one place that describes them."""

from __future__ import annotations

import logging
import os
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dinle.config import Backend  # noqa: TC001 - pydantic evaluates it
from dinle.errors import UsageError

logger = logging.getLogger(__name__)

PREFIX = "ASR_"


class Settings(BaseSettings):
    """What the service runs and what it accepts. A field ``max_bytes`` is the variable ``ASR_MAX_BYTES``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    # What runs.
    backend: Backend = Field(
        default="auto",
        description="engine: auto (the best measured), onnx_int8, onnx_int4, onnx, openvino or pytorch",
    )
    model_dir: str | None = Field(
        default=None,
        description="bundle folder of the default model; for pytorch also a checkpoint folder or a hub id "
        "(default: the bundled model)",
    )
    models_dir: str | None = Field(
        default=None, description="folder of more bundles, chosen by name and loaded on first use (default: none)"
    )
    model_idle_s: float = Field(
        default=600.0,
        ge=0,
        description="seconds without a request after which a model of models_dir is unloaded; 0: never",
    )
    reload_s: float = Field(
        default=5.0, ge=0, description="how often bundles are looked at for a change, which is then loaded; 0: never"
    )

    language_model: bool = Field(
        default=True, description="let a bundle's language model have a say in the text, where it has one"
    )
    hotwords: str | None = Field(
        default=None, description="names and terms, parted by commas, that every request expects (default: none)"
    )
    hotwords_file: str | None = Field(
        default=None, description="file with more of them, one a line; # begins a comment"
    )

    # Who runs when. Defaults chosen by measurement: docs/serving.md.
    workers: int | None = Field(
        default=None, ge=1, le=256, description="inferences that run side by side (default: one for each core)"
    )
    threads: int | None = Field(default=None, ge=1, description="threads of one inference (default: cores / workers)")
    max_queue: int = Field(
        default=16, ge=0, description="requests that may wait for a worker; one more is answered 503"
    )
    slice_s: float = Field(
        default=1.0, gt=0, description="seconds a recording may keep a worker while others wait; then it queues again"
    )
    deadline_s: float = Field(
        default=600.0, gt=0, description="seconds after which a request that is not done is answered 504"
    )
    batch_size: int = Field(default=1, ge=1, le=64, description="most windows of a CTC model in one run; 1: no batches")
    batch_seconds: float = Field(default=60.0, gt=0, description="most seconds of sound in one run, padding included")
    batch_wait_s: float = Field(default=0.005, ge=0, le=1, description="how long the first window waits for others")
    shutdown_s: int = Field(default=30, ge=0, description="seconds that accepted requests get to finish on a signal")

    # What is accepted.
    # 25 MiB is what OpenAI's transcription API takes: clients that split for it need no change.
    max_bytes: int = Field(default=25 * 1024 * 1024, ge=1, description="largest accepted upload in bytes")
    max_seconds: float = Field(
        default=7200.0, gt=0, allow_inf_nan=False, description="longest accepted recording in seconds"
    )
    max_channels: int = Field(default=8, ge=1, description="most channels of a recording")
    max_rate_hz: int = Field(default=192_000, ge=8_000, description="highest sample rate of a recording")
    max_decode_s: float = Field(default=30.0, gt=0, description="most seconds of work on decoding one recording")
    upload_s: float = Field(default=120.0, gt=0, description="seconds within which an upload must have arrived")
    max_streams: int = Field(default=8, ge=0, description="live streams at the same time")
    live_silence_s: float = Field(default=0.5, ge=0.1, le=5, description="silence that ends speech in a live stream")
    live_idle_s: float = Field(
        default=60.0, gt=0, description="seconds without sound after which a live stream is closed"
    )

    # Who may ask, and what is written down.
    api_keys: SecretStr | None = Field(
        default=None, description="keys, parted by commas; requests must carry one of them (default: none needed)"
    )
    api_keys_file: str | None = Field(default=None, description="file with more keys, one a line; # begins a comment")
    cors_origins: str = Field(
        default="", description="origins, parted by commas, whose pages may call the service; * for all (default: none)"
    )
    log_format: Literal["json", "text"] = Field(default="json", description="form of the log lines: json or text")
    log_text: bool = Field(default=False, description="write transcripts into the log; they are left out otherwise")

    @property
    def engine_workers(self) -> int:
        """Inferences side by side: as set, else one for each core."""
        return self.workers or os.cpu_count() or 1

    @property
    def engine_threads(self) -> int:
        """Threads of one inference: as set, else the machine's cores shared among the workers."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.engine_workers)


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
