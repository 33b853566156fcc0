"""Recognisers that others made, run beside ours on the same clips. Their packages are the extra ``peers``."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import BundleCorruptError, HubUnreachableError, MissingExtraError, UsageError
from dinle.measure.systems import Candidate, Heard
from dinle.recognize.bundle import hash_file

if TYPE_CHECKING:
    from dinle.measure.config import EvaluateConfig

LANGUAGE = "tr"
COMPUTE_TYPE = "int8"
WEIGHTS_FILE = "model.bin"  # of a CTranslate2 model


class FasterWhisper:
    """Whisper as faster-whisper runs it: told the language and the beam size, everything else at its defaults."""

    def __init__(self, model: Any, name: str, beam_size: int) -> None:
        self.name = name
        self._model = model
        self._beam_size = beam_size

    def transcribe(self, path: Path) -> Heard:
        """Transcribe one file; segments are joined by spaces."""
        started = time.perf_counter()
        segments, info = self._model.transcribe(str(path), language=LANGUAGE, beam_size=self._beam_size)
        text = " ".join(segment.text.strip() for segment in segments)  # a generator: here the work is done
        return Heard(text, time.perf_counter() - started, float(info.duration))


def check_peer(config: EvaluateConfig) -> None:
    """See that the flags of a peer fit together.

    Raises:
        UsageError: a peer without a model, settings of a peer without one, or a beam of no hypothesis.
    """
    if config.peer is None:
        given = [f"--{name}" for name in ("peer_model", "peer_name") if getattr(config, name) is not None]
        if given:
            raise UsageError(f"{', '.join(given)} without --peer; name the peer, such as --peer faster-whisper")
        return
    if config.peer_model is None:
        raise UsageError(
            f"--peer {config.peer} needs --peer_model: a CTranslate2 folder (with {WEIGHTS_FILE}), a size such as base, or "
            "a hub id"
        )
    if config.peer_beam_size < 1:
        raise UsageError(f"--peer_beam_size is {config.peer_beam_size}; expected 1 (greedy) or more")


def load_peer(model: str, *, name: str | None, beam_size: int, threads: int) -> Candidate:
    """Load a Whisper model into faster-whisper, on the CPU in int8.

    Args:
        model: CTranslate2 folder, size of Whisper, or hub id (downloaded once, into the hub's cache).
        name: for reports (default: the folder's or the id's).
        beam_size: hypotheses that are followed.
        threads: as many as ours has.

    Raises:
        MissingExtraError: faster-whisper is not installed.
        UsageError: no such folder or size.
        HubUnreachableError: the model is not here and the hub does not answer.
        BundleCorruptError: the folder's files cannot be loaded.
    """
    try:
        package = importlib.import_module("faster_whisper")
    except ModuleNotFoundError as error:
        raise MissingExtraError("peers", error.name or "faster_whisper") from error
    folder = _find_folder(package, model)
    try:
        loaded = package.WhisperModel(str(folder), device="cpu", compute_type=COMPUTE_TYPE, cpu_threads=threads)
    except (RuntimeError, ValueError, OSError) as error:
        raise BundleCorruptError(
            f"faster-whisper cannot load {folder}: {error}; convert or download it again"
        ) from error
    description = {
        "name": name or Path(model).name,
        "backend": f"faster-whisper {package.__version__}",
        "precision": f"{COMPUTE_TYPE}, beam size {beam_size}",
        "source": model,
        "weights_sha256": hash_file(folder / WEIGHTS_FILE),
    }
    return Candidate(FasterWhisper(loaded, description["name"], beam_size), description)


def _find_folder(package: Any, model: str) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / WEIGHTS_FILE).is_file():
            raise UsageError(
                f"{folder} holds no {WEIGHTS_FILE}; give a CTranslate2 folder, such as ct2-transformers-converter writes"
            )
        return folder
    sizes = package.available_models()
    if model not in sizes and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        raise UsageError(
            f"there is no folder {model}, and it is no size of Whisper and no hub id; sizes are: {', '.join(sizes)}"
        )
    try:
        return Path(package.download_model(model))
    except Exception as error:  # whatever the transport of this version of the hub's client raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise HubUnreachableError(
            f"the hub does not give out the peer's model {model!r} ({reason}) and the cache does not hold it; "
            "check the network, or give a local CTranslate2 folder with --peer_model"
        ) from error
