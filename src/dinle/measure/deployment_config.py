"""The config of the plan of a deployment, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dinle.config import Arg


@dataclass(frozen=True)
class PlanConfig:
    """measured service -> pods, nodes, network, storage and cost for so much audio a month."""

    report: Annotated[tuple[Path, ...], Arg("JSON reports of dinle benchmark-service, one column of the plan each")] = (
        Path("artifacts/service_report.json"),
    )
    capacity: Annotated[
        Path | None,
        "JSON report of dinle loadtest: what the same services carry by length of clip, and live (default: none)",
    ] = None
    hours_per_month: Annotated[float, "hours of audio that arrive in a month"] = 1e6
    peak_factor: Annotated[float, "load of the busiest minutes, in means of the month"] = 3.0
    batch_share: Annotated[float, "share of the hours that may wait, and so fills the machines evenly; 0 to 1"] = 0.0
    live_streams: Annotated[float, "live streams at the peak, beside those hours; needs --capacity"] = 0.0
    wait_s: Annotated[float, "seconds that 95 % of the requests wait at most for a worker, at the peak"] = 1.0
    utilisation: Annotated[
        float, "share of the time that workers are busy at most at the peak, however short waits are"
    ] = 0.7
    batch_utilisation: Annotated[float, "share of the time that workers are busy with what may wait"] = 0.9
    max_queue: Annotated[int, "requests that may wait in a pod: ASR_MAX_QUEUE of the service"] = 16
    zones: Annotated[int, "zones, of which one may fail at the peak; 1: none may"] = 3
    node_cores: Annotated[int, "cores of a node"] = 16
    node_memory_gb: Annotated[float, "memory of a node in 10⁹ bytes"] = 64.0
    node_reserved_cores: Annotated[float, "cores of a node that are not for pods"] = 1.0
    node_reserved_memory_gb: Annotated[float, "memory of a node that is not for pods, in 10⁹ bytes"] = 4.0
    pod_memory_gb: Annotated[float, "memory that a pod may take, in 10⁹ bytes"] = 1.1
    think_s: Annotated[float, "seconds between a user's answer and his next recording"] = 30.0
    audio_kbps: Annotated[float, "bits of a second of audio as it is sent and kept, in 1000 (16-bit wav: 256)"] = 24.0
    keep_days: Annotated[float, "days for which recordings are kept; 0: not at all"] = 30.0
    price_per_core_hour: Annotated[
        float | None, "price of a core for an hour, in any currency (default: no cost is told)"
    ] = None
