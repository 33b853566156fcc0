"""Where words begin and end in the sound: what an alignment by attention leaves open.

A decoder that writes words without a token for the pause between them gives every pause to one of its neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dinle.recognize.audio import Waveform
    from dinle.recognize.transcript import Word

FRAME_SAMPLES = SAMPLE_RATE_HZ // 100  # 10 ms
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ
FLOOR_PERCENTILE = 10  # the quietest tenth of a segment is the room: pauses, and the silence kept around speech
# A frame belongs to a word from here on, from the room's level (0) to the word's loudest frame (1), in decibels. Between 0.2
# and 0.4 the median error is the same within noise: see docs/times-and-confidence.md.
SOUND_SHARE = 0.25
LOWEST_PERCENTILE, ALIKE_DB = 2, 3.0  # white noise has 0.5 dB between the two percentiles
SILENCE_DB = -100.0  # digital silence has no logarithm


def trim_to_sound(words: Sequence[Word], samples: Waveform, start_s: float) -> list[Word]:
    """The words without the silence at their ends; none grows, and one that is silent throughout stays as it is.

    Args:
        words: their times counted from the start of the recording.
        samples: (S,) the segment that they are said in, at 16 kHz.
        start_s: where it begins in the recording.
    """
    levels = measure_levels(samples)
    if not len(levels):
        return list(words)
    floor = find_floor(levels)
    return [_trim_word(word, levels, floor, start_s) for word in words]


def measure_levels(samples: Waveform) -> NDArray[np.float64]:
    """The power of each whole frame of :data:`FRAME_SAMPLES`, in decibels of full scale: (S // FRAME_SAMPLES,)."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10)))
    return levels


def find_floor(levels: NDArray[np.float64]) -> float:
    """The level of the room in a segment, in decibels, from its frames' levels (N,), at least one.

    Digital silence is added around a segment whatever room it stands in. So it does not count where the rest has a room of its
    own: where its quietest frames are alike, as noise is and the soft ends of words are not, and quieter than its loudest.
    """
    recorded = levels[levels > SILENCE_DB]
    if len(recorded):
        lowest, floor = np.percentile(recorded, (LOWEST_PERCENTILE, FLOOR_PERCENTILE))
        if floor - lowest < ALIKE_DB < recorded.max() - floor:
            return float(floor)
    return float(np.percentile(levels, FLOOR_PERCENTILE))


def find_sound(levels: NDArray[np.float64], floor: float) -> NDArray[np.bool_]:
    """Which frames (N,) are sound and not the room: at least :data:`SOUND_SHARE` of the way from ``floor`` to the loudest."""
    sounding: NDArray[np.bool_] = levels >= floor + SOUND_SHARE * (levels.max() - floor)
    return sounding


def _trim_word(word: Word, levels: NDArray[np.float64], floor: float, start_s: float) -> Word:
    first, last = (round((time_s - start_s) / FRAME_S) for time_s in (word.start_s, word.end_s))
    own = levels[first:last]
    if not len(own) or own.max() <= floor:
        return word
    loud = np.flatnonzero(find_sound(own, floor))
    start, end = first + int(loud[0]), first + int(loud[-1]) + 1
    return replace(
        word,
        start_s=max(word.start_s, start_s + start * FRAME_S),
        end_s=min(word.end_s, start_s + end * FRAME_S),
    )
