from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from dinle.errors import AudioDecodeError, AudioError, AudioLimitError, EmptyAudioError, UsageError
from dinle.recognize.audio import MAX_BLOCK_S, AudioLimits, Waveform, decode_audio
from dinle.recognize.live_audio import PCM_RATES_HZ, LiveDecoder, PcmDecoder, PushDecoder
from tests.recognize.hostile_sounds import make_flac_silence
from tests.sounds import BITEXACT, FRAGMENTED, encode_container, encode_wav, join_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

SECOND = 16_000
# name -> muxer, encoder, rate, options of the muxer; a browser's recorder writes live clusters of 100 ms
LIVE: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "webm": ("webm", "libopus", 48_000, {"live": "1", "cluster_time_limit": "100"}),
    "webm-file": ("webm", "libopus", 48_000, {}),
    "ogg": ("ogg", "libopus", 48_000, {"page_duration": "100000"}),
    "mp4": ("mp4", "aac", 44_100, FRAGMENTED),
    "wav": ("wav", "pcm_s16le", 44_100, {}),
    "flac": ("flac", "flac", 44_100, {}),
    "mkv": ("matroska", "pcm_s16le", 44_100, {}),
}


def make_chirp(seconds: float, rate_hz: int) -> Waveform:
    """A tone that never repeats, so that a lost or doubled piece shows."""
    hz = np.linspace(200, 2000, round(seconds * rate_hz))
    return (0.4 * np.sin(2 * np.pi * np.cumsum(hz) / rate_hz)).astype(np.float32)


def record(name: str, seconds: float = 3.0) -> bytes:
    form, codec, rate_hz, options = LIVE[name]
    return encode_container(make_chirp(seconds, rate_hz), form, codec, rate_hz, options=BITEXACT | options)


def cut(data: bytes, *sizes: int) -> list[bytes]:
    whole = np.frombuffer(data, np.uint8)
    return [piece.tobytes() for piece in join_blocks(whole, sizes)]  # type: ignore[arg-type]


def feed(decoder: LiveDecoder, pieces: list[bytes]) -> list[Waveform]:
    return [block for piece in pieces for block in decoder.push(piece)] + decoder.finish()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.parametrize("sizes", [(1, 2, 3, 500), (97,), (1000, 1), (5000,), (10**9,)])
def test_pieces_of_any_size_join_to_the_whole(name: str, sizes: tuple[int, ...]) -> None:
    data = record(name)
    with PushDecoder() as decoder:
        blocks = feed(decoder, cut(data, *sizes))
    np.testing.assert_array_equal(np.concatenate(blocks), decode_audio(data))
    assert max(map(len, blocks)) <= MAX_BLOCK_S * SECOND


