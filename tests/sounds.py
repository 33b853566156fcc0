"""Encodes sound in the formats that people really have, and makes sound that is not speech."""

from __future__ import annotations

import io
from itertools import cycle
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import soundfile

from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# suffix -> FFmpeg's container and codec
LOSSY = {
    "opus": ("ogg", "libopus"),
    "mp3": ("mp3", "libmp3lame"),
    "aac": ("adts", "aac"),
    "m4a": ("ipod", "aac"),
    "webm": ("webm", "libopus"),
}
BITEXACT = {"fflags": "+bitexact"}  # no random serial numbers, no dates
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "100000"}  # in microseconds


def encode_wav(
    samples: NDArray[np.float32], rate_hz: int = 16_000, *, subtype: str = "PCM_16", form: str = "WAV"
) -> bytes:
    """(S,) or (S, channels) as WAV or FLAC in a soundfile subtype such as PCM_24 or FLOAT."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, subtype=subtype, format=form)
    return file.getvalue()


def encode_lossy(samples: NDArray[np.float32], suffix: str, rate_hz: int = 48_000, *, channels: int = 1) -> bytes:
    """(S,) as opus, mp3, aac, m4a or webm, the same sound in each channel."""
    form, codec = LOSSY[suffix]
    return encode_container(samples, form, codec, rate_hz, layout="mono" if channels == 1 else "stereo")


def encode_container(
    samples: NDArray[np.float32],
    form: str,
    codec: str,
    rate_hz: int = 48_000,
    *,
    layout: str = "mono",
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """(S,) by any of FFmpeg's muxers and encoders, the same sound in each channel of the layout."""
    file = io.BytesIO()
    with av.open(file, "w", format=form, options=options or {}) as container:
        stream = cast("av.AudioStream", container.add_stream(codec, rate=rate_hz))
        stream.layout = layout
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        channels = stream.layout.nb_channels
        frame = av.AudioFrame.from_ndarray(
            np.repeat(samples.astype(np.float32), channels)[None], format="flt", layout=layout
        )
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate_hz, frame_size=stream.frame_size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


