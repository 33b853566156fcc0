"""Checkpoint -> bundle: one ONNX graph per the contract, proved against torch before it is called a bundle."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dinle.build.config import ExportConfig, QuantizeConfig
from dinle.build.hf_files import read_json
from dinle.build.model_source import find_model_folder
from dinle.build.models import CtcModel, load_model
from dinle.build.onnx_writer import write_onnx
from dinle.build.parity import (
    ROW_TOLERANCE,
    TEXT_ROW_TOLERANCE,
    ParityReport,
    check_parity,
    load_parity_clips,
    read_text,
    run_alone,
)
from dinle.build.provenance import describe_weights, read_provenance
from dinle.build.quantize import PRECISIONS, QUANTIZE_RUN_FILE, name_graph, quantize
from dinle.build.whisper_export import (
    DECODER_FILE,
    ENCODER_FILE,
    TorchWhisperEngine,
    WhisperParityEngine,
    make_vocabulary,
    write_whisper_graphs,
)
from dinle.build.whisper_model import MODEL_TYPE as WHISPER
from dinle.build.whisper_model import WhisperSpeechModel, load_whisper
from dinle.errors import ExportError, UsageError
from dinle.progress import progress
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.bundle import BUNDLE_FILE, Bundle, write_bundle
from dinle.recognize.engine import OnnxEngine
from dinle.recognize.vocabulary import Vocabulary
from dinle.recognize.whisper_engine import OnnxWhisperEngine
from dinle.run import write_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from dinle.recognize.engine import Engine

logger = logging.getLogger(__name__)

FP32_FILE = "model.onnx"
EXPORT_RUN_FILE = "run_export.json"
MAX_SENTENCE_WINDOW_S = 15.0  # half of what a Whisper encoder takes
MAX_GRAPH_BYTES = 2_000_000_000  # a protobuf message, and so an ONNX file, ends at 2 GiB


def export(config: ExportConfig) -> Bundle:
    """Export a checkpoint to a bundle: ``model.onnx``, ``bundle.json``, ``run_export.json``, and int8 if asked for.

    A CTC model's graph takes waveform (B, S) and lengths (B,) and gives log_probs (B, T, V) and frames (B,), for any B and
    S; a Whisper model becomes an encoder and a decoder. They are compared with torch before anything in ``onnx_dir``
    changes: a failed export leaves the folder as it was.

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
    _check_windows(config)
    model = load_for_export(config.checkpoint_dir)
    _check_size(model, config.checkpoint_dir)
    provenance = _read_provenance(config)
    config.onnx_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=config.onnx_dir) as name:
        workspace = Path(name)
        report = _write_checked_graphs(model, workspace, config)
        graphs = sorted(path.name for path in workspace.glob("*.onnx"))
        _clear_bundle(config.onnx_dir)
        for graph in graphs:
            shutil.move(workspace / graph, config.onnx_dir / graph)
    bundle = write_bundle(_describe_bundle(model, config, provenance))
    write_run(
        config.onnx_dir,
        stage="export",
        config=config,
        seconds=time.perf_counter() - started,
        inputs=_list_inputs(config.checkpoint_dir),
        results={
            "parity": dataclasses.asdict(report),
            "bytes": sum(path.stat().st_size for path in bundle.paths("fp32")),
        },
        name=EXPORT_RUN_FILE,
    )
    return quantize(QuantizeConfig(bundle_dir=config.onnx_dir)) if config.int8 else bundle


def load_for_export(checkpoint: str) -> CtcModel | WhisperSpeechModel:
    """A CTC model, or a whole Whisper model where the checkpoint is one."""
    if read_json(find_model_folder(checkpoint) / "config.json").get("model_type") == WHISPER:
        return load_whisper(checkpoint)
    return load_model(checkpoint)


def _write_checked_graphs(model: CtcModel | WhisperSpeechModel, folder: Path, config: ExportConfig) -> ParityReport:
    clips = load_parity_clips(config.parity_audio, max_seconds=model.max_seconds)
    engine: Engine
    if isinstance(model, WhisperSpeechModel):
        vocabulary = make_vocabulary(model)
        reference = run_alone(WhisperParityEngine(TorchWhisperEngine(model), vocabulary), clips)
        with progress("exporting encoder and decoder to ONNX"):
            write_whisper_graphs(model, folder, opset=config.opset)
        graphs = OnnxWhisperEngine(folder / ENCODER_FILE, folder / DECODER_FILE)
        engine, read, tolerance = WhisperParityEngine(graphs, vocabulary), None, TEXT_ROW_TOLERANCE
    else:
        # before prepare_for_export, so that what it changes is compared too
        reference = run_alone(_ModuleEngine(model), clips)
        with progress("exporting to ONNX"):
            write_graph(model, folder / FP32_FILE, opset=config.opset)
        engine, read = OnnxEngine(folder / FP32_FILE), partial(read_text, vocabulary=model.vocabulary)
        tolerance = ROW_TOLERANCE
    with progress("comparing ONNX with torch"):
        return check_parity(engine, reference, clips, read, row_tolerance=tolerance)


