"""Two texts of sound that was heard twice -> one text, in which no word is lost or doubled.

Where speech had to be cut, the segment before the cut is heard to a little after it and the segment after it from before it
(:attr:`dinle.recognize.segments.SegmentRules.overlap_s`). The words in which both agree are found by their letters and their
times; at the one nearest the cut the first text passes into the second. So the words at the outer edges, which one side heard
only in part, come from the side that heard them whole.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import merge
from typing import TYPE_CHECKING

from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dinle.recognize.segments import Segment
    from dinle.recognize.transcript import Word

MATCH_S = 0.5  # the start or the end of a word differs by less in two hearings, and few words are said twice in it
NEAR_S = 0.3  # words that are not farther apart may be two hearings of one: twice the 150 ms by which times are wrong
DETOUR = 0.1  # seconds of a word that may be cut rather than to go a second away from where the sound was cut

Pair = tuple[int, int]  # places of one word in the two texts


class Stitcher:
    """Joins the words of a recording's segments, in order; holds back those that the next segment may change.

    Args:
        overlap_s: of the rules by which the segments were cut.
    """

    def __init__(self, overlap_s: float) -> None:
        self._overlap_s = overlap_s
        self._held: list[Word] = []
        self._open: int | None = None

    def push(self, words: Iterable[Word], segment: Segment) -> tuple[Word, ...]:
        """Take the next segment and its words; what is certain now."""
        joined = list(words)
        if segment.head:
            joined = stitch_words(self._held, joined, (segment.start + segment.head) / SAMPLE_RATE_HZ)
        certain, self._open = len(joined), None
        if segment.tail:
            cut = segment.start + len(segment.samples) - segment.tail
            again_s = cut / SAMPLE_RATE_HZ - self._overlap_s  # no later does the next segment begin
            certain = next((i for i, word in enumerate(joined) if word.end_s > again_s - MATCH_S), certain)
            first_s = min([again_s, *(word.start_s for word in joined[certain : certain + 1])])
            self._open = max(0, int(first_s * SAMPLE_RATE_HZ))
        self._held = joined[certain:]
        return tuple(joined[:certain])

    def limit(self, samples: int) -> int:
        """So many of the first ``samples`` of the recording are done: up to the first that is held back."""
        return samples if self._open is None else min(samples, self._open)


def stitch_words(before: Sequence[Word], after: Sequence[Word], cut_s: float) -> list[Word]:
    """One text of two, the second of which begins before the first has ended.

    Args:
        before: words of the sound up to a little after the cut.
        after: words of the sound from a little before the cut; times counted from the same start.
        cut_s: where the sound was cut.

    Returns:
        The words up to the one nearest the cut that both have, and from there those of ``after``. Where they have no word in
        common, those on each one's side of the place near the cut at which fewest words are cut, and words at whose time the
        other has none. Times rise if they do in both.
    """
    pairs = match_words(before, after)
    if not pairs:
        return raise_times(_split_by_time(before, after, cut_s))
    one, other = min(pairs, key=lambda pair: abs(_place(before[pair[0]], after[pair[1]]) - cut_s))
    seam = _join_word(before, after, (one, other), cut_s)
    return raise_times([*before[:one], seam, *after[other + 1 :]])


def match_words(before: Sequence[Word], after: Sequence[Word]) -> list[Pair]:
    """The words that both texts have at about the same time, in order: most words, and of these the nearest in time."""
    letters, others = ([normalize_tr(word.text) for word in words] for words in (before, after))
    best = [[0.0] * (len(after) + 1) for _ in range(len(before) + 1)]
    for i in reversed(range(len(before))):
        for j in reversed(range(len(after))):
            gain = _agree(before[i], after[j]) if letters[i] and letters[i] == others[j] else 0.0
            taken = gain + best[i + 1][j + 1] if gain else 0.0
            best[i][j] = max(taken, best[i + 1][j], best[i][j + 1])
    pairs: list[Pair] = []
    i = j = 0
    while i < len(before) and j < len(after):
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs


def raise_times(words: Iterable[Word]) -> list[Word]:
    """The words with times that never fall: two hearings of neighbours can overlap by the error of their times."""
    raised: list[Word] = []
    now_s = 0.0
    for word in words:
        start_s = max(now_s, word.start_s)
        now_s = max(start_s, word.end_s)
        raised.append(replace(word, start_s=start_s, end_s=now_s))
    return raised


def _agree(one: Word, other: Word) -> float:
    """1 to 2 for two hearings of one word, 2 where their times agree; 0 where they are too far apart.

    The first word of a segment may seem to begin with the segment and the last to end with it, so one time is enough to
    believe that they are the same; which of several is the same, both decide.
    """
    starts_s, ends_s = abs(one.start_s - other.start_s), abs(one.end_s - other.end_s)
    if min(starts_s, ends_s) > MATCH_S:
        return 0.0
    return 1 + max(0.0, 1 - (starts_s + ends_s) / (2 * MATCH_S))


def _place(one: Word, other: Word) -> float:
    return (one.start_s + other.end_s) / 2


def _join_word(before: Sequence[Word], after: Sequence[Word], pair: Pair, cut_s: float) -> Word:
    """The word at the seam as the side has it for which it is not at an edge, where a model adds a capital or a full stop."""
    one, other = before[pair[0]], after[pair[1]]
    at_edges = (pair[0] == len(before) - 1, pair[1] == 0)
    first = _place(one, other) <= cut_s if at_edges[0] == at_edges[1] else at_edges[1]
    return replace(one if first else other, start_s=one.start_s, end_s=max(one.start_s, other.end_s))


def _split_by_time(before: Sequence[Word], after: Sequence[Word], cut_s: float) -> list[Word]:
    place_s = _find_gap([*before, *after], cut_s)
    kept = [
        word for word in before if word.start_s + word.end_s < 2 * place_s or not any(_near(word, one) for one in after)
    ]
    others = [
        word
        for word in after
        if word.start_s + word.end_s >= 2 * place_s or not any(_near(word, one) for one in before)
    ]
    return list(merge(kept, others, key=lambda word: word.start_s))


def _find_gap(words: Sequence[Word], cut_s: float) -> float:
    """The time near the cut at which the words are cut least."""

    def cost(place_s: float) -> float:
        cut = sum(max(0.0, min(place_s - word.start_s, word.end_s - place_s)) for word in words)
        return cut + DETOUR * abs(place_s - cut_s)

    return min([cut_s, *(time_s for word in words for time_s in (word.start_s, word.end_s))], key=cost)


def _near(one: Word, other: Word) -> bool:
    return one.start_s < other.end_s + NEAR_S and other.start_s < one.end_s + NEAR_S
