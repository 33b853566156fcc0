"""Rows as CSV: every request of a load test, and every sample of the service that was under it.

A request has ``model, phase, kind, clip, audio_s, start_s, late_s, seconds, status, error, same_text, retry_after`` as in
:mod:`dinle.measure.load`; ``kind`` is ``file``, or ``live`` for a sentence of a live stream
(:func:`dinle.loadtest.live_talk.list_rows`). A sample is described in :mod:`dinle.loadtest.watch`.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from dinle.loadtest.stages import Row

_NUMBERS = frozenset({
    "audio_s", "start_s", "late_s", "seconds", "at_s", "queue_depth", "running", "live_streams", "rejected", "cpu_s", "rss_mb",
    "machine_cpu_s",
})  # fmt: skip


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows that all have the same keys; what is None is empty. The file appears complete or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
    partial.replace(path)


def read_rows(path: Path) -> list[Row]:
    """Read what :func:`write_rows` wrote, with the types that were written."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _read_value(key, value) for key, value in row.items()} for row in csv.DictReader(file)]


def _read_value(key: str, value: str) -> Any:
    if not value:
        return None
    if key in _NUMBERS:
        return float(value)
    if key == "status":
        return int(value)
    return value == "True" if key == "same_text" else value
