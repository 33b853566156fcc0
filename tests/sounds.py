"""Encodes sound in the formats that people really have."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import soundfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

# suffix -> FFmpeg's container and codec
LOSSY = {
    "opus": ("ogg", "libopus"),
    "mp3": ("mp3", "libmp3lame"),
    "aac": ("adts", "aac"),
    "m4a": ("ipod", "aac"),
    "webm": ("webm", "libopus"),
}


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
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = cast("av.AudioStream", container.add_stream(codec, rate=rate_hz))
        layout = stream.layout = "mono" if channels == 1 else "stereo"
        frame = av.AudioFrame.from_ndarray(
            np.tile(samples.astype(np.float32), (channels, 1)), format="fltp", layout=layout
        )
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate_hz, frame_size=stream.frame_size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()
