"""From the probabilities of speech to the spans of a recording that become segments. Counts in chunks of 32 ms."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.vad import CHUNK_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dinle.recognize.segments import SegmentRules

CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE_HZ


@dataclass
class Span:
    """Chunks ``start`` to ``end`` (not included), of which ``sure`` are above the start probability; the highest is ``peak``.

    Where speech was cut, ``head`` of the chunks lie before the cut and are heard for the second time, or ``tail`` lie after it
    and will be heard again. While speech is open, its head lies before ``start``, as its padding does.
    """

    start: int
    end: int
    sure: int = 0
    peak: float = 0.0
    head: int = 0
    tail: int = 0
    first: int = 0
    last: int = 0


class SpanFinder:
    """From probabilities, one a chunk, to the spans of chunks that become segments. Counts in chunks of 32 ms.

    ``_live`` is the speech going on now; ``_pending`` is finished speech that what follows may still join or vouch for: no
    more than the vouching gap lies between them.
    """

    def __init__(self, rules: SegmentRules) -> None:
        self._rules = rules
        self._pad, self._silence = math.ceil(rules.pad_s / CHUNK_S), max(1, math.ceil(rules.min_silence_s / CHUNK_S))
        self._merge = math.floor(rules.merge_gap_s / CHUNK_S)
        self._wait = max(math.floor(rules.vouch_gap_s / CHUNK_S), self._merge, self._silence, 2 * self._pad)
        self._target, self._longest = math.floor(rules.target_s / CHUNK_S), math.floor(rules.max_s / CHUNK_S)
        self._head = math.floor(rules.overlap_s / CHUNK_S)
        self._tail = math.ceil(self._head / 2)
        self._recent: deque[float] = deque(maxlen=max(self._tail + 1, math.floor(rules.cut_s / CHUNK_S)))
        self._now = 0  # chunks heard
        self._floor = 0  # end of the last span given out: the next may not begin before it
        self._live: Span | None = None
        self._pending: Span | None = None

    @property
    def needed(self) -> int:
        """The first chunk that a later span can still hold."""
        return self._padded_start(self._pending or self._live or Span(self._now, self._now))

    @property
    def speaking(self) -> bool:
        """Whether the last chunk was speech."""
        return self._live is not None and self._live.end == self._now

    def push(self, probability: float) -> Iterator[Span]:
        """Hear the next chunk; give out what is certain now."""
        self._now += 1
        self._recent.append(probability)
        if self._live is None and probability >= self._rules.start_probability:
            self._live = Span(self._now - 1, self._now)
        if self._live is not None:
            yield from self._go_on(self._live, probability)
        if self._live is None and self._pending is not None and self._now - self._pending.end >= self._wait:
            yield from self._give_out(self._pending, self._pending.end + self._pad)
            self._pending = None

    def cut(self) -> Iterator[Span]:
        """Give out what is open, as if the recording ended here."""
        span = self._find_believed()
        if span is not None:
            if self._live is not None and self._live.start < span.end:
                self._live = None
            span.end = self._floor = min(span.end + self._pad, self._now)
            self._pending = None
            yield span

    def find_open(self) -> Span | None:
        """What is believed and not given out yet, from its padded start to now."""
        span = self._find_believed()
        return replace(span, end=self._now) if span else None

    def find_expected(self) -> Span | None:
        """What is given out if only silence follows; ``None`` while that is not heard to its end."""
        span = self._find_believed()
        if span is None or self._now < span.end + max(1, self._pad):
            return None
        return replace(span, end=span.end + self._pad)

    def _find_believed(self) -> Span | None:
        """Finished speech and the speech going on as one, from the padded start to the end of speech, if it is believed."""
        parts = [part for part in (self._pending, self._live) if part is not None]
        sure = sum(part.sure for part in parts)
        if not parts or not self._believe(sure):
            return None
        peak = max(part.peak for part in parts)
        first, last = parts[0], parts[-1].end
        return Span(self._padded_start(first), last, sure, peak, first.head, first=first.start, last=last)

    def _go_on(self, live: Span, probability: float) -> Iterator[Span]:
        live.peak = max(live.peak, probability)
        live.sure += probability >= self._rules.start_probability
        if probability >= self._rules.end_probability:
            live.end = self._now
        if self._pending is not None and self._parts(self._pending, live):
            yield from self._part(self._pending, live)
        if self._now - live.end >= self._silence:
            self._close(live)
        elif live.end + self._pad - self._padded_start(live) >= self._longest:
            yield from self._cut(live)

    def _parts(self, pending: Span, live: Span) -> bool:
        """Whether the speech going on belongs to a segment of its own."""
        joined = live.end + self._pad - self._padded_start(pending)
        apart = live.start - pending.end >= self._merge and self._believe(pending.sure) and self._believe(live.sure)
        fits = joined <= self._target or not self._believe(pending.sure + live.sure)
        return apart or not fits or joined >= self._longest

    def _part(self, pending: Span, live: Span) -> Iterator[Span]:
        """Give out what is not one segment with the speech going on; neighbours vouch for each other."""
        pending.sure = live.sure = pending.sure + live.sure
        self._pending = None
        yield from self._give_out(pending, min(pending.end + self._pad, (pending.end + live.start + 1) // 2))

    def _cut(self, live: Span) -> Iterator[Span]:
        """Give out speech that has become too long, up to the least speech-like of the last chunks; the rest goes on.

        What overlaps is heard on both sides of the cut.
        """
        recent = list(self._recent)
        least = self._now - len(recent) + int(np.argmin(recent[: len(recent) - self._tail]))
        place = max(live.start + 1, least)
        live.tail = min(self._tail, self._now - place)
        yield from self._give_out(live, place + live.tail)
        live.head, live.tail = min(self._head, place - live.start) if self._believe(live.sure) else 0, 0
        live.start = self._floor = place

    def _close(self, live: Span) -> None:
        if self._pending is not None:
            live.start, live.head, live.sure = self._pending.start, self._pending.head, self._pending.sure + live.sure
            live.peak = max(live.peak, self._pending.peak)
        self._pending, self._live = live, None

    def _believe(self, sure: int) -> bool:
        return sure * CHUNK_S >= self._rules.min_speech_s

    def _padded_start(self, span: Span) -> int:
        return span.start - span.head if span.head else max(self._floor, span.start - self._pad)

    def _give_out(self, span: Span, end: int) -> Iterator[Span]:
        if self._believe(span.sure):
            start, self._floor = self._padded_start(span), end
            yield replace(span, start=start, end=end, first=span.start, last=min(span.end, end))
