"""The config of the service's load benchmark, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dinle.config import Arg, Backend


@dataclass(frozen=True)
class ServiceBenchConfig:
    """a bundle -> the HTTP service under load: service_report.md and plots."""

    model: Annotated[str | None, "bundle folder (default: the bundled model)"] = None
    backend: Annotated[Backend, "which engine runs the model (auto: the best measured)"] = "auto"
    clips: Annotated[str, "manifest of the clips that are joined and posted, or mini for data/mini"] = "mini"
    clip_count: Annotated[int, "clips in the mix, of 3 to 15 s"] = 30
    users: Annotated[int, "users of the closed loop and the soak"] = 10
    ramp: Annotated[float, "users that begin each second"] = 2.0
    seconds: Annotated[float, "seconds of the closed loop, ramp included"] = 60.0
    unloaded_seconds: Annotated[float, "seconds of a single user, before"] = 20.0
    overload_factor: Annotated[float, "arrivals of the overload, in throughputs of the closed loop"] = 3.0
    overload_seconds: Annotated[float, "seconds of the overload; 0: none"] = 120.0
    soak_seconds: Annotated[float, "seconds of the soak; 0: none"] = 600.0
    settings: Annotated[tuple[str, ...], Arg("settings of the service, such as ASR_WORKERS=2")] = ()
    seed: Annotated[int, "seed of the mix, its order and the arrivals"] = 1
    timeout_s: Annotated[float, "seconds of silence after which a client gives up"] = 120.0
    report_path: Annotated[Path, "Markdown report; plots, JSON and every request are written beside it"] = Path(
        "artifacts/service_report.md"
    )
