"""A peer of our int8: OpenVINO with NNCF's post-training quantisation, as their documentation shows it.

The fp32 graph of the same bundle is converted and quantised with NNCF's defaults for transformers, and run with OpenVINO's
defaults for latency. Their packages are the extra ``peers``.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dinle.errors import DinleError, MissingExtraError, UsageError
from dinle.measure.weights import ModelFiles
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.load import make_recognizer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from dinle.recognize.recognizer import Recognizer

NNCF: Literal["openvino-nncf"] = "openvino-nncf"
FILES = ("model_nncf.xml", "model_nncf.bin")
STORED_AS = "int8_nncf"


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


def quantize_plainly(source: str | Path, folder: Path) -> ModelFiles:
    """Quantise a bundle's fp32 graph with NNCF, in a process of its own, on the speech that ours is calibrated on.

    Args:
        source: the bundle.
        folder: the peer's model is written here.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
        UsageError: not a CTC model, or the process failed; the message ends with its last line.
        PrecisionUnavailableError: the bundle has no fp32 graph.
    """
    for package in ("openvino", "nncf"):
        if find_spec(package) is None:
            raise MissingExtraError("peers", package)
    bundle = read_bundle(source, verify=False)
    bundle.paths("fp32")
    if bundle.engine != "ctc":
        raise UsageError(f"{bundle.name} is a Whisper model; the peer {NNCF} runs CTC models")
    request = json.dumps({"bundle": str(bundle.folder), "target": str(folder / FILES[0])})
    command = [sys.executable, "-P", "-m", "dinle.measure.openvino_peer", request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise UsageError(f"NNCF did not quantise {bundle.name}: {last}")
    peer = write_bundle(replace(bundle, folder=folder, files={STORED_AS: FILES}, gate={}, choices={}, checkpoint=None))
    return ModelFiles(bundle.name, NNCF, str(folder), peer.paths(STORED_AS), STORED_AS)


def open_plain(folder: str | Path, threads: int) -> Recognizer:
    """The peer's model behind our decoder, so that what is timed differs in the engine alone.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BundleError: not what :func:`quantize_plainly` wrote.
    """
    bundle = read_bundle(folder)
    return make_recognizer(PlainOpenVinoEngine(bundle.paths(STORED_AS)[0], threads), bundle, bundle.name)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("peers", error.name or name) from error


def _quantize(request: dict[str, str]) -> None:
    """What :func:`quantize_plainly` asks for, in this process."""
    openvino, nncf = _import("openvino"), _import("nncf")
    calibration, build = (importlib.import_module(f"dinle.build.{name}") for name in ("calibration", "config"))
    bundle = read_bundle(request["bundle"], verify=False)
    files = calibration.find_calibration_files(build.QuantizeConfig(bundle_dir=bundle.folder))
    if not files:
        raise UsageError("there is no speech to calibrate on: run it from the source checkout, which holds data/mini")
    feeds = list(calibration.make_feeds(files, bundle))
    model = openvino.convert_model(str(bundle.paths("fp32")[0]))
    kind = nncf.ModelType.TRANSFORMER
    smaller = nncf.quantize(model, nncf.Dataset(feeds), model_type=kind, subset_size=len(feeds))
    openvino.save_model(smaller, request["target"])


def main() -> int:
    """Answer the request in the first argument."""
    try:
        _quantize(json.loads(sys.argv[1]))
    except DinleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
