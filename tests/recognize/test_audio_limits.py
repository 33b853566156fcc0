"""Files that cost whoever believes them are refused, quickly and in little memory."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from dinle.errors import AudioError, AudioLimitError
from dinle.recognize.audio import MAX_BLOCK_S, AudioLimits, check_audio, decode_audio, stream_audio
from tests.fakes import make_tone
from tests.recognize.hostile_sounds import make_flac_silence, make_huge_png, make_wav_claim
from tests.sounds import encode_container, encode_lossy, encode_wav, remux

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 16_000

MEASURE = """
import resource, sys
from dinle.errors import AudioLimitError
from dinle.recognize.audio import AudioLimits, check_audio, decode_audio, stream_audio
decode_audio("{warm}")  # what is loaded once is no growth
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for _ in stream_audio("{path}", AudioLimits(max_seconds={seconds}, max_decode_s={decode_s})):
        pass
except AudioLimitError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def measure_growth_mb(path: Path, warm: Path, *, seconds: float, decode_s: float) -> tuple[str, float]:
    """What a process of its own says about the file, and by how many MB its memory grew."""
    code = MEASURE.format(path=path, warm=warm, seconds=seconds, decode_s=decode_s)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    message, growth = done.stdout.splitlines()
    return message, float(growth)


HOURS_20 = 20 * 3600


def make_bomb(kind: str) -> bytes:
    """Less than a megabyte that decodes to 20 hours."""
    if kind == "declared":
        return make_flac_silence(HOURS_20)
    bomb = make_flac_silence(HOURS_20, declare=False)
    if kind == "crammed":
        return remux(bomb, "matroska", join=20_000)
    return bomb


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["declared", "not declared", "crammed"])
def test_20_hours_in_a_megabyte_are_refused_at_once_in_flat_memory(kind: str, tmp_path: Path) -> None:
    path, warm = tmp_path / "bomb", tmp_path / "warm.flac"
    data = make_bomb(kind)
    path.write_bytes(data)
    warm.write_bytes(make_flac_silence(30))
    assert len(data) < 1e6
    for read in (decode_audio, check_audio):
        tracemalloc.start()
        began = time.monotonic()
        with pytest.raises(AudioLimitError, match="longer than 600 s"):
            read(path, AudioLimits(max_seconds=600))
        took_s, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert took_s < 1
        assert peak < 50e6
    message, growth_mb = measure_growth_mb(path, warm, seconds=HOURS_20 + 60, decode_s=0.5)
    assert "more than 0.5 s to decode" in message
    assert growth_mb < 40


def test_a_decoder_at_work_is_stopped_in_time() -> None:
    bomb = make_flac_silence(HOURS_20 / 4, declare=False)
    for read in (decode_audio, check_audio):
        began = time.monotonic()
        with pytest.raises(AudioLimitError, match="takes more than 0.05 s to decode"):
            read(bomb, AudioLimits(max_decode_s=0.05))
        assert time.monotonic() - began < 0.5


def test_the_time_of_the_caller_is_not_counted() -> None:
    blocks = stream_audio(encode_wav(make_tone(5.0)), AudioLimits(max_decode_s=1.0))
    for _ in blocks:
        time.sleep(0.3)


def test_a_declared_length_is_enough_to_refuse() -> None:
    data = make_flac_silence(1000)
    cut = data[:100]  # the header and a few seconds
    with pytest.raises(AudioLimitError, match="longer than 600 s .it says 1004 s"):
        check_audio(cut, AudioLimits(max_seconds=600))
    assert check_audio(cut, AudioLimits(max_seconds=2000)) < 600


def test_padding_of_a_codec_does_not_count_as_length() -> None:
    data = encode_lossy(make_tone(6.0), "opus")  # its container says a little more than 2 s
    seconds = check_audio(data)
    assert len(decode_audio(data, AudioLimits(max_seconds=seconds))) == round(seconds * SECOND)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_wav_claim(255, 655_350), "255 channels; at most 8"),
        (make_wav_claim(2, 655_350), "655350 Hz; at most 192000"),
        (make_wav_claim(2, 2**31 - 1), "2147483647 Hz; at most 192000"),
        (make_wav_claim(65_535, 16_000), "65535 channels; at most 8"),
        (make_wav_claim(1, 1), "1 Hz; expected at least 1000"),
        (make_flac_silence(10, 655_350), "655350 Hz; at most 192000"),
        (encode_container(make_tone(0.2), "ipod", "aac", 48_000, layout="7.1"), None),
    ],
    ids=["channels", "rate", "highest rate", "most channels", "lowest rate", "rate of flac", "7.1"],
)
def test_claimed_channels_and_rates_are_held_to_the_limits(data: bytes, message: str | None) -> None:
    limits = AudioLimits(max_channels=8, max_rate_hz=192_000)
    if message is None:
        assert len(decode_audio(data, limits)) > 0
        return
    for read in (decode_audio, check_audio):
        with pytest.raises(AudioError, match=message):
            read(data, limits)


def test_a_frame_is_held_to_the_limits_whatever_the_header_says() -> None:
    mono, stereo = (encode_lossy(make_tone(2.0), "aac", 16_000, channels=channels) for channels in (1, 2))
    with pytest.raises(AudioLimitError, match="2 channels; at most 1"):
        decode_audio(mono + stereo, AudioLimits(max_channels=1))


@pytest.mark.parametrize("claimed", [0, 50_000, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF])
def test_a_wav_that_lies_about_its_size_is_read_as_far_as_it_goes(claimed: int) -> None:
    data = make_wav_claim(1, 16_000, claimed=claimed)
    expected = claimed if 0 < claimed < 100_000 else 100_000
    assert len(decode_audio(data, AudioLimits(max_seconds=10))) == expected // 2


def test_a_low_rate_makes_no_endless_block() -> None:
    blocks = list(stream_audio(make_wav_claim(1, 1000)))
    assert max(map(len, blocks)) <= MAX_BLOCK_S * SECOND + 2000  # what the resampler held back comes on top
    assert sum(map(len, blocks)) == 50_000 * 16


def test_a_cover_is_never_decoded() -> None:
    data = make_flac_silence(10, cover=make_huge_png())
    began = time.monotonic()
    assert check_audio(data) == pytest.approx(10, abs=5)
    assert time.monotonic() - began < 0.5  # 10 gigabytes of pixels would take longer
