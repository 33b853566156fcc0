"""The models that a benchmark compares: found, named and opened."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from dinle.errors import UsageError
from dinle.measure.engine_peers import DYNAMIC, ENGINES, NNCF, open_plain
from dinle.measure.weights import ModelFiles, find_model_files
from dinle.recognize.bundle import BUNDLE_FILE, Bundle, find_default_bundle, read_bundle
from dinle.recognize.load import PRECISIONS, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dinle.config import Backend
    from dinle.measure.config import BenchmarkConfig, EnginePeer
    from dinle.recognize.recognizer import Recognizer

LABELS: Mapping[str, str] = {
    "pytorch": "PyTorch fp32",
    "onnx": "ONNX fp32",
    "onnx_int8": "ONNX INT8",
    "onnx_int4": "ONNX INT4",
    "openvino": "OpenVINO INT8",
    NNCF: "plain OpenVINO + NNCF",
    DYNAMIC: "classic dynamic INT8",
}
ORDER: tuple[Backend, ...] = ("pytorch", "onnx", "onnx_int8", "onnx_int4", "openvino")


def find_models(config: BenchmarkConfig) -> list[ModelFiles]:
    """The models to compare, slowest kind first; the first is the baseline of the speed-ups.

    With ``precisions``: those of the bundle ``model``. Without any in the config: those of the bundled model whose files and
    libraries are here.

    Raises:
        UsageError: a graph that is not what its flag says.
        BundleError, HubUnreachableError: a model cannot be found.
    """
    models = []
    if config.checkpoint_dir is not None:
        models.append(find_model_files(config.checkpoint_dir, "pytorch"))
    if config.onnx_path is not None:
        models.append(_find_graph(config.onnx_path, "onnx"))
    if config.onnx_int8_path is not None:
        models.append(_find_graph(config.onnx_int8_path, "onnx_int8"))
    if config.precisions:
        models += _find_precisions(config)
    return [replace(model, language_model=config.language_model) for model in models or _find_bundled_models()]


def _find_graph(path: Path, backend: Backend) -> ModelFiles:
    """A bundle's graph, given as its file or as the bundle's folder."""
    if path.is_dir():
        return find_model_files(path, backend)
    if not path.is_file():
        raise UsageError(f"there is no graph {path}; give model.onnx or model_int8.onnx inside a bundle")
    if not (path.parent / BUNDLE_FILE).is_file():
        raise UsageError(
            f"{path} has no {BUNDLE_FILE} beside it, which names its vocabulary; make a bundle with dinle export"
        )
    bundle = read_bundle(path.parent, verify=False)
    precision = PRECISIONS[backend]
    if path.name not in bundle.files.get(precision, ()):
        known = ", ".join(f"{' and '.join(files)} ({name})" for name, files in bundle.files.items())
        raise UsageError(f"{path} is not the {precision} graph of its bundle, which holds {known}")
    return find_model_files(path.parent, backend)


def _find_bundled_models() -> list[ModelFiles]:
    bundle = read_bundle(find_default_bundle(), verify=False)
    backends: list[Backend] = []
    if bundle.checkpoint_dir is not None and find_spec("torch") is not None:
        backends.append("pytorch")
    backends += [backend for backend in ("onnx", "onnx_int8") if PRECISIONS[backend] in bundle.files]
    return [find_model_files(bundle.folder, backend) for backend in backends]


def _find_precisions(config: BenchmarkConfig) -> list[ModelFiles]:
    """The backends that are asked for and not given by a path; with ``all`` those that can run here."""
    bundle = read_bundle(config.model if config.model is not None else find_default_bundle(), verify=False)
    given = {"pytorch": config.checkpoint_dir, "onnx": config.onnx_path, "onnx_int8": config.onnx_int8_path}
    everything = "all" in config.precisions
    wanted = [each for each in ORDER if (_can_run(bundle, each) if everything else each in config.precisions)]
    return [find_model_files(bundle.folder, backend) for backend in wanted if given.get(backend) is None]


def _can_run(bundle: Bundle, backend: Backend) -> bool:
    if backend == "pytorch":
        return bundle.checkpoint_dir is not None and find_spec("torch") is not None
    if backend == "openvino" and find_spec("openvino") is None:
        return False
    return bundle.has(PRECISIONS[backend])


def open_model(source: str, backend: Backend | EnginePeer, threads: int, *, language_model: bool = True) -> Recognizer:
    """A recogniser of ours, or a peer's model of the same network behind our decoder, which has no language model.

    Raises:
        UsageError, BundleError, MissingExtraError: see :func:`dinle.load`.
    """
    if backend in ENGINES:
        return open_plain(source, cast("EnginePeer", backend), threads)
    return load(source, backend=cast("Backend", backend), threads=threads, language_model=language_model)
