"""How many seconds of sound a machine gets through in a second: sessions side by side, one session with all threads, batches."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.measure.backends import open_model
from dinle.measure.timing import SETTLE_S, time_interleaved
from dinle.progress import progress
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.recognizer import CtcRecognizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from dinle.measure.weights import ModelFiles
    from dinle.recognize.audio import Waveform

CLIPS = 8  # of one measurement; more than any machine's cores would need more
BATCH = 4
ROUNDS = 5


def measure_throughput(model: ModelFiles, waveform: Waveform, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Policies for many clips of one length, taking turns; each round is CLIPS clips, or as many as there are cores.

    Args:
        model: what runs.
        waveform: (S,) the clip.
        rounds: timed rounds of each policy, after one of warm-up.

    Returns:
        ``policies``: for each its name, its median seconds for all clips, and RTFx, seconds of sound in a second.
    """
    cores = os.cpu_count() or 1
    clips = max(CLIPS, cores)
    whole, single = (
        open_model(model.source, model.backend, threads, language_model=model.language_model) for threads in (cores, 1)
    )
    one_by_one = f"one after another, {cores} threads each"
    calls: dict[str, Callable[[], object]] = {
        one_by_one: lambda: [whole.transcribe(waveform) for _ in range(clips)],
        f"{cores} side by side, 1 thread each": lambda: _run_side_by_side(single.transcribe, waveform, clips, cores),
    }
    if isinstance(whole, CtcRecognizer):
        engine = whole.engine
        rows = np.repeat(waveform[np.newaxis], BATCH, axis=0)
        lengths = np.full(BATCH, len(waveform), dtype=np.int64)
        calls[f"batches of {BATCH}, {cores} threads"] = lambda: [
            engine.run(rows, lengths) for _ in range(clips // BATCH)
        ]
    with progress("measuring throughput", total=len(calls) * (rounds + 1)) as bar:
        timings = time_interleaved(calls, runs=rounds, warmup=1, pause_s=SETTLE_S, on_run=bar.advance)
    audio_s = clips * len(waveform) / SAMPLE_RATE_HZ
    medians = {name: float(np.median(samples)) for name, samples in timings.samples_s.items()}
    return {
        "backend": model.backend,
        "clips": clips,
        "rounds": rounds,
        "policies": [{"name": name, "median_s": one, "rtfx": audio_s / one} for name, one in medians.items()],
    }


def _run_side_by_side(transcribe: Callable[[Waveform], object], waveform: Waveform, clips: int, workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(transcribe, [waveform] * clips):
            pass
