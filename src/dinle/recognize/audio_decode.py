"""Encoded sound -> frames of samples, by FFmpeg's demuxers and decoders (through PyAV), within the caller's limits.

What comes in is not trusted: a header can claim anything, a kilobyte can decode to hours, and PyAV itself trusts some of
what FFmpeg hands it. Each guard below names what it is for.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import av
import numpy as np
from av.audio.plane import AudioPlane

from dinle.errors import AudioDecodeError, AudioLimitError, EmptyAudioError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from numpy.typing import NDArray

    from dinle.recognize.audio import AudioLimits

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Demuxers that read one self-contained file. Playlists and the like stay out: they open other files and addresses.
DEMUXERS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,matroska,webm,mov,mp3,mp4,m4a,mpeg,mpegts,ogg,w64,wav"
# Decoders of sound that people have. aac_latm stays out: it can switch to the AAC that _open_decoder refuses.
DECODERS = (
    "aac,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,alac,amrnb,amrwb,dca,eac3,flac,g722,g726,gsm,"
    "gsm_ms,mp1,mp1float,mp2,mp2float,mp3,mp3float,nellymoser,opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,"
    "pcm_mulaw,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,pcm_s24le_planar,pcm_s32be,"
    "pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_s8,pcm_s8_planar,pcm_u8,speex,vorbis,wmapro,wmav1,wmav2,wmavoice"
)
# Containers that write down how long they are, or whose size tells it; elsewhere FFmpeg's duration is a guess.
EXACT_CONTAINERS = frozenset(
    {"aiff", "au", "caf", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "ogg", "w64", "wav"}
)
# A declared length counts a codec's padding, which is cut off the sound: a file of just the limit must pass.
DECLARED_SLACK_S = 1.0
# A stray broken packet (such as a tag at the end of an MP3) is skipped; more than this share means damage.
MAX_BROKEN_SHARE = 0.05
# A demuxer that fails this often, and more often than it succeeds, would fail forever.
MAX_BROKEN_PACKETS = 100
MIN_RATE_HZ = 1_000  # no codec of sound goes lower, and resampling 1 Hz would make 16 000 samples of each
MAX_FRAME_SAMPLES = 1 << 20  # ALAC may claim millions in a packet of a hundred bytes; FLAC's largest frame has 65 535
# PyAV gives all frames of a packet at once, and one packet can be crammed with thousands of silent ones. A frame of AAC
# has at most 768 bytes a channel (ISO/IEC 13818-7); one of WMA is as large as a second at its rates allows.
MAX_PACKET_BYTES = {"aac": 16_384, "wmav1": 20_480, "wmav2": 20_480, "wmapro": 20_480, "wmavoice": 20_480}
MAX_OTHER_PACKET_BYTES = 65_536
# Of these a packet is one frame, however large; FLAC is cut into frames first (_split_packet).
ONE_FRAME_CODECS = frozenset({"alac", "dca", "flac", "opus", "vorbis"})
PARSE_BYTES = 16_384
# FFmpeg's sample formats, packed or planar ("p" appended).
SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
# A wav says all in its head. Without a decoder FFmpeg would look through 5 MB for more, and its own packets are of 2 kB:
# together more than half of the time that a clip of some seconds takes.
WAV_OPTIONS = {"probesize": "16384", "max_size": "4096"}
AVSEEK_FORCE = 0x20000  # a flag that FFmpeg adds to the usual whence of seek()


class DecodeClock:
    """Counts the seconds of wall time in which a decoder works; while its caller holds a block the clock stands."""

    def __init__(self, max_s: float | None = None) -> None:
        self._max_s = max_s
        self._spent_s = 0.0
        self._since: float | None = None

    @property
    def spent_s(self) -> float:
        """The seconds of work so far."""
        return self._spent_s + (0.0 if self._since is None else time.monotonic() - self._since)

    @property
    def is_over(self) -> bool:
        """Whether the limit is passed."""
        return self._max_s is not None and self.spent_s > self._max_s

    def check(self, name: str) -> None:
        """Raise :class:`AudioLimitError` once the limit is passed."""
        if self.is_over:
            raise AudioLimitError(
                f"{name} takes more than {self._max_s:g} s to decode; send a shorter file, or an ordinary one (flac, opus)"
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """The clock runs in this block."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def standing(self) -> Iterator[None]:
        """The running clock stands in this block: the decoder waits for somebody else."""
        self._stop()
        try:
            yield
        finally:
            self._since = time.monotonic()

    def run(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items; the clock runs while one is made."""
        while True:
            with self.running():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _stop(self) -> None:
        self._spent_s, self._since = self.spent_s, None


class TimedFile:
    """A file for FFmpeg which ends when the clock is over, so that a demuxer that reads on and on comes to an end.

    It has no name: names can be addresses. Impossible places to seek to are refused as FFmpeg expects it.
    """

    def __init__(self, file: BinaryIO, clock: DecodeClock) -> None:
        self._file = file
        self._clock = clock

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        return b"" if self._clock.is_over else self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position, or -1."""
        try:
            return self._file.seek(offset, whence & ~AVSEEK_FORCE)
        except (OSError, OverflowError, ValueError):
            return -1

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Whether :meth:`seek` works."""
        return self._file.seekable()


def decode_frames(
    file: BinaryIO,
    name: str,
    limits: AudioLimits,
    clock: DecodeClock,
    *,
    form: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Iterator[AudioFrame]:
    """The frames of a recording's first sound track, none without samples, each checked against the limits.

    Args:
        file: the encoded bytes from their beginning.
        name: what messages call it.
        limits: enforced before and while decoding; ``max_bytes`` is the caller's.
        clock: runs while frames are made, with the limit ``max_decode_s``.
        form: FFmpeg's name of the container, if it is known.
        options: more of FFmpeg's options for the demuxer.

    Raises:
        AudioDecodeError, EmptyAudioError, AudioLimitError: as :func:`dinle.recognize.audio.decode_audio`.
    """
    with _open_container(file, name, clock, form, {**(options or {})}) as container:
        stream = container.streams.audio[0]
        context = _open_decoder(stream, name, limits)
        _check_declared(container, stream, name, limits.max_seconds)
        rate_hz = samples = 0
        for frame in _decode_packets(container, stream, context, name, clock):
            if frame.samples <= 0:
                continue
            if rate_hz and frame.sample_rate != rate_hz:
                raise AudioDecodeError(
                    f"{name} changes its sample rate from {rate_hz} to {frame.sample_rate} Hz; convert it first"
                )
            rate_hz = frame.sample_rate
            _check_kind(rate_hz, frame.layout.nb_channels, name, limits)
            samples += frame.samples
            if limits.max_seconds is not None and samples > limits.max_seconds * rate_hz:
                raise AudioLimitError(f"{name} is longer than {limits.max_seconds:g} s; cut it into shorter files")
            yield frame
        if samples == 0:
            raise EmptyAudioError(f"{name} holds no samples; expected at least one")


def _is_wav(file: BinaryIO) -> bool:
    if not file.seekable():
        return False
    start = file.tell()
    head = file.read(12)
    file.seek(start)
    return head[:4] == b"RIFF" and head[8:] == b"WAVE"


def read_declared_s(file: BinaryIO, name: str) -> float | None:
    """Seconds that a recording says it has, read from its head; ``None`` where it does not say so reliably.

    Raises:
        AudioDecodeError: it is not audio.
    """
    with _open_container(file, name, DecodeClock(None), None, {}) as container:
        return _read_declared(container, container.streams.audio[0])


@contextmanager
def _open_container(
    file: BinaryIO, name: str, clock: DecodeClock, form: str | None, options: dict[str, str]
) -> Iterator[InputContainer]:
    # No decoder while FFmpeg looks into the file: it would try covers and videos too, and a packet of hours at once.
    options |= {"format_whitelist": DEMUXERS, "codec_whitelist": "none"}
    if _is_wav(file):
        options |= WAV_OPTIONS
    try:
        container = av.open(TimedFile(file, clock), "r", format=form, metadata_errors="ignore", options=options)
    except (av.FFmpegError, ValueError) as error:
        clock.check(name)
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise AudioDecodeError(
            f"{name} cannot be read as audio ({reason}); expected wav, flac, ogg, opus, mp3, m4a or webm"
        ) from error
    with container:
        clock.check(name)
        if not container.streams.audio:
            raise AudioDecodeError(f"{name} holds no sound track; expected audio")
        yield container


def _open_decoder(stream: AudioStream, name: str, limits: AudioLimits) -> AudioCodecContext:
    context: AudioCodecContext | None = stream.codec_context
    if context is None or context.name not in DECODERS.split(","):
        codec = "an unknown codec" if context is None else context.name
        raise AudioDecodeError(f"{name} holds sound in {codec}; expected a common one: convert it, for example to flac")
    channels = context.layout.nb_channels
    if channels:
        # PyAV 18 shares the map of a custom channel layout without owning it, and frees it twice, which ends the process.
        # Only the number of channels matters here.
        context.layout = f"{channels}C"
    if context.sample_rate or channels:
        _check_kind(context.sample_rate or MIN_RATE_HZ, channels, name, limits)
    context.thread_count = 1  # a service decodes several recordings at once
    context.options = {"max_samples": str(MAX_FRAME_SAMPLES)}
    try:
        context.open(strict=False)
    except (av.FFmpegError, ValueError) as error:
        raise AudioDecodeError(f"{name} cannot be decoded ({error}); convert it, for example to flac") from error
    if context.profile == "xHE-AAC":  # its decoder makes custom layouts of its own
        raise AudioDecodeError(
            f"{name} holds sound in xHE-AAC, which is not supported: convert it, for example to flac"
        )
    return context


def _check_kind(rate_hz: int, channels: int, name: str, limits: AudioLimits) -> None:
    if limits.max_channels is not None and channels > limits.max_channels:
        raise AudioLimitError(
            f"{name} has {channels} channels; at most {limits.max_channels} are accepted: mix them down first"
        )
    if limits.max_rate_hz is not None and rate_hz > limits.max_rate_hz:
        raise AudioLimitError(
            f"{name} has a sample rate of {rate_hz} Hz; at most {limits.max_rate_hz} are accepted: resample it first"
        )
    if rate_hz < MIN_RATE_HZ:
        raise AudioDecodeError(f"{name} has a sample rate of {rate_hz} Hz; expected at least {MIN_RATE_HZ}")


def _check_declared(container: InputContainer, stream: AudioStream, name: str, max_seconds: float | None) -> None:
    seconds = _read_declared(container, stream)
    if max_seconds is not None and seconds is not None and seconds > max_seconds + DECLARED_SLACK_S:
        raise AudioLimitError(
            f"{name} is longer than {max_seconds:g} s (it says {seconds:.0f} s); cut it into shorter files"
        )


def _read_declared(container: InputContainer, stream: AudioStream) -> float | None:
    if container.format.name not in EXACT_CONTAINERS:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams.get()) == 1:  # beside a video it may be the video's
        return container.duration / av.time_base
    return None


def _decode_packets(
    container: InputContainer, stream: AudioStream, context: AudioCodecContext, name: str, clock: DecodeClock
) -> Iterator[AudioFrame]:
    good = broken = 0
    reason = ""
    packets = container.demux(stream)
    while broken <= max(MAX_BROKEN_PACKETS, good):
        clock.check(name)
        try:
            packet = next(packets, None)
        except IndexError:  # at the end PyAV 18 flushes every stream, also one that it has not met: ours came before
            break
        except av.FFmpegError as error:
            broken, reason = broken + 1, str(error)
            packets = container.demux(stream)  # a generator that has raised is finished; the container may not be
            continue
        clock.check(name)  # the file may have ended because the time is over
        if packet is None:
            break
        _check_packet(packet, context, name)
        for part in _split_packet(packet, context, container.format.name):
            try:
                frames = context.decode(part)
            except av.FFmpegError as error:
                broken, reason = broken + 1, str(error)
                continue
            good += 1
            yield from frames
            clock.check(name)
    if broken > MAX_BROKEN_SHARE * (good + broken):
        raise AudioDecodeError(f"{name} is damaged: {broken} of {broken + good} packets cannot be decoded ({reason})")
    if broken:
        logger.warning("%s: skipped %d broken packets of %d", name, broken, broken + good)


def _check_packet(packet: Packet[AudioStream], context: AudioCodecContext, name: str) -> None:
    codec = context.name
    if codec not in ONE_FRAME_CODECS and not codec.startswith("pcm_"):
        limit = MAX_PACKET_BYTES.get(codec, MAX_OTHER_PACKET_BYTES)
        if packet.size > limit:
            raise AudioDecodeError(
                f"{name} holds a packet of {packet.size} bytes; expected at most {limit} of {codec}: convert it first"
            )
    if codec == "aac" and packet.has_sidedata("new_extradata"):  # could switch to xHE-AAC
        raise AudioDecodeError(f"{name} changes its AAC settings on the way; convert it first")


def _split_packet(
    packet: Packet[AudioStream], context: AudioCodecContext, form: str
) -> Iterator[Packet[AudioStream] | None]:
    """The packet in parts of one frame each; ``None`` flushes the decoder.

    FLAC needs 14 bytes for 65 535 samples of silence, so a packet of 100 kB would be gigabytes at once. In its own
    container FFmpeg cuts the frames apart; in others it trusts the packets.
    """
    if context.name != "flac" or form == "flac":
        yield packet
    elif packet.size:
        data = bytes(packet)
        for start in range(0, len(data), PARSE_BYTES):
            yield from context.parse(data[start : start + PARSE_BYTES])
    else:
        while parts := context.parse(None):
            yield from parts
        yield None


def read_channels(frames: Sequence[AudioFrame]) -> NDArray[Any]:
    """The samples of consecutive frames of one kind, (channels, samples), in the codec's own type."""
    return np.concatenate([_read_planes(frame) for frame in frames], axis=1)


def _read_planes(frame: AudioFrame) -> NDArray[Any]:
    # Not frame.to_ndarray(): PyAV 18 counts planes up to a null pointer, which is missing from 8 channels on, and reads
    # what lies behind them.
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > 1:
        return np.stack([_read_plane(frame, at, frame.samples) for at in range(channels)])
    return _read_plane(frame, 0, frame.samples * channels).reshape(-1, channels).T


def _read_plane(frame: AudioFrame, at: int, count: int) -> NDArray[Any]:
    plane: Any = AudioPlane(frame, at)
    return np.frombuffer(plane, SAMPLE_TYPES[frame.format.name.removesuffix("p")], count)
