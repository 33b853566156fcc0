"""Stage 5: model and manifest -> ``predictions.jsonl``, then ``scores.json``, ``report.md`` and plots from that file."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.errors import DatasetError
from dinle.manifest import find_manifest, read_manifest
from dinle.measure.predictions import PREDICTIONS_FILE, Prediction, read_predictions, write_predictions
from dinle.measure.report import write_evaluation_report
from dinle.measure.scores import compute_scores
from dinle.measure.weights import find_model_files
from dinle.measure.wer import RESAMPLES
from dinle.progress import track
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.load import load
from dinle.run import describe_machine, write_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dinle.manifest import Clip
    from dinle.measure.config import EvaluateConfig
    from dinle.recognize.recognizer import Recognizer

logger = logging.getLogger(__name__)

SCORES_FILE = "scores.json"


def evaluate(config: EvaluateConfig) -> Path:
    """Transcribe every clip of a manifest and score the result.

    A clip that cannot be read or recognised is kept with its error and counts as an empty hypothesis.

    Returns:
        The folder with ``predictions.jsonl``, ``scores.json``, ``report.md``, ``*.png`` and, last, ``run.json``.

    Raises:
        ManifestError: the manifest is empty or wrong, or names missing files.
        DatasetError: every clip failed.
        DinleError: the model cannot be loaded.
    """
    started = time.monotonic()
    manifest = find_manifest(config.manifest)
    clips = read_manifest(manifest, split=config.split)
    threads = config.threads if config.threads is not None else os.cpu_count()
    recognizer = load(config.model, backend=config.backend, threads=threads)
    files = find_model_files(config.model, config.backend)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    (config.output_dir / "run.json").unlink(missing_ok=True)
    predictions_path = config.output_dir / PREDICTIONS_FILE
    write_predictions(predictions_path, transcribe_clips(recognizer, clips, manifest.parent))
    details = {
        "model": {
            "name": files.name,
            "backend": files.backend,
            "precision": "fp32" if files.backend == "pytorch" else files.stored_as,
            "source": files.source,
            "weights_sha256": files.compute_hash(),
        },
        "data": {"manifest": str(manifest), "split": config.split},
        "threads": threads,
        "machine": describe_machine(),
    }
    scores = score_predictions(predictions_path, samples=config.bootstrap_samples, seed=config.seed, details=details)
    results = {"clips": scores["clips"], "failed": scores["failed"], "rtfx": scores["rtfx"]}
    results |= {
        f"{unit}_{name}": scores["scores"][name][unit]["rate"] for name in scores["scores"] for unit in ("wer", "cer")
    }
    write_run(
        config.output_dir,
        stage="evaluate",
        config=config,
        seconds=time.monotonic() - started,
        inputs={"manifest": manifest, "predictions": predictions_path},
        results=results,
    )
    return config.output_dir


def transcribe_clips(recognizer: Recognizer, clips: Sequence[Clip], root: Path) -> Iterator[Prediction]:
    """Transcribe clips one after the other, with a progress bar.

    Args:
        recognizer: the system to measure; warmed up first, so that the first clip costs what the others do.
        clips: at least one.
        root: folder that clips are named relative to.

    Raises:
        DatasetError: at the end, when every clip failed.
    """
    _warm_up(recognizer)
    errors = []
    names: dict[str, int] = {}
    for clip in track(clips, f"transcribing with {recognizer.name}"):
        name = clip.audio.relative_to(root).as_posix() if clip.audio.is_relative_to(root) else clip.audio.as_posix()
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:  # the same recording twice, perhaps with two references
            name = f"{name}#{names[name]}"
        prediction = _transcribe_clip(recognizer, clip, name)
        if prediction.error is not None:
            errors.append(f"{name}: {prediction.error}")
            logger.warning("not recognised, counted as empty: %s", errors[-1])
        yield prediction
    if len(errors) == len(clips):
        raise DatasetError(f"all {len(clips)} clips failed; the first: {errors[0]}; there is nothing to score")


def score_predictions(
    path: Path, *, samples: int = RESAMPLES, seed: int = 1, details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Score a ``predictions.jsonl`` of this or of another system; writes scores, report and plots beside it.

    Args:
        path: the file, or the folder that holds it.
        samples: bootstrap resamples of each interval.
        seed: of the resampling.
        details: what is known besides the predictions (``model, data, threads, machine``), kept in ``scores.json``.

    Returns:
        What ``scores.json`` holds: ``details`` and :func:`dinle.measure.scores.compute_scores`.

    Raises:
        ManifestError: the file is missing, empty or wrong.
        UsageError: fewer than one resample.
    """
    path = path / PREDICTIONS_FILE if path.is_dir() else path
    predictions = read_predictions(path)
    scores = {**(details or {}), **compute_scores(predictions, samples=samples, seed=seed)}
    (path.parent / SCORES_FILE).write_text(json.dumps(scores, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_evaluation_report(path.parent, scores, predictions)
    return scores


def _warm_up(recognizer: Recognizer) -> None:
    """One second of faint noise (silence would not reach the engine)."""
    noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE_HZ).astype(np.float32)
    recognizer.transcribe(noise)


def _transcribe_clip(recognizer: Recognizer, clip: Clip, name: str) -> Prediction:
    duration_s, inference_s, hypothesis, failure = clip.duration_s, 0.0, "", None
    try:
        transcript = recognizer.transcribe(clip.audio)
    except Exception as error:  # noqa: BLE001 - one clip, whatever is wrong with it, must not end the evaluation
        failure = f"{type(error).__name__}: {error}"
    else:
        duration_s, inference_s, hypothesis = transcript.duration_s, transcript.inference_s, transcript.text
    return Prediction(name, clip.text, hypothesis, str(clip.audio), duration_s, inference_s, clip.speaker, failure)
