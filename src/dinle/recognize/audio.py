"""Encoded sound -> mono float samples at 16 kHz.

FFmpeg's demuxers and decoders (through PyAV) read every container in use, soxr resamples. Everything streams: an hour of
sound needs no more memory than a second of it until somebody keeps the samples.
"""

from __future__ import annotations

import io
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from dinle.errors import AudioDecodeError, AudioLimitError, AudioNotFoundError, EmptyAudioError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from av.audio.frame import AudioFrame
    from av.container import InputContainer

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
Waveform: TypeAlias = NDArray[np.float32]
AudioSource: TypeAlias = str | Path | bytes | BinaryIO

# Demuxers that read one self-contained file. Playlists and the like stay out: they open other files and addresses.
DEMUXERS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,matroska,webm,mov,mp3,mp4,m4a,mpeg,mpegts,ogg,w64,wav"
# A stray broken packet (such as a tag at the end of an MP3) is skipped; more than this share means damage.
MAX_BROKEN_SHARE = 0.05
# A demuxer that fails this often, and more often than it succeeds, would fail forever.
MAX_BROKEN_PACKETS = 100
MAX_GROUP_SAMPLES = 192_000  # a second at the highest rate in use: a header may claim any


@dataclass(frozen=True)
class AudioLimits:
    """What a caller accepts: bytes of the encoded file, seconds of decoded sound (``None``: no limit)."""

    max_bytes: int | None = None
    max_seconds: float | None = None


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
    with _open_file(source, limits.max_bytes) as (file, name):
        _check_bytes(file, name, limits.max_bytes)
        some = False
        with _open_container(file, name) as container:
            for block in _resample(_decode_frames(container, name), name, limits.max_seconds):
                some = True
                yield block
        if not some:
            raise EmptyAudioError(f"{name} holds no samples; expected at least one")


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


@contextmanager
def _open_container(file: BinaryIO, name: str) -> Iterator[InputContainer]:
    try:
        container = av.open(file, mode="r", metadata_errors="ignore", options={"format_whitelist": DEMUXERS})
    except (av.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise AudioDecodeError(
            f"{name} cannot be read as audio ({reason}); expected wav, flac, ogg, opus, mp3, m4a or webm"
        ) from error
    with container:
        if not container.streams.audio:
            raise AudioDecodeError(f"{name} holds no sound track; expected audio")
        yield container


def _decode_frames(container: InputContainer, name: str) -> Iterator[AudioFrame]:
    stream = container.streams.audio[0]
    good = broken = 0
    reason = ""
    packets = container.demux(stream)
    while broken <= max(MAX_BROKEN_PACKETS, good):
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            broken, reason = broken + 1, str(error)
            packets = container.demux(stream)  # a generator that has raised is finished; the container may not be
            continue
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            broken, reason = broken + 1, str(error)
            continue
        good += 1
        yield from frames
    if broken > MAX_BROKEN_SHARE * (good + broken):
        raise AudioDecodeError(f"{name} is damaged: {broken} of {broken + good} packets cannot be decoded ({reason})")
    if broken:
        logger.warning("%s: skipped %d broken packets of %d", name, broken, broken + good)


def _resample(frames: Iterator[AudioFrame], name: str, max_seconds: float | None) -> Iterator[Waveform]:
    resampler: soxr.ResampleStream | None = None
    for group in _group_frames(frames, name, max_seconds):
        rate_hz = group[0].sample_rate
        block = mix_down(group, name)
        if rate_hz != SAMPLE_RATE_HZ:
            resampler = resampler or soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
            block = resampler.resample_chunk(block)
        if len(block):
            yield np.clip(block, -1.0, 1.0)
    if resampler is not None:
        block = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        if len(block):
            yield np.clip(block, -1.0, 1.0)


def _group_frames(frames: Iterator[AudioFrame], name: str, max_seconds: float | None) -> Iterator[list[AudioFrame]]:
    """About a second of frames at a time: a codec's own frames of 20 ms cost more in calls than in samples."""
    group: list[AudioFrame] = []
    rate_hz, seconds, held = 0, 0.0, 0
    for frame in frames:
        if rate_hz and frame.sample_rate != rate_hz:
            raise AudioDecodeError(
                f"{name} changes its sample rate from {rate_hz} to {frame.sample_rate} Hz; convert it first"
            )
        rate_hz = frame.sample_rate
        seconds += frame.samples / rate_hz
        if max_seconds is not None and seconds > max_seconds:
            raise AudioLimitError(f"{name} is longer than {max_seconds:g} s; cut it into shorter files")
        if group and (held >= min(rate_hz, MAX_GROUP_SAMPLES) or not _match_frames(group[0], frame)):
            yield group
            group, held = [], 0
        group.append(frame)
        held += frame.samples
    if group:
        yield group


def _match_frames(one: AudioFrame, other: AudioFrame) -> bool:
    """Whether two frames have the same channels and sample type: in joined files both can change midway."""
    return one.layout.nb_channels == other.layout.nb_channels and one.format.name == other.format.name


def mix_down(frames: Sequence[AudioFrame], name: str) -> Waveform:
    """The samples of consecutive frames of one kind as one channel (S,) of float32, integers scaled to [-1, 1].

    Raises:
        AudioDecodeError: a sample is NaN or infinite.
    """
    samples = np.concatenate([_read_channels(frame) for frame in frames], axis=1)
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


def _read_channels(frame: AudioFrame) -> NDArray[Any]:
    """The samples of a frame, (channels, samples), in the codec's own type."""
    samples: NDArray[Any] = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T