def remux(data: bytes, form: str, *, join: int = 1) -> bytes:
    """The packets of a file in another container, ``join`` of them glued to one."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format=form, options=BITEXACT) as target:
        track = source.streams.audio[0]
        stream = target.add_stream_from_template(track)
        packets = [packet for packet in source.demux(track) if packet.size]
        for start in range(0, len(packets), join):
            first = packets[start]
            glued = av.Packet(b"".join(bytes(packet) for packet in packets[start : start + join]))
            glued.pts, glued.dts, glued.time_base = first.pts, first.dts, first.time_base
            glued.stream = stream
            target.mux(glued)
    return file.getvalue()


# Everything below is 16 kHz, float32 in [-1, 1], and the same for the same seed.

CLIP_S = 6.0
MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)  # semitones of a scale
DTMF_ROWS_HZ, DTMF_COLUMNS_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
# name -> frequencies in Hz, seconds on, seconds off: North American and European telephone tones
TELEPHONE: dict[str, tuple[tuple[float, ...], float, float]] = {
    "dial-us": ((350, 440), CLIP_S, 0),
    "dial-eu": ((425,), CLIP_S, 0),
    "busy-us": ((480, 620), 0.5, 0.5),
    "busy-eu": ((425,), 0.5, 0.5),
    "ring-us": ((440, 480), 2, 4),
    "ring-eu": ((425,), 1, 4),
    "congestion-eu": ((425,), 0.2, 0.2),
}


def iterate_non_speech(seconds: float = CLIP_S) -> Iterator[tuple[str, Waveform]]:
    """More than a hundred named clips in which nobody speaks: silence, noise, tones, music, telephone, machines."""
    yield from _iterate_silence(seconds)
    yield from _iterate_noise(seconds)
    yield from _iterate_machines(seconds)
    yield from _iterate_tones(seconds)
    yield from _iterate_music(seconds)


def _iterate_silence(seconds: float) -> Iterator[tuple[str, Waveform]]:
    size = round(seconds * SAMPLE_RATE_HZ)
    yield "digital-silence", np.zeros(size, dtype=np.float32)
    yield "dc-offset", np.full(size, 0.1, dtype=np.float32)
    dither = np.random.default_rng(0).integers(-1, 2, size)
    yield "dither", (dither / 32768).astype(np.float32)


def _iterate_noise(seconds: float) -> Iterator[tuple[str, Waveform]]:
    for color in ("white", "pink", "brown", "blue"):
        for level_db in range(-70, 0, 10):
            yield f"{color}{level_db}dB", scale_to(make_noise(seconds, color, seed=-level_db), level_db)
    for seed, gain in enumerate((1.0, 3.0, 30.0)):
        yield f"clipping-{gain:g}", np.clip(gain * make_noise(seconds, "white", seed=seed), -1, 1)
    for rate_hz in (0.5, 2.0, 4.0, 8.0):  # four a second is the rhythm of syllables
        swell = 0.5 + 0.5 * np.sin(2 * np.pi * rate_hz * _time(seconds))
        yield f"swelling-{rate_hz:g}Hz", scale_to(swell * make_noise(seconds, "pink", seed=5), -25)


def _iterate_machines(seconds: float) -> Iterator[tuple[str, Waveform]]:
    for mains_hz in (50.0, 60.0):
        for level_db in (-50, -30, -15):
            yield f"hum-{mains_hz:g}{level_db}dB", scale_to(make_harmonics(seconds, mains_hz, count=12), level_db)
    for seed, blade_hz in enumerate((23.0, 48.0, 110.0, 190.0)):
        whir = make_harmonics(seconds, blade_hz, count=4) + 2 * make_noise(seconds, "pink", seed=seed)
        yield f"fan-{blade_hz:g}Hz", scale_to(whir, -30)
    for seed, drops in enumerate((20.0, 200.0, 2000.0)):
        rain = make_clicks(seconds, drops, decay_s=0.004, seed=seed) + 0.05 * make_noise(seconds, "white", seed=seed)
        yield f"rain-{drops:g}", scale_to(rain, -30)
        yield f"crackle-{drops:g}", scale_to(make_clicks(seconds, drops, decay_s=0.0005, seed=seed), -40)
        yield f"knocks-{seed}", scale_to(make_clicks(seconds, 2.0 + seed, decay_s=0.05, seed=seed), -25)
        gusts = np.interp(
            _time(seconds), np.arange(0, seconds + 1), _draw(seed, round(seconds) + 2)[: int(seconds + 1)]
        )
        yield f"wind-{seed}", scale_to(gusts * make_noise(seconds, "brown", seed=seed), -25)


def _iterate_tones(seconds: float) -> Iterator[tuple[str, Waveform]]:
    for hz in (60, 150, 300, 440, 1000, 3000, 6000):
        for level_db in (-40, -12):
            yield f"tone-{hz}Hz{level_db}dB", scale_to(np.sin(2 * np.pi * hz * _time(seconds)), level_db)
    for low_hz, high_hz in ((100, 4000), (300, 1500), (50, 7900)):
        sweep_hz = np.linspace(low_hz, high_hz, len(_time(seconds)))
        yield f"sweep-{low_hz}-{high_hz}", scale_to(np.sin(_phase(sweep_hz)), -20)
        siren_hz = low_hz + (min(high_hz, 2 * low_hz) - low_hz) * (0.5 + 0.5 * np.sin(2 * np.pi * 0.4 * _time(seconds)))
        yield f"siren-{low_hz}", scale_to(np.sin(_phase(siren_hz)), -20)
    for name, (tones_hz, on_s, off_s) in TELEPHONE.items():
        tone = np.sum([np.sin(2 * np.pi * hz * _time(seconds)) for hz in tones_hz], axis=0)
        yield f"telephone-{name}", scale_to(tone * (_time(seconds) % (on_s + off_s) < on_s), -20)
    for seed in range(3):
        yield f"dtmf-{seed}", scale_to(make_dtmf(seconds, seed=seed), -20)


def _iterate_music(seconds: float) -> Iterator[tuple[str, Waveform]]:
    for root_hz in (110.0, 220.0, 440.0):
        for name, steps in {"major": (0, 4, 7), "minor": (0, 3, 7), "seventh": (0, 4, 7, 10)}.items():
            chord = sum(make_harmonics(seconds, root_hz * 2 ** (step / 12), count=6) for step in steps)
            yield f"chord-{name}-{root_hz:g}Hz", scale_to(np.asarray(chord), -20)
    for seed in range(12):
        yield f"melody-{seed}", scale_to(make_melody(seconds, seed=seed), -20)
    for seed in range(4):
        yield f"drums-{seed}", scale_to(make_drums(seconds, seed=seed), -20)
    for seed in range(4):
        yield f"band-{seed}", scale_to(make_band(seconds, seed=seed), -20)


def scale_to(samples: NDArray[np.floating], level_db: float) -> Waveform:
    """The samples at a root mean square of ``level_db`` decibels below full scale, clipped to [-1, 1]."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return np.asarray(np.clip(samples * (10 ** (level_db / 20) / max(rms, 1e-12)), -1, 1), dtype=np.float32)


