"""What the service says of itself while it is under load, read from its ``/metrics`` twice a second.

A sample::

    {"phase": "users", "at_s": 12.0, "queue_depth": 3.0, "running": 2.0, "live_streams": 0.0, "rejected": 0.0, "cpu_s": 19.2,
     "rss_mb": 210.4, "machine_cpu_s": 4711.5}

``at_s`` counts from the start of the phase; ``rejected`` and ``cpu_s`` (processor time, user and system) from the start of the
service; ``rss_mb`` is its resident memory (10⁶ bytes). ``machine_cpu_s`` is what all cores of this machine have worked. What the
service does not tell is null.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from dinle.measure.load_client import OK, Client
from dinle.measure.service_watch import read_busy_s

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_EVERY_S = 0.5
TIMEOUT_S = 10.0
_MB = 1e6
# Our names of Prometheus's series.
SERIES = {
    "dinle_queue_depth": "queue_depth",
    "dinle_running": "running",
    "dinle_live_streams": "live_streams",
    "dinle_rejected_total": "rejected",
    "process_cpu_seconds_total": "cpu_s",
    "process_resident_memory_bytes": "rss_mb",
}


def read_metrics(text: str) -> dict[str, float | None]:
    """The figures of a sample in Prometheus' text format, summed over labels; null where there is no such series.

    A counter with labels that nothing has counted yet has no series: ``rejected`` is 0 where the queue is told.
    """
    found: dict[str, float | None] = dict.fromkeys(SERIES.values())
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        name = SERIES.get(series.partition("{")[0])
        if name is not None:
            found[name] = (found[name] or 0.0) + float(value)
    if found["rss_mb"] is not None:
        found["rss_mb"] = round(found["rss_mb"] / _MB, 2)
    if found["rejected"] is None and found["queue_depth"] is not None:
        found["rejected"] = 0.0
    return found


class Watch:
    """Samples a service during phases, in a thread.

    Args:
        url: base URL of the service.
        local: whether the service runs on this machine.
        every_s: seconds between samples.

    Attributes:
        samples: see the module; each phase begins and ends with one.
    """

    def __init__(self, url: str, *, local: bool, every_s: float = SAMPLE_EVERY_S) -> None:
        self.samples: list[dict[str, Any]] = []
        self._client = Client(url, TIMEOUT_S)
        self._local, self._every_s = local, every_s

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Sample while the context lasts."""
        began, over = time.perf_counter(), threading.Event()

        def sample_on() -> None:
            while True:
                self._take(name, began)
                if over.wait(self._every_s):
                    break
            self._take(name, began)
            self._client.close()

        thread = threading.Thread(target=sample_on, name="loadtest-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _take(self, phase: str, began: float) -> None:
        at_s = time.perf_counter() - began
        busy_s = read_busy_s() if self._local else None
        self.samples.append({"phase": phase, "at_s": round(at_s, 3), **self._ask(), "machine_cpu_s": busy_s})

    def _ask(self) -> dict[str, float | None]:
        try:
            status, content = self._client.get("/metrics")
        except (OSError, HTTPException):
            return read_metrics("")
        return read_metrics(content.decode(errors="replace") if status == OK else "")
