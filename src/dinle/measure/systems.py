"""What an evaluation measures: systems that hear a file and say what was said, all under the same clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dinle.measure.weights import find_model_files
from dinle.recognize.load import load

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.config import Backend
    from dinle.recognize.recognizer import Recognizer
    from dinle.recognize.transcript import Transcript


@dataclass(frozen=True)
class Heard:
    """What a system made of one file.

    Attributes:
        text: what it recognised.
        seconds: wall time from the file to the text, decoding included.
        duration_s: length of the sound.
        confidences: of each word of the text, where the system gives them.
    """

    text: str
    seconds: float
    duration_s: float
    confidences: tuple[float, ...] | None = None


class System(Protocol):
    """Anything that transcribes files."""

    @property
    def name(self) -> str:
        """What progress bars and errors call it."""

    def transcribe(self, path: Path) -> Heard:
        """Transcribe one file; whatever it raises counts as a failed clip."""


@dataclass(frozen=True)
class Candidate:
    """A system, and what reports say of its model: ``name, backend, precision, source, weights_sha256``."""

    system: System
    model: Mapping[str, Any]


class RecognizerSystem:
    """A recogniser of dinle, timed from the file to the text."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.name = recognizer.name
        self._recognizer = recognizer

    def transcribe(self, path: Path) -> Heard:
        """Transcribe one file.

        Raises:
            AudioError: it cannot be read.
        """
        started = time.perf_counter()
        transcript = self._recognizer.transcribe(path)
        seconds = time.perf_counter() - started
        return Heard(transcript.text, seconds, transcript.duration_s, list_confidences(transcript))


def list_confidences(transcript: Transcript) -> tuple[float, ...] | None:
    """The confidence of each word of a transcript's text; ``None`` where its words are not what white space parts."""
    if [word.text for word in transcript.words] != transcript.text.split():
        return None
    return tuple(min(1.0, max(0.0, word.confidence)) for word in transcript.words)


def load_candidate(
    model: str | None,
    backend: Backend,
    threads: int,
    *,
    language_model: bool = True,
    hot_words: tuple[str, ...] = (),
) -> Candidate:
    """Load a model of dinle to be measured, with or without its bundle's language model, and let it expect words.

    Raises:
        UsageError, BundleError, MissingExtraError: see :func:`dinle.load`.
    """
    recognizer = load(model, backend=backend, threads=threads, language_model=language_model).with_hot_words(hot_words)
    files = find_model_files(model, recognizer.backend or backend)
    description = {
        "name": files.name,
        "backend": files.backend,
        "precision": "fp32" if files.backend == "pytorch" else files.stored_as,
        "source": files.source,
        "weights_sha256": files.compute_hash(),
    }
    return Candidate(RecognizerSystem(recognizer), description)
