"""The classic recogniser behind the service: one object, one method, the answer of ``POST /transcribe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dinle

if TYPE_CHECKING:
    from dinle.config import Backend
    from dinle.recognize.audio import AudioSource


class ASRService:
    """Transcribes recordings with one model.

    Args:
        model_dir: bundle folder (``None``: the bundled model).
        backend: ``auto``, ``onnx_int8``, ``onnx_int4``, ``onnx``, ``openvino`` or ``pytorch``.
    """

    def __init__(self, model_dir: str | None = None, backend: Backend = "auto") -> None:
        self.recognizer = dinle.load(model_dir, backend=backend)

    def transcribe(self, audio: AudioSource) -> dict[str, str | float]:
        """``{"text": ..., "inference_time": ...}`` of a path, encoded bytes or a binary file; raises ``dinle.DinleError``."""
        transcript = self.recognizer.transcribe(audio)
        return {"text": transcript.text, "inference_time": transcript.inference_s}
