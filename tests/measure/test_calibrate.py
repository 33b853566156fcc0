"""The command: a map fitted on some clips, judged on others, written into the bundle, and applied when it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dinle
from dinle.errors import UsageError
from dinle.measure.calibrate import calibrate, render_calibration
from dinle.measure.config import CalibrateConfig
from dinle.recognize.bundle import read_bundle
from dinle.recognize.corrections import ConfidenceMap, WordCorrections
from tests.graphs import write_level_bundle
from tests.measure.speech import write_speech

if TYPE_CHECKING:
    from pathlib import Path

# The level bundle is sure of all it reads; half of it is wrong here.
TEXTS = {str(number): ("bir kuş", "bir kaz") for number in range(12)}


@pytest.fixture
def config(tmp_path: Path) -> CalibrateConfig:
    manifest = write_speech(tmp_path / "data", TEXTS)
    model = write_level_bundle(tmp_path / "model").folder
    return CalibrateConfig((manifest,), model, threads=1, bootstrap_samples=20)


def test_a_fitted_map_is_written_and_applied(config: CalibrateConfig) -> None:
    sound = config.manifest[0].parent / "0.wav"
    raw = dinle.load(config.bundle_dir, threads=1).transcribe(sound)
    report = calibrate(config)
    assert (report["fitted_on"]["clips"], report["fitted_on"]["words"]) == (4, 8)
    (judged,) = report["judged_on"].values()
    assert judged["before"]["words"] == 16
    assert judged["before"]["ece"]["rate"] > 0.3
    assert judged["after"]["ece"]["rate"] < 0.1
    recognizer = dinle.load(config.bundle_dir, threads=1)
    assert recognizer.corrections.confidence == ConfidenceMap(report["slope"], report["intercept"])
    heard = recognizer.transcribe(sound)
    assert heard.text == raw.text
    for before, after in zip(raw.words, heard.words, strict=True):
        assert after.confidence == pytest.approx(recognizer.corrections.confidence.apply(before.confidence))
        assert after.confidence == pytest.approx(0.5, abs=0.1)
    assert str(report["fitted_on"]["words"]) in str(render_calibration(report).title)


def test_a_map_that_does_not_help_is_not_written(config: CalibrateConfig, tmp_path: Path) -> None:
    calibrate(config)
    right = write_speech(tmp_path / "right", dict.fromkeys(TEXTS, ("bir kuş", "bir kuş")))
    report = calibrate(CalibrateConfig((right,), config.bundle_dir, threads=1, bootstrap_samples=20))
    assert not report["helps"]
    assert read_bundle(config.bundle_dir).confidence_map is None


def test_fitting_again_starts_from_the_models_own_confidence(config: CalibrateConfig) -> None:
    assert calibrate(config) == calibrate(config)


def test_without_writing_the_bundle_stays_as_it_is(config: CalibrateConfig) -> None:
    before = (config.bundle_dir / "bundle.json").read_bytes()
    calibrate(CalibrateConfig(config.manifest, config.bundle_dir, threads=1, bootstrap_samples=5, write=False))
    assert (config.bundle_dir / "bundle.json").read_bytes() == before
    assert WordCorrections.of_bundle(read_bundle(config.bundle_dir)) == WordCorrections()


def test_clips_must_be_left_to_judge_on(config: CalibrateConfig) -> None:
    with pytest.raises(UsageError, match="fit_every is 1"):
        calibrate(CalibrateConfig(config.manifest, config.bundle_dir, fit_every=1))
