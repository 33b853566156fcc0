from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dinle.build.calibration import MAX_CLIPS, find_calibration_files, make_feeds
from dinle.build.config import QuantizeConfig
from dinle.errors import UsageError
from dinle.manifest import Clip, write_manifest
from dinle.recognize.bundle import read_bundle
from tests.fakes import make_tone
from tests.graphs import CTC_BUNDLE, ROOT
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path


def write_clips(folder: Path, splits: list[str]) -> Path:
    clips = []
    folder.mkdir()
    for number, split in enumerate(splits):
        path = folder / f"{number:03d}.wav"
        path.write_bytes(encode_wav(make_tone(0.1)))
        clips.append(Clip(path, "bir", 0.1, split=split))
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"


def test_clips_of_the_training_split_are_taken_and_those_of_the_gate_are_not(tmp_path: Path) -> None:
    manifest = write_clips(tmp_path / "data", ["train", "test", "train", "test"])
    files = find_calibration_files(QuantizeConfig(bundle_dir=tmp_path, manifest=manifest))
    assert [file.name for file in files] == ["000.wav", "002.wav"]


def test_without_a_training_split_the_small_data_set_serves(tmp_path: Path) -> None:
    manifest = write_clips(tmp_path / "data", ["test", "test"])
    for given in (manifest, None):
        files = find_calibration_files(QuantizeConfig(bundle_dir=tmp_path, manifest=given))
        assert len(files) == MAX_CLIPS
        assert all(file.is_relative_to(ROOT / "data" / "mini") for file in files)


def test_what_is_given_is_taken_spread_over_the_whole_list(tmp_path: Path) -> None:
    write_clips(tmp_path / "data", ["test"] * 99)
    (tmp_path / "data" / "manifest.jsonl").unlink()
    files = find_calibration_files(QuantizeConfig(bundle_dir=tmp_path, calibration=tmp_path / "data"))
    assert len(set(files)) == MAX_CLIPS
    assert (files[0].name, files[-1].name) == ("000.wav", "098.wav")


def test_a_folder_without_sound_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no sound files; give a folder"):
        find_calibration_files(QuantizeConfig(bundle_dir=tmp_path, calibration=tmp_path))


@pytest.mark.parametrize(
    ("min_window_s", "tail_s", "max_seconds", "heard_s"),
    [(0.0, 0.0, None, 3.0), (8.0, 0.5, 30.0, 8.0), (2.0, 0.5, 30.0, 3.5), (0.0, 0.5, 2.0, 2.0)],
)
def test_an_encoder_hears_the_silence_that_it_will_hear(
    tmp_path: Path, min_window_s: float, tail_s: float, max_seconds: float | None, heard_s: float
) -> None:
    bundle = replace(read_bundle(CTC_BUNDLE), min_window_s=min_window_s, tail_s=tail_s, max_seconds=max_seconds)
    path = tmp_path / "clip.wav"
    path.write_bytes(encode_wav(make_tone(3.0)))
    (feed,) = make_feeds([path], bundle)
    assert feed["waveform"].shape == (1, round(heard_s * 16_000))
    assert feed["lengths"].tolist() == [feed["waveform"].shape[1]]
    sounding = min(3.0, heard_s - tail_s)
    assert not feed["waveform"][0, round(sounding * 16_000) + 1 :].any()
    assert np.abs(feed["waveform"][0, : round(sounding * 16_000)]).max() > 0.1