def make_noise(seconds: float, color: str, *, seed: int) -> Waveform:
    """Noise whose power falls with frequency as f^0 (white), f^-1 (pink), f^-2 (brown) or rises as f^1 (blue)."""
    exponent = {"white": 0.0, "pink": -0.5, "brown": -1.0, "blue": 0.5}[color]
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ)))
    bins = np.arange(len(spectrum)) / seconds  # in Hz
    noise = np.fft.irfft(spectrum * np.maximum(bins, 20.0) ** exponent, round(seconds * SAMPLE_RATE_HZ))
    return np.asarray(0.3 * noise / noise.std(), dtype=np.float32)


def make_harmonics(seconds: float, hz: float, *, count: int, fall: float = 1.0) -> Waveform:
    """A steady tone of ``count`` harmonics; the n-th has the amplitude n ** -fall."""
    parts = [np.sin(2 * np.pi * n * hz * _time(seconds)) / n**fall for n in range(1, count + 1)]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float32)


def make_clicks(seconds: float, per_second: float, *, decay_s: float, seed: int) -> Waveform:
    """Clicks at random times, each noise that dies away."""
    rng = np.random.default_rng(seed)
    size, length = round(seconds * SAMPLE_RATE_HZ), round(6 * decay_s * SAMPLE_RATE_HZ)
    starts = np.zeros(size)
    starts[rng.integers(0, size, max(1, round(per_second * seconds)))] = rng.uniform(0.3, 1.0)
    click = rng.standard_normal(length) * np.exp(-np.arange(length) / (decay_s * SAMPLE_RATE_HZ))
    spectrum = np.fft.rfft(starts, size + length) * np.fft.rfft(click, size + length)
    return np.fft.irfft(spectrum, size + length)[:size].astype(np.float32)


def make_dtmf(seconds: float, *, seed: int) -> Waveform:
    """Keys of a telephone, each 100 ms with 100 ms between."""
    rng = np.random.default_rng(seed)
    key = (_time(seconds) / 0.2).astype(int)
    rows = np.array(DTMF_ROWS_HZ)[rng.integers(0, 4, key.max() + 1)][key]
    columns = np.array(DTMF_COLUMNS_HZ)[rng.integers(0, 4, key.max() + 1)][key]
    tone = np.sin(2 * np.pi * rows * _time(seconds)) + np.sin(2 * np.pi * columns * _time(seconds))
    return np.asarray(tone * (_time(seconds) % 0.2 < 0.1), dtype=np.float32)


def make_melody(seconds: float, *, seed: int) -> Waveform:
    """Notes of a major scale with harmonics, vibrato, attack and decay: one instrument, drawn by seed."""
    rng = np.random.default_rng(seed)
    note_s = float(rng.choice([0.15, 0.25, 0.4, 0.8]))
    root_hz, count, fall = rng.choice([110.0, 165.0, 220.0, 330.0, 440.0]), rng.integers(2, 12), rng.uniform(0.5, 2.0)
    note = (_time(seconds) / note_s).astype(int)
    steps = np.array(MAJOR)[rng.integers(0, len(MAJOR), note.max() + 1)][note]
    vibrato = 1 + rng.uniform(0, 0.012) * np.sin(2 * np.pi * rng.uniform(4, 7) * _time(seconds))
    phase = _phase(root_hz * 2 ** (steps / 12) * vibrato)
    since = _time(seconds) % note_s
    envelope = np.minimum(1, since / 0.02) * np.exp(-since * rng.uniform(0, 4) / note_s)
    parts = [np.sin(n * phase) / n**fall for n in range(1, int(count) + 1)]
    return np.asarray(np.sum(parts, axis=0) * envelope, dtype=np.float32)


def make_drums(seconds: float, *, seed: int) -> Waveform:
    """A beat of low thuds and bright hisses, two to four strokes a second."""
    rng = np.random.default_rng(seed)
    stroke_s = 1 / rng.uniform(2, 4)
    since, stroke = _time(seconds) % stroke_s, (_time(seconds) / stroke_s).astype(int)
    thud = np.sin(2 * np.pi * (50 * since + 3 * (1 - np.exp(-since * 30)))) * np.exp(-since * 18)
    hiss = make_noise(seconds, "blue", seed=seed) * np.exp(-since * 40)
    return np.where(stroke % 2 == 0, thud, hiss).astype(np.float32)


def make_band(seconds: float, *, seed: int) -> Waveform:
    """A melody over a bass line and drums."""
    melody, bass = make_melody(seconds, seed=100 + seed), make_melody(2 * seconds, seed=200 + seed)[::2]
    band = scale_to(melody, -20) + scale_to(bass, -22) + scale_to(make_drums(seconds, seed=seed), -22)
    return band.astype(np.float32)


