"""The config of the load test, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dinle.config import Arg, Backend


@dataclass(frozen=True)
class LoadTestConfig:
    """the service under rising load -> how many users and live streams a core carries: capacity.md and plots."""

    model: Annotated[
        tuple[str, ...],
        Arg(
            "bundle folders, each served and tested in its turn (default: the bundled model)", flags=("-m", "--models")
        ),
    ] = ()
    host: Annotated[
        str | None, "address of a service that runs already, such as http://127.0.0.1:8000 (default: start one)"
    ] = None
    backend: Annotated[Backend, "which engine runs the model (auto: the best measured)"] = "auto"
    clips: Annotated[str, "manifest of the clips that are joined and sent, or mini for data/mini"] = "mini"
    clip_count: Annotated[int, "clips in the mix, of 2 to 60 s"] = 12
    users: Annotated[int, "users of the closed loop; 0: no closed loop"] = 10
    ramp: Annotated[float, "users that begin each second"] = 2.0
    seconds: Annotated[float, "seconds of the closed loop, ramp included"] = 25.0
    think_s: Annotated[
        float, "seconds between an answer and the user's next clip, drawn from half to one and a half"
    ] = 1.0
    loads: Annotated[
        tuple[float, ...], "steps of the open loop, in estimated capacities of the service; no number: no open loop"
    ] = (0.25, 0.5, 0.75, 1.0, 1.5, 3.0)
    step_seconds: Annotated[float, "seconds of each step of the open loop"] = 10.0
    lengths: Annotated[
        tuple[float, ...], "lengths of clips in seconds for which users are counted; no number: none"
    ] = (3.0, 10.0, 30.0)
    max_streams: Annotated[int, "most live streams that are tried; 0: none"] = 64
    live_seconds: Annotated[float, "seconds of each step of live streams"] = 18.0
    target_s: Annotated[float, "95 % of the answers must come within so many seconds"] = 1.0
    cores: Annotated[int | None, "cores of the service's machine (default: of this one)"] = None
    settings: Annotated[tuple[str, ...], Arg("settings of the service, such as ASR_WORKERS=2")] = ()
    seed: Annotated[int, "seed of the mix, its order and the arrivals"] = 1
    timeout_s: Annotated[float, "seconds of silence after which a client gives up"] = 60.0
    report_path: Annotated[Path, "Markdown report; plots, JSON and every request are written beside it"] = Path(
        "artifacts/capacity.md"
    )
