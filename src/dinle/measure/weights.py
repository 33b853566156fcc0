"""The files that hold a model's weights: how large they are on disk, how the weights are stored, and their hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.config import Backend
from dinle.errors import BundleCorruptError, UsageError
from dinle.measure.config import EnginePeer
from dinle.recognize.bundle import BUNDLE_FILE, find_default_bundle, hash_file, read_bundle
from dinle.recognize.load import PRECISIONS, choose_backend
from dinle.run import shorten_path

if TYPE_CHECKING:
    from collections.abc import Sequence


_TYPE_NAMES = {"F16": "fp16", "F32": "fp32", "F64": "fp64", "I8": "int8"}


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk, as one backend uses it.

    Attributes:
        name: for people.
        backend: the engine that runs it.
        source: what :func:`dinle.load` takes: a folder.
        files: the weights' files; no tokenisers, no optimiser states.
        stored_as: number types of the weights on disk, such as ``fp16``; of a graph its precision.
        language_model: whether its bundle's language model has a say in the text, where it has one.
    """

    name: str
    backend: Backend | EnginePeer
    source: str
    files: tuple[Path, ...]
    stored_as: str
    language_model: bool = True

    @property
    def size_bytes(self) -> int:
        """Bytes on disk; links, of which the Hugging Face cache is made, are followed to the real files."""
        return sum(file.resolve().stat().st_size for file in self.files)

    def compute_hash(self) -> str:
        """SHA-256 of the weights; of several files, of their hashes in the order of their names."""
        hashes = [hash_file(file) for file in self.files]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def find_model_files(model: str | Path | None, backend: Backend) -> ModelFiles:
    """Find the files that ``dinle.load(model, backend=backend)`` would read.

    Args:
        model: bundle folder, checkpoint folder or hub id (downloaded or found in the cache); None: the bundled model.
        backend: decides which of a bundle's files count.

    Raises:
        UsageError: the bundle holds no torch checkpoint.
        BundleError, HubUnreachableError: see :func:`dinle.load`.
    """
    if backend == "pytorch":
        return _find_checkpoint_files(model)
    bundle = read_bundle(model if model is not None else find_default_bundle(), verify=False)
    backend = choose_backend(bundle) if backend == "auto" else backend
    precision = PRECISIONS[backend]
    return ModelFiles(bundle.name, backend, shorten_path(bundle.folder), bundle.paths(precision), precision)


def _find_checkpoint_files(model: str | Path | None) -> ModelFiles:
    from dinle.build.model_source import find_model_folder, list_weight_files

    if model is not None and not (Path(model) / BUNDLE_FILE).is_file():
        name, folder = str(model), find_model_folder(str(model))
        name = Path(model).name if Path(model).is_dir() else name
    else:
        bundle = read_bundle(model if model is not None else find_default_bundle(), verify=False)
        if bundle.checkpoint_dir is None:
            raise UsageError(
                f"the bundle {bundle.name} at {bundle.folder} holds no torch checkpoint; give the checkpoint's folder or "
                "hub id, or use another backend"
            )
        name, folder = bundle.name, bundle.checkpoint_dir
    files = tuple(sorted(set(list_weight_files(folder).values())))
    return ModelFiles(name, "pytorch", shorten_path(Path(folder)), files, read_stored_types(files))


def read_stored_types(files: Sequence[Path]) -> str:
    """Number types of safetensors files, the most frequent first: ``fp16``, or ``fp16 + fp32`` where they are mixed.

    The header is 8 bytes of length and then JSON: https://huggingface.co/docs/safetensors/index#format

    Raises:
        BundleCorruptError: a file is cut or is not safetensors.
    """
    bytes_of: dict[str, int] = {}
    for path in files:
        for tensor in _read_header(path):
            start, end = tensor["data_offsets"]
            bytes_of[tensor["dtype"]] = bytes_of.get(tensor["dtype"], 0) + end - start
    ranked = sorted(bytes_of, key=lambda name: -bytes_of[name])
    return " + ".join(_TYPE_NAMES.get(name, name.casefold()) for name in ranked)


def _read_header(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise BundleCorruptError(f"{path} is not a safetensors file, or is cut; copy or save the model again")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise BundleCorruptError(f"{path} is not a safetensors file: {error}; save the model again") from error
    return [tensor for name, tensor in header.items() if name != "__metadata__"]
