"""Sound that arrives piece by piece -> blocks of mono samples at 16 kHz, as soon as they can be decoded.

:class:`PushDecoder` takes a container (webm, ogg, fragmented mp4: what a browser records; flac and wav), :class:`PcmDecoder` bare
samples. Both give, block after block, what :func:`dinle.recognize.audio.decode_audio` gives of the whole, wherever the
pieces are cut.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import numpy as np

from dinle.errors import AudioDecodeError, AudioLimitError, EmptyAudioError, UsageError
from dinle.recognize.audio import NO_LIMITS, SAMPLE_RATE_HZ, AudioLimits, Resampler, Waveform, decode_blocks, mix_down
from dinle.recognize.audio_decode import DecodeClock

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal, Self, TypeAlias

    from numpy.typing import NDArray

    Encoding: TypeAlias = Literal["pcm16", "g711_ulaw", "g711_alaw"]

NAME = "the stream"
PCM_RATES_HZ = (8_000, 16_000, 24_000, 44_100, 48_000)
# What the first bytes are -> FFmpeg's demuxer. Told by name it need not look at kilobytes to find out.
MAGIC = (
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "mp4"),
    (0, b"fLaC", "flac"),
    (0, b"RIFF", "wav"),
)
MAGIC_BYTES = 8
# Go no further than the headers before the first packet is given out. (fflags nobuffer would lose what was looked at.)
LIVE_OPTIONS = {"probesize": "2048", "analyzeduration": "0"}


class LiveDecoder(Protocol):
    """Takes encoded pieces, gives blocks (S,) of 16 kHz mono float32 in [-1, 1]."""

    def push(self, data: bytes) -> list[Waveform]:
        """The blocks that the next piece completes."""

    def finish(self) -> list[Waveform]:
        """The blocks that were held back; nothing can be pushed afterwards."""

    def close(self) -> None:
        """Give everything up, at any time and as often as you like."""


class PushDecoder:
    """Decodes a container stream while it arrives.

    FFmpeg pulls its bytes, so it runs in a thread that waits for them. ``push`` returns when that thread has used up the
    piece and waits again: the blocks that come out depend on the pieces alone, not on timing. One caller at a time.

    Also a context manager, which closes. Use it as one, or call :meth:`close`: the thread lives until then.

    Args:
        limits: as for :func:`dinle.recognize.audio.decode_audio`; the time spent waiting for a piece is not counted.
            ``max_seconds`` also bounds what one push can return.
        max_push_s: most seconds of sound that one push may give: a few bytes can hold hours of silence.
    """

    def __init__(self, limits: AudioLimits = NO_LIMITS, *, max_push_s: float = math.inf) -> None:
        self._pipe = _Pipe(limits, max_push_s)
        self._thread = threading.Thread(target=self._pipe.run, name="dinle-live-audio", daemon=True)
        self._collected = weakref.finalize(self, self._pipe.close)
        self._thread.start()

    def push(self, data: bytes) -> list[Waveform]:
        """The blocks (S,) that the next piece completes, possibly none.

        Raises:
            AudioDecodeError: not audio, or damaged.
            AudioLimitError: over one of the limits. Blocks decoded before an error come out first: it is raised by the
                next call.
            UsageError: after :meth:`finish` or :meth:`close`.
        """
        return self._pipe.push(data)

    def finish(self) -> list[Waveform]:
        """All blocks that are left, decoded to the end of the stream; ends the thread.

        Raises:
            AudioDecodeError: not audio, damaged, or cut in its header.
            EmptyAudioError: no samples.
            AudioLimitError: over one of the limits.
            UsageError: after :meth:`finish` or :meth:`close`.
        """
        try:
            return self._pipe.finish()
        finally:
            self.close()

    def close(self) -> None:
        """Give up and end the thread, also while it waits for bytes."""
        self._pipe.close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Pipe:
    """What the caller and the decoding thread share: the bytes not yet read, the blocks not yet taken.

    To FFmpeg it is a file that cannot be searched, and whose ``read`` waits. The bytes of one push are all used up
    before the next, so nothing piles up.
    """

    def __init__(self, limits: AudioLimits, max_push_s: float) -> None:
        self._limits = limits
        self._max_push_s = max_push_s
        self._clock = DecodeClock(limits.max_decode_s)
        self._changed = threading.Condition()
        self._bytes = bytearray()
        self._pushed = 0
        self._ended = False  # no more bytes will come
        self._closed = False  # nobody wants the rest
        self._starving = False  # the thread waits for bytes
        self._done = False  # the thread has ended
        self._blocks: list[Waveform] = []
        self._fresh = 0  # samples since the last push
        self._error: Exception | None = None

    # The caller's side.

    def push(self, data: bytes) -> list[Waveform]:
        with self._changed:
            self._check_open()
            self._pushed += len(data)
            limit = self._limits.max_bytes
            if limit is not None and self._pushed > limit:
                raise AudioLimitError(
                    f"{NAME} has {self._pushed} bytes or more; at most {limit} are accepted: stop earlier"
                )
            if self._error is None and not self._done:
                self._bytes += data
                self._fresh = 0
                self._starving = self._starving and not data
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._done or self._starving)
            return self._take_blocks(at_end=False)

    def finish(self) -> list[Waveform]:
        with self._changed:
            self._check_open()
            self._ended = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done)
            if self._pushed == 0:
                raise EmptyAudioError(f"{NAME} is empty (0 bytes); expected audio")
            return self._take_blocks(at_end=True)

    def close(self) -> None:
        with self._changed:
            self._closed = self._ended = True
            self._bytes.clear()
            self._blocks.clear()
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._ended:
            raise UsageError("this stream is finished or closed; make a new decoder for the next one")

    def _take_blocks(self, *, at_end: bool) -> list[Waveform]:
        blocks, self._blocks = self._blocks, []
        if self._error is not None and (at_end or not blocks):
            raise self._error
        return blocks

    # The thread's side.

    def run(self) -> None:
        try:
            file = cast("BinaryIO", self)
            form = self._find_form()
            blocks = decode_blocks(file, NAME, self._limits, self._clock, group_s=0.0, form=form, options=LIVE_OPTIONS)
            for block in self._clock.run(blocks):
                with self._changed:
                    if self._closed:
                        break
                    self._take_block(block)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller, who is in another thread
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _take_block(self, block: Waveform) -> None:
        self._fresh += len(block)
        if self._fresh > self._max_push_s * SAMPLE_RATE_HZ:
            raise AudioLimitError(
                f"{NAME} holds more than {self._max_push_s:g} s of sound in a few bytes; expected speech: send another encoding"
            )
        self._blocks.append(block)

    def read(self, size: int) -> bytes:
        with self._clock.standing():
            self._wait_for(1)
        with self._changed:
            data = bytes(self._bytes[:size])
            del self._bytes[:size]
            return data

    def seekable(self) -> bool:
        return False

    def _find_form(self) -> str:
        self._wait_for(MAGIC_BYTES)
        with self._changed:
            head = bytes(self._bytes[:MAGIC_BYTES])
        for at, magic, form in MAGIC:
            if head[at : at + len(magic)] == magic:
                return form
        # FFmpeg would look for a frame of MP3 in it for as long as bytes come.
        raise AudioDecodeError(f"{NAME} cannot be read as audio; expected webm, ogg, mp4 in fragments, flac or wav")

    def _wait_for(self, size: int) -> None:
        with self._changed:
            while len(self._bytes) < size and not self._ended:
                self._starving = True
                self._changed.notify_all()
                self._changed.wait()
            self._starving = False


class PcmDecoder:
    """Decodes bare samples while they arrive: little-endian 16-bit, or the two codes of the telephone (ITU-T G.711).

    Args:
        rate_hz: one of :data:`PCM_RATES_HZ`.
        channels: interleaved; they are averaged.
        encoding: pcm16 (2 bytes a sample), g711_ulaw or g711_alaw (1 byte).
        limits: ``max_bytes``, ``max_seconds`` and ``max_channels`` are enforced.

    Raises:
        UsageError: a rate, a number of channels or an encoding that is not supported.
        AudioLimitError: more channels than the limit.
    """

    def __init__(
        self, rate_hz: int, channels: int = 1, *, encoding: Encoding = "pcm16", limits: AudioLimits = NO_LIMITS
    ) -> None:
        if rate_hz not in PCM_RATES_HZ:
            raise UsageError(f"PCM at {rate_hz} Hz is not supported; expected one of {PCM_RATES_HZ}")
        if channels < 1:
            raise UsageError(f"PCM with {channels} channels is not possible; expected 1 or more")
        if encoding not in ("pcm16", "g711_ulaw", "g711_alaw"):
            raise UsageError(f"the encoding {encoding!r} is unknown; expected pcm16, g711_ulaw or g711_alaw")
        if limits.max_channels is not None and channels > limits.max_channels:
            raise AudioLimitError(f"{NAME} has {channels} channels; at most {limits.max_channels} are accepted")
        self._rate_hz = rate_hz
        self._channels = channels
        self._table = None if encoding == "pcm16" else _G711_TABLES[encoding]
        self._limits = limits
        self._resampler = Resampler(rate_hz)
        self._rest = b""
        self._bytes = self._samples = 0
        self._finished = False

    def push(self, data: bytes) -> list[Waveform]:
        """The block (S,) of the next bytes, or none; bytes of a sample that is not whole yet are kept.

        Raises:
            AudioLimitError: more bytes or seconds than the limits.
            UsageError: after :meth:`finish` or :meth:`close`.
        """
        self._check_open()
        self._bytes += len(data)
        max_bytes, max_seconds = self._limits.max_bytes, self._limits.max_seconds
        if max_bytes is not None and self._bytes > max_bytes:
            raise AudioLimitError(
                f"{NAME} has {self._bytes} bytes or more; at most {max_bytes} are accepted: stop earlier"
            )
        data = self._rest + data
        size = len(data) - len(data) % (self._channels * (2 if self._table is None else 1))
        data, self._rest = data[:size], data[size:]
        samples = np.frombuffer(data, "<i2") if self._table is None else self._table[np.frombuffer(data, np.uint8)]
        self._samples += len(samples) // self._channels
        if max_seconds is not None and self._samples > max_seconds * self._rate_hz:
            raise AudioLimitError(f"{NAME} is longer than {max_seconds:g} s; stop earlier")
        return _keep_filled(self._resampler.push(mix_down(samples.reshape(-1, self._channels).T, NAME)))

    def finish(self) -> list[Waveform]:
        """What the resampler held back; bytes of a sample that never became whole are dropped.

        Raises:
            EmptyAudioError: not one sample was pushed.
            UsageError: after :meth:`finish` or :meth:`close`.
        """
        self._check_open()
        self._finished = True
        if self._samples == 0:
            raise EmptyAudioError(f"{NAME} holds no samples; expected at least one")
        return _keep_filled(self._resampler.finish())

    def close(self) -> None:
        """Nothing can be pushed afterwards."""
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._finished:
            raise UsageError("this stream is finished or closed; make a new decoder for the next one")


def _keep_filled(block: Waveform) -> list[Waveform]:
    return [block] if len(block) else []


def _expand_ulaw() -> NDArray[np.int16]:
    """The 16-bit value of each u-law code (ITU-T G.711, table 2): sign, 3 bits of exponent, 4 of mantissa, inverted."""
    code = ~np.arange(256, dtype=np.uint8)
    size = ((((code & 15).astype(np.int32) << 3) + 132) << (code >> 4 & 7)) - 132
    return np.where(code & 128, -size, size).astype(np.int16)


def _expand_alaw() -> NDArray[np.int16]:
    """The 16-bit value of each A-law code (ITU-T G.711, table 1): as u-law, with every other bit inverted."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, size = (code >> 4 & 7).astype(np.int32), ((code & 15).astype(np.int32) << 4) + 8
    size = np.where(exponent > 0, (size + 256) << np.maximum(exponent - 1, 0), size)
    return np.where(code & 128, size, -size).astype(np.int16)


_G711_TABLES = {"g711_ulaw": _expand_ulaw(), "g711_alaw": _expand_alaw()}
