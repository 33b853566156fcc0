"""Counting a recording's samples step by step."""

from __future__ import annotations

import time

import pytest

from dinle.errors import AudioLimitError, EmptyAudioError
from dinle.recognize import audio
from dinle.recognize.audio import AudioLimits, check_audio, scan_audio
from tests.fakes import make_tone
from tests.recognize.hostile_sounds import FLAC_BLOCK, make_flac_silence
from tests.sounds import encode_wav

HOURS = make_flac_silence(2 * 3600, declare=False)


def test_a_scan_tells_how_far_it_is_and_ends_with_what_checking_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "SCAN_S", 0.0)  # a step for each frame
    data = make_flac_silence(100, declare=False)
    steps = list(scan_audio(data))
    assert steps[:-1] == pytest.approx([n * FLAC_BLOCK / 16_000 for n in range(1, len(steps))])
    assert steps[-1] == steps[-2] == check_audio(data) >= 100


def test_a_short_recording_is_one_step() -> None:
    assert list(scan_audio(encode_wav(make_tone(0.5)))) == [0.5]


def test_no_step_is_long() -> None:
    slowest, since = 0.0, time.perf_counter()
    started, steps = since, 0
    for _ in scan_audio(HOURS):
        now = time.perf_counter()
        slowest, since, steps = max(slowest, now - since), now, steps + 1
    assert slowest < 0.5
    assert steps >= (time.perf_counter() - started) / 0.5


def test_the_callers_time_is_not_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "SCAN_S", 0.0)
    data = make_flac_silence(20, declare=False)
    for _ in scan_audio(data, AudioLimits(max_decode_s=1.0)):
        time.sleep(0.3)  # five times: more than the limit in all
    assert check_audio(data) >= 20


def test_limits_hold_in_the_middle_of_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "SCAN_S", 0.0)
    seen: list[float] = []
    with pytest.raises(AudioLimitError, match="longer than 60 s"):
        seen.extend(scan_audio(HOURS, AudioLimits(max_seconds=60)))
    assert seen
    assert max(seen) <= 60
    with pytest.raises(EmptyAudioError, match="0 bytes"):
        next(iter(scan_audio(b"")))
