"""The `pytorch` backend: a checkpoint behind the same protocol as the ONNX engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from dinle.build.models import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class TorchEngine:
    """Runs a checkpoint in torch on the CPU; see :class:`dinle.recognize.engine.Engine`.

    Args:
        checkpoint: a folder or hub id, as for :func:`dinle.build.models.load_model` (whose errors it raises).
        threads: threads of torch, which are the whole process's (default: as torch is set).
    """

    def __init__(self, checkpoint: Path | str, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.model = load_model(str(checkpoint))
        self.vocabulary = self.model.vocabulary
        self.frame_shift_s = self.model.frame_shift_s
        self.frame_offset_s = self.model.frame_offset_s
        self.max_seconds = self.model.max_seconds
        self.family = self.model.family

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See :meth:`dinle.recognize.engine.Engine.run`."""
        with torch.inference_mode():
            log_probs, frames = self.model(
                torch.from_numpy(np.ascontiguousarray(waveforms, dtype=np.float32)),
                torch.from_numpy(np.ascontiguousarray(lengths, dtype=np.int64)),
            )
        return log_probs.numpy(), frames.numpy()
