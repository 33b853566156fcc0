"""CTC graphs in OpenVINO, the optional engine: faster than onnxruntime on some processors."""

from __future__ import annotations

import importlib
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.errors import BundleCorruptError, MissingExtraError
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.engine import check_port_names

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# OpenVINO prepares itself anew for every length that it has not seen (0.15 s for wav2vec2-base): few lengths, few times.
LENGTH_STEP = SAMPLE_RATE_HZ // 2


class OpenVinoEngine:
    """An ONNX graph with the bundle's contract, see :class:`dinle.recognize.engine.Engine`, in OpenVINO on the CPU.

    Sound is padded to the next half second; the graph's masks keep the padding from being heard. Where the processor has
    bfloat16, OpenVINO uses it for what is not int8.

    Args:
        path: the ``.onnx`` file; int8 in the QDQ form is what it is fast with.
        threads: threads of one run (default: all cores); as many runs go side by side as the cores hold.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BundleCorruptError: OpenVINO cannot read the file, or its inputs or outputs are not the contract's.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        try:
            openvino = importlib.import_module("openvino")
        except ModuleNotFoundError as error:
            raise MissingExtraError("openvino", error.name or "openvino") from error
        cores = os.cpu_count() or 1
        each = threads or cores
        streams = max(1, cores // each)
        # All cores are taken in any case: OpenVINO pins its threads, which is a tenth faster, and from the first core on.
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": streams * each}
        settings |= {"NUM_STREAMS": streams} if streams > 1 else {"PERFORMANCE_HINT": "LATENCY"}
        try:
            self._model = openvino.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:  # RuntimeError, and others by version
            raise BundleCorruptError(f"OpenVINO cannot read {path}: {error}; quantise the model again") from error
        ports = [[port.any_name for port in ports] for ports in (self._model.inputs, self._model.outputs)]
        check_port_names(ports, path, ["waveform", "lengths"], ["log_probs", "frames"])
        self._requests = threading.local()

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See :class:`dinle.recognize.engine.Engine`."""
        padding = -waveforms.shape[1] % LENGTH_STEP
        padded = np.pad(waveforms, ((0, 0), (0, padding)))
        request = self._take_request()
        request.infer({"waveform": padded, "lengths": lengths})
        log_probs, frames = (np.array(request.get_tensor(name).data) for name in ("log_probs", "frames"))
        return log_probs[:, : int(frames.max())], frames

    def _take_request(self) -> Any:
        """This thread's request: one holds the buffers of one run."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._model.create_infer_request()
        return self._requests.own
