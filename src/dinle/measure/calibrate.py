"""Fits a bundle's confidence map on some clips, judges it on others and writes it into ``bundle.json``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.errors import UsageError
from dinle.manifest import read_manifest
from dinle.markdown import format_rate
from dinle.measure.calibration import (
    JudgedWords,
    compare_ece,
    fit_map,
    judge_words,
    map_words,
    pool_words,
    summarize_calibration,
)
from dinle.measure.systems import list_confidences
from dinle.progress import track
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.corrections import ConfidenceMap
from dinle.recognize.load import load
from dinle.run import shorten_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dinle.manifest import Clip
    from dinle.measure.config import CalibrateConfig
    from dinle.recognize.recognizer import Recognizer

Judged = list[JudgedWords]


def calibrate(config: CalibrateConfig) -> dict[str, Any]:
    """Fit the map of a bundle's confidences, and write it there unless ``write`` is off.

    A map that does not surely help (the 95 % interval of the change of the ECE holds zero) is not written: the bundle then has
    none, and confidence stays the model's own.

    Returns:
        ``model, backend, slope, intercept, fitted_on`` (``manifests, clips, words``), and ``judged_on``: manifest to ``before``
        and ``after`` (see :func:`dinle.measure.calibration.summarize_calibration`) and ``change`` of the ECE, each of clips
        that did not fit; ``change`` on all such clips of ``manifest``, and whether it ``helps``. All with 95 % intervals.

    Raises:
        UsageError: ``fit_every`` leaves no clip to judge on, or no word is recognised in the clips that fit or judge.
        ManifestError, AudioError: a manifest or a clip is wrong.
        BundleError: the bundle cannot be read.
    """
    if config.fit_every < 2:  # noqa: PLR2004 - one would leave none
        raise UsageError(f"fit_every is {config.fit_every}; expected 2 or more, so that clips are left to judge on")
    clips = {manifest: read_manifest(manifest) for manifest in (*config.manifest, *config.judge_manifest)}
    recognizer = load(config.bundle_dir, backend=config.backend, threads=config.threads or os.cpu_count())
    recognizer.corrections = replace(recognizer.corrections, confidence=ConfidenceMap())
    heard = {manifest: hear_clips(recognizer, each) for manifest, each in clips.items()}
    fitting = [one for manifest in config.manifest for one in heard[manifest][:: config.fit_every]]
    words = pool_words(fitting)
    fitted = fit_map(words)
    others = [one for manifest in config.manifest for one in choose_judges(manifest, heard[manifest], config)]
    change = judge_map(others, fitted, config)["change"]
    report: dict[str, Any] = {
        "model": recognizer.name,
        "backend": recognizer.backend,
        "slope": fitted.slope,
        "intercept": fitted.intercept,
        "fitted_on": {
            "manifests": [shorten_path(manifest) for manifest in config.manifest],
            "clips": len(fitting),
            "words": len(words.right),
        },
        "judged_on": {
            shorten_path(manifest): judge_map(choose_judges(manifest, each, config), fitted, config)
            for manifest, each in heard.items()
        },
        "change": change,
        "helps": change["interval"][1] < 0,
    }
    if config.write:
        write_map(config.bundle_dir, report)
    return report


def hear_clips(recognizer: Recognizer, clips: Sequence[Clip]) -> Judged:
    """The judged words of each clip; a clip whose words are not what white space parts has none."""
    judged = []
    for clip in track(clips, f"transcribing with {recognizer.name}"):
        transcript = recognizer.transcribe(clip.audio)
        confidences = list_confidences(transcript)
        words = transcript.text.split() if confidences is not None else []
        judged.append(judge_words(clip.text, words, confidences or ()))
    return judged


def choose_judges(manifest: Path, heard: Judged, config: CalibrateConfig) -> Judged:
    """Of a manifest's clips those that the map was not fitted on."""
    if manifest not in config.manifest:
        return heard
    return [one for number, one in enumerate(heard) if number % config.fit_every]


def judge_map(clips: Judged, fitted: ConfidenceMap, config: CalibrateConfig) -> dict[str, Any]:
    """What a map does to clips that it was not fitted on: ``before, after, change``.

    Raises:
        UsageError: no word is recognised in them.
    """
    mapped = [map_words(one, fitted) for one in clips]
    before, after = (
        summarize_calibration(each, samples=config.bootstrap_samples, seed=config.seed) for each in (clips, mapped)
    )
    if before is None:
        raise UsageError(f"no word is recognised in the {len(clips)} clips that judge the map; give clips with speech")
    change = compare_ece(clips, mapped, samples=config.bootstrap_samples, seed=config.seed)
    return {"before": before, "after": after, "change": change}


def write_map(folder: Path, report: Mapping[str, Any]) -> None:
    """Put the map and what it was measured to do into ``bundle.json``; no map where it does not help."""
    judged = {
        manifest: {
            "words": one["before"]["words"],
            "ece_before": one["before"]["ece"],
            "ece_after": one["after"]["ece"],
        }
        for manifest, one in report["judged_on"].items()
    }
    kept = {key: report[key] for key in ("slope", "intercept", "backend", "fitted_on")}
    found = {**kept, "judged_on": judged} if report["helps"] else None
    write_bundle(replace(read_bundle(folder), confidence_map=found))


def render_calibration(report: Mapping[str, Any]) -> Table:
    """The figures as a table for the terminal."""
    fitted = report["fitted_on"]
    title = (
        f"{report['model']}: slope {report['slope']:g}, intercept {report['intercept']:g}, "
        f"fitted on {fitted['words']} words of {fitted['clips']} clips"
    )
    caption = "the map helps" if report["helps"] else "the map does not surely help: confidence is best left as it is"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in (
        "judged on other clips of",
        "words",
        "right",
        "ECE before [95 %]",
        "ECE after [95 %]",
        "change [95 %]",
    ):
        table.add_column(name, justify="left" if "other" in name else "right")
    for manifest, one in report["judged_on"].items():
        low, high = one["change"]["interval"]
        table.add_row(
            manifest,
            str(one["before"]["words"]),
            f"{100 * one['before']['accuracy']:.1f} %",
            format_rate(one["before"]["ece"]),
            format_rate(one["after"]["ece"]),
            f"{100 * one['change']['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points",
        )
    return table
