"""Where somebody speaks: the Silero VAD network, chunk by chunk.

The network and its weights are those of Silero VAD v6.2 (MIT, https://github.com/snakers4/silero-vad), in a graph that hears
many chunks at a time (:mod:`dinle.build.silero_vad`). Each chunk is given the 64 samples before it, as by the published code.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.errors import BundleCorruptError, DinleError
from dinle.recognize.engine import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dinle.recognize.audio import Waveform

    Memory = tuple[NDArray[np.float32], NDArray[np.float32]]  # hidden and cell state of the LSTM, (1, 1, 128) each

GRAPH = Path(__file__).with_name("silero_vad.onnx")  # written by dinle.build.silero_vad

CHUNK_SAMPLES = 512  # 32 ms: what one probability is about
CONTEXT_SAMPLES = 64  # of the chunk before, and as many mirrored at the end
HIDDEN = 128  # units of the LSTM
BATCH_CHUNKS = 64  # at a time: bounds the memory of a long block
# The second hearing: this much louder, for chunks where nothing shortly before is louder than QUIET_PEAK. The network misses
# a third of words that peak near -45 dBFS (43 of 128), and finds all when they are 20 dB louder.
QUIET_GAIN, QUIET_PEAK = 10.0, 0.1
PEAK_HALF_LIFE_CHUNKS = 156  # 5 s, after which a peak counts for half


class SpeechModelError(DinleError, ImportError):
    """The weights of the speech detector are missing or are not what was expected."""


class SpeechDetector:
    """Gives the probability of speech in consecutive chunks of one recording, however the recording arrives.

    One detector hears one recording at a time and belongs to one thread; the weights are shared.

    Raises:
        SpeechModelError: the network's file is missing or damaged.
    """

    def __init__(self) -> None:
        self._network = open_network()
        self.reset()

    def reset(self) -> None:
        """Forget the recording: the next samples are the first of another one."""
        self._pending = np.zeros(0, dtype=np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
        self._memory = _forget()
        self._quiet_memory = _forget()
        self._peak = 0.0

    def push(self, samples: Waveform) -> NDArray[np.float32]:
        """Hear the next samples.

        Args:
            samples: (S,) at 16 kHz in [-1, 1], any number of them.

        Returns:
            (N,) the probability of speech in each chunk of 512 samples that is now complete.
        """
        sound = np.concatenate([self._pending, samples]) if len(self._pending) else samples
        whole = len(sound) - len(sound) % CHUNK_SAMPLES
        self._pending = sound[whole:].copy()
        chunks = sound[:whole].reshape(-1, CHUNK_SAMPLES)
        parts = [self._hear(chunks[i : i + BATCH_CHUNKS]) for i in range(0, len(chunks), BATCH_CHUNKS)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def finish(self) -> NDArray[np.float32]:
        """End the recording: the probability of the last chunk (1,), filled up with zeros, or (0,) when there is no rest."""
        rest = -len(self._pending) % CHUNK_SAMPLES
        probabilities = self.push(np.zeros(rest, dtype=np.float32))
        self.reset()
        return probabilities

    def _hear(self, chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        before = np.concatenate([self._context[np.newaxis], chunks[:-1, -CONTEXT_SAMPLES:]])
        self._context = chunks[-1, -CONTEXT_SAMPLES:].copy()
        frames = np.concatenate([before, chunks], axis=1)
        probabilities, self._memory = self._run(frames, self._memory)
        quiet = self._find_quiet(chunks)
        if quiet.any():  # the second hearing knows the quiet chunks only, so that it does not depend on the block size
            louder = frames[quiet] * np.float32(QUIET_GAIN)
            again, self._quiet_memory = self._run(louder, self._quiet_memory)
            probabilities[quiet] = np.maximum(probabilities[quiet], again)
        return probabilities

    def _run(self, frames: NDArray[np.float32], memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """Frames (N, 576) and what was heard before them -> the probabilities of speech (N,) and what is heard now."""
        inputs = {"frames": frames, "hidden": memory[0], "cell": memory[1]}
        probabilities, *heard = self._network.run(["probabilities", "next_hidden", "next_cell"], inputs)
        return probabilities[:, 0], (heard[0], heard[1])

    def _find_quiet(self, chunks: NDArray[np.float32]) -> NDArray[np.bool_]:
        """For each chunk (N,), whether it and what came shortly before would not be clipped by the gain."""
        decay = 0.5 ** (1 / PEAK_HALF_LIFE_CHUNKS)
        quiet = np.zeros(len(chunks), dtype=np.bool_)
        for i, peak in enumerate(np.abs(chunks).max(axis=1).tolist()):
            self._peak = max(peak, self._peak * decay)
            quiet[i] = self._peak <= QUIET_PEAK
        return quiet


def _forget() -> Memory:
    """The state of the LSTM before the first chunk."""
    return np.zeros((1, 1, HIDDEN), dtype=np.float32), np.zeros((1, 1, HIDDEN), dtype=np.float32)


@cache
def open_network() -> Any:
    """The network's session, shared by all detectors.

    Raises:
        SpeechModelError: its file is missing or damaged.
    """
    try:
        return open_session(GRAPH, threads=1)
    except BundleCorruptError as error:
        raise SpeechModelError(
            f"the speech detector's network, {GRAPH}, cannot be read ({error.__cause__}); it comes with dinle: "
            "pip install --force-reinstall dinle"
        ) from error