def write_graph(model: CtcModel, path: Path, *, opset: int = 18) -> None:
    """Write a model as one ONNX file with dynamic batch and samples. Prepares the model in place.

    Raises:
        ExportError: torch cannot export the model.
    """
    model.prepare_for_export()
    # two rows of different lengths: sizes of 0 and 1 would be taken for constants
    lengths = torch.tensor([SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * 3 // 4])
    waveform = torch.randn(2, SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(1)) * 0.1
    write_onnx(
        model,
        (waveform, lengths),
        path,
        inputs={"waveform": {0: "batch", 1: "samples"}, "lengths": {0: "batch"}},
        outputs=["log_probs", "frames"],
        opset=opset,
    )


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


def _check_size(model: torch.nn.Module, checkpoint: str) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > MAX_GRAPH_BYTES:
        raise ExportError(
            f"{checkpoint} has {size / 1e9:.1f} GB of fp32 weights; a bundle's graph is one ONNX file, which ends at 2 GB: "
            "choose a model of at most 500 million parameters"
        )


def _clear_bundle(folder: Path) -> None:
    """Remove what an earlier export left: its smaller graphs belong to other weights."""
    for name in (BUNDLE_FILE, EXPORT_RUN_FILE, QUANTIZE_RUN_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in (FP32_FILE, ENCODER_FILE, DECODER_FILE):
        (folder / name).unlink(missing_ok=True)
        for precision in PRECISIONS.values():
            (folder / name_graph(name, precision)).unlink(missing_ok=True)


def _check_windows(config: ExportConfig) -> None:
    for name in ("sentence_window_s", "sentence_tail_s"):
        seconds = getattr(config, name)
        if not 0 <= seconds <= MAX_SENTENCE_WINDOW_S:
            raise UsageError(f"{name} is {seconds:g}; expected 0 to {MAX_SENTENCE_WINDOW_S:g} seconds")


def _describe_bundle(
    model: CtcModel | WhisperSpeechModel, config: ExportConfig, provenance: tuple[Mapping[str, str], ...]
) -> Bundle:
    folder, checkpoint = config.onnx_dir.resolve(), Path(config.checkpoint_dir).resolve()
    bundle = Bundle(
        folder=config.onnx_dir,
        name=config.name or folder.name,
        family=model.family,
        files={"fp32": (FP32_FILE,)},
        vocabulary=Vocabulary.turkish(),
        sample_rate_hz=SAMPLE_RATE_HZ,
        frame_shift_s=model.frame_shift_s,
        provenance=provenance,
        # only weights inside the bundle travel with it
        checkpoint=checkpoint.relative_to(folder).as_posix() if folder in checkpoint.parents else None,
    )
    if isinstance(model, WhisperSpeechModel):
        return dataclasses.replace(
            bundle,
            engine="whisper",
            files={"fp32": (ENCODER_FILE, DECODER_FILE)},
            vocabulary=make_vocabulary(model),
            max_seconds=model.max_seconds + model.tail_silence_s,
            min_window_s=model.min_window_s,
            tail_s=model.tail_silence_s,
            sentence_window_s=config.sentence_window_s,
            sentence_tail_s=config.sentence_tail_s,
            text_rules="written",
        )
    return dataclasses.replace(
        bundle,
        vocabulary=model.vocabulary,
        frame_offset_s=model.frame_offset_s,
        max_seconds=model.max_seconds,
    )


def _read_provenance(config: ExportConfig) -> tuple[Mapping[str, str], ...]:
    origins = read_provenance(config.checkpoint_dir)
    if not origins or config.licence or config.source:
        origins.append(describe_weights(config.checkpoint_dir, source=config.source, licence=config.licence))
    return tuple(origins)


def _list_inputs(checkpoint: str) -> dict[str, Path]:
    folder = Path(checkpoint)
    return {path.name: path for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])}
