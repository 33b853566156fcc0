"""Live recognition: sound comes in as it is spoken, words go out while the speaker goes on.

A stretch of speech is a segment. While it goes on it is written again and again, as drafts; of two consecutive drafts the words
that both begin with are committed (local agreement: Macháček et al., 2023, "Turning Whisper into Real-Time Transcription
System", section 2.1). When it has ended it is written once more with care, and that is final.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from dinle.errors import UsageError
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform
from dinle.recognize.recognizer import check_waveform
from dinle.recognize.segments import Detector, Segment, Segmenter, SegmentRules
from dinle.recognize.spans import CHUNK_S
from dinle.recognize.transcript import Word
from dinle.recognize.vad import CHUNK_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dinle.recognize.recognizer import Recognizer

MIN_SEGMENT_S = 1.0  # cutting speech into less than a long word each makes no sense


@dataclass(frozen=True)
class StreamRules:
    """When a live stream tells what it has heard.

    Attributes:
        silence_s: a segment ends after so long a silence.
        partial_s: a draft is written each time that so much of the segment is new.
        max_segment_s: longest segment; longer speech is cut at its least speech-like place.

    Raises:
        UsageError: a time that is not positive or not finite, segments below 1 s, or a silence longer than a segment.
    """

    silence_s: float = 0.5
    partial_s: float = 0.5
    max_segment_s: float = 12.0

    def __post_init__(self) -> None:
        for name in ("silence_s", "partial_s", "max_segment_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value:g}; expected seconds above 0")
        if self.max_segment_s < MIN_SEGMENT_S:
            raise UsageError(f"max_segment_s is {self.max_segment_s:g}; expected {MIN_SEGMENT_S:g} or more")
        if self.silence_s > self.max_segment_s:
            raise UsageError(
                f"silence_s is {self.silence_s:g}; expected no more than max_segment_s = {self.max_segment_s:g}"
            )

    def adapt(self, usual: SegmentRules) -> SegmentRules:
        """The rules by which a live stream cuts segments.

        Padding takes at most half of the silence, so that a segment never waits for more than ``silence_s``.

        Args:
            usual: the recogniser's own rules, whose thresholds hold and whose segments are never exceeded.
        """
        max_s = min(usual.max_s, self.max_segment_s)
        silence = max(1, math.ceil(self.silence_s / CHUNK_S))  # in chunks, as segments are cut
        return replace(
            usual,
            min_silence_s=self.silence_s,
            merge_gap_s=self.silence_s,
            vouch_gap_s=self.silence_s,
            pad_s=min(usual.pad_s, silence // 2 * CHUNK_S, max_s / 8),
            target_s=max_s,
            max_s=max_s,
            cut_s=min(usual.cut_s, max_s / 4),
        )


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak: the first event of segment number ``segment``, whose sound begins at ``start_s``."""

    segment: int
    start_s: float


@dataclass(frozen=True)
class Partial:
    """What a segment seems to say so far.

    Attributes:
        segment: its number.
        words: all of them, times counted from the start of the stream.
        stable: so many of the first words stand in every later partial of this segment. The final may still differ.
    """

    segment: int
    words: tuple[Word, ...]
    stable: int


@dataclass(frozen=True)
class Final:
    """What a segment says: its last event. There may be no words, where sound was like speech and was none.

    Attributes:
        segment: its number.
        words: times counted from the start of the stream.
        start_s, end_s: its place in the stream.
    """

    segment: int
    words: tuple[Word, ...]
    start_s: float
    end_s: float


StreamEvent = SpeechStarted | Partial | Final


