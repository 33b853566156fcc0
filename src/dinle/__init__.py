"""dinle: Turkish speech recognition for ordinary CPUs.

>>> import dinle
>>> dinle.load().transcribe("speech.wav").text  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinle.errors import DinleError
    from dinle.recognize.load import load
    from dinle.recognize.recognizer import Recognizer
    from dinle.recognize.transcript import Transcript

__version__ = "0.1.0"
__all__ = ["DinleError", "Recognizer", "Transcript", "__version__", "load"]

_DOOR = {
    "DinleError": "dinle.errors",
    "Recognizer": "dinle.recognize.recognizer",
    "Transcript": "dinle.recognize.transcript",
    "load": "dinle.recognize.load",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that ``dinle --help`` loads no engine."""
    if name not in _DOOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_DOOR[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