def test_the_same_pieces_give_the_same_blocks() -> None:
    pieces = cut(record("webm"), 311)
    counts = []
    for _ in range(3):
        with PushDecoder() as decoder:
            counts.append([[len(block) for block in decoder.push(piece)] for piece in pieces])
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("name", ["webm", "ogg", "mp4"])
def test_sound_comes_out_while_it_arrives(name: str) -> None:
    data = record(name, 4.0)
    second = len(data) // 4
    with PushDecoder() as decoder:
        blocks = [block for piece in cut(data[:second], second // 10) for block in decoder.push(piece)]
        assert sum(map(len, blocks)) >= 0.5 * SECOND


def test_nothing_comes_out_before_there_is_a_header() -> None:
    with PushDecoder() as decoder:
        assert decoder.push(b"") == []
        assert decoder.push(b"\x1a") == []
        assert decoder.push(b"E") == []


def test_what_is_no_audio_is_refused_by_push_or_finish() -> None:
    with PushDecoder() as decoder, pytest.raises(AudioDecodeError, match="the stream cannot be read as audio"):
        feed(decoder, cut(b"bu bir metin dosyasidir\n" * 5000, 700))


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", EmptyAudioError), (b"Ogg", AudioDecodeError), (record("webm")[:200], AudioError)],
    ids=["nothing", "three bytes", "half a header"],
)
def test_a_stream_that_ends_before_its_sound_is_refused(data: bytes, error: type[AudioError]) -> None:
    decoder = PushDecoder()
    assert decoder.push(data) == []
    with pytest.raises(error):
        decoder.finish()


def test_an_mp4_with_its_index_at_the_end_is_refused() -> None:
    data = encode_container(make_chirp(1.0, 44_100), "mp4", "aac", 44_100)
    with pytest.raises(AudioDecodeError), PushDecoder() as decoder:
        feed(decoder, cut(data, 1000))


def test_the_same_error_comes_again() -> None:
    with PushDecoder(AudioLimits(max_seconds=1.0)) as decoder:
        blocks = decoder.push(record("webm"))
        assert 0 < sum(map(len, blocks)) <= SECOND  # what was decoded before the error comes first
        for _ in range(2):
            with pytest.raises(AudioLimitError, match="the stream is longer than 1 s"):
                decoder.push(b"more")
        with pytest.raises(AudioLimitError, match="longer than 1 s"):
            decoder.finish()


def test_bytes_and_channels_are_limited() -> None:
    data = record("webm")
    with PushDecoder(AudioLimits(max_bytes=1000)) as decoder, pytest.raises(AudioLimitError, match="at most 1000"):
        feed(decoder, cut(data, 300))
    with PushDecoder(AudioLimits(max_rate_hz=16_000)) as decoder, pytest.raises(AudioLimitError, match="48000 Hz"):
        feed(decoder, cut(data, 300))


@pytest.mark.parametrize("size", [97, 10**9])
def test_a_push_that_gives_too_much_sound_is_refused(size: int) -> None:
    bomb = make_flac_silence(3600, declare=False)  # 97 bytes of it are half a minute
    with (
        PushDecoder(max_push_s=10) as decoder,
        pytest.raises(AudioLimitError, match="more than 10 s of sound in a few"),
    ):
        feed(decoder, cut(bomb, size))
    with PushDecoder(max_push_s=2.5) as decoder:
        blocks = feed(decoder, cut(record("webm"), 5000))
    np.testing.assert_array_equal(np.concatenate(blocks), decode_audio(record("webm")))


@pytest.mark.parametrize("head", [b"bu bir metin", b"ID3\4" + bytes(20), b"OggX" + bytes(20)])
def test_what_begins_like_no_container_is_refused_at_once(head: bytes) -> None:
    with PushDecoder() as decoder, pytest.raises(AudioDecodeError, match="expected webm, ogg, mp4 in fragments"):
        decoder.push(head)


def test_only_work_counts_as_decoding_time() -> None:
    with PushDecoder(AudioLimits(max_decode_s=0.5)) as decoder:
        blocks = []
        for piece in cut(record("webm"), 8000):
            blocks += decoder.push(piece)
            time.sleep(0.25)
        blocks += decoder.finish()
    assert sum(map(len, blocks)) == pytest.approx(3 * SECOND, abs=1000)
    with (
        PushDecoder(AudioLimits(max_decode_s=0.05)) as decoder,
        pytest.raises(AudioLimitError, match="0.05 s to decode"),
    ):
        feed(decoder, [make_flac_silence(5 * 3600, declare=False)])


@pytest.mark.parametrize("pushed", [0, 3, 40, 5000])
def test_closing_ends_the_thread_wherever_it_waits(pushed: int) -> None:
    decoder = PushDecoder()
    decoder.push(record("webm")[:pushed])
    began = time.monotonic()
    decoder.close()
    decoder.close()
    assert time.monotonic() - began < 0.5
    for use in (decoder.finish, lambda: decoder.push(b"x")):
        with pytest.raises(UsageError, match="finished or closed"):
            use()


def test_a_forgotten_decoder_ends_its_thread() -> None:
    before = threading.active_count()
    decoder = PushDecoder()
    decoder.push(record("webm")[:5000])
    assert threading.active_count() == before + 1
    del decoder
    gc.collect()
    until = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def make_pcm(seconds: float, rate_hz: int, channels: int) -> bytes:
    tracks = [np.roll(make_chirp(seconds, rate_hz), 100 * at) for at in range(channels)]
    return (32767 * np.stack(tracks, axis=1)).astype("<i2").tobytes()


@pytest.mark.parametrize("rate_hz", PCM_RATES_HZ)
@pytest.mark.parametrize(("channels", "sizes"), [(1, (1,)), (1, (3, 1000)), (2, (7, 1, 640)), (1, (10**9,))])
def test_pcm_is_what_its_wav_is(rate_hz: int, channels: int, sizes: tuple[int, ...]) -> None:
    data = make_pcm(0.4, rate_hz, channels)
    samples = np.frombuffer(data, "<i2").reshape(-1, channels)
    with PcmDecoder(rate_hz, channels) as decoder:
        decoded = np.concatenate(feed(decoder, cut(data, *sizes)))
    np.testing.assert_array_equal(decoded, decode_audio(encode_wav((samples / 2**15).astype(np.float32), rate_hz)))


@pytest.mark.parametrize(("encoding", "subtype"), [("g711_ulaw", "ULAW"), ("g711_alaw", "ALAW")])
def test_telephone_codes_are_what_ffmpeg_makes_of_them(
    encoding: Literal["g711_ulaw", "g711_alaw"], subtype: str
) -> None:
    wav = encode_wav(np.zeros(1024, dtype=np.float32), 8000, subtype=subtype)
    codes = bytes(range(256)) * 4
    with PcmDecoder(8000, encoding=encoding) as decoder:
        decoded = np.concatenate(feed(decoder, cut(codes, 100)))
    np.testing.assert_array_equal(decoded, decode_audio(wav[: wav.index(b"data") + 8] + codes))


def test_half_a_sample_at_the_end_is_dropped() -> None:
    decoder = PcmDecoder(16_000)
    assert len(feed(decoder, [bytes(3201)])[0]) == 1600


def test_pcm_is_held_to_the_limits() -> None:
    with pytest.raises(AudioLimitError, match="longer than 1 s"):
        feed(PcmDecoder(16_000, limits=AudioLimits(max_seconds=1)), [bytes(32_000), bytes(2)])
    with pytest.raises(AudioLimitError, match="at most 100 are accepted"):
        PcmDecoder(16_000, limits=AudioLimits(max_bytes=100)).push(bytes(101))
    with pytest.raises(AudioLimitError, match="2 channels; at most 1"):
        PcmDecoder(16_000, 2, limits=AudioLimits(max_channels=1))
    with pytest.raises(EmptyAudioError):
        feed(PcmDecoder(16_000), [b"x"])


def test_pcm_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="11025 Hz is not supported; expected one of"):
        PcmDecoder(11_025)
    with pytest.raises(UsageError, match="0 channels"):
        PcmDecoder(16_000, 0)
    with pytest.raises(UsageError, match="'mp3' is unknown"):
        PcmDecoder(16_000, encoding="mp3")  # type: ignore[arg-type]
    decoder = PcmDecoder(16_000)
    decoder.close()
    with pytest.raises(UsageError, match="finished or closed"):
        decoder.push(b"")
