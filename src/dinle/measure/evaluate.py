"""Stage 5: model and manifest -> ``predictions.jsonl``, then ``scores.json``, ``report.md`` and plots from that file."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from dinle.hot_word_lists import read_hot_words_file
from dinle.manifest import read_manifest
from dinle.measure.compare import compare
from dinle.measure.config import CompareConfig
from dinle.measure.dataset import check_data, find_data
from dinle.measure.diff_page import check_page, remove_diff_page, write_diff_page
from dinle.measure.peers import check_peer, load_peer
from dinle.measure.predictions import PREDICTIONS_FILE, read_predictions, write_side_by_side
from dinle.measure.report import write_evaluation_report
from dinle.measure.scores import SCORES_FILE, compute_scores
from dinle.measure.speed import compare_speed
from dinle.measure.systems import load_candidate
from dinle.measure.turns import transcribe_in_turns
from dinle.measure.wer import RESAMPLES
from dinle.run import describe_machine, write_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dinle.measure.config import EvaluateConfig
    from dinle.measure.systems import Candidate

PEER_FOLDER = "peer"
COMPARISON_FOLDER = "comparison"


def evaluate(config: EvaluateConfig) -> Path:
    """Transcribe every clip of a manifest or a dataset and score the result; with a peer, it does the same in turns with ours.

    A clip that cannot be read or recognised is kept with its error and counts as an empty hypothesis.

    Returns:
        The folder with ``predictions.jsonl``, ``scores.json``, ``report.md``, ``*.png`` and, last, ``run.json``; with
        ``html`` also ``diff/``; with a peer also ``peer/`` (the same of the peer) and ``comparison/`` (ours against it); with
        a dataset ``data/``.

    Raises:
        UsageError: flags that do not fit together.
        ManifestError: the manifest is empty or wrong, or names missing files.
        DatasetError: every clip failed, or the dataset cannot be read.
        HubUnreachableError: the dataset or the peer's model is on the hub, and the hub does not answer.
        MissingExtraError: a dataset without the extra ``train``, or a peer without the extra ``peers``.
        DinleError: the model cannot be loaded.
    """
    started = time.monotonic()
    check_data(config)
    check_peer(config)
    check_page(config)
    threads = config.threads if config.threads is not None else os.cpu_count() or 1
    candidates = _load_candidates(config, threads)
    folders = [config.output_dir, config.output_dir / PEER_FOLDER][: len(candidates)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").unlink(missing_ok=True)
        remove_diff_page(folder)
    manifest, data = find_data(config)
    clips = read_manifest(manifest, split=config.split if config.dataset is None else None)
    answers = transcribe_in_turns([one.system for one in candidates], clips, manifest.parent)
    write_side_by_side([folder / PREDICTIONS_FILE for folder in folders], answers)
    conditions = {"data": data, "threads": threads, "machine": describe_machine()}
    if config.peer is not None:
        _score_candidate(folders[1], {"model": candidates[1].model, **conditions}, config, manifest, started)
        conditions |= {"peer": candidates[1].model, "speed": _measure_speed(folders, config)}
    _score_candidate(folders[0], {"model": candidates[0].model, **conditions}, config, manifest, started)
    return config.output_dir


def _load_candidates(config: EvaluateConfig, threads: int) -> list[Candidate]:
    words = read_hot_words_file(config.hotwords_file, "--hotwords_file") if config.hotwords_file is not None else ()
    candidates = [
        load_candidate(config.model, config.backend, threads, language_model=config.language_model, hot_words=words)
    ]
    if config.peer is not None and config.peer_model is not None:
        peer = load_peer(config.peer_model, name=config.peer_name, beam_size=config.peer_beam_size, threads=threads)
        candidates.append(peer)
    return candidates


def _measure_speed(folders: list[Path], config: EvaluateConfig) -> list[dict[str, Any]]:
    own, peer = (read_predictions(folder) for folder in folders)
    return compare_speed(own, peer, samples=config.bootstrap_samples, seed=config.seed)


def _score_candidate(
    folder: Path, details: Mapping[str, Any], config: EvaluateConfig, manifest: Path, started: float
) -> None:
    """Score one system's predictions, compare them with the peer's where they are ours, and say that it is finished."""
    predictions = folder / PREDICTIONS_FILE
    scores = score_predictions(predictions, samples=config.bootstrap_samples, seed=config.seed, details=details)
    if "peer" in details:
        _compare_with_peer(folder, config)
    if config.html:
        write_diff_page(folder, scores, read_predictions(predictions), audio=config.html_audio)
    results = {name: scores[name] for name in ("clips", "failed", "rtfx")}
    results |= {
        f"{measure}_{text}": scores["scores"][text][measure]["rate"]
        for text in scores["scores"]
        for measure in ("wer", "cer", "exact")
    }
    write_run(
        folder,
        stage="evaluate",
        config=config,
        seconds=time.monotonic() - started,
        inputs={"manifest": manifest, "predictions": predictions},
        results=results,
    )


def _compare_with_peer(folder: Path, config: EvaluateConfig) -> None:
    compare(
        CompareConfig(
            baseline=folder / PEER_FOLDER,
            candidate=folder,
            output_dir=folder / COMPARISON_FOLDER,
            bootstrap_samples=config.bootstrap_samples,
            seed=config.seed,
        )
    )


def score_predictions(
    path: Path, *, samples: int = RESAMPLES, seed: int = 1, details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Score a ``predictions.jsonl`` of this or of another system; writes scores, report and plots beside it.

    Args:
        path: the file, or the folder that holds it.
        samples: bootstrap resamples of each interval.
        seed: of the resampling.
        details: what is known besides the predictions (``model, data, threads, machine``, and of a peer ``peer, speed``), kept in
            ``scores.json``.

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