def join_blocks(samples: Waveform, sizes: Sequence[int]) -> Iterator[Waveform]:
    """The samples in consecutive blocks of the given sizes, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(samples):
            return
        yield samples[start : start + size]
        start += size


def _time(seconds: float) -> NDArray[np.float64]:
    return np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _phase(hz: NDArray[np.floating]) -> NDArray[np.float64]:
    """The phase of a tone whose frequency changes from sample to sample."""
    return np.asarray(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ, dtype=np.float64)


def _draw(seed: int, count: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 1, count)


# What is broken on purpose.

# name -> FFmpeg's muxer, encoder, rate, bits a second
CONTAINERS: dict[str, tuple[str, str, int, int | None]] = {
    "wav": ("wav", "pcm_s16le", 16_000, None),
    "wav-adpcm": ("wav", "adpcm_ms", 16_000, None),
    "w64": ("w64", "pcm_s24le", 16_000, None),
    "aiff": ("aiff", "pcm_s16be", 16_000, None),
    "au": ("au", "pcm_mulaw", 8_000, None),
    "caf": ("caf", "pcm_s16be", 16_000, None),
    "opus": ("ogg", "libopus", 48_000, None),
    "mp3": ("mp3", "libmp3lame", 44_100, None),
    "aac": ("adts", "aac", 44_100, None),
    "ac3": ("ac3", "ac3", 48_000, None),
    "m4a": ("ipod", "aac", 44_100, None),
    "mp4-alac": ("mov", "alac", 44_100, None),
    "3gp": ("3gp", "libopencore_amrnb", 8_000, None),
    "amr": ("amr", "libopencore_amrnb", 8_000, None),
    "webm": ("webm", "libopus", 48_000, None),
    "mkv-mp3": ("matroska", "libmp3lame", 44_100, None),
    "avi": ("avi", "libmp3lame", 44_100, None),
    "flv": ("flv", "aac", 44_100, None),
    "asf": ("asf", "wmav2", 44_100, 64_000),
    "mpegts": ("mpegts", "aac", 44_100, None),
    "mpeg": ("mpeg", "mp2", 44_100, None),
}


def make_valid_files(seconds: float = 0.3) -> dict[str, bytes]:
    """A small file of every container and codec that can be written here, the same bytes each time; by name."""
    files = {}
    for name, (form, codec, rate_hz, bit_rate) in CONTAINERS.items():
        samples = (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)
        files[name] = encode_container(samples, form, codec, rate_hz, bit_rate=bit_rate, options=BITEXACT)
        if name == "m4a":
            files["mp4-fragmented"] = encode_container(samples, "mp4", codec, rate_hz, options=BITEXACT | FRAGMENTED)
    tone = scale_to(np.sin(2 * np.pi * 440 * _time(seconds)), -12)
    files["flac"] = encode_wav(tone, form="FLAC")
    files["vorbis"] = remux(encode_wav(tone, subtype="VORBIS", form="OGG"), "ogg")  # FFmpeg has no proper encoder
    files["ogg-flac"], files["mkv-flac"] = remux(files["flac"], "ogg"), remux(files["flac"], "matroska")
    return files


def make_malformed_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` broken audio files, each with a name that tells what was done to what; the same for the same seed."""
    files = make_valid_files()
    names = sorted(files)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        name, other = (names[at] for at in rng.integers(0, len(names), 2))
        damage = DAMAGES[number % len(DAMAGES)]
        label = damage.__name__.removeprefix("_").replace("_", "-")
        yield f"{number:05d}-{label}-{name}", damage(files[name], files[other], rng)


def _cut_end(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def _flip_header(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return _overwrite(data, rng.integers(0, min(200, len(data)), rng.integers(1, 9)), rng)


def _flip_body(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return _overwrite(data, rng.integers(0, len(data), rng.integers(1, 65)), rng)


def _splice_files(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(4, 600))] + other[int(rng.integers(0, len(other))) :]


def _fill_with_noise(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(4, 120))] + rng.bytes(int(rng.integers(10, 8_000)))


def _repeat_header(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(4, 300))] * int(rng.integers(2, 30)) + data


def _lie_about_sizes(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(4, min(400, len(data) - 4)))
    lie = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\x80\0\0\0"][rng.integers(0, 5)]
    return data[:at] + lie + data[at + 4 :]


def _lose_a_piece(data: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(0, len(data), 2))
    return data[:start] + data[stop:]


def _append_another(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data + other


DAMAGES = (
    _cut_end,
    _flip_header,
    _flip_body,
    _splice_files,
    _fill_with_noise,
    _repeat_header,
    _lie_about_sizes,
    _lose_a_piece,
    _append_another,
)


def _overwrite(data: bytes, places: NDArray[np.integer], rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    changed[places] = rng.integers(0, 256, len(places))
    return changed.tobytes()
