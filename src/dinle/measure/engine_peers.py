"""Peers of our int8: other ways from the same fp32 graph to an int8 model, as their documentation shows them.

``openvino-nncf``: quantised by NNCF with its defaults for transformers, run by OpenVINO with its defaults for latency; their
packages are the extra ``peers``. ``ort-dynamic``: matrix products in int8 by onnxruntime's ``quantize_dynamic``, run with its
defaults: the classic recipe.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from dinle.errors import DinleError, MissingExtraError, UsageError
from dinle.measure.weights import ModelFiles
from dinle.recognize.bundle import Bundle, read_bundle, write_bundle
from dinle.recognize.load import make_recognizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from dinle.measure.config import EnginePeer
    from dinle.recognize.recognizer import Recognizer

NNCF, DYNAMIC = "openvino-nncf", "ort-dynamic"
FILES: Mapping[str, tuple[str, ...]] = {NNCF: ("model_nncf.xml", "model_nncf.bin"), DYNAMIC: ("model_dynamic.onnx",)}
PACKAGES: Mapping[str, tuple[str, str]] = {NNCF: ("peers", "nncf"), DYNAMIC: ("train", "onnx")}  # extra and package
STORED_AS = "int8"


class PlainOnnxEngine:
    """A graph as onnxruntime runs it by itself; see :class:`dinle.recognize.engine.Engine`."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See :class:`dinle.recognize.engine.Engine`."""
        log_probs, frames = self._session.run(["log_probs", "frames"], {"waveform": waveforms, "lengths": lengths})
        return log_probs, frames


class PlainOpenVinoEngine:
    """A model as OpenVINO runs it by itself; see :class:`dinle.recognize.engine.Engine`."""

    def __init__(self, path: Path, threads: int) -> None:
        openvino = _import("openvino")
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        self._request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See :class:`dinle.recognize.engine.Engine`."""
        self._request.infer({"waveform": waveforms, "lengths": lengths})
        log_probs, frames = (np.array(self._request.get_tensor(name).data) for name in ("log_probs", "frames"))
        return log_probs, frames


ENGINES: Mapping[str, type[PlainOnnxEngine | PlainOpenVinoEngine]] = {
    NNCF: PlainOpenVinoEngine,
    DYNAMIC: PlainOnnxEngine,
}


def quantize_plainly(source: str | Path, peer: EnginePeer, folder: Path) -> ModelFiles:
    """Quantise a bundle's fp32 graph as a peer does, in a process of its own; NNCF on the speech of our calibration.

    Args:
        source: the bundle.
        peer: ``openvino-nncf`` or ``ort-dynamic``.
        folder: the peer's model is written here.

    Raises:
        MissingExtraError: a package of the peer is not installed.
        UsageError: not a CTC model, or the process failed; the message ends with its last line.
        PrecisionUnavailableError: the bundle has no fp32 graph.
    """
    extra, package = PACKAGES[peer]
    if find_spec(package) is None:
        raise MissingExtraError(extra, package)
    bundle = read_bundle(source, verify=False)
    bundle.paths("fp32")
    if bundle.engine != "ctc":
        raise UsageError(f"{bundle.name} is a Whisper model; the peer {peer} runs CTC models")
    folder.mkdir(parents=True, exist_ok=True)
    request = json.dumps({"bundle": str(bundle.folder), "peer": peer, "target": str(folder / FILES[peer][0])})
    command = [sys.executable, "-P", "-m", "dinle.measure.engine_peers", request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise UsageError(f"{peer} did not quantise {bundle.name}: {last}")
    files = {STORED_AS: FILES[peer]}
    alone = replace(bundle, folder=folder, files=files, gate={}, choices={}, checkpoint=None, language_model=None)
    made = write_bundle(alone)
    return ModelFiles(bundle.name, peer, str(folder), made.paths(STORED_AS), STORED_AS)


def open_plain(folder: str | Path, peer: EnginePeer, threads: int) -> Recognizer:
    """A peer's model behind our decoder, so that what is timed differs in the engine alone.

    Raises:
        MissingExtraError: a package of the peer is not installed.
        BundleError: not what :func:`quantize_plainly` wrote.
    """
    bundle = read_bundle(folder)
    return make_recognizer(ENGINES[peer](bundle.paths(STORED_AS)[0], threads), bundle, bundle.name)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("peers", error.name or name) from error


def _quantize_with_nncf(bundle: Bundle, target: str) -> None:
    openvino, nncf = _import("openvino"), _import("nncf")
    calibration, build = (importlib.import_module(f"dinle.build.{name}") for name in ("calibration", "config"))
    files = calibration.find_calibration_files(build.QuantizeConfig(bundle_dir=bundle.folder))
    if not files:
        raise UsageError("there is no speech to calibrate on: run it from the source checkout, which holds data/mini")
    feeds = list(calibration.make_feeds(files, bundle))
    model = openvino.convert_model(str(bundle.paths("fp32")[0]))
    kind = nncf.ModelType.TRANSFORMER
    smaller = nncf.quantize(model, nncf.Dataset(feeds), model_type=kind, subset_size=len(feeds))
    openvino.save_model(smaller, target)


def _quantize_dynamically(bundle: Bundle, target: str) -> None:
    quantization = importlib.import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(
        str(bundle.paths("fp32")[0]), target, op_types_to_quantize=["MatMul"], weight_type=quantization.QuantType.QInt8
    )


def main() -> int:
    """Answer the request in the first argument."""
    request = json.loads(sys.argv[1])
    quantize = _quantize_with_nncf if request["peer"] == NNCF else _quantize_dynamically
    try:
        quantize(read_bundle(request["bundle"], verify=False), request["target"])
    except DinleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
