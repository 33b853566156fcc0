"""Encoded sound -> mono float samples at 16 kHz.

FFmpeg's demuxers and decoders (through PyAV) read every container in use, soxr resamples. Everything streams: an hour of
sound needs no more memory than a second of it until somebody keeps the samples.
"""

from __future__ import annotations

import io
import os
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from dinle.errors import AudioDecodeError, AudioLimitError, AudioNotFoundError, EmptyAudioError
from dinle.recognize.audio_decode import DecodeClock, decode_frames, read_channels, read_declared_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from av.audio.frame import AudioFrame

SAMPLE_RATE_HZ = 16_000
Waveform: TypeAlias = NDArray[np.float32]
AudioSource: TypeAlias = str | Path | bytes | BinaryIO

GROUP_S = 1.0
MAX_BLOCK_S = 4.0
MAX_GROUP_VALUES = 384_000  # samples times channels: two channels of a second at the highest rate in use
SCAN_S = 0.05


@dataclass(frozen=True)
class AudioLimits:
    """What a caller accepts of a recording; ``None``: no limit."""

    max_bytes: int | None = None
    """Of the encoded file."""
    max_seconds: float | None = None
    """Of decoded sound. A container that declares more is refused before anything is decoded."""
    max_channels: int | None = None
    max_rate_hz: int | None = None
    max_decode_s: float | None = None
    """Of wall time that the decoder works; the time that a caller of :func:`stream_audio` takes is not counted."""


NO_LIMITS = AudioLimits()


def decode_audio(source: AudioSource, limits: AudioLimits = NO_LIMITS) -> Waveform:
    """Decode a whole recording.

    Args:
        source: a path, the encoded bytes, or a binary file object; any container and codec that FFmpeg reads.
        limits: enforced before and while decoding.

    Returns:
        Waveform (S,): mono, 16 kHz, float32 in [-1, 1]; channels are averaged.

    Raises:
        AudioDecodeError: not audio, damaged, or with samples that are not numbers.
        EmptyAudioError: no samples.
        AudioLimitError: over one of the limits.
        AudioNotFoundError: no file at the path.
    """
    return np.concatenate(list(stream_audio(source, limits)))


def stream_audio(source: AudioSource, limits: AudioLimits = NO_LIMITS) -> Iterator[Waveform]:
    """Decode a recording block by block, each (S,) as :func:`decode_audio` gives it; same arguments and errors."""
    clock = DecodeClock(limits.max_decode_s)
    with _open_file(source, limits.max_bytes) as (file, name):
        _check_bytes(file, name, limits.max_bytes)
        yield from clock.run(decode_blocks(file, name, limits, clock))


def find_duration(source: AudioSource) -> float | None:
    """Seconds that a recording says it has, without decoding it; ``None`` where its kind of file does not say so reliably.

    Raises:
        AudioDecodeError, AudioNotFoundError, EmptyAudioError: as :func:`decode_audio`.
    """
    with _open_file(source, None) as (file, name):
        _check_bytes(file, name, None)
        return read_declared_s(file, name)


def check_audio(source: AudioSource, limits: AudioLimits = NO_LIMITS) -> float:
    """Decode a recording only to count its samples, without keeping, mixing or resampling them.

    A caller that must know before it begins whether a long recording is sound and within the limits reads it twice: by
    this, then by :func:`stream_audio`. A file object is read from its beginning both times; a pipe can be read once only.

    Returns:
        Seconds of sound, those of :func:`decode_audio` to the sample.

    Raises:
        AudioError: as :func:`decode_audio`, except that samples which are not numbers go unnoticed.
    """
    return deque(scan_audio(source, limits), maxlen=1).pop()


def scan_audio(source: AudioSource, limits: AudioLimits = NO_LIMITS) -> Iterator[float]:
    """As :func:`check_audio`, in steps of about :data:`SCAN_S` of work: the seconds counted so far, those of all last."""
    clock = DecodeClock(limits.max_decode_s)
    with _open_file(source, limits.max_bytes) as (file, name), clock.running():
        _check_bytes(file, name, limits.max_bytes)
        samples, rate_hz, step_ends_s = 0, SAMPLE_RATE_HZ, SCAN_S
        for frame in decode_frames(file, name, limits, clock):
            samples, rate_hz = samples + frame.samples, frame.sample_rate
            if clock.spent_s >= step_ends_s:
                step_ends_s = clock.spent_s + SCAN_S
                with clock.standing():
                    yield samples / rate_hz
    yield samples / rate_hz


