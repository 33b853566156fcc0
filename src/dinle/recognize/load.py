"""A model's name -> a recogniser that is ready to run."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dinle.errors import BundleCorruptError, MissingExtraError, PrecisionUnavailableError, UsageError
from dinle.recognize.bundle import BUNDLE_FILE, Bundle, find_default_bundle, read_bundle
from dinle.recognize.corrections import WordCorrections
from dinle.recognize.cpu import find_cpu_kind
from dinle.recognize.engine import Engine, OnnxEngine
from dinle.recognize.language_model import read_language_model
from dinle.recognize.openvino_engine import OpenVinoEngine
from dinle.recognize.recognizer import BACKENDS, CtcRecognizer, Recognizer
from dinle.recognize.whisper import WhisperRecognizer, WindowRules
from dinle.recognize.whisper_engine import OnnxWhisperEngine
from dinle.recognize.whisper_vocabulary import WhisperVocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.config import Backend

MAX_THREADS = 1024  # onnxruntime starts all that it is asked for; a machine with more is not known
PRECISIONS = {"onnx_int8": "int8", "onnx_int4": "int4", "onnx": "fp32", "openvino": "int8_qdq"}
WITHOUT_CHOICE: tuple[Backend, ...] = ("onnx_int8", "onnx", "onnx_int4", "openvino")  # onnxruntime is always here
MAX_WINDOW_S = 30.0  # what Whisper has positions for
GRAPHS = {"ctc": 1, "whisper": 2}


def load(
    model: str | Path | None = None,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
    language_model: bool = True,
) -> Recognizer:
    """Load a model.

    Args:
        model: a bundle folder; for ``pytorch`` also a checkpoint folder or a hub id. ``None``: the bundled model.
        backend: ``auto`` (see :func:`choose_backend`), ``onnx_int8``, ``onnx_int4``, ``onnx``, ``openvino`` (needs the extra
            ``openvino``) or ``pytorch`` (needs the extra ``train``).
        threads: threads of the engine (default: all cores).
        language_model: whether the bundle's language model has a say in the text, where it has one.

    Raises:
        UsageError: an unknown backend, or fewer than one thread or more than any machine has.
        BundleNotFoundError, BundleCorruptError, PrecisionUnavailableError: see :mod:`dinle.recognize.bundle`.
        MissingExtraError: a backend whose package is not installed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads is {threads}; expected 1 to {MAX_THREADS}")
    if backend == "pytorch":
        return _load_torch(model, threads)
    bundle = read_bundle(model if model is not None else find_default_bundle())
    backend = choose_backend(bundle) if backend == "auto" else backend
    engine = open_engine(bundle, backend, threads)
    recognizer = make_recognizer(engine, bundle, bundle.name, backend=backend)
    if language_model:
        recognizer.language_model = read_language_model(bundle)
    return recognizer


def choose_backend(bundle: Bundle) -> Backend:
    """The backend that was measured to be the best on this kind of processor (``dinle benchmark --precisions all``).

    Where nothing was measured: int8 in onnxruntime, or what the bundle has instead. What the bundle lacks, what its quality
    gate refused and what is not installed is passed over.

    Raises:
        PrecisionUnavailableError: the bundle has nothing that can be loaded.
    """
    measured = bundle.choices.get(find_cpu_kind(), {}).get("backends", [])
    for backend in (*(each for each in measured if each in PRECISIONS), *WITHOUT_CHOICE):
        if bundle.has(PRECISIONS[backend]) and (backend != "openvino" or find_spec("openvino") is not None):
            return cast("Backend", backend)
    raise PrecisionUnavailableError(
        f"the bundle {bundle.name} at {bundle.folder} has no graph that can be loaded here, only "
        f"{', '.join(bundle.files) or 'none'}: make one with dinle export and dinle quantize"
    )


