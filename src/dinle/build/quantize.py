"""Bundle -> ``model_int8.onnx``, ``model_int8_qdq.onnx`` or ``model_int4.onnx`` in it, behind a quality gate."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

from dinle.build.calibration import find_calibration_files, make_feeds
from dinle.build.dynamic_int8 import write_dynamic_int8
from dinle.build.gate import Verdict, judge
from dinle.build.qdq_int8 import write_qdq_int8
from dinle.build.static_int8 import write_static_int8
from dinle.errors import PrecisionUnavailableError, QualityGateError, UsageError
from dinle.manifest import find_manifest
from dinle.progress import progress
from dinle.recognize.bundle import Bundle, read_bundle, write_bundle
from dinle.run import write_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dinle.build.config import QuantizeConfig

logger = logging.getLogger(__name__)

QUANTIZE_RUN_FILE = "run_quantize.json"
PRECISIONS = {
    "static": "int8",
    "dynamic": "int8",
    "qdq": "int8_qdq",
    "int4": "int4",
}  # preset to the precision that it makes


def quantize(config: QuantizeConfig) -> Bundle:
    """Add an int8 graph, or one with weights of 4 bits, to a bundle and judge it (in onnxruntime).

    With a manifest the gate compares it with fp32 on that: ``passed`` or ``refused``, with figures, goes into
    ``bundle.json``. A refused graph stays on the disk to be looked at, but the recogniser does not load it. Without a
    manifest the gate says ``unmeasured``. With ``drop_fp32`` a graph that was not refused becomes the bundle's only one and
    ``model.onnx`` is deleted: a bundle to ship.

    Raises:
        PrecisionUnavailableError: the bundle has no fp32 graph.
        QualityGateError: the gate refused the graph.
        UsageError: a preset of CTC models for a Whisper model, or nothing to calibrate it on.
        BundleError, ManifestError, AudioError: from reading the bundle, the manifest and its clips.
    """
    started = time.perf_counter()
    bundle, precision = read_bundle(config.bundle_dir), PRECISIONS[config.preset]
    sources = bundle.paths("fp32")
    targets = [bundle.folder / name_graph(source.name, precision) for source in sources]
    inputs = {source.name: source for source in sources}
    inputs |= {"manifest": find_manifest(config.manifest)} if config.manifest else {}
    partials = [target.with_suffix(".partial") for target in targets]
    try:
        preset = write_graphs(bundle, sources, partials, config)
        verdict = _judge(bundle, partials, config)
        for partial, target in zip(partials, targets, strict=True):
            partial.replace(target)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    gate = verdict.to_dict() if verdict else {"status": "unmeasured"}
    files = {**bundle.files, precision: tuple(target.name for target in targets)}
    bundle = write_bundle(dataclasses.replace(bundle, files=files, gate={**bundle.gate, precision: gate}))
    write_run(
        bundle.folder,
        stage="quantize",
        config=config,
        seconds=time.perf_counter() - started,
        inputs=inputs,
        results={"gate": gate, "preset": preset, "bytes": {"fp32": sum_bytes(sources), precision: sum_bytes(targets)}},
        name=QUANTIZE_RUN_FILE,
    )
    if verdict and verdict.refused:
        raise QualityGateError(
            f"{verdict.describe()}: the {precision} graph of {bundle.name} is marked as refused and will not be loaded; "
            "serve fp32 (backend onnx), judge on more clips, try other settings (preset, calibration), or allow more "
            "(max_wer_loss)"
        )
    return drop_precision(bundle, "fp32") if config.drop_fp32 else bundle


def write_graphs(bundle: Bundle, sources: Sequence[Path], targets: Sequence[Path], config: QuantizeConfig) -> str:
    """Write the smaller graph of each fp32 graph; what was done: ``static``, ``dynamic``, ``qdq`` or ``int4``.

    A decoder is quantised dynamically in any case: its products are of a few rows, and cost reading the weights.

    Raises:
        UsageError: a preset of CTC models for a Whisper model, or nothing to calibrate such a preset on.
        ManifestError, AudioError: from the speech to calibrate on.
    """
    preset = config.preset
    for_ctc = preset in ("qdq", "int4")
    if for_ctc and bundle.engine != "ctc":
        raise UsageError(
            f"{bundle.name} is a Whisper model: the preset {preset} is for CTC models; choose static or dynamic"
        )
    files = find_calibration_files(config) if preset != "dynamic" else []
    if preset != "dynamic" and not files:
        if for_ctc:
            raise UsageError(
                f"the preset {preset} needs speech to measure activations on: give a folder with --calibration"
            )
        logger.warning(
            "no speech to measure activations on (--calibration FOLDER): scales are taken at run time instead"
        )
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        with progress(f"quantising {source.name} to {PRECISIONS[preset]}"):
            if files and number == 0:
                _write_calibrated(source, target, make_feeds(files, bundle), config)
            else:
                write_dynamic_int8(source, target, per_channel=config.per_channel, reduce_range=config.reduce_range)
    return preset if files else "dynamic"


def _write_calibrated(
    source: Path, target: Path, feeds: Iterator[dict[str, NDArray[Any]]], config: QuantizeConfig
) -> None:
    if config.preset == "qdq":
        write_qdq_int8(source, target, feeds, reduce_range=config.reduce_range, threads=config.threads)
        return
    int4 = config.preset == "int4"
    write_static_int8(source, target, feeds, reduce_range=config.reduce_range, int4=int4, threads=config.threads)


def name_graph(name: str, precision: str) -> str:
    """The file name of a graph in another precision: ``model.onnx -> model_int8.onnx``."""
    return f"{name.removesuffix('.onnx')}_{precision}.onnx"


def sum_bytes(paths: Iterable[Path]) -> int:
    """Bytes of files together."""
    return sum(path.stat().st_size for path in paths)


def _judge(bundle: Bundle, graphs: Sequence[Path], config: QuantizeConfig) -> Verdict | None:
    if config.manifest is None:
        logger.info("no manifest was given: the loss is not measured")
        return None
    verdict = judge(
        bundle,
        graphs,
        config.manifest,
        precision=PRECISIONS[config.preset],
        split=config.split,
        max_wer_loss=config.max_wer_loss,
        threads=config.threads,
    )
    if verdict.inconclusive and not verdict.refused:
        logger.warning("the gate passes, but: %s", verdict.describe())
    return verdict


def drop_precision(bundle: Bundle, precision: str) -> Bundle:
    """Take a graph out of a bundle and delete its file, for a bundle to ship.

    Raises:
        PrecisionUnavailableError: the bundle has no such graph, or no other that may be loaded.
    """
    paths = bundle.paths(precision)
    files = {name: file for name, file in bundle.files.items() if name != precision}
    usable = [name for name in files if bundle.gate.get(name, {}).get("status") != "refused"]
    if not usable:
        raise PrecisionUnavailableError(
            f"{precision} is the only usable graph of {bundle.name}; make another precision before dropping it"
        )
    gate = {name: verdict for name, verdict in bundle.gate.items() if name != precision}
    bundle = write_bundle(dataclasses.replace(bundle, files=files, gate=gate))
    for path in paths:
        if path.name not in bundle.file_names:  # a graph may serve two precisions
            path.unlink()
    return bundle