@contextmanager
def _open_file(source: AudioSource, max_bytes: int | None) -> Iterator[tuple[BinaryIO, str]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source), "the audio"
    elif isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            raise AudioDecodeError(f"{path} is a folder; expected an audio file")
        try:
            file = path.open("rb")  # FFmpeg gets the file, never the name: names can be addresses
        except FileNotFoundError:
            raise AudioNotFoundError(f"there is no file {path}; expected an audio file") from None
        with file:
            yield file, str(path)
    elif not source.seekable():  # a pipe: some containers keep their index at the end, so it is read whole
        yield io.BytesIO(source.read(-1 if max_bytes is None else max_bytes + 1)), "the audio"
    else:
        name = getattr(source, "name", None)  # a temporary file's is a number, or nothing
        yield source, name if isinstance(name, str) else "the audio"


def _check_bytes(file: BinaryIO, name: str, max_bytes: int | None) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise EmptyAudioError(f"{name} is empty (0 bytes); expected an audio file")
    if max_bytes is not None and size > max_bytes:
        raise AudioLimitError(
            f"{name} has {size} bytes; at most {max_bytes} are accepted: send a shorter or compressed file"
        )


def decode_blocks(
    file: BinaryIO,
    name: str,
    limits: AudioLimits,
    clock: DecodeClock,
    *,
    group_s: float = GROUP_S,
    form: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Iterator[Waveform]:
    """Blocks (S,) at 16 kHz, each at most :data:`MAX_BLOCK_S`.

    Args:
        file: the encoded bytes from their beginning.
        name: what messages call it.
        limits: enforced before and while decoding; ``max_bytes`` is the caller's.
        clock: runs while blocks are made, with the limit ``max_decode_s``.
        group_s: how much sound is mixed and resampled at once; 0 gives each frame as soon as it is decoded.
        form: FFmpeg's name of the container, if it is known.
        options: more of FFmpeg's options for the demuxer.

    Raises:
        AudioError: as :func:`decode_audio`.
    """
    resampler: Resampler | None = None
    some = False
    frames = decode_frames(file, name, limits, clock, form=form, options=options)
    for group in _group_frames(frames, group_s):
        rate_hz = group[0].sample_rate
        resampler = resampler or Resampler(rate_hz)
        for part in _cut_samples(read_channels(group), rate_hz):
            block = resampler.push(mix_down(part, name))
            if len(block):
                some = True
                yield block
    block = resampler.finish() if resampler else np.zeros(0, dtype=np.float32)
    if len(block):
        yield block
    elif not some:
        raise EmptyAudioError(f"{name} holds no samples; expected at least one")


class Resampler:
    """One channel at any rate -> 16 kHz, block by block; how it is cut into blocks changes nothing."""

    def __init__(self, rate_hz: int) -> None:
        self._soxr = (
            None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        )

    def push(self, block: Waveform) -> Waveform:
        """What (S,) more samples give, within [-1, 1]; the filter holds a few milliseconds back."""
        return self._resample(block, last=False)

    def finish(self) -> Waveform:
        """What was held back."""
        return self._resample(np.zeros(0, dtype=np.float32), last=True)

    def _resample(self, block: Waveform, *, last: bool) -> Waveform:
        if self._soxr is not None:
            block = self._soxr.resample_chunk(block, last=last)
        return np.clip(block, -1.0, 1.0)


def _group_frames(frames: Iterator[AudioFrame], group_s: float) -> Iterator[list[AudioFrame]]:
    """About ``group_s`` of frames at a time: a codec's own frames of 20 ms cost more in calls than in samples."""
    group: list[AudioFrame] = []
    held = 0
    for frame in frames:
        if group and not _match_frames(group[0], frame):
            yield group
            group, held = [], 0
        group.append(frame)
        held += frame.samples
        if held >= group_s * frame.sample_rate or held * frame.layout.nb_channels >= MAX_GROUP_VALUES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _match_frames(one: AudioFrame, other: AudioFrame) -> bool:
    """Whether two frames have the same channels and sample type: in joined files both can change midway."""
    return one.layout.nb_channels == other.layout.nb_channels and one.format.name == other.format.name


def _cut_samples(samples: NDArray[Any], rate_hz: int) -> Iterator[NDArray[Any]]:
    """(channels, S) in parts that make no block over :data:`MAX_BLOCK_S` and no array over :data:`MAX_GROUP_VALUES`."""
    size = max(1, min(round(MAX_BLOCK_S * rate_hz), MAX_GROUP_VALUES // len(samples)))
    for start in range(0, samples.shape[1], size):
        yield samples[:, start : start + size]


def mix_down(samples: NDArray[Any], name: str) -> Waveform:
    """(channels, S) of any sample type as one channel (S,) of float32, integers scaled to [-1, 1].

    Raises:
        AudioDecodeError: a sample is NaN or infinite.
    """
    if samples.dtype == np.uint8:
        scaled = (samples.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(samples.dtype, np.integer):
        scaled = samples.astype(np.float32) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            scaled = samples.astype(np.float32)
    mono: Waveform = scaled.mean(axis=0, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise AudioDecodeError(
            f"{name} holds samples that are not numbers (NaN or infinite); expected values in [-1, 1]"
        )
    return mono
