"""What the reports of ``dinle benchmark-service`` and ``dinle loadtest`` say that a plan needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dinle.config import read_json
from dinle.errors import UsageError
from dinle.measure.queueing import compute_bounded_queue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOADS = ("users", "overload", "soak")


@dataclass(frozen=True)
class ServiceFigures:
    """What was measured of one service on its own cores; one pod of the plan."""

    model: str
    backend: str
    """What ran it: a model's precisions carry different loads."""
    workers: int
    """Requests that are worked on side by side."""
    cores: int
    """Workers times their threads."""
    rtfx: float
    """Seconds of sound in a second, of all workers together, under full load: the lowest of all phases."""
    clip_s: float
    """Mean length of the clips, in seconds."""
    memory_mb: float | None
    """Most resident memory, in 10⁶ bytes; ``None`` where it was not measured."""
    users_per_core: tuple[tuple[float, float | None], ...] = ()
    """Length of clips in seconds, and users of such clips that a core carries (``None``: none were found); by load test."""
    streams_per_core: float | None = None
    """Live streams that a core carries; ``None`` where it was not measured."""

    @property
    def service_s(self) -> float:
        """Seconds for which a clip keeps a worker: by the utilisation law, ρ = X S / c with ρ = 1 under full load."""
        return self.workers * self.clip_s / self.rtfx


def read_figures(path: Path) -> ServiceFigures:
    """The figures of a report of ``dinle benchmark-service``.

    Raises:
        UsageError: no such file, not such a report, or one in which nothing was answered.
    """
    return extract_figures(read_report(path), str(path))


def read_report(path: Path) -> dict[str, Any]:
    """The JSON of a report.

    Raises:
        UsageError: no such file, or not JSON.
    """
    try:
        return read_json(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}; give the JSON report of dinle benchmark-service"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}; give the JSON report of dinle benchmark-service") from error


def extract_figures(report: Mapping[str, Any], name: str = "the report") -> ServiceFigures:
    """The figures of a report's content; ``name`` is what messages call it.

    Raises:
        UsageError: not such a report, or one in which nothing was answered.
    """
    try:
        loads = [report[load] for load in LOADS if report[load]]
        memory = [sample["rss_mb"] for sample in report["samples"] if sample["rss_mb"] is not None]
        given = report["conditions"]
        figures = ServiceFigures(
            model=given["model"]["name"],
            backend=given["model"]["backend"],
            workers=given["workers"],
            cores=given["workers"] * given["threads"],
            rtfx=min(load["rtfx"] for load in loads),
            clip_s=report["users"]["mean_audio_s"],
            memory_mb=max(memory, default=None),
        )
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{name} is not the JSON report of dinle benchmark-service that was expected: {error!r}"
        ) from error
    if not (figures.rtfx > 0 and figures.clip_s > 0 and figures.cores > 0):
        raise UsageError(f"{name}: no request was answered under load, so there is nothing to plan with; measure again")
    return figures


def add_capacity(figures: ServiceFigures, report: Mapping[str, Any], name: str = "the report") -> ServiceFigures:
    """The figures with what a load test found of the same model on the same backend; as they are where it did not test that.

    Args:
        figures: of ``dinle benchmark-service``.
        report: the JSON of ``dinle loadtest``.
        name: what messages call it.

    Raises:
        UsageError: not such a report.
    """
    try:
        wanted = (figures.model, figures.backend)
        tested = next((model for model in report["models"] if (model["name"], model["backend"]) == wanted), None)
        if tested is None:
            return figures
        users = tuple((one["length_s"], one["users_per_core"]) for one in tested["lengths"])
        streams = tested["live"]["streams_per_core"] if tested["live"] else None
    except (KeyError, TypeError) as error:
        raise UsageError(f"{name} is not the JSON report of dinle loadtest that was expected: {error!r}") from error
    return replace(figures, users_per_core=users, streams_per_core=streams)


def predict_overload(report: Mapping[str, Any], max_queue: int) -> dict[str, float] | None:
    """The model against what was measured: the overload as the queue M/M/c/K.

    Args:
        report: of ``dinle benchmark-service``.
        max_queue: ``ASR_MAX_QUEUE`` of the service that was measured.

    Returns:
        Shares of refused requests and mean seconds of the accepted ones, computed from the throughput of the users alone and
        measured; ``None`` where no overload was measured.
    """
    overload, workers = report["overload"], report["conditions"]["workers"]
    if not overload or not overload["accepted"]:
        return None
    service_s = workers / report["users"]["per_second"]
    refused, inside = compute_bounded_queue(workers, workers + max_queue, overload["rate_per_s"] * service_s)
    answers = overload["answers"]
    return {
        "refused": refused,
        "refused_measured": sum(answers["refused"].values()) / answers["requests"],
        # Little's law: W = L / X, with the rate of those that are let in.
        "seconds": inside / (overload["rate_per_s"] * (1 - refused)),
        "seconds_measured": overload["accepted"]["mean_s"],
    }
