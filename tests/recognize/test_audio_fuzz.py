"""Broken files in a process of their own: a decoder that crashes takes the process with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dinle.errors import AudioError
from dinle.recognize.audio import AudioLimits, check_audio, stream_audio
from dinle.recognize.live_audio import PushDecoder
from tests.sounds import make_malformed_files

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 5.0
LIMITS = AudioLimits(max_seconds=MAX_SECONDS, max_channels=8, max_rate_hz=192_000, max_decode_s=1.5)
COUNT = 1000


def decode_bytes(data: bytes) -> float:
    return sum(len(block) for block in stream_audio(data, LIMITS)) / 16_000


def push_bytes(data: bytes) -> float:
    with PushDecoder(LIMITS) as decoder:
        pieces = [data[start : start + 700] for start in range(0, len(data), 700)]
        blocks = [block for piece in pieces for block in decoder.push(piece)] + decoder.finish()
    return sum(len(block) for block in blocks) / 16_000


def check_bytes(data: bytes) -> float:
    return check_audio(data, LIMITS)


def try_file(name: str, data: bytes) -> dict[str, Any]:
    """What each way of reading says about a file, and how long it took."""
    told: dict[str, Any] = {"name": name}
    for read in (decode_bytes, check_bytes, push_bytes):
        began = time.monotonic()
        try:
            told[read.__name__] = read(data)
        except AudioError as error:
            told[read.__name__] = str(error)
        told["seconds"] = max(told.get("seconds", 0.0), time.monotonic() - began)
    return told


def run_child(count: int, seed: int) -> list[dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, "-W", "error", "-X", "faulthandler", __file__, str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {told[-1:]}: {done.stderr[-3000:]}"
    assert "PyAV" not in done.stderr  # it complains there about exceptions that it drops
    return told


@pytest.mark.slow
def test_broken_files_decode_or_are_refused_in_time_and_within_the_limits() -> None:
    told = run_child(COUNT, seed=1)
    assert len(told) == COUNT
    for one in told:
        assert one["seconds"] < 2, one  # and max_decode_s is 1.5
        for way in ("decode_bytes", "check_bytes", "push_bytes"):
            assert isinstance(one[way], str) or 0 < one[way] <= MAX_SECONDS + 0.01, one
    decoded = [isinstance(one["decode_bytes"], float) for one in told]
    assert 0.2 < np.mean(decoded) < 0.8  # the damage is neither harmless nor always fatal


@pytest.mark.slow
def test_checking_agrees_with_decoding() -> None:
    for one in run_child(300, seed=2):
        decoded, checked = one["decode_bytes"], one["check_bytes"]
        if isinstance(decoded, str):
            assert checked == decoded or "not numbers" in decoded, one
        else:
            assert checked == pytest.approx(decoded, abs=0.001), one


def test_the_same_seed_makes_the_same_files() -> None:
    once, again = (list(make_malformed_files(40, seed=3)) for _ in range(2))
    assert once == again
    assert len({data for _, data in once}) == 40
    assert once != list(make_malformed_files(40, seed=4))


if __name__ == "__main__":
    for name, data in make_malformed_files(int(sys.argv[1]), int(sys.argv[2])):
        sys.stdout.write(json.dumps(try_file(name, data)) + "\n")
        sys.stdout.flush()
