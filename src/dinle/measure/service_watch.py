"""What is seen of the service from outside while it is under load: its memory, its processor time, whether it still answers.

A sample::

    {"at_s": 12.0, "rss_mb": 210.4, "cpu_s": 19.2, "healthz_s": 0.002}

``at_s`` counts from the start of the watch; ``rss_mb`` (10⁶ bytes) and ``cpu_s`` (user and system, of all threads since
the process began) are null where there is no ``/proc``; ``healthz_s`` is how long ``GET /healthz`` took, null where it
failed.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.measure.load_client import OK, Client

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_EVERY_S = 1.0
SLEEP_S = 0.01  # as long as the service's own watch of its loop sleeps
START_S = 10.0  # a new interpreter on a busy machine
HEALTH_TIMEOUT_S = 10.0
LAG_HISTOGRAM = "dinle_event_loop_lag_seconds"
LAG_MAXIMUM = "dinle_event_loop_lag_max_seconds"
_MB = 1e6
# Fields of /proc/PID/stat after the name, counted from 0; numbers 14 and 15 in proc(5).
_USER_TICKS, _SYSTEM_TICKS = 11, 12
# The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)); idle and iowait are rest.
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
# One sample of Prometheus's text format: https://prometheus.io/docs/instrumenting/exposition_formats/
_METRIC = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_EDGE = re.compile(r'\ble="([^"]+)"')


@dataclass(frozen=True)
class Usage:
    """What a process holds and has used: resident memory in bytes, seconds of processor time."""

    rss_bytes: int
    cpu_s: float


def read_usage(pid: int) -> Usage | None:
    """Memory and processor time of a process; None where it is gone or there is no ``/proc``."""
    folder = Path("/proc", str(pid))
    try:
        pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
        # The name stands in brackets and may hold anything, brackets too.
        fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (OSError, IndexError):
        return None
    ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK"))


def read_busy_s() -> float | None:
    """Seconds for which cores of this machine were busy since it started, all together; None without ``/proc/stat``."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    return sum(int(fields[index]) for index in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")


def read_lag(metrics: str) -> dict[str, Any] | None:
    """The event loop's lag in Prometheus's text: ``buckets``, upper edge in seconds to how many up to it, and ``max_s``.

    None where the service does not measure it.
    """
    buckets: dict[str, float] = {}
    max_s = None
    for line in metrics.splitlines():
        found = _METRIC.fullmatch(line.strip())
        if found is None:
            continue
        name, labels, value = found.groups()
        edge = _EDGE.search(labels or "")
        if name == f"{LAG_HISTOGRAM}_bucket" and edge is not None:
            buckets[edge[1]] = buckets.get(edge[1], 0.0) + float(value)
        elif name == LAG_MAXIMUM:
            max_s = max(float(value), max_s or 0.0)
    return {"buckets": buckets, "max_s": max_s} if buckets or max_s is not None else None


class Sleeper:
    """A process that only sleeps, a hundred times a second, and how late it wakes.

    It is late when the machine stops everybody: a virtual machine whose cores are given to another one cannot do better.
    """

    def __init__(self) -> None:
        spawned = multiprocessing.get_context("spawn")
        self._most = spawned.Value("d", 0.0)
        self._awake = spawned.Event()
        arguments = (self._most, SLEEP_S, self._awake)
        self._process = spawned.Process(target=sleep_on, args=arguments, name="sleeper", daemon=True)

    @property
    def most_late_s(self) -> float:
        """The latest it woke up so far."""
        return float(self._most.value)

    def start(self) -> None:
        """Begin to sleep; returns when it has woken for the first time, or after :data:`START_S`."""
        self._process.start()
        self._awake.wait(START_S)

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def sleep_on(most: Any, period_s: float, awake: Any) -> None:
    """Sleep again and again until terminated; ``most`` holds the seconds by which the latest wake-up was late.

    ``awake`` is set after the first.
    """
    last = time.perf_counter()
    while True:
        time.sleep(period_s)
        now = time.perf_counter()
        most.value = max(most.value, now - last - period_s)  # wherever it stood still since it woke last
        last = now
        if not awake.is_set():
            awake.set()


class Watch:
    """Samples a service until it is closed, and keeps what each phase of the benchmark cost.

    Args:
        url: base URL of the service.
        pid: its process.
        every_s: seconds between samples; may be changed at any time.

    Attributes:
        samples: see the module.
        phases: one entry for each :meth:`phase`.
    """

    def __init__(self, url: str, pid: int, every_s: float = SAMPLE_EVERY_S) -> None:
        self.every_s = every_s
        self.samples: list[dict[str, Any]] = []
        self.phases: list[dict[str, Any]] = []
        self._pid = pid
        self._health = Client(url, HEALTH_TIMEOUT_S)
        self._metrics = Client(url, HEALTH_TIMEOUT_S)
        self._began = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, name="service-watch", daemon=True)
        self._sleeper = Sleeper()

    def __enter__(self) -> Watch:  # noqa: PYI034 - Self is what subclasses would need
        """Begin to sample."""
        self._thread.start()
        self._sleeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take a last sample and stop."""
        self._stop.set()
        self._thread.join()
        self._sleeper.stop()
        self._health.close()
        self._metrics.close()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Write down what a phase costs.

        ``{"name", "began_s", "ended_s", "server_cpu_s", "client_cpu_s", "machine_cpu_s", "lag", "sleeper_late_s"}``:
        processor time of the service, of this process and of everything on the machine; ``lag`` holds the event loop's histogram
        before and after; ``sleeper_late_s`` is how late a process that only sleeps woke at most, since the watch began.
        What cannot be measured is null.
        """
        lag, before, began_s = self._read_lag(), self._read_clocks(), self._now()
        yield
        ended_s, after = self._now(), self._read_clocks()
        spent = {
            key: round(end - start, 3) if start is not None and end is not None else None
            for (key, start), end in zip(before.items(), after.values(), strict=True)
        }
        lags = {"before": lag, "after": self._read_lag()} if lag is not None else None
        self.phases.append(
            {
                "name": name,
                "began_s": round(began_s, 3),
                "ended_s": round(ended_s, 3),
                **spent,
                "lag": lags,
                "sleeper_late_s": self._sleeper.most_late_s,
            }
        )

    def _read_clocks(self) -> dict[str, float | None]:
        usage = read_usage(self._pid)
        return {
            "server_cpu_s": usage.cpu_s if usage else None,
            "client_cpu_s": time.process_time(),
            "machine_cpu_s": read_busy_s(),
        }

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _sample_on(self) -> None:
        while True:
            self.samples.append(self._take_sample())
            if self._stop.wait(self.every_s):
                break
        self.samples.append(self._take_sample())

    def _take_sample(self) -> dict[str, Any]:
        usage, at_s = read_usage(self._pid), self._now()
        return {
            "at_s": round(at_s, 3),
            "rss_mb": round(usage.rss_bytes / _MB, 2) if usage else None,
            "cpu_s": round(usage.cpu_s, 2) if usage else None,
            "healthz_s": self._time_health(),
        }

    def _time_health(self) -> float | None:
        started = time.perf_counter()
        try:
            status, _ = self._health.get("/healthz")
        except (OSError, HTTPException):
            return None
        return round(time.perf_counter() - started, 5) if status == OK else None

    def _read_lag(self) -> dict[str, Any] | None:
        try:
            status, content = self._metrics.get("/metrics")
        except (OSError, HTTPException):
            return None
        return read_lag(content.decode(errors="replace")) if status == OK else None
