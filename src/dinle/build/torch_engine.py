"""The `pytorch` backend: a checkpoint behind the same protocol as the ONNX engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from dinle.build.export import load_for_export
from dinle.build.whisper_export import TorchWhisperEngine, make_vocabulary
from dinle.build.whisper_model import WhisperSpeechModel

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from dinle.build.ctc_model import CtcModel


def open_torch_engine(checkpoint: Path | str, threads: int | None = None) -> TorchEngine | TorchSpeechToText:
    """The engine of a checkpoint's family.

    Args:
        checkpoint: a folder or hub id, as for :func:`dinle.build.export.load_for_export` (whose errors it raises).
        threads: threads of torch, which are the whole process's (default: as torch is set).
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model = load_for_export(str(checkpoint))
    return TorchSpeechToText(model) if isinstance(model, WhisperSpeechModel) else TorchEngine(model)


class TorchSpeechToText(TorchWhisperEngine):
    """A whole Whisper model in torch on the CPU, with its vocabulary and geometry."""

    def __init__(self, model: WhisperSpeechModel) -> None:
        super().__init__(model)
        self.vocabulary = make_vocabulary(model)
        self.frame_shift_s = model.frame_shift_s
        self.max_seconds = model.max_seconds + model.tail_silence_s
        self.min_window_s = model.min_window_s
        self.tail_s = model.tail_silence_s
        self.family = model.family


class TorchEngine:
    """A CTC model in torch on the CPU, with its vocabulary and geometry; see :class:`dinle.recognize.engine.Engine`."""

    def __init__(self, model: CtcModel) -> None:
        self.model = model
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
