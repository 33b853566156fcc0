"""The speech that ships with the project is what its cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from dinle.build.config import PrepareConfig
from dinle.build.prepare import prepare
from dinle.manifest import Clip, read_manifest
from dinle.text import normalize_tr

ROOT = Path(__file__).parents[1]
MINI = ROOT / "data" / "mini"


def find_voices(clips: list[Clip]) -> set[str]:
    """The single voices of all speakers: a Kokoro speaker may be a blend ``a+b``; an espeak-ng variant is one voice."""
    voices: set[str] = set()
    for clip in clips:
        engine, _, voice = str(clip.speaker).partition(":")
        voices.update(voice.split("+") if engine == "kokoro" else [voice])
    return voices


def test_the_bundled_data_is_what_its_card_says() -> None:
    splits = {split: read_manifest(MINI, split=split) for split in ("train", "test")}
    minutes = {split: sum(clip.duration_s for clip in clips) / 60 for split, clips in splits.items()}
    texts = {split: {normalize_tr(clip.text) for clip in clips} for split, clips in splits.items()}
    assert 5 < minutes["train"] < 6
    assert 2.3 < minutes["test"] < 3
    assert not find_voices(splits["train"]) & find_voices(splits["test"])
    assert not texts["train"] & texts["test"]
    assert all(clip.source and clip.licence for clips in splits.values() for clip in clips)
    assert sum(path.stat().st_size for path in MINI.rglob("*")) < 4e6
    named = {clip.audio for clips in splits.values() for clip in clips}
    assert named == set((MINI / "audio").iterdir())


@pytest.mark.slow
def test_the_bundled_data_is_prepared_without_loss(tmp_path: Path) -> None:
    folder = prepare(PrepareConfig(str(MINI), tmp_path))
    before, after = read_manifest(MINI), read_manifest(folder)
    assert [clip.text for clip in after] == [clip.text for clip in before]
    assert [clip.duration_s for clip in after] == pytest.approx([clip.duration_s for clip in before], abs=1e-3)
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    assert (data["dropped"], data["shared_texts"], data["shared_audio"]) == ({}, {}, {})


def test_the_bundled_sample_is_a_plain_wav_of_the_stated_length() -> None:
    info = soundfile.info(ROOT / "samples" / "sample.wav")
    assert (info.samplerate, info.channels, info.subtype, round(info.duration, 1)) == (16_000, 1, "PCM_16", 7.7)
