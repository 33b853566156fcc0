"""How soon a live stream tells what it heard, measured on a service of its own with the default model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import dinle
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from tests.serve.live_clients import (
    PIECE_S,
    Event,
    check_plain_order,
    cut_pcm,
    find_texts,
    round_to_pcm,
    talk,
    write_offline,
)
from tests.serve.servers import serve_in_process
from tests.sounds import make_noise, scale_to

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
CLIPS = [ROOT / "samples" / "sample.wav", *sorted((ROOT / "data" / "mini" / "audio").glob("test-*.opus"))[:3]]
LOUD = 0.01  # a sample above this belongs to the speech; the clips' own noise is far below
PAUSE_S = 1.5
# docs/streaming.md holds the promise; half as much again is for machines that are busy with other things.
FINAL_S, GAP_S, SLACK = 0.7, 0.6, 1.5


@dataclass(frozen=True)
class Timings:
    """What a speaker would notice, in seconds.

    Attributes:
        finals: from the last loud sample of each sentence to the final that ends with it.
        gaps: between partials, while somebody speaks.
        starts: from the first loud sample to the first partial.
    """

    finals: list[float]
    gaps: list[float]
    starts: list[float]


def join_sentences() -> tuple[Waveform, list[tuple[float, float]]]:
    """Sentences with pauses in quiet noise after each; where each begins and ends, in seconds."""
    parts: list[Waveform] = []
    places, at = [], 0
    for number, path in enumerate(CLIPS):
        clip = decode_audio(path)
        loud = np.flatnonzero(np.abs(clip) > LOUD)
        places.append(((at + loud[0]) / SAMPLE_RATE_HZ, (at + loud[-1]) / SAMPLE_RATE_HZ))
        parts += [clip, scale_to(make_noise(PAUSE_S, "pink", seed=number), -60)]
        at = sum(map(len, parts))
    return np.concatenate(parts), places


def measure(events: list[tuple[float, Event]], places: list[tuple[float, float]]) -> Timings:
    """Set what was told against where speech was. A piece leaves when its first sample is due: its last one came then too."""
    told = [(at_s + PIECE_S, event) for at_s, event in events]
    finals = [(at_s, event) for at_s, event in told if event["type"] == "final"]
    partials = [at_s for at_s, event in told if event["type"] == "partial"]
    timings = Timings([], [], [])
    for start_s, end_s in places:
        timings.finals.append(next(at_s for at_s, event in finals if event["end"] > end_s - 0.05) - end_s)
        inside = [at_s for at_s in partials if start_s < at_s < end_s]
        timings.starts.extend(at_s - start_s for at_s in inside[:1])
        timings.gaps.extend(later - sooner for sooner, later in pairwise([*inside, end_s]))
    return timings


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("service") / "log"
    with serve_in_process(["dinle.cli", "serve", "--port", "0"], log) as (url, _):
        yield url.replace("http", "ws") + "/stream"


@pytest.mark.slow
def test_finals_and_partials_come_soon(url: str) -> None:
    sound, places = join_sentences()
    events = asyncio.run(talk(url, cut_pcm(sound), pace_s=PIECE_S))
    check_plain_order([event for _, event in events])
    # the stream law, in real time
    recognizer = dinle.load(threads=1)
    assert find_texts(event for _, event in events) == write_offline(recognizer, round_to_pcm(sound))
    timings = measure(events, places)
    assert np.median(timings.finals) <= FINAL_S * SLACK, timings
    assert np.quantile(timings.gaps, 0.95) <= GAP_S * SLACK, timings
    assert np.median(timings.starts) <= GAP_S * SLACK, timings
    assert len(timings.starts) == len(CLIPS)
    assert len(timings.gaps) > 20


@pytest.mark.slow
def test_noise_says_nothing_in_real_time_either(url: str) -> None:
    sound = scale_to(make_noise(3.0, "pink", seed=1), -30)
    events = asyncio.run(talk(url, cut_pcm(sound), pace_s=PIECE_S))
    assert [event["type"] for _, event in events] == ["ready", "done"]


def print_timings(streams: int, url: str) -> None:
    """The figures of docs/streaming.md: ``python -m tests.serve.test_live_timing``."""
    sound, places = join_sentences()

    async def run() -> list[list[tuple[float, Event]]]:
        async def one(number: int) -> list[tuple[float, Event]]:
            await asyncio.sleep(0.37 * number)  # people do not begin together
            return await talk(url, cut_pcm(sound), pace_s=PIECE_S)

        return await asyncio.gather(*map(one, range(streams)))

    each = [measure(events, places) for events in asyncio.run(run())]
    for name in ("finals", "gaps", "starts"):
        values = [value for timings in each for value in getattr(timings, name)]
        line = ", ".join(f"{share:.0%} {np.quantile(values, share):.2f}" for share in (0.5, 0.9, 1.0))
        print(f"{streams} streams, {name}, n={len(values)}: {line}")  # noqa: T201


if __name__ == "__main__":
    import tempfile

    with (
        tempfile.TemporaryDirectory() as folder,
        serve_in_process(["dinle.cli", "serve", "--port", "0"], Path(folder) / "log") as (address, _),
    ):
        for count in (1, 2, 4, 8):
            print_timings(count, address.replace("http", "ws") + "/stream")
