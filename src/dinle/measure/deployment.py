"""How many pods, nodes and core-hours so much audio needs: measured figures in, a plan out. Pure: nothing is measured here.

The peak's audio is spread over pods at random, as Kubernetes does it, so that each pod is a queue of its own with its own workers
(:mod:`dinle.measure.queueing`); pods are as busy as the wait that is allowed lets them be. What is taken from the measurement:
seconds of sound in a second, the clips' length, memory. What is assumed: the same cores, the same kind of clips, and that pods on
one node do not slow each other down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError
from dinle.measure.deployment_figures import ServiceFigures
from dinle.measure.queueing import compute_bounded_queue, compute_mean_wait_s, compute_wait_s, find_utilisation

if TYPE_CHECKING:
    from dinle.measure.deployment_config import PlanConfig

HOURS_PER_MONTH = 365.25 * 24 / 12
DAYS_PER_MONTH = 365.25 / 12
SECONDS_PER_HOUR = 3600
POSITIVE = (
    "hours_per_month", "peak_factor", "wait_s", "zones", "node_cores", "node_memory_gb", "pod_memory_gb", "audio_kbps",
)  # fmt: skip
NOT_NEGATIVE = (
    "live_streams", "max_queue", "node_reserved_cores", "node_reserved_memory_gb", "think_s", "keep_days", "price_per_core_hour",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What one service needs for a load. Loads are in seconds of sound in a second."""

    figures: ServiceFigures
    utilisation: float
    """Share of the time that a worker is busy at the peak."""
    bound: str
    """What holds it there: ``wait`` or ``cap``."""
    mean_wait_s: float
    p95_wait_s: float
    p95_wait_common_s: float
    """The same if all pods shared one queue."""
    refused_share: float
    """Requests that find a pod's queue full."""
    users_per_core: float
    peak_load: float
    peak_requests_per_s: float
    stream_pods: int
    """For live streams alone."""
    pods_needed: int
    """For requests and live streams at the peak."""
    live_pods: int
    """Those needed, and the reserve for the zone that may fail."""
    batch_pods: int
    cores: int
    nodes: int
    pods_per_node: int
    peak_mbit_per_s: float
    month_tb: float
    """Audio that arrives in a month, in 10¹² bytes."""
    kept_tb: float
    core_hours_fixed: float
    """Core-hours a month with as many pods all month as the peak needs."""
    core_hours_following: float
    """The same if the number of pods follows the load: what autoscaling cannot get below."""
    cost_fixed: float | None
    cost_following: float | None


def plan_capacity(figures: ServiceFigures, config: PlanConfig) -> Plan:
    """What a load needs.

    Args:
        figures: what one pod can do.
        config: the load, and what may be spent on it; its reports are not read here.

    Raises:
        UsageError: a value out of its range, or a pod that fits no node.
    """
    check_config(config)
    headroom = _plan_headroom(figures, config)
    pod_load = headroom["utilisation"] * figures.rtfx  # seconds of sound in a second
    mean_load = config.hours_per_month / HOURS_PER_MONTH  # hours in an hour are seconds in a second
    live_mean, batch_mean = mean_load * (1 - config.batch_share), mean_load * config.batch_share
    peak_load = live_mean * config.peak_factor
    stream_load = count_stream_pods(figures, config.live_streams)
    pods_needed = math.ceil(peak_load / pod_load) + math.ceil(stream_load)
    live_pods = spread_over_zones(pods_needed, config.zones)
    batch_pods = math.ceil(batch_mean / (config.batch_utilisation * figures.rtfx))
    pods_per_node = count_pods_per_node(figures, config)
    reserve = config.zones / (config.zones - 1) if config.zones > 1 else 1.0
    live_following = (live_mean / pod_load + stream_load / config.peak_factor) * reserve
    hours = figures.cores * HOURS_PER_MONTH
    fixed, following = (pods * hours for pods in (live_pods + batch_pods, live_following + batch_pods))
    month_tb = config.hours_per_month * SECONDS_PER_HOUR * config.audio_kbps * 1000 / 8 / 1e12
    return Plan(
        figures=figures,
        **headroom,
        p95_wait_common_s=compute_wait_s(
            figures.workers * max(1, pods_needed), figures.service_s, headroom["utilisation"]
        ),
        peak_load=peak_load,
        peak_requests_per_s=peak_load / figures.clip_s,
        stream_pods=math.ceil(stream_load),
        pods_needed=pods_needed,
        live_pods=live_pods,
        batch_pods=batch_pods,
        cores=(live_pods + batch_pods) * figures.cores,
        nodes=math.ceil((live_pods + batch_pods) / pods_per_node),
        pods_per_node=pods_per_node,
        peak_mbit_per_s=(peak_load + batch_mean) * config.audio_kbps / 1000,
        month_tb=month_tb,
        kept_tb=month_tb * config.keep_days / DAYS_PER_MONTH,
        core_hours_fixed=fixed,
        core_hours_following=following,
        cost_fixed=_price(fixed, config),
        cost_following=_price(following, config),
    )


