from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from dinle.errors import ManifestError, UsageError
from dinle.manifest import Clip, write_manifest
from dinle.measure.service_clips import (
    BOUNDARY,
    choose_runs,
    describe_clips,
    encode_opus,
    encode_wav,
    join_waveforms,
    make_clip,
    make_clips,
    read_sound,
    recognize_clips,
)
from dinle.recognize.audio import SAMPLE_RATE_HZ, decode_audio
from tests.fakes import fake_recognizer, make_tone
from tests.sounds import encode_wav as write_wav

if TYPE_CHECKING:
    from pathlib import Path

LENGTHS_S = (1.0, 3.1, 4.0, 16.0, 3.4, 5.2, 3.0, 6.3, 3.7, 4.4, 5.6, 3.2, 4.9)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    clips = []
    for number, seconds in enumerate(LENGTHS_S):
        (tmp_path / f"{number}.wav").write_bytes(write_wav(make_tone(seconds)))
        clips.append(Clip(tmp_path / f"{number}.wav", "merhaba", seconds))
    write_manifest(tmp_path / "manifest.jsonl", clips)
    return tmp_path


def test_the_mix_is_spread_evenly_over_3_to_15_seconds(manifest: Path) -> None:
    clips = make_clips(str(manifest), 12, seed=1)
    lengths = np.array([clip.audio_s for clip in clips])
    assert np.all(np.diff(lengths) >= 0)
    assert lengths.min() >= 3.0
    assert lengths.max() <= 15.0
    assert np.abs(lengths - np.linspace(3, 15, 12)).max() < 1.0
    assert [clip.id.rpartition(".")[2] for clip in clips] == ["wav", "wav", "ogg"] * 4
    assert describe_clips(clips, str(manifest)) == {
        "manifest": str(manifest), "count": 12, "mean_s": pytest.approx(lengths.mean()), "shortest_s": lengths[0],
        "longest_s": lengths[-1], "opus": 4, "mean_bytes": pytest.approx(np.mean([len(clip.body) for clip in clips])),
    }  # fmt: skip
    assert [clip.body for clip in make_clips(str(manifest), 12, seed=1)][::3] == [clip.body for clip in clips][::3]


def test_what_is_posted_decodes_to_the_length_that_is_stated(manifest: Path) -> None:
    for clip in make_clips(str(manifest), 6, seed=1):
        assert len(decode_audio(read_sound(clip))) / SAMPLE_RATE_HZ == pytest.approx(clip.audio_s, abs=0.05)


def test_runs_are_neighbours_and_none_is_taken_twice_before_all_are() -> None:
    durations_s = [3.0, 4.0, 5.0]
    whole = {(0, 1): 3.0, (1, 2): 4.0, (2, 3): 5.0, (0, 2): 7.3, (1, 3): 9.3, (0, 3): 12.6}
    runs = [(run.start, run.stop) for run in choose_runs(durations_s, len(whole), seed=1)]
    assert runs == sorted(whole, key=lambda run: whole[run])
    twice = [(run.start, run.stop) for run in choose_runs(durations_s, 2 * len(whole), seed=1)]
    assert sorted(twice) == sorted([*whole, *whole])


def test_joined_clips_have_silence_between_them() -> None:
    one, two = np.full(100, 0.5, dtype=np.float32), np.full(50, -0.5, dtype=np.float32)
    joined = join_waveforms([one, two])
    assert len(joined) == 150 + round(0.3 * SAMPLE_RATE_HZ)
    assert np.array_equal(joined[:100], one)
    assert np.array_equal(joined[-50:], two)
    assert not joined[100:-50].any()
    assert np.array_equal(join_waveforms([one]), one)


def test_wav_keeps_the_samples_and_opus_the_sound() -> None:
    tone = make_tone(1.0)
    assert decode_audio(encode_wav(tone)) == pytest.approx(tone, abs=1 / 32_767)
    assert decode_audio(encode_wav(np.array([2.0, -2.0], dtype=np.float32))) == pytest.approx([1.0, -1.0], abs=1e-4)
    heard = decode_audio(encode_opus(tone))
    size = min(len(heard), len(tone))
    assert np.corrcoef(heard[:size], tone[:size])[0, 1] > 0.95


def test_the_form_holds_the_recording_under_the_name_file() -> None:
    sound = b"\r\n\r\nRIFF\r\n--\r\n"
    clip = make_clip("a.wav", 1.0, sound)
    assert read_sound(clip) == sound
    assert b'name="file"; filename="a.wav"' in clip.body
    with pytest.raises(UsageError, match="holds the boundary"):
        make_clip("b.wav", 1.0, b"..." + BOUNDARY.encode())


def test_expected_texts_come_from_the_posted_bytes(manifest: Path) -> None:
    clips = make_clips(str(manifest), 3, seed=1)
    assert recognize_clips(clips, fake_recognizer("merhaba")) == ["merhaba"] * 3


def test_manifests_without_usable_clips_are_refused(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(ManifestError, match="there is no manifest"):
        make_clips(str(tmp_path / "yok"), 3, seed=1)
    with pytest.raises(UsageError, match="0 clips from 11 of"):
        make_clips(str(manifest), 0, seed=1)
    write_manifest(manifest / "manifest.jsonl", [Clip(manifest / "0.wav", "merhaba", 1.0)])
    with pytest.raises(UsageError, match="3 clips from 0 of .* 3 to 15 s long"):
        make_clips(str(manifest), 3, seed=1)
