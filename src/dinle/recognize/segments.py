"""Cuts a recording of any length into the segments in which somebody speaks."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dinle.errors import UsageError
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform
from dinle.recognize.vad import CHUNK_SAMPLES, SpeechDetector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE_HZ
BLOCK_SAMPLES = (
    SAMPLE_RATE_HZ  # a longer block is taken a second at a time, so that segments come out as soon as they end
)


@dataclass(frozen=True)
class Segment:
    """A piece of a recording with speech in it.

    Attributes:
        samples: (S,) the sound at 16 kHz.
        start: index of its first sample in the recording.
        speech: the highest probability of speech in it.
    """

    samples: Waveform
    start: int
    speech: float


@dataclass(frozen=True)
class SegmentRules:
    """When speech begins, ends and is believed. The thresholds were chosen on human words, noise and music.

    Attributes:
        start_probability: speech begins with a chunk at least this probable.
        end_probability: it goes on through chunks at least this probable.
        min_silence_s: speech ends after so long a silence.
        min_speech_s: a segment with less sound above ``start_probability`` is dropped: a note of music is shorter than a word.
        pad_s: silence kept before and after speech.
        merge_gap_s: believed speech after a silence of up to this belongs to the same segment, while it fits into
            ``target_s``: a model that hears whole windows is asked less often.
        vouch_gap_s: stretches that are too short to be believed alone are believed together across a silence of up to this
            (no longer than ``merge_gap_s``); further apart they are the notes of a melody.
        target_s: longest segment made of several stretches of speech.
        max_s: longest segment; longer speech is cut at its least speech-like place.
        cut_s: how far back from ``max_s`` that place may lie.

    Raises:
        UsageError: rules that contradict each other.
    """

    start_probability: float = 0.5
    end_probability: float = 0.35
    min_silence_s: float = 0.25
    min_speech_s: float = 0.19
    pad_s: float = 0.2
    merge_gap_s: float = 2.0
    vouch_gap_s: float = 1.0
    target_s: float = 15.0
    max_s: float = 28.0
    cut_s: float = 6.0

    def __post_init__(self) -> None:
        if not 0 < self.end_probability <= self.start_probability <= 1:
            raise UsageError(
                f"end_probability is {self.end_probability:g} and start_probability {self.start_probability:g}; "
                "expected 0 < end_probability <= start_probability <= 1"
            )
        if min(self.min_silence_s, self.min_speech_s, self.pad_s, self.merge_gap_s, self.vouch_gap_s) < 0:
            raise UsageError("a length of silence, speech, padding or gap is negative; expected seconds of 0 or more")
        if not 2 * self.pad_s + self.cut_s + 2 * CHUNK_S < self.max_s or self.cut_s < CHUNK_S:
            raise UsageError(
                f"max_s is {self.max_s:g} with cut_s {self.cut_s:g} and pad_s {self.pad_s:g}; expected cut_s of at least "
                f"{CHUNK_S:g} and max_s longer than cut_s and twice pad_s together"
            )
        if not 0 <= self.target_s <= self.max_s:
            raise UsageError(f"target_s is {self.target_s:g}; expected 0 to max_s = {self.max_s:g}")

    @classmethod
    def up_to(cls, max_s: float) -> SegmentRules:
        """The usual rules for a model that takes no more than ``max_s`` seconds: shorter where it leaves no room for them.

        Raises:
            UsageError: ``max_s`` is shorter than a few chunks.
        """
        return cls(
            max_s=max_s,
            target_s=min(cls.target_s, max_s),
            cut_s=min(cls.cut_s, max_s / 4),
            pad_s=min(cls.pad_s, max_s / 8),
        )


class Detector(Protocol):
    """Gives the probability of speech of consecutive chunks of 512 samples; see :class:`SpeechDetector`."""

    def push(self, samples: Waveform) -> NDArray[np.float32]:
        """The probabilities (N,) of the chunks that these samples complete."""
        ...

    def finish(self) -> NDArray[np.float32]:
        """The probability of the last, incomplete chunk, if there is one."""
        ...


DEFAULT_RULES = SegmentRules()


def cut_segments(
    blocks: Iterable[Waveform], rules: SegmentRules = DEFAULT_RULES, *, detector: Detector | None = None
) -> Iterator[Segment]:
    """Cut streamed sound into segments with speech, in order and without overlap; sound without speech gives none.

    Holds no more sound than the longest segment, one gap and two seconds, and gives a segment out as soon as it is certain.

    Args:
        blocks: consecutive samples of one recording, each (S,) at 16 kHz in [-1, 1], of any sizes.
        rules: when speech begins and ends, and how long segments get.
        detector: hears the recording (default: a new :class:`SpeechDetector`).

    Raises:
        SpeechModelError: the weights of the detector are missing.
    """
    segmenter = Segmenter(rules, detector=detector)
    for part in split_blocks(blocks):
        yield from segmenter.push(part)
    yield from segmenter.finish()


def split_blocks(blocks: Iterable[Waveform]) -> Iterator[Waveform]:
    """The same sound in parts of at most a second, none of them empty."""
    for block in blocks:
        for start in range(0, len(block), BLOCK_SAMPLES):
            yield block[start : start + BLOCK_SAMPLES]


class Segmenter:
    """Cuts one recording into segments while it comes in, and tells what is open now. Belongs to one thread.

    Args:
        rules: when speech begins and ends, and how long segments get.
        detector: hears the recording (default: a new :class:`SpeechDetector`).

    Raises:
        SpeechModelError: the weights of the detector are missing.
    """

    def __init__(self, rules: SegmentRules = DEFAULT_RULES, *, detector: Detector | None = None) -> None:
        self._detector = detector or SpeechDetector()
        self._finder, self._sound = SpanFinder(rules), SoundBuffer()

    def push(self, samples: Waveform) -> list[Segment]:
        """Hear the next samples, (S,) at 16 kHz in [-1, 1], any number of them; the segments that are certain now."""
        segments: list[Segment] = []
        for part in split_blocks([samples]):
            self._sound.append(part.copy())  # the caller may fill its buffer anew, and a view would hold all of it
            segments += self._hear(self._detector.push(part))
            self._sound.forget(self.settled)
        return segments

    def finish(self) -> list[Segment]:
        """End the recording: the segments that were still open."""
        return [*self._hear(self._detector.finish()), *self.cut()]

    def cut(self) -> list[Segment]:
        """End the open segment here, at the last whole chunk heard; the recording goes on.

        Speech that goes on begins another segment, which must be believed anew. Where nothing is open, nothing changes.
        """
        return [self._sound.take(span) for span in self._finder.cut()]

    @property
    def settled(self) -> int:
        """Samples from the start of the recording that no later segment can hold."""
        return self._finder.needed * CHUNK_SAMPLES

    @property
    def speaking(self) -> bool:
        """Whether the last chunk heard was speech."""
        return self._finder.speaking

    @property
    def open_span(self) -> range | None:
        """The samples of :meth:`open_segment`, as places in the recording."""
        span = self._finder.find_open()
        return range(span.start * CHUNK_SAMPLES, span.end * CHUNK_SAMPLES) if span else None

    def open_segment(self) -> Segment | None:
        """The sound from the padded start of the speech that is not given out yet to the last whole chunk heard.

        Its first sample is that of the segment that will be given out. ``None`` where nobody speaks, or not enough yet to be
        believed.
        """
        span = self._finder.find_open()
        return self._sound.take(span) if span else None

    def expected_segment(self) -> Segment | None:
        """The very segment that will be given out if only silence follows.

        ``None`` where nothing is open, speech is going on, or the silence kept after speech is not heard to its end.
        """
        span = self._finder.find_expected()
        return self._sound.take(span) if span else None

    def _hear(self, probabilities: NDArray[np.float32]) -> Iterator[Segment]:
        for probability in probabilities.tolist():
            yield from map(self._sound.take, self._finder.push(probability))


@dataclass
class Span:
    """Chunks ``start`` to ``end`` (not included), of which ``sure`` are above the start probability; the highest is ``peak``."""

    start: int
    end: int
    sure: int = 0
    peak: float = 0.0


class SpanFinder:
    """From probabilities, one a chunk, to the spans of chunks that become segments. Counts in chunks of 32 ms.

    ``_live`` is the speech going on now; ``_pending`` is finished speech that what follows may still join. Where more than
    the vouching gap lies between them, ``_pending`` is believed.
    """

    def __init__(self, rules: SegmentRules) -> None:
        self._rules = rules
        self._pad, self._silence = math.ceil(rules.pad_s / CHUNK_S), max(1, math.ceil(rules.min_silence_s / CHUNK_S))
        self._gap = max(math.floor(rules.merge_gap_s / CHUNK_S), self._silence, 2 * self._pad)
        self._vouch = min(self._gap, max(math.floor(rules.vouch_gap_s / CHUNK_S), self._silence, 2 * self._pad))
        self._target, self._longest = math.floor(rules.target_s / CHUNK_S), math.floor(rules.max_s / CHUNK_S)
        self._recent: deque[float] = deque(maxlen=max(1, math.floor(rules.cut_s / CHUNK_S)))
        self._now = 0  # chunks heard
        self._floor = 0  # end of the last span given out: the next may not begin before it
        self._live: Span | None = None
        self._pending: Span | None = None

    @property
    def needed(self) -> int:
        """The first chunk that a later span can still hold."""
        first = self._pending or self._live
        return max(self._floor, (first.start if first else self._now) - self._pad)

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
        if self._live is None and self._pending is not None:
            gap = self._gap if self._believe(self._pending.sure) else self._vouch
            if self._now - self._pending.end >= gap:
                yield from self._end_pending(self._pending)

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
        return Span(span.start, self._now, span.sure, span.peak) if span else None

    def find_expected(self) -> Span | None:
        """What is given out if only silence follows; ``None`` while that is not heard to its end."""
        span = self._find_believed()
        if span is None or self._now < span.end + max(1, self._pad):
            return None
        return Span(span.start, span.end + self._pad, span.sure, span.peak)

    def _find_believed(self) -> Span | None:
        """Finished speech and the speech going on as one, from the padded start to the end of speech, if it is believed."""
        pending, live = self._pending, self._live
        if pending is not None and live is not None and not self._joins(pending, live):
            live = None
        parts = [part for part in (pending, live) if part is not None]
        sure = sum(part.sure for part in parts)
        if not parts or not self._believe(sure):
            return None
        return Span(self._padded_start(parts[0]), parts[-1].end, sure, max(part.peak for part in parts))

    def _go_on(self, live: Span, probability: float) -> Iterator[Span]:
        live.peak = max(live.peak, probability)
        live.sure += probability >= self._rules.start_probability
        if probability >= self._rules.end_probability:
            live.end = self._now
        if self._pending is not None:
            joined = live.end + self._pad - self._padded_start(self._pending)
            believed = self._believe(live.sure + (self._pending.sure if self._near(self._pending, live) else 0))
            if (joined > self._target and believed) or joined >= self._longest:
                yield from self._part(self._pending, live)
        if self._now - live.end >= self._silence:
            yield from self._close(live)
        elif live.end + self._pad - self._padded_start(live) >= self._longest:
            yield from self._cut(live)

    def _part(self, pending: Span, live: Span) -> Iterator[Span]:
        """Give out what does not fit into one segment with the speech going on; neighbours vouch for each other."""
        if self._near(pending, live):
            pending.sure = live.sure = pending.sure + live.sure
        self._pending = None
        yield from self._give_out(pending, min(pending.end + self._pad, (pending.end + live.start + 1) // 2))

    def _cut(self, live: Span) -> Iterator[Span]:
        """Give out speech that has become too long, up to the least speech-like of the last chunks; the rest goes on."""
        recent = list(self._recent)
        least = self._now - len(recent) + int(np.argmin(recent))
        place = max(live.start + 1, least)
        yield from self._give_out(live, place)
        live.start = place

    def _close(self, live: Span) -> Iterator[Span]:
        if self._pending is not None and not self._joins(self._pending, live):
            yield from self._end_pending(self._pending)
        if self._pending is not None:
            live.start, live.sure = self._pending.start, self._pending.sure + live.sure
            live.peak = max(live.peak, self._pending.peak)
        self._pending, self._live = live, None

    def _end_pending(self, pending: Span) -> Iterator[Span]:
        yield from self._give_out(pending, pending.end + self._pad)
        self._pending = None

    def _near(self, pending: Span, live: Span) -> bool:
        return live.start - pending.end < self._vouch

    def _joins(self, pending: Span, live: Span) -> bool:
        """Whether both become one segment: near enough to vouch for each other, or each believed by itself."""
        return self._near(pending, live) or self._believe(live.sure)

    def _believe(self, sure: int) -> bool:
        return sure * CHUNK_S >= self._rules.min_speech_s

    def _padded_start(self, span: Span) -> int:
        return max(self._floor, span.start - self._pad)

    def _give_out(self, span: Span, end: int) -> Iterator[Span]:
        if self._believe(span.sure):
            start, self._floor = self._padded_start(span), end
            yield Span(start, end, span.sure, span.peak)


class SoundBuffer:
    """The latest sound of a stream, addressed by its place in the recording."""

    def __init__(self) -> None:
        self._blocks: deque[Waveform] = deque()
        self._start = 0  # of the first block

    def append(self, block: Waveform) -> None:
        """Add the next samples."""
        self._blocks.append(block)

    def forget(self, before: int) -> None:
        """Drop the blocks that end at or before a sample of the recording."""
        while self._blocks and self._start + len(self._blocks[0]) <= before:
            self._start += len(self._blocks.popleft())

    def take(self, span: Span) -> Segment:
        """The samples of a span of chunks, up to the end of the sound."""
        first, last = span.start * CHUNK_SAMPLES, span.end * CHUNK_SAMPLES
        parts, at = [], self._start
        for block in self._blocks:
            parts.append(block[max(0, first - at) : max(0, last - at)])
            at += len(block)
        return Segment(np.concatenate(parts), first, span.peak)