class LiveStream:
    """Recognises one stream of sound while it comes in. Belongs to one thread at a time.

    The words of the finals are those of :meth:`Recognizer.recognize_segment` for each segment that :func:`cut_segments` finds
    in the whole sound by :attr:`segments`, however the sound is cut into blocks. Segments are numbered from 0; each has the
    events SpeechStarted, any number of Partials, and Final. Sound that is not believed to be speech has none. Memory is
    bounded by one segment and the block pushed.

    Each method hears its sound at once and returns an iterator that runs the engine, at most once from one event to the next.
    What was not taken from it comes with the next call; the old iterator must not be used after that.

    Args:
        recognizer: writes the segments.
        rules: when to tell what was heard.
        detector: hears the stream (default: a new :class:`dinle.recognize.vad.SpeechDetector`).

    Attributes:
        segments: how the stream is cut.

    Raises:
        SpeechModelError: the weights of the detector are missing.
    """

    def __init__(
        self, recognizer: Recognizer, rules: StreamRules | None = None, *, detector: Detector | None = None
    ) -> None:
        self.rules = rules if rules is not None else StreamRules()
        self.segments = self.rules.adapt(recognizer.segments)
        self._recognizer = recognizer
        self._segmenter = Segmenter(self.segments, detector=detector)
        self._ended: deque[Segment] = deque()  # not yet written
        self._number = 0  # of the segment whose events come next
        self._draft = _Draft()  # of that segment
        self._finished = False

    def push(self, samples: Waveform) -> Iterator[StreamEvent]:
        """Hear the next samples: finals of what ended in them, then at most one partial of what goes on.

        Args:
            samples: (S,) float32 at 16 kHz in [-1, 1], any number of them.

        Raises:
            UsageError: samples of another shape or type or that are not finite, or a stream that was finished.
        """
        self._check_unfinished()
        if samples.size:
            self._ended += self._segmenter.push(check_waveform(samples))
        return self._work()

    def cut(self) -> Iterator[StreamEvent]:
        """End the open segment here, as if the sound ended; the stream goes on. Where nothing is open, nothing changes.

        Raises:
            UsageError: the stream was finished.
        """
        self._check_unfinished()
        self._ended += self._segmenter.cut()
        return self._work()

    def finish(self) -> Iterator[StreamEvent]:
        """End the stream: the final of what is open.

        Raises:
            UsageError: the stream was finished before.
        """
        self._check_unfinished()
        self._finished = True
        self._ended += self._segmenter.finish()
        return self._work()

    def _check_unfinished(self) -> None:
        if self._finished:
            raise UsageError("the stream is finished; expected nothing after finish(): open another LiveStream")

    def _work(self) -> Iterator[StreamEvent]:
        while self._ended:
            segment = self._ended[0]
            yield from self._announce(segment.start)
            words = self._write_final(segment)
            self._ended.popleft()  # not before: where the engine fails, the segment comes again
            final = Final(self._number, words, *(place / SAMPLE_RATE_HZ for place in _find_place(segment)))
            self._number, self._draft = self._number + 1, _Draft()
            yield final
        span = self._segmenter.open_span
        if span is not None:
            yield from self._announce(span.start)
            yield from self._follow(span)

    def _announce(self, start: int) -> Iterator[StreamEvent]:
        if not self._draft.announced:
            self._draft.announced, self._draft.heard = True, start
            yield SpeechStarted(self._number, start / SAMPLE_RATE_HZ)

    def _follow(self, span: range) -> Iterator[StreamEvent]:
        """Write what is open: a draft while speech goes on; with care, and once, in the silence that may end it."""
        draft, speaking = self._draft, self._segmenter.speaking
        segment = self._choose_open(span) if speaking else self._choose_expected()
        if segment is None:
            return
        words = self._recognizer.recognize_segment(segment, draft=speaking)
        if not speaking:
            draft.place, draft.careful = _find_place(segment), words
        draft.heard = span.stop
        draft.agree(words)
        yield Partial(self._number, draft.words, draft.stable)

    def _choose_open(self, span: range) -> Segment | None:
        """The speech going on, when enough of it is new."""
        new = (span.stop - self._draft.heard) // CHUNK_SAMPLES
        wait_s = self.rules.partial_s
        if not self._draft.words and self._draft.heard > span.start:
            wait_s /= 2  # nothing was understood yet: the first word is shown as soon as it can be
        due = new >= math.floor(wait_s / CHUNK_S)  # in whole chunks, or a draft would wait for one more
        return self._segmenter.open_segment() if due else None

    def _choose_expected(self) -> Segment | None:
        """The segment to come, if it is not written yet."""
        segment = self._segmenter.expected_segment()
        return segment if segment and _find_place(segment) != self._draft.place else None

    def _write_final(self, segment: Segment) -> tuple[Word, ...]:
        if self._draft.place == _find_place(segment):
            return self._draft.careful  # written already, in the silence after it
        return self._recognizer.recognize_segment(segment)


@dataclass
class _Draft:
    """What is written so far of a segment.

    ``heard`` is the end of the sound that was written last. ``careful`` are the words of the segment at ``place``, which is
    final if the silence goes on.
    """

    announced: bool = False
    heard: int = 0
    words: tuple[Word, ...] = ()
    stable: int = 0
    place: tuple[int, int] | None = None
    careful: tuple[Word, ...] = ()

    def agree(self, words: tuple[Word, ...]) -> None:
        """Take the next draft: committed words stay whatever it says, and what it has in common with the last is committed."""
        kept = self.words[: self.stable]
        if count_common(words, kept) == len(kept):
            more = words[len(kept) :]
        else:  # it has other words there, perhaps more or fewer: what comes after is found by time
            more = tuple(word for word in words if word.start_s + word.end_s > 2 * kept[-1].end_s)
        shown = kept + more
        self.stable = count_common(shown, self.words)
        self.words = shown


def count_common(words: tuple[Word, ...], others: tuple[Word, ...]) -> int:
    """How many of the first words have the same texts."""
    same = (one.text == other.text for one, other in zip(words, others, strict=False))
    return sum(takewhile(bool, same))


def _find_place(segment: Segment) -> tuple[int, int]:
    """The first sample of a segment in the stream, and the one after its last."""
    return segment.start, segment.start + len(segment.samples)
