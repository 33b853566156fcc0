from __future__ import annotations

import io
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dinle.errors import AudioDecodeError, AudioError, AudioLimitError, EmptyAudioError
from dinle.recognize.audio import AudioLimits, check_audio, decode_audio, stream_audio
from tests.fakes import make_tone
from tests.recognize.hostile_sounds import make_caf_layout, make_flac_silence
from tests.sounds import LOSSY, encode_container, encode_lossy, encode_wav, make_valid_files, remux

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SECOND = 16_000


def find_pitch_hz(waveform: NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * SECOND / len(waveform))


@pytest.mark.parametrize(
    ("subtype", "form"), [("PCM_16", "WAV"), ("PCM_24", "WAV"), ("FLOAT", "WAV"), ("PCM_24", "FLAC")]
)
def test_lossless_formats_come_back_exactly(subtype: str, form: str) -> None:
    tone = make_tone(0.5)
    step = {"PCM_16": 2**-15, "PCM_24": 2**-23, "FLOAT": 0}[subtype]
    decoded = decode_audio(encode_wav(tone, subtype=subtype, form=form))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, tone, atol=step)


def test_8_bit_wav_is_centred() -> None:
    np.testing.assert_allclose(decode_audio(encode_wav(make_tone(0.1), subtype="PCM_U8")), make_tone(0.1), atol=2**-6)


