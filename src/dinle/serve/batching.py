"""Windows of several recordings in one run of a CTC engine.

On CPUs that were measured a batch buys nothing (docs/serving.md), so the service runs windows one by one unless told
otherwise; an engine that gains by batches is wrapped with this.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dinle.recognize.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from dinle.recognize.engine import Engine


class BatchMeter(Protocol):
    """What is told about runs; see :class:`dinle.serve.metrics.Metrics`."""

    def observe_batch(self, rows: int, seconds: float) -> None:
        """A run of ``rows`` windows with so many seconds of sound in all, padding included."""
        ...


@dataclass(frozen=True)
class BatchRules:
    """How windows come together.

    Attributes:
        size: most windows in a run.
        seconds: most seconds of sound in a run, padding included.
        wait_s: how long the first window waits for others. It also waits while every engine is busy.
        runs: runs side by side.
    """

    size: int = 1
    seconds: float = 60.0
    wait_s: float = 0.005
    runs: int = 1


@dataclass(eq=False)
class Batch:
    """Windows that are run together, and what came of each."""

    rows: list[NDArray[np.float32]] = field(default_factory=list)
    results: list[tuple[NDArray[np.float32], int] | Exception] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def fits(self, samples: int, rules: BatchRules) -> bool:
        """Whether one more window may come in."""
        longest = max([samples, *(len(row) for row in self.rows)])
        count = len(self.rows) + 1
        return count <= rules.size and (count == 1 or longest * count <= rules.seconds * SAMPLE_RATE_HZ)


class BatchingEngine:
    """An engine (see :class:`dinle.recognize.engine.Engine`) whose callers in several threads share runs.

    The first caller opens a batch, waits for others and for a free engine, and runs it; the others wait for it. When a run
    of several windows fails, each is run alone, so that an error is that of its own window.

    Args:
        engine: what runs.
        rules: how windows come together.
        meter: is told of each run.
    """

    def __init__(self, engine: Engine, rules: BatchRules, meter: BatchMeter | None = None) -> None:
        self.engine = engine
        self._rules = rules
        self._meter = meter
        self._free = threading.Semaphore(rules.runs)
        self._lock = threading.Lock()
        self._open: Batch | None = None

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See :class:`dinle.recognize.engine.Engine`; batches of the caller's own are run as they are."""
        if len(waveforms) != 1 or self._rules.size == 1:
            return self._measure(waveforms, lengths)
        batch, place = self._join(waveforms[0, : int(lengths[0])])
        if place == 0:
            self._lead(batch)
        else:
            batch.done.wait()
        result = batch.results[place]
        if isinstance(result, Exception):
            raise result
        log_probs, frames = result
        return log_probs[np.newaxis], np.array([frames], dtype=np.int64)

    def _join(self, row: NDArray[np.float32]) -> tuple[Batch, int]:
        with self._lock:
            if self._open is None or not self._open.fits(len(row), self._rules):
                if self._open is not None:
                    self._open.full.set()
                self._open = Batch()
            batch, place = self._open, len(self._open.rows)
            batch.rows.append(row)
            if not batch.fits(1, self._rules):
                self._open = None
                batch.full.set()
        return batch, place

    def _lead(self, batch: Batch) -> None:
        batch.full.wait(self._rules.wait_s)
        with self._free:  # while every engine is busy the batch stays open
            with self._lock:
                if self._open is batch:
                    self._open = None
            try:
                batch.results = self._run_rows(batch.rows)
            except BaseException as error:
                batch.results = [RuntimeError(f"the run was ended by {error!r}")] * len(batch.rows)
                raise
            finally:
                batch.done.set()

    def _run_rows(self, rows: list[NDArray[np.float32]]) -> list[tuple[NDArray[np.float32], int] | Exception]:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        waveforms = np.zeros((len(rows), int(lengths.max())), dtype=np.float32)
        for padded, row in zip(waveforms, rows, strict=True):
            padded[: len(row)] = row
        try:
            log_probs, frames = self._measure(waveforms, lengths)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is handed to those whose windows raise it
            return [error] if len(rows) == 1 else [self._run_rows([row])[0] for row in rows]
        return [(one[:count], int(count)) for one, count in zip(log_probs, frames, strict=True)]

    def _measure(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self._meter is not None:
            self._meter.observe_batch(len(waveforms), waveforms.size / SAMPLE_RATE_HZ)
        return self.engine.run(waveforms, lengths)
