"""A model's name -> a recogniser that is ready to run."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import BundleCorruptError, MissingExtraError, UsageError
from dinle.recognize.bundle import BUNDLE_FILE, Bundle, find_default_bundle, read_bundle
from dinle.recognize.engine import OnnxEngine
from dinle.recognize.recognizer import BACKENDS, CtcRecognizer, Recognizer
from dinle.recognize.whisper import WhisperRecognizer, WindowRules
from dinle.recognize.whisper_engine import OnnxWhisperEngine
from dinle.recognize.whisper_vocabulary import WhisperVocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.config import Backend

MAX_THREADS = 1024  # onnxruntime starts all that it is asked for; a machine with more is not known
PRECISIONS = {"onnx_int8": "int8", "onnx_int4": "int4", "onnx": "fp32"}
MAX_WINDOW_S = 30.0  # what Whisper has positions for
GRAPHS = {"ctc": 1, "whisper": 2}


def load(model: str | Path | None = None, *, backend: Backend = "onnx_int8", threads: int | None = None) -> Recognizer:
    """Load a model.

    Args:
        model: a bundle folder; for ``pytorch`` also a checkpoint folder or a hub id. ``None``: the bundled model.
        backend: ``onnx_int8``, ``onnx_int4``, ``onnx`` or ``pytorch`` (needs the extra ``train``).
        threads: threads of the engine (default: all cores).

    Raises:
        UsageError: an unknown backend, or fewer than one thread or more than any machine has.
        BundleNotFoundError, BundleCorruptError, PrecisionUnavailableError: see :mod:`dinle.recognize.bundle`.
        MissingExtraError: the backend ``pytorch`` without torch.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads is {threads}; expected 1 to {MAX_THREADS}")
    if backend == "pytorch":
        return _load_torch(model, threads)
    bundle = read_bundle(model if model is not None else find_default_bundle())
    return make_recognizer(open_engine(bundle, PRECISIONS[backend], threads), bundle, bundle.name)


def _load_torch(model: str | Path | None, threads: int | None) -> Recognizer:
    name, checkpoint = _find_checkpoint(model)
    try:
        torch_engine = importlib.import_module("dinle.build.torch_engine")
    except ModuleNotFoundError as error:
        raise MissingExtraError("train", error.name or "torch") from error
    engine = torch_engine.open_torch_engine(checkpoint, threads)
    return make_recognizer(engine, engine, name)


def _find_checkpoint(model: str | Path | None) -> tuple[str, str]:
    """Name of the model, and folder or hub id of its torch weights."""
    if model is not None and not (Path(model) / BUNDLE_FILE).is_file():
        return Path(model).name, str(model)
    bundle = read_bundle(model if model is not None else find_default_bundle(), verify=False)
    if bundle.checkpoint_dir is None:
        raise UsageError(
            f"the bundle {bundle.name} at {bundle.folder} holds no torch checkpoint; "
            "give the checkpoint's folder or hub id, or use the backend onnx_int8"
        )
    return bundle.name, str(bundle.checkpoint_dir)


def make_recognizer(engine: Any, geometry: Bundle | Any, name: str) -> Recognizer:
    """A recogniser around an engine, with the vocabulary and the geometry of its bundle or torch engine."""
    if isinstance(geometry.vocabulary, WhisperVocabulary):
        window = WindowRules(
            min_s=geometry.min_window_s,
            tail_s=geometry.tail_s,
            max_s=geometry.max_seconds or MAX_WINDOW_S,
            frame_shift_s=geometry.frame_shift_s,
        )
        return WhisperRecognizer(engine, geometry.vocabulary, name=name, window=window)
    return CtcRecognizer(
        engine,
        geometry.vocabulary,
        name=name,
        frame_shift_s=geometry.frame_shift_s,
        frame_offset_s=geometry.frame_offset_s,
        max_seconds=geometry.max_seconds,
    )


def open_engine(bundle: Bundle, precision: str, threads: int | None) -> OnnxEngine | OnnxWhisperEngine:
    """The engine that a bundle names, with the graphs of one precision.

    Raises:
        BundleCorruptError, PrecisionUnavailableError: see :mod:`dinle.recognize.bundle`.
    """
    return open_graphs(bundle, bundle.paths(precision), threads)


def open_graphs(bundle: Bundle, paths: Sequence[Path], threads: int | None) -> OnnxEngine | OnnxWhisperEngine:
    """The engine that a bundle names, with these graphs.

    Raises:
        BundleCorruptError: their number is not the engine's, or they cannot be read.
    """
    count = GRAPHS[bundle.engine]
    if len(paths) != count:
        raise BundleCorruptError(
            f"the bundle {bundle.name} at {bundle.folder} has {len(paths)} graphs for one precision; its engine "
            f"{bundle.engine} takes {count}: export it again"
        )
    if bundle.engine == "whisper":
        return OnnxWhisperEngine(paths[0], paths[1], threads)
    return OnnxEngine(paths[0], threads)