def _plan_headroom(figures: ServiceFigures, config: PlanConfig) -> dict[str, Any]:
    """How busy a pod may be, and what its clients see then."""
    workers, service_s = figures.workers, figures.service_s
    by_wait = find_utilisation(workers, service_s, config.wait_s)
    utilisation = min(by_wait, config.utilisation)
    mean_wait_s = compute_mean_wait_s(workers, service_s, utilisation)
    return {
        "utilisation": utilisation,
        "bound": "wait" if by_wait <= config.utilisation else "cap",
        "mean_wait_s": mean_wait_s,
        "p95_wait_s": compute_wait_s(workers, service_s, utilisation),
        "refused_share": compute_bounded_queue(workers, workers + config.max_queue, utilisation * workers)[0],
        # The interactive response time law, N = X (R + Z), with X = ρ c / S (Lazowska et al., 1984, section 3.4).
        "users_per_core": utilisation
        * workers
        / service_s
        * (mean_wait_s + service_s + config.think_s)
        / figures.cores,
    }


def _price(core_hours: float, config: PlanConfig) -> float | None:
    return None if config.price_per_core_hour is None else core_hours * config.price_per_core_hour


def count_stream_pods(figures: ServiceFigures, streams: float) -> float:
    """Pods that so many live streams keep busy, in parts too; how soon finals come is in what a core carries.

    Raises:
        UsageError: there are streams, and what a core carries was not measured, or is none.
    """
    if not streams:
        return 0.0
    if not figures.streams_per_core:
        raise UsageError(
            f"--live_streams is {streams:g}, and no load test says how many {figures.model} carries; give --capacity with "
            "the JSON report of dinle loadtest"
        )
    return streams / (figures.streams_per_core * figures.cores)


def spread_over_zones(pods: int, zones: int) -> int:
    """Pods in all, as many in each zone, so that ``pods`` are left when one zone fails; with one zone just ``pods``."""
    return pods if zones == 1 else math.ceil(pods / (zones - 1)) * zones


def count_pods_per_node(figures: ServiceFigures, config: PlanConfig) -> int:
    """Pods that fit a node, by cores and by memory.

    Raises:
        UsageError: none does.
    """
    by_cores = math.floor((config.node_cores - config.node_reserved_cores) / figures.cores)
    by_memory = math.floor((config.node_memory_gb - config.node_reserved_memory_gb) / config.pod_memory_gb)
    if min(by_cores, by_memory) < 1:
        raise UsageError(
            f"a node of {config.node_cores} cores and {config.node_memory_gb:g} GB, of which {config.node_reserved_cores:g} and "
            f"{config.node_reserved_memory_gb:g} are reserved, holds no pod of {figures.cores} cores and "
            f"{config.pod_memory_gb:g} GB; choose a larger node"
        )
    return min(by_cores, by_memory)


def check_config(config: PlanConfig) -> None:
    """Refuse values that mean nothing.

    Raises:
        UsageError: a value out of its range; the message names its flag.
    """
    for name in (*POSITIVE, *NOT_NEGATIVE):
        value = getattr(config, name)
        if value is not None and not (value > 0 if name in POSITIVE else value >= 0):
            expected = "more than 0" if name in POSITIVE else "0 or more"
            raise UsageError(f"--{name} is {value}; expected {expected}")
        if value is not None and not math.isfinite(value):
            raise UsageError(f"--{name} is {value}; expected a number")
    for name in ("utilisation", "batch_utilisation"):
        if not 0 < getattr(config, name) < 1:
            raise UsageError(
                f"--{name} is {getattr(config, name)}; expected a share between 0 and 1: at 1 queues never end"
            )
    if config.peak_factor < 1:
        raise UsageError(f"--peak_factor is {config.peak_factor}; expected 1 or more: the peak is not below the mean")
    if not 0 <= config.batch_share <= 1:
        raise UsageError(f"--batch_share is {config.batch_share}; expected a share from 0 to 1")
