"""Engines: waveforms in, log-probabilities out."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnxruntime as ort

from dinle.errors import BundleCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


# One operator for sum and norm runs at a tenth of the speed of the two (2.2 against 0.2 ms for 500 frames of 768 channels).
SLOW_FUSIONS = ["SkipLayerNormFusion"]


MMAP_THRESHOLD_OPTION = -3  # M_MMAP_THRESHOLD in malloc.h
FIRST_MMAP_THRESHOLD, LAST_MMAP_THRESHOLD = 128 * 1024, 32 * 1024 * 1024


class Engine(Protocol):
    """Runs a CTC model on a padded batch."""

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """From sound to log-probabilities.

        Args:
            waveforms: (B, S) mono at 16 kHz in [-1, 1], zero-padded at the end.
            lengths: (B,) samples of each row.

        Returns:
            log_probs (B, T, V), of which a row's first ``frames`` are valid, and frames (B,).
        """
        ...


class OnnxEngine:
    """An ONNX graph with the bundle's contract (``waveform, lengths -> log_probs, frames``) in onnxruntime on the CPU.

    Args:
        path: the ``.onnx`` file.
        threads: threads inside one operator (default: all cores).

    Raises:
        BundleCorruptError: onnxruntime cannot read the file, or its inputs or outputs are not the contract's.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session = open_session(path, threads)
        check_names(self._session, path, ["waveform", "lengths"], ["log_probs", "frames"])

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See :class:`Engine`."""
        log_probs, frames = self._session.run(["log_probs", "frames"], {"waveform": waveforms, "lengths": lengths})
        return np.asarray(log_probs, dtype=np.float32), np.asarray(frames, dtype=np.int64)


def open_session(path: Path, threads: int | None, *, plan_memory: bool = False) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        path: the ``.onnx`` file.
        threads: threads inside one operator (default: all cores).
        plan_memory: plan the memory of each shape once it was seen, and keep the plans: 90 MB for ten seconds of
            wav2vec2-base and no faster, but 3 % faster for the many small steps of a Whisper model.

    Raises:
        BundleCorruptError: onnxruntime cannot read the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = 3  # warnings of the graph optimiser say nothing to a user
    options.enable_mem_pattern = plan_memory
    try:
        with _return_freed_memory():
            return ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
            )
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise BundleCorruptError(f"onnxruntime cannot read {path}: {error}; export the model again") from error


@contextmanager
def _return_freed_memory() -> Iterator[None]:
    """Let glibc give freed weights back to the system at once while a graph is loaded; elsewhere nothing.

    A graph's weights are held twice until they are packed, and glibc keeps freed blocks of their size on its heap: 95 MB of
    weights stay 190 otherwise. The thresholds are glibc's own first and last: https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        yield
        return
    set_option(MMAP_THRESHOLD_OPTION, FIRST_MMAP_THRESHOLD)
    try:
        yield
    finally:
        set_option(MMAP_THRESHOLD_OPTION, LAST_MMAP_THRESHOLD)


def check_names(session: Any, path: Path, inputs: list[str], outputs: list[str]) -> None:
    """Refuse a graph with other inputs or outputs than its bundle's engine has.

    Raises:
        BundleCorruptError: with both lists.
    """
    found = [[node.name for node in nodes] for nodes in (session.get_inputs(), session.get_outputs())]
    check_port_names(found, path, inputs, outputs)


def check_port_names(found: list[list[str]], path: Path, inputs: list[str], outputs: list[str]) -> None:
    """As :func:`check_names`, for the names of inputs and outputs that any runtime found."""
    if found != [inputs, outputs]:
        raise BundleCorruptError(
            f"{path} has the inputs {', '.join(found[0])} and the outputs {', '.join(found[1])}; expected "
            f"{', '.join(inputs)} -> {', '.join(outputs)}: export the model with dinle export"
        )
