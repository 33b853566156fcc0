"""A Whisper checkpoint -> ``encoder.onnx`` and ``decoder.onnx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dinle.build.whisper_graph import SpeechEncoder, TextDecoder
from dinle.recognize.whisper_engine import list_cache_names

if TYPE_CHECKING:
    from pathlib import Path

