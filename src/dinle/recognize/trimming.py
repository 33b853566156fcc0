"""What a model is given of a segment: its sound, and the same silence around it wherever it stands in a recording.

The speech detector counts in chunks of 32 ms from the start of the recording, and models change words when sound begins a few
milliseconds earlier: of 150 clips, the Whisper model wrote other texts for 59 where they stood in a recording, a second apart.
Cut to the sample, it wrote the same text for every one. See docs/long-recordings.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from dinle.recognize.segments import Segment

LOUD = 0.02  # of the peak, -34 dB: the first and the last sample above it are where sound begins and ends


def trim_segment(segment: Segment, silence_s: float) -> Segment:
    """The segment with exactly so much before its first sound and after its last one, and the same samples for the same sound.

    Less silence than that is made up with zeros, so a trimmed segment may begin before its recording does. Where speech was cut,
    nothing is taken away and nothing added.

    Args:
        segment: with silence around its sound.
        silence_s: how much of it is kept, in seconds.
    """
    loudness = np.abs(segment.samples)
    loud = loudness > LOUD * loudness.max(initial=0.0)
    if not loud.any():
        return segment
    size, keep = len(loud), round(silence_s * SAMPLE_RATE_HZ)
    first = 0 if segment.head else int(loud.argmax()) - keep
    last = size if segment.tail else size - int(loud[::-1].argmax()) + keep
    sound = segment.samples[max(0, first) : last]
    if first < 0 or last > size:
        sound = np.pad(sound, (max(0, -first), max(0, last - size)))
    voice = (max(0, segment.voice[0] - first), max(0, segment.voice[1] - first))
    return replace(segment, samples=sound, start=segment.start + first, voice=voice)
