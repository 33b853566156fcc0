"""Checkpoint -> bundle: one ONNX graph per the contract, proved against torch before it is called a bundle."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from dinle.build.config import ExportConfig, QuantizeConfig
from dinle.build.models import CtcModel, load_model
from dinle.build.parity import ParityReport, check_parity, load_parity_clips, run_alone
from dinle.build.provenance import describe_weights, read_provenance
from dinle.build.quantize import INT8_FILE, QUANTIZE_RUN_FILE, quantize
from dinle.errors import ExportError
from dinle.progress import progress
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.bundle import BUNDLE_FILE, Bundle, write_bundle
from dinle.recognize.engine import OnnxEngine
from dinle.run import write_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

FP32_FILE = "model.onnx"
EXPORT_RUN_FILE = "run_export.json"
MAX_GRAPH_BYTES = 2_000_000_000  # a protobuf message, and so an ONNX file, ends at 2 GiB
NOISY_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def export(config: ExportConfig) -> Bundle:
    """Export a checkpoint to a bundle: ``model.onnx``, ``bundle.json``, ``run_export.json``, and int8 if asked for.

    The graph takes waveform (B, S) and lengths (B,) and gives log_probs (B, T, V) and frames (B,), for any B and S. It is
    compared with torch before anything in ``onnx_dir`` changes: a failed export leaves the folder as it was.

    Weights name their origin in ``provenance.json`` beside them (a list of objects with what, name, source, licence),
    which becomes the bundle's provenance; ``licence`` and ``source`` of the config add to it.

    Raises:
        ParityError: ONNX and torch disagree, or a row of a batch depends on its neighbours.
        ExportError: torch cannot export the model, or the graph would not fit into one file.
        QualityGateError, BundleError: from the quantize stage.
        BundleNotFoundError, BundleCorruptError, HubUnreachableError, UsageError: see
            :func:`dinle.build.models.load_model`.
    """
    started = time.perf_counter()
    model = load_model(config.checkpoint_dir)
    _check_size(model, config.checkpoint_dir)
    provenance = _read_provenance(config)
    config.onnx_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=config.onnx_dir) as workspace:
        graph = Path(workspace) / FP32_FILE
        report = _write_checked_graph(model, graph, config)
        _clear_bundle(config.onnx_dir)
        shutil.move(graph, config.onnx_dir / FP32_FILE)
    bundle = write_bundle(_describe_bundle(model, config, provenance))
    write_run(
        config.onnx_dir,
        stage="export",
        config=config,
        seconds=time.perf_counter() - started,
        inputs=_list_inputs(config.checkpoint_dir),
        results={"parity": dataclasses.asdict(report), "bytes": bundle.path("fp32").stat().st_size},
        name=EXPORT_RUN_FILE,
    )
    return quantize(QuantizeConfig(bundle_dir=config.onnx_dir)) if config.int8 else bundle


def _write_checked_graph(model: CtcModel, graph: Path, config: ExportConfig) -> ParityReport:
    clips = load_parity_clips(config.parity_audio, max_seconds=model.max_seconds)
    # before prepare_for_export, so that what it changes is compared too
    reference = run_alone(_ModuleEngine(model), clips)
    with progress("exporting to ONNX"):
        write_graph(model, graph, opset=config.opset)
    with progress("comparing ONNX with torch"):
        return check_parity(OnnxEngine(graph), reference, clips, model.vocabulary)


def write_graph(model: CtcModel, path: Path, *, opset: int = 18) -> None:
    """Write a model as one ONNX file with dynamic batch and samples. Prepares the model in place.

    The exporter is torch.export's: it fails on what depends on values instead of baking the example in, and it is the one
    that torch keeps. It needs 10 to 50 s of one core, nearly all for symbolic shapes; the TorchScript exporter gives an
    equally fast graph in 1 to 7 s, but torch announces its removal.

    Raises:
        ExportError: torch cannot export the model.
    """
    model.prepare_for_export()
    # two rows of different lengths: sizes of 0 and 1 would be taken for constants
    lengths = torch.tensor([SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * 3 // 4])
    waveform = torch.randn(2, SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(1)) * 0.1
    dynamic_shapes = {"waveform": {0: "batch", 1: "samples"}, "lengths": {0: "batch"}}
    try:
        with torch.no_grad(), _quiet_exporter():
            torch.onnx.export(
                model,
                (waveform, lengths),
                path,
                input_names=["waveform", "lengths"],
                output_names=["log_probs", "frames"],
                opset_version=opset,
                dynamic_shapes=dynamic_shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises classes of torch.export, torch.onnx, onnxscript and sympy
        raise ExportError(
            f"torch {torch.__version__} cannot export this {model.family} model to ONNX opset {opset}: {error}"
        ) from error
    _strip_notes(path)


def _strip_notes(path: Path) -> None:
    """Take out what the exporter notes of each node: the source lines, with this machine's folders, that made it."""
    model = onnx.load(path)
    noted = (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer)
    for part in (*noted, *model.graph.input, *model.graph.output, *model.functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter says about its own code and about torchvision; its errors come through."""
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [noisy.level for noisy in loggers]
    for noisy in loggers:
        noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13 uses its own deprecated class while it copies a program
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated", category=FutureWarning)
            # both inputs name their batch axis, which torch takes for one name too many
            warnings.filterwarnings("ignore", message="# The axis name: batch will not be used", category=UserWarning)
            yield
    finally:
        for noisy, level in zip(loggers, levels, strict=True):
            noisy.setLevel(level)


class _ModuleEngine:
    """A loaded model behind the engine protocol."""

    def __init__(self, model: CtcModel) -> None:
        self._model = model.eval()

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        with torch.inference_mode():
            log_probs, frames = self._model(torch.from_numpy(waveforms), torch.from_numpy(lengths))
        return log_probs.numpy(), frames.numpy()


def _check_size(model: CtcModel, checkpoint: str) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > MAX_GRAPH_BYTES:
        raise ExportError(
            f"{checkpoint} has {size / 1e9:.1f} GB of fp32 weights; a bundle's graph is one ONNX file, which ends at 2 GB: "
            "choose a model of at most 500 million parameters"
        )


def _clear_bundle(folder: Path) -> None:
    """Remove what an earlier export left: its int8 graph belongs to other weights."""
    for name in (BUNDLE_FILE, EXPORT_RUN_FILE, QUANTIZE_RUN_FILE, FP32_FILE, INT8_FILE):
        (folder / name).unlink(missing_ok=True)


def _describe_bundle(model: CtcModel, config: ExportConfig, provenance: tuple[Mapping[str, str], ...]) -> Bundle:
    folder, checkpoint = config.onnx_dir.resolve(), Path(config.checkpoint_dir).resolve()
    return Bundle(
        folder=config.onnx_dir,
        name=config.name or folder.name,
        family=model.family,
        files={"fp32": FP32_FILE},
        vocabulary=model.vocabulary,
        sample_rate_hz=SAMPLE_RATE_HZ,
        frame_shift_s=model.frame_shift_s,
        frame_offset_s=model.frame_offset_s,
        max_seconds=model.max_seconds,
        provenance=provenance,
        # only weights inside the bundle travel with it
        checkpoint=checkpoint.relative_to(folder).as_posix() if folder in checkpoint.parents else None,
    )


def _read_provenance(config: ExportConfig) -> tuple[Mapping[str, str], ...]:
    origins = read_provenance(config.checkpoint_dir)
    if not origins or config.licence or config.source:
        origins.append(describe_weights(config.checkpoint_dir, source=config.source, licence=config.licence))
    return tuple(origins)


def _list_inputs(checkpoint: str) -> dict[str, Path]:
    folder = Path(checkpoint)
    return {path.name: path for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])}
