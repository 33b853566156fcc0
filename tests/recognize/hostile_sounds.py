"""Files that are small and correct, and cost whoever believes them: hours in kilobytes, headers that claim anything."""

from __future__ import annotations

import struct
import zlib

FLAC_BLOCK = 65_535  # the largest block of FLAC, in samples


def make_flac_silence(
    seconds: float, rate_hz: int = 16_000, *, channels: int = 1, declare: bool = True, cover: bytes | None = None
) -> bytes:
    """Silence as FLAC (RFC 9639): 12 to 16 bytes for 65 535 samples; ``declare``: whether the header tells the length."""
    count = -(-round(seconds * rate_hz) // FLAC_BLOCK)
    total = count * FLAC_BLOCK if declare else 0
    packed = (rate_hz << 44) | (channels - 1 << 41) | (15 << 36) | total
    info = struct.pack(">HH", FLAC_BLOCK, FLAC_BLOCK) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    blocks = [(0, info)] if cover is None else [(0, info), (6, _make_picture(cover))]
    head = b"".join(
        bytes([kind | (128 if at == len(blocks) - 1 else 0)]) + len(body).to_bytes(3, "big") + body
        for at, (kind, body) in enumerate(blocks)
    )
    return b"fLaC" + head + b"".join(_make_frame(number, channels) for number in range(count))


def _make_frame(number: int, channels: int) -> bytes:
    # sync, fixed block size; block size in 16 bits at the end, the rate of STREAMINFO; channels, 16 bits a sample
    head = bytes([0xFF, 0xF8, 0x70, channels - 1 << 4 | 8]) + _encode_number(number) + struct.pack(">H", FLAC_BLOCK - 1)
    head += _crc(head, 8, 0x07)
    body = head + bytes(3) * channels  # each channel: a constant subframe of zero
    return body + _crc(body, 16, 0x8005)


def _encode_number(number: int) -> bytes:
    """As UTF-8 encodes a code point."""
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, bits: int, polynomial: int) -> bytes:
    top, value = 1 << bits - 1, 0
    for byte in data:
        value ^= byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & (1 << bits) - 1
    return value.to_bytes(bits // 8, "big")


def _make_picture(png: bytes) -> bytes:
    kind = b"image/png"
    return struct.pack(">II", 3, len(kind)) + kind + struct.pack(">IIIIII", 0, 0, 0, 24, 0, len(png)) + png


def make_huge_png(side: int = 60_000) -> bytes:
    """A picture of ``side`` by ``side``: gigabytes once it is decoded."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def make_wav_claim(channels: int, rate_hz: int, *, data: bytes = bytes(100_000), claimed: int = 0xFFFFFFF0) -> bytes:
    """16-bit WAV whose header claims anything, also ``claimed`` bytes of samples where there are fewer."""
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * 2 & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
    riff = (
        b"RIFF" + struct.pack("<I", min(claimed + 36, 0xFFFFFFFF)) + b"WAVEfmt " + struct.pack("<I", len(form)) + form
    )
    return riff + b"data" + struct.pack("<I", claimed) + data


def make_caf_layout(labels: list[int], data: bytes) -> bytes:
    """16-bit CAF at 16 kHz whose channels have these labels in this order: 1 left, 2 right."""
    channels = len(labels)
    form = struct.pack(">d4sIIIII", 16_000, b"lpcm", 2, 2 * channels, 1, channels, 16)
    layout = struct.pack(">III", 0, 0, channels) + b"".join(struct.pack(">II3f", label, 0, 0, 0, 0) for label in labels)
    parts = ((b"desc", form), (b"chan", layout), (b"data", bytes(4) + data))
    return (
        b"caff"
        + struct.pack(">HH", 1, 0)
        + b"".join(kind + struct.pack(">q", len(body)) + body for kind, body in parts)
    )
