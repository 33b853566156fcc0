"""Hears again, by itself, the sound that a decoder passed over.

A decoder that learnt from single sentences ends its text after the first full stop, begins with the second sentence, or writes
something so unlikely that it is dropped. Its words tell: aligned to all of the sound, the word beside what was passed over lasts
longer than anybody needs to say it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.segments import Segment
from dinle.recognize.word_edges import FRAME_S, FRAME_SAMPLES, find_floor, find_sound, measure_levels
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dinle.recognize.transcript import Word

# Sound, without pauses, that one word may fill: slow speech has some 11 letters a second, and a word stands for its neighbours
# where one is missing. Of 308 sentences read alone three are heard again: docs/long-recordings.md.
WORD_S, LETTER_S = 0.8, 0.09
SILENT_S = 3.0  # so much sound of which nothing was written; less can be a single word that nobody understands
SHORTEST_S = 1.5  # a part that is heard by itself
TIMES = 3  # parts of parts of parts
PAD_S = 0.1  # by so much are the times of words wrong
CIRCLE_WORDS, CIRCLE_TIMES = 5, 3  # nobody says five words three times in half a minute; single words people do repeat
MOST = 0.8  # of a segment: a part like that would be passed over again, and is heard in two
MIDDLE = (0.3, 0.7)  # between these shares of a part lies the place at which it becomes two
SMOOTH_FRAMES = 5  # 50 ms: a pause, not the closure of a t or a k


class Passed(NamedTuple):
    """Sound that was passed over, in seconds of the recording, and the words (``first`` to ``stop``) that stand for it."""

    first: int
    stop: int
    start_s: float
    end_s: float


def hear_again(
    segment: Segment, words: Sequence[Word], hear: Callable[[Segment], list[Word]], *, times: int = TIMES
) -> list[Word]:
    """The words of a segment with those of its sound that was passed over.

    Such a stretch is heard by itself, or in two parts where it is nearly all of the segment. What is written of it replaces the
    words that stood for it, if it has more letters.

    Args:
        segment: the sound.
        words: what was written of it, in order, with times as the alignment gave them: none between two words is left out.
        hear: writes the words of a part of the segment.
        times: how often parts of parts are heard; 0 is not at all.
    """
    found = list(words)
    if not times or len(segment.samples) < FRAME_SAMPLES:
        return found
    levels = measure_levels(segment.samples)
    for passed in find_passed(found, levels, segment.start / SAMPLE_RATE_HZ):
        parts = _split(segment, levels, passed)
        heard = [word for part in parts for word in hear_again(part, hear(part), hear, times=times - 1)]
        new = list(_keep_inside(heard, passed))
        old = found[passed.first : passed.stop]
        if _count_letters(new) > _count_letters(old) or (new and goes_in_circles(old)):
            found[passed.first : passed.stop] = new
    return found


def find_passed(words: Sequence[Word], levels: NDArray[np.float64], start_s: float) -> Iterator[Passed]:
    """The stretches of a segment that were passed over, the last one first.

    Args:
        words: of the segment, in order.
        levels: (N,) of its frames, in decibels.
        start_s: where the segment begins in the recording.
    """
    sounding = find_sound(levels, find_floor(levels))
    if sounding.sum() * FRAME_S >= SILENT_S and (not words or goes_in_circles(words)):
        yield Passed(0, len(words), start_s, start_s + len(levels) * FRAME_S)
        return
    for place, word in reversed(list(enumerate(words))):
        start, end = (round((time_s - start_s) / FRAME_S) for time_s in (word.start_s, word.end_s))
        if sounding[start:end].sum() * FRAME_S > WORD_S + LETTER_S * _count_letters([word]):
            yield Passed(place, place + 1, word.start_s, word.end_s)


def goes_in_circles(words: Sequence[Word]) -> bool:
    """Whether some :data:`CIRCLE_WORDS` words in a row are written :data:`CIRCLE_TIMES` times: the decoder has lost its place."""
    letters = [normalize_tr(word.text) for word in words]
    runs = Counter(tuple(letters[i : i + CIRCLE_WORDS]) for i in range(len(letters) - CIRCLE_WORDS + 1))
    return max(runs.values(), default=0) >= CIRCLE_TIMES


def _split(segment: Segment, levels: NDArray[np.float64], passed: Passed) -> list[Segment]:
    """The parts of the segment that are heard: one or two, or none where they would be too short."""
    pad, begins_s = round(PAD_S / FRAME_S), segment.start / SAMPLE_RATE_HZ
    start = max(0, round((passed.start_s - begins_s) / FRAME_S) - pad)
    end = min(len(levels), round((passed.end_s - begins_s) / FRAME_S) + pad)
    if end - start <= MOST * len(levels):
        return [_cut(segment, start, end)]
    if (end - start) * FRAME_S < 2 * SHORTEST_S:
        return []
    smooth = np.convolve(levels[start:end], np.ones(SMOOTH_FRAMES), "same")
    low, high = (int(share * len(smooth)) for share in MIDDLE)
    middle = start + low + int(smooth[low:high].argmin())
    return [_cut(segment, start, middle), _cut(segment, middle, end)]


def _cut(segment: Segment, start: int, end: int) -> Segment:
    first = start * FRAME_SAMPLES
    return Segment(segment.samples[first : end * FRAME_SAMPLES], segment.start + first, segment.speech)


def _keep_inside(words: Sequence[Word], passed: Passed) -> Iterator[Word]:
    """The words whose middles lie in the stretch, with times that do; those beside it were written before."""
    for word in words:
        if passed.start_s <= (word.start_s + word.end_s) / 2 < passed.end_s:
            yield replace(word, start_s=max(word.start_s, passed.start_s), end_s=min(word.end_s, passed.end_s))


def _count_letters(words: Sequence[Word]) -> int:
    return sum(len(normalize_tr(word.text)) for word in words)