@pytest.mark.parametrize("suffix", LOSSY)
def test_lossy_formats_keep_pitch_level_and_length(suffix: str) -> None:
    time_s = np.arange(96_000) / 48_000
    decoded = decode_audio(encode_lossy((0.5 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32), suffix))
    assert len(decoded) == pytest.approx(2 * SECOND, abs=0.1 * SECOND)  # codecs pad by up to a few frames
    middle = decoded[SECOND // 2 : -SECOND // 2]
    assert find_pitch_hz(middle) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_and_two_channels_become_16_khz_mono(rate_hz: int) -> None:
    time_s = np.arange(rate_hz) / rate_hz
    left, right = 0.8 * np.sin(2 * np.pi * 300 * time_s), np.zeros(rate_hz)
    decoded = decode_audio(encode_wav(np.stack([left, right], axis=1).astype(np.float32), rate_hz))
    assert len(decoded) == pytest.approx(SECOND, abs=1)
    assert find_pitch_hz(decoded) == pytest.approx(300, abs=2)
    assert np.abs(decoded[2000:-2000]).max() == pytest.approx(0.4, abs=0.01)  # the mean of both channels


def test_a_path_bytes_and_a_file_are_the_same(tmp_path: Path) -> None:
    data = encode_wav(make_tone(0.3))
    path = tmp_path / "ses dosyası.wav"
    path.write_bytes(data)
    for source in (path, str(path), io.BytesIO(data)):
        np.testing.assert_array_equal(decode_audio(source), decode_audio(data))


def test_blocks_join_to_the_whole() -> None:
    data = encode_wav(make_tone(30.0), 44_100)
    blocks = list(stream_audio(data))
    assert len(blocks) >= 10
    np.testing.assert_array_equal(np.concatenate(blocks), decode_audio(data))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", EmptyAudioError, "0 bytes"),
        (b"bu bir metin dosyasidir\n" * 50, AudioDecodeError, "cannot be read as audio"),
        (encode_wav(np.zeros(0, dtype=np.float32)), EmptyAudioError, "no samples"),
        (encode_wav(make_tone(0.1))[:30], AudioError, "audio"),
        (encode_lossy(make_tone(2.0), "opus")[:60], AudioDecodeError, "cannot be read as audio"),
    ],
    ids=["empty file", "text", "0 samples", "cut in the header", "opus cut in the header"],
)
def test_what_is_no_audio_is_refused(data: bytes, error: type[AudioError], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bozuk.wav"
    path.write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        decode_audio(path)
    assert "bozuk.wav" in str(caught.value)


def test_a_truncated_opus_gives_what_is_there() -> None:
    whole = encode_lossy(make_tone(6.0), "opus")
    decoded = decode_audio(whole[: len(whole) // 2])
    assert 0 < len(decoded) < len(decode_audio(whole))
    assert np.isfinite(decoded).all()


def test_noise_over_half_of_the_file_is_damage() -> None:
    data = bytearray(encode_lossy(make_tone(6.0), "mp3"))
    rng = np.random.default_rng(1)
    data[len(data) // 4 :] = rng.integers(0, 256, len(data) - len(data) // 4, dtype=np.uint8).tobytes()
    with pytest.raises(AudioDecodeError, match="damaged|changes its sample rate"):
        decode_audio(bytes(data))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_float_wav_that_is_no_number_is_refused(bad: float) -> None:
    samples = make_tone(0.2)
    samples[100] = bad
    with pytest.raises(AudioDecodeError, match="not numbers"):
        decode_audio(encode_wav(samples, subtype="FLOAT"))


def test_float_wav_over_full_scale_is_clipped() -> None:
    assert np.abs(decode_audio(encode_wav(make_tone(0.2, level=3.0), subtype="FLOAT"))).max() == 1.0


def test_limits_are_enforced_while_decoding(tmp_path: Path) -> None:
    hour = tmp_path / "saat.flac"
    hour.write_bytes(encode_wav(np.zeros(3600 * 8000, dtype=np.float32), 8000, form="FLAC"))
    with pytest.raises(AudioLimitError, match=r"saat.flac has \d+ bytes; at most 1000"):
        decode_audio(hour, AudioLimits(max_bytes=1000))
    tracemalloc.start()
    with pytest.raises(AudioLimitError, match="longer than 10 s"):
        decode_audio(hour, AudioLimits(max_seconds=10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_a_playlist_cannot_reach_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encode_wav(make_tone(1.0)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"
    with pytest.raises(AudioDecodeError):
        decode_audio(playlist.encode())
    with pytest.raises(AudioDecodeError):
        decode_audio(f"ffconcat version 1.0\nfile {secret}\n".encode())


class Pipe(io.BytesIO):
    """A file object that cannot be searched."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


def test_a_pipe_is_read_whole_and_within_the_limit() -> None:
    data = encode_wav(make_tone(0.3))
    np.testing.assert_array_equal(decode_audio(Pipe(data)), decode_audio(data))
    with pytest.raises(AudioLimitError):
        decode_audio(Pipe(data), AudioLimits(max_bytes=100))


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_joined_files_may_change_their_channels(order: tuple[int, int]) -> None:
    parts = [encode_lossy(make_tone(2.0), "aac", 16_000, channels=channels) for channels in order]
    decoded = decode_audio(b"".join(parts))
    assert len(decoded) == pytest.approx(4 * SECOND, abs=0.3 * SECOND)
    assert np.sqrt(np.mean(decoded[-SECOND:-2000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.15)


def test_a_chained_opus_is_heard_to_its_end_or_refused() -> None:
    mono, stereo = (encode_lossy(make_tone(6.0), "opus", channels=channels) for channels in (1, 2))
    once, twice = decode_audio(mono), decode_audio(mono + mono)
    assert len(twice) == pytest.approx(2 * len(once), abs=0.05 * SECOND)
    with pytest.raises(AudioDecodeError, match="damaged"):  # FFmpeg cannot follow the change: better no text than half
        decode_audio(mono + stereo)


def test_samples_beyond_single_precision_are_refused() -> None:
    samples = np.full(1600, 1e300)
    with pytest.raises(AudioDecodeError, match="not numbers"):
        decode_audio(encode_wav(samples, subtype="DOUBLE"))


def test_a_name_that_is_too_long_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="too long"):
        decode_audio("a" * 5000)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioDecodeError, match="is a folder"):
        decode_audio(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"yok\.wav"):
        decode_audio(tmp_path / "yok.wav")


def test_a_video_without_sound_is_refused() -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioDecodeError, match="no sound track"):
        decode_audio(file.getvalue())


@pytest.mark.parametrize("name", make_valid_files())
def test_checking_counts_what_decoding_gives(name: str) -> None:
    data = make_valid_files()[name]
    assert check_audio(data) == pytest.approx(len(decode_audio(data)) / SECOND, abs=1.5 / SECOND)


def test_checking_leaves_a_file_to_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode_wav(make_tone(0.5)))
    with path.open("rb") as file:
        assert check_audio(file) == 0.5
        assert len(decode_audio(file)) == SECOND / 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"metin" * 500,
        encode_wav(np.zeros(0, dtype=np.float32)),
        encode_wav(make_tone(3)),
        encode_wav(np.zeros((1600, 4), dtype=np.float32)),
        encode_wav(make_tone(0.5), 48_000),
        make_flac_silence(100, declare=False),
    ],
    ids=["empty", "text", "0 samples", "long", "4 channels", "48 kHz", "long, not declared"],
)
def test_checking_refuses_in_the_same_words(data: bytes) -> None:
    limits = AudioLimits(max_seconds=2, max_channels=2, max_rate_hz=44_100)
    with pytest.raises(AudioError) as decoded:
        decode_audio(data, limits)
    with pytest.raises(AudioError) as checked:
        check_audio(data, limits)
    assert (type(checked.value), str(checked.value)) == (type(decoded.value), str(decoded.value))


@pytest.mark.parametrize(("form", "codec"), [("ipod", "aac"), ("ogg", "libopus"), ("ac3", "ac3")])
def test_many_channels_are_averaged(form: str, codec: str) -> None:
    layout = "5.1" if codec == "ac3" else "7.1"
    tone = np.tile(make_tone(1.0), 3)
    many = decode_audio(encode_container(tone, form, codec, 48_000, layout=layout))
    one = decode_audio(encode_container(tone, form, codec, 48_000))
    assert len(many) == pytest.approx(len(one), abs=2000)
    middle = slice(SECOND // 4, SECOND // 2)
    assert np.sqrt(np.mean(many[middle] ** 2)) == pytest.approx(np.sqrt(np.mean(one[middle] ** 2)), rel=0.35)


def test_channels_in_any_order_are_averaged() -> None:
    samples = np.stack([np.full(16_000, 8192), np.zeros(16_000)], axis=1).astype("<i2")
    decoded = decode_audio(make_caf_layout([2, 1], samples.tobytes()))  # right before left: a layout of its own
    np.testing.assert_array_equal(decoded, np.full(16_000, 0.125, dtype=np.float32))


@pytest.mark.parametrize("form", ["ogg", "matroska"])
@pytest.mark.parametrize("join", [1, 7, 1000])
def test_flac_is_the_same_in_every_container_and_packing(form: str, join: int) -> None:
    data = encode_wav(make_tone(20.0), form="FLAC")
    np.testing.assert_array_equal(decode_audio(remux(data, form, join=join)), decode_audio(data))


def test_a_packet_crammed_with_frames_is_refused() -> None:
    crammed = remux(encode_lossy(np.tile(make_tone(10.0), 3), "m4a"), "matroska", join=2000)
    with pytest.raises(AudioDecodeError, match=r"a packet of \d+ bytes; expected at most 16384 of aac"):
        decode_audio(crammed)
