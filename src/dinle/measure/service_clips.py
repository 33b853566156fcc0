"""The recordings that a load benchmark posts: clips of a manifest, joined to 3 to 15 seconds, as clients would send them."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import soxr

from dinle.errors import UsageError
from dinle.manifest import read_manifest
from dinle.measure.load_client import LoadClip
from dinle.recognize.audio import SAMPLE_RATE_HZ, decode_audio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer

MINI = Path("data/mini")  # what the name mini means
SHORTEST_S, LONGEST_S = 3.0, 15.0
SILENCE_S = 0.3  # between joined clips
OPUS_EVERY = 3  # every third clip is opus in ogg, as phones and browsers record; the others are wav
OPUS_RATE_HZ = 48_000
BOUNDARY = "dinle-load-boundary-7f1c0a9e"
_INT16_PEAK = 32_767


def make_clips(manifest: str, count: int, seed: int) -> list[LoadClip]:
    """Recordings whose lengths are spread evenly over 3 to 15 s.

    Clips of the manifest that are too short are left out; of the rest, neighbours are joined with 0.3 s of silence between.

    Args:
        manifest: JSONL manifest or its folder; ``mini`` is ``data/mini``.
        count: how many recordings.
        seed: chooses among runs of neighbours of the same length.

    Returns:
        The clips from short to long, without the texts that they should be answered with.

    Raises:
        ManifestError: no such manifest, or its files are missing.
        AudioError: a clip cannot be read.
        UsageError: fewer than one clip is asked for, or none of the manifest is 3 to 15 s long.
    """
    path = MINI if manifest == "mini" else Path(manifest)
    sources = [clip for clip in read_manifest(path) if SHORTEST_S <= clip.duration_s <= LONGEST_S]
    if count < 1 or not sources:
        raise UsageError(
            f"{count} clips from {len(sources)} of {path} that are {SHORTEST_S:g} to {LONGEST_S:g} s long; expected at least "
            "1 of each"
        )
    runs = choose_runs([clip.duration_s for clip in sources], count, seed)
    return [
        encode_clip(number, join_waveforms([decode_audio(clip.audio) for clip in sources[run]]))
        for number, run in enumerate(runs)
    ]


def choose_runs(durations_s: Sequence[float], count: int, seed: int) -> list[slice]:
    """Runs of neighbours whose joined lengths come closest to ``count`` lengths spread evenly over 3 to 15 s.

    No two runs are the same, as long as there are enough.

    Args:
        durations_s: seconds of each clip.
        count: how many runs.
        seed: of the order in which runs are tried, which decides among those of the same length.

    Returns:
        The clips of each run, from short to long.
    """
    lengths = list(_iterate_runs(durations_s))
    order = np.random.default_rng(seed).permutation(len(lengths))
    runs = [lengths[index] for index in order]
    free: list[tuple[slice, float]] = []
    chosen = []
    for target_s in np.linspace(SHORTEST_S, LONGEST_S, count):
        free = free or runs.copy()
        nearest = min(range(len(free)), key=lambda index: abs(free[index][1] - target_s))
        chosen.append(free.pop(nearest))
    return [run for run, _ in sorted(chosen, key=lambda one: one[1])]


def _iterate_runs(durations_s: Sequence[float]) -> Iterator[tuple[slice, float]]:
    """Every run of neighbours that is at most 15 s long when joined, and its seconds."""
    for start in range(len(durations_s)):
        seconds = -SILENCE_S
        for end in range(start, len(durations_s)):
            seconds += SILENCE_S + durations_s[end]
            if seconds > LONGEST_S:
                break
            yield slice(start, end + 1), seconds


def join_waveforms(waveforms: Sequence[Waveform]) -> Waveform:
    """Waveforms (S,) at 16 kHz one after another, with 0.3 s of silence between."""
    silence = np.zeros(round(SILENCE_S * SAMPLE_RATE_HZ), dtype=np.float32)
    parts = [part for waveform in waveforms for part in (silence, waveform)]
    return np.concatenate(parts[1:])


def encode_clip(number: int, waveform: Waveform) -> LoadClip:
    """A waveform (S,) as the form that is posted: every third is opus, the others are wav."""
    is_opus = number % OPUS_EVERY == OPUS_EVERY - 1
    suffix, sound = ("ogg", encode_opus(waveform)) if is_opus else ("wav", encode_wav(waveform))
    audio_s = len(waveform) / SAMPLE_RATE_HZ
    return make_clip(f"{number:02d}-{audio_s:.1f}s.{suffix}", audio_s, sound)


def make_clip(name: str, audio_s: float, sound: bytes) -> LoadClip:
    """The form of one field ``file`` (multipart/form-data, RFC 7578) around an encoded recording.

    Raises:
        UsageError: the recording holds the boundary.
    """
    if BOUNDARY.encode() in sound:
        raise UsageError(f"{name} holds the boundary of the form, {BOUNDARY}; give another recording")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + sound + f"\r\n--{BOUNDARY}--\r\n".encode()
    return LoadClip(name, audio_s, body, f"multipart/form-data; boundary={BOUNDARY}")


def read_sound(clip: LoadClip) -> bytes:
    """The encoded recording inside a clip's form."""
    start = clip.body.index(b"\r\n\r\n") + 4
    return clip.body[start : clip.body.rindex(f"\r\n--{BOUNDARY}--".encode())]


def encode_wav(waveform: Waveform) -> bytes:
    """A waveform (S,) as wav of 16 bits at 16 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE_HZ)
        writer.writeframes(np.round(np.clip(waveform, -1, 1) * _INT16_PEAK).astype("<i2").tobytes())
    return file.getvalue()


def encode_opus(waveform: Waveform) -> bytes:
    """A waveform (S,) at 16 kHz as opus in ogg, at opus's own 48 kHz and libopus's own bit rate."""
    samples = soxr.resample(waveform, SAMPLE_RATE_HZ, OPUS_RATE_HZ)
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=OPUS_RATE_HZ)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = OPUS_RATE_HZ
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=OPUS_RATE_HZ, frame_size=stream.frame_size
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


def recognize_clips(clips: Sequence[LoadClip], recognizer: Recognizer) -> list[str]:
    """What the recogniser makes of the very bytes that are posted."""
    return [recognizer.transcribe(read_sound(clip)).text for clip in clips]


def describe_clips(clips: Sequence[LoadClip], manifest: str) -> dict[str, Any]:
    """The mix, for reports."""
    seconds = [clip.audio_s for clip in clips]
    return {
        "manifest": str(MINI) if manifest == "mini" else manifest,
        "count": len(clips),
        "mean_s": sum(seconds) / len(seconds),
        "shortest_s": min(seconds),
        "longest_s": max(seconds),
        "opus": sum(clip.id.endswith(".ogg") for clip in clips),
        "mean_bytes": sum(len(clip.body) for clip in clips) / len(clips),
    }
