"""Makes small datasets of every kind that prepare reads."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.build.config import PrepareConfig
from dinle.build.prepare import prepare
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TEXT = "bugün hava güzel"


def make_sound(seconds: float, seed: int = 0, rate_hz: int = 16_000) -> NDArray[np.float32]:
    """A chord (S,) that differs with the seed."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    pitches = 200 + 100 * np.random.default_rng(seed).random(3)
    sound: NDArray[np.float64] = (0.2 * np.sin(2 * np.pi * pitches[:, np.newaxis] * times)).sum(axis=0)
    return sound.astype(np.float32)


def write_wav(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_wav(make_sound(seconds, seed)))
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_tsv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Tab-separated without any quoting, as Common Voice does it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_corpus(folder: Path, count: int = 4, split: str = "train") -> list[dict[str, Any]]:
    """Wave files ready for training, and their manifest rows."""
    names = [f"{split}{number}.wav" for number in range(count)]
    for number, name in enumerate(names):
        write_wav(folder / name, seconds=1.0 + 0.1 * number, seed=number)
    return [{"audio": name, "text": f"{TEXT} {split} {n + 1}", "split": split} for n, name in enumerate(names)]


def run(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Path:
    source = write_jsonl(folder / "source.jsonl", rows)
    return prepare(replace(PrepareConfig(str(source), folder / "out", threads=2), **fields))
