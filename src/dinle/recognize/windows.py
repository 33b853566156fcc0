"""Cuts sound of any length into overlapping windows that an engine can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Below this peak (-60 dBFS) nothing in a window can be speech; the quietest recorded speech peaks well above -40 dBFS.
SILENCE_PEAK = 1e-3


@dataclass(frozen=True)
class Window:
    """A piece of a recording.

    Attributes:
        samples: (S,) the sound, with its overlap into the neighbours.
        start: index of the first sample in the recording.
        keep_from: first sample of the recording whose frames are taken from this window.
        keep_to: first sample whose frames are taken from the next window (the end, for the last one).
        last: nothing follows.
    """

    samples: Waveform
    start: int
    keep_from: int
    keep_to: int
    last: bool

    @property
    def silent(self) -> bool:
        """Whether nothing in the window is loud enough to be speech."""
        return bool(np.abs(self.samples).max(initial=0.0) < SILENCE_PEAK)


def cut_windows(blocks: Iterable[Waveform], *, window_s: float, overlap_s: float) -> Iterator[Window]:
    """Cut a stream of blocks into windows, holding one window in memory.

    Neighbours share ``overlap_s`` seconds, of which each keeps the half on its own side: what a window says near its cut
    edge, where the model lacks context, is never used. The kept parts cover the recording without gap or overlap.

    Args:
        blocks: consecutive samples, each (S,) at 16 kHz.
        window_s: length of a window in seconds.
        overlap_s: seconds shared by neighbours, below ``window_s``.
    """
    size, overlap = round(window_s * SAMPLE_RATE_HZ), round(overlap_s * SAMPLE_RATE_HZ)
    pending: list[Waveform] = []
    held = start = keep_from = 0
    for block in blocks:
        pending.append(block)
        held += len(block)
        while held > size:  # strictly: only then is it certain that another window follows
            samples = pending[0] if len(pending) == 1 else np.concatenate(pending)
            keep_to = start + size - overlap // 2
            yield Window(samples[:size], start, keep_from, keep_to, last=False)
            pending = [samples[size - overlap :]]
            held = len(pending[0])
            start, keep_from = start + size - overlap, keep_to
    if held:
        samples = pending[0] if len(pending) == 1 else np.concatenate(pending)
        yield Window(samples, start, keep_from, start + held, last=True)
