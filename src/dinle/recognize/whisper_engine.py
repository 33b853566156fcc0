"""Engines of encoder-decoder models: sound in, the next token's logits out.

Shapes: B batch, S samples, T frames of 20 ms, N tokens given, P tokens in the cache, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dinle.recognize.engine import check_names, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KINDS = ("key", "value")
ENCODER_INPUTS = ["waveform", "lengths"]
SHARED_AXIS = "clips"  # first axis of what was heard, in a decoder whose rows may share one clip


def name_tensors(group: str, layers: int) -> list[str]:
    """Names of the keys and values of each decoder layer, in turn: ``past_0_key``, ``past_0_value``, ..."""
    return [f"{group}_{layer}_{kind}" for layer in range(layers) for kind in KINDS]


@dataclass(frozen=True)
class Sound:
    """What an encoder heard: ``frames`` (B,) and keys and values (B, H, T, D) for each decoder layer, in turn."""

    frames: NDArray[np.int64]
    memory: tuple[NDArray[np.float32], ...]

    def take(self, rows: Sequence[int]) -> Sound:
        """These rows, in this order; a row may come twice."""
        return Sound(self.frames[rows], tuple(each[rows] for each in self.memory))


@dataclass(frozen=True)
class Step:
    """A decoder's answer: ``logits`` (B, V) of the next token, ``attention`` (B, N, T) over the sound, and the cache."""

    logits: NDArray[np.float32]
    attention: NDArray[np.float32]
    cache: tuple[NDArray[np.float32], ...]


class WhisperEngine(Protocol):
    """Runs an encoder-decoder model on a padded batch."""

    def encode(self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]) -> Sound:
        """Hear waveforms (B, S), mono at 16 kHz in [-1, 1], of ``lengths`` (B,) samples; the padding is not heard."""
        ...

    def decode(
        self, tokens: NDArray[np.int64], sound: Sound, cache: tuple[NDArray[np.float32], ...] | None = None
    ) -> Step:
        """Go on with tokens (B, N) after those in the cache (``None``: from the start).

        The sound is that of B clips, or of one clip that all rows share.
        """
        ...


class OnnxWhisperEngine:
    """``encoder.onnx`` and ``decoder.onnx`` of a bundle in onnxruntime on the CPU.

    Args:
        encoder: the graph ``waveform, lengths -> frames, cross_*``.
        decoder: the graph ``tokens, frames, past_*, cross_* -> logits, attention, present_*``.
        threads: threads inside one operator (default: all cores).

    Raises:
        BundleCorruptError: onnxruntime cannot read a file, or its inputs or outputs are not these.
    """

    def __init__(self, encoder: Path, decoder: Path, threads: int | None = None) -> None:
        self._encoder, self._decoder = (open_session(path, threads, plan_memory=True) for path in (encoder, decoder))
        outputs = [node.name for node in self._encoder.get_outputs()]
        self._layers = (len(outputs) - 1) // len(KINDS)
        self._cross, self._past = name_tensors("cross", self._layers), name_tensors("past", self._layers)
        check_names(self._encoder, encoder, ENCODER_INPUTS, ["frames", *self._cross])
        present = name_tensors("present", self._layers)
        check_names(
            self._decoder, decoder, ["tokens", "frames", *self._past, *self._cross], ["logits", "attention", *present]
        )
        self._can_share = any(node.shape[:1] == [SHARED_AXIS] for node in self._decoder.get_inputs())

    def encode(self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]) -> Sound:
        """See :class:`WhisperEngine`."""
        frames, *memory = self._encoder.run(None, {"waveform": waveforms, "lengths": lengths})
        return Sound(frames, tuple(memory))

    def decode(
        self, tokens: NDArray[np.int64], sound: Sound, cache: tuple[NDArray[np.float32], ...] | None = None
    ) -> Step:
        """See :class:`WhisperEngine`."""
        if cache is None:
            _, heads, _, width = sound.memory[0].shape
            cache = (np.zeros((len(tokens), heads, 0, width), dtype=np.float32),) * len(self._past)
        if len(sound.frames) != len(tokens) and not self._can_share:  # a graph of an older export
            sound = sound.take([0] * len(tokens))
        feeds: dict[str, Any] = {"tokens": tokens, "frames": sound.frames}
        feeds |= dict(zip(self._past, cache, strict=True)) | dict(zip(self._cross, sound.memory, strict=True))
        logits, attention, *present = self._decoder.run(None, feeds)
        return Step(logits, attention, tuple(present))