def _load_torch(model: str | Path | None, threads: int | None) -> Recognizer:
    name, checkpoint = _find_checkpoint(model)
    try:
        torch_engine = importlib.import_module("dinle.build.torch_engine")
    except ModuleNotFoundError as error:
        raise MissingExtraError("train", error.name or "torch") from error
    engine = torch_engine.open_torch_engine(checkpoint, threads)
    return make_recognizer(engine, engine, name, backend="pytorch")


def _find_checkpoint(model: str | Path | None) -> tuple[str, str]:
    """Name of the model, and folder or hub id of its torch weights."""
    if model is not None and not (Path(model) / BUNDLE_FILE).is_file():
        return Path(model).name, str(model)
    bundle = read_bundle(model if model is not None else find_default_bundle(), verify=False)
    if bundle.checkpoint_dir is None:
        raise UsageError(
            f"the bundle {bundle.name} at {bundle.folder} holds no torch checkpoint; "
            "give the checkpoint's folder or hub id, or use the backend auto"
        )
    return bundle.name, str(bundle.checkpoint_dir)


def make_recognizer(engine: Any, geometry: Bundle | Any, name: str, *, backend: Backend | None = None) -> Recognizer:
    """A recogniser around an engine, with the vocabulary and the geometry of its bundle or torch engine."""
    recognizer = _make_recognizer(engine, geometry, name)
    recognizer.backend = backend
    if isinstance(geometry, Bundle):
        recognizer.bundle, recognizer.corrections = geometry, WordCorrections.of_bundle(geometry)
    return recognizer


def _make_recognizer(engine: Any, geometry: Bundle | Any, name: str) -> Recognizer:
    if isinstance(geometry.vocabulary, WhisperVocabulary):
        window = WindowRules(
            min_s=geometry.min_window_s,
            tail_s=geometry.tail_s,
            max_s=geometry.max_seconds or MAX_WINDOW_S,
            frame_shift_s=geometry.frame_shift_s,
            sentence_min_s=getattr(geometry, "sentence_window_s", 0.0),
            sentence_tail_s=getattr(geometry, "sentence_tail_s", 0.0),
        )
        return WhisperRecognizer(engine, geometry.vocabulary, name=name, window=window)
    return CtcRecognizer(
        engine,
        geometry.vocabulary,
        name=name,
        frame_shift_s=geometry.frame_shift_s,
        frame_offset_s=geometry.frame_offset_s,
        max_seconds=geometry.max_seconds,
        speech_only=getattr(geometry, "speech_only", True),
    )


def open_engine(bundle: Bundle, backend: Backend, threads: int | None) -> Engine | OnnxWhisperEngine:
    """The engine of a backend, with the bundle's graphs for it.

    Raises:
        UsageError: OpenVINO for a Whisper model.
        BundleCorruptError, PrecisionUnavailableError: see :mod:`dinle.recognize.bundle`.
        MissingExtraError: OpenVINO is not installed.
    """
    if backend != "openvino":
        return open_graphs(bundle, bundle.paths(PRECISIONS[backend]), threads)
    if bundle.engine != "ctc":
        raise UsageError(f"{bundle.name} is a Whisper model: the backend openvino runs CTC models; choose onnx_int8")
    paths = bundle.paths(PRECISIONS[backend])
    _check_count(bundle, paths)
    return OpenVinoEngine(paths[0], threads)


def open_graphs(bundle: Bundle, paths: Sequence[Path], threads: int | None) -> Engine | OnnxWhisperEngine:
    """The engine that a bundle names, with these graphs, in onnxruntime.

    Raises:
        BundleCorruptError: their number is not the engine's, or they cannot be read.
    """
    _check_count(bundle, paths)
    if bundle.engine == "whisper":
        return OnnxWhisperEngine(paths[0], paths[1], threads)
    return OnnxEngine(paths[0], threads)


def _check_count(bundle: Bundle, paths: Sequence[Path]) -> None:
    count = GRAPHS[bundle.engine]
    if len(paths) != count:
        raise BundleCorruptError(
            f"the bundle {bundle.name} at {bundle.folder} has {len(paths)} graphs for one precision; its engine "
            f"{bundle.engine} takes {count}: export it again"
        )
