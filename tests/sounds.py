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


def encode_lossy(samples: NDArray[np.float32], suffix: str, rate_hz: int = 48_000) -> bytes:
    """(S,) mono as opus, mp3, m4a or webm."""
    form, codec = LOSSY[suffix]
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = cast("av.AudioStream", container.add_stream(codec, rate=rate_hz))
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate_hz, frame_size=stream.frame_size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()
