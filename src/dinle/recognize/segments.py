"""Cuts a recording of any length into the segments in which somebody speaks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dinle.errors import UsageError
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform
from dinle.recognize.spans import CHUNK_S, Span, SpanFinder
from dinle.recognize.steadiness import measure_steadiness
from dinle.recognize.vad import CHUNK_SAMPLES, SpeechDetector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

STEADY = 0.5  # more than half; speech has at most 0.29, slowed down 0.42: docs/long-recordings.md
BLOCK_SAMPLES = SAMPLE_RATE_HZ  # a longer block is taken so much at a time: segments come out as soon as they end
# Digital silence, no louder than one step of 16-bit sound, of a block and more is a border: what follows it is heard as if the
# recording began there, so that it has the segments that it would have alone.
SILENT = 2.0**-15


@dataclass(frozen=True)
class Segment:
    """A piece of a recording with speech in it.

    Attributes:
        samples: (S,) the sound at 16 kHz.
        start: index of its first sample in the recording.
        speech: the highest probability of speech in it.
        head: where it begins inside speech that was cut, so many of its first samples lie before the cut.
        tail: where it ends inside speech that was cut, so many of its last samples lie after the cut.
        voice: from the first to the last of its samples (not included) in which the detector heard speech.
    """

    samples: Waveform
    start: int
    speech: float
    head: int = 0
    tail: int = 0
    voice: tuple[int, int] = (0, 0)

    def is_note(self) -> bool:
        """Whether what the detector took for speech is too steady for it: it has no words. Costs 0.1 ms for a second of sound."""
        return measure_steadiness(self.samples[slice(*self.voice)]) > STEADY


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
            ``target_s``: pauses within a sentence do not part it.
        vouch_gap_s: stretches that are too short to be believed alone are believed together, and joined, across a silence of
            up to this; further apart they are the notes of a melody.
        target_s: longest segment made of several stretches of speech.
        max_s: longest segment; longer speech is cut at its least speech-like place.
        cut_s: how far back from ``max_s`` that place may lie.
        overlap_s: around such a cut sound is heard twice: the next segment begins so long before the cut, and the segment
            before it ends half as long after it.

    Raises:
        UsageError: rules that contradict each other.
    """

    start_probability: float = 0.5
    end_probability: float = 0.35
    min_silence_s: float = 0.25
    min_speech_s: float = 0.19
    pad_s: float = 0.2
    merge_gap_s: float = 0.5
    vouch_gap_s: float = 1.0
    target_s: float = 15.0
    max_s: float = 28.0
    cut_s: float = 6.0
    overlap_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.end_probability <= self.start_probability <= 1:
            raise UsageError(
                f"end_probability is {self.end_probability:g} and start_probability {self.start_probability:g}; "
                "expected 0 < end_probability <= start_probability <= 1"
            )
        lengths_s = (
            self.min_silence_s,
            self.min_speech_s,
            self.pad_s,
            self.merge_gap_s,
            self.vouch_gap_s,
            self.overlap_s,
        )
        if min(lengths_s) < 0:
            raise UsageError(
                "a length of silence, speech, padding, gap or overlap is negative; expected seconds of 0 or more"
            )
        needed_s = 2 * self.pad_s + self.cut_s + 2 * self.overlap_s + 2 * CHUNK_S
        if not needed_s < self.max_s or self.cut_s < max(CHUNK_S, self.overlap_s):
            raise UsageError(
                f"max_s is {self.max_s:g} with cut_s {self.cut_s:g}, pad_s {self.pad_s:g} and overlap_s {self.overlap_s:g}; "
                f"expected cut_s of at least {CHUNK_S:g} and overlap_s, and max_s longer than cut_s and twice the others"
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
        """The probability of the last, incomplete chunk, if there is one; what is pushed next is another recording."""
        ...


DEFAULT_RULES = SegmentRules()


def cut_segments(
    blocks: Iterable[Waveform], rules: SegmentRules = DEFAULT_RULES, *, detector: Detector | None = None
) -> Iterator[Segment]:
    """Cut streamed sound into segments with speech, in order; sound without speech gives none.

    They overlap only where speech had to be cut, by the rules' ``overlap_s``. After a second of digital silence sound is heard
    as if the recording began there.

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


def hear_segments(blocks: Iterable[Waveform], rules: SegmentRules) -> Iterator[tuple[list[Segment], int]]:
    """For each part of at most a second, and for the end: the segments that it completes, and the samples now settled.

    Args:
        blocks: consecutive samples, each (S,) at 16 kHz.
        rules: when speech begins and ends, and how long segments get.

    Returns:
        Pairs; no later segment holds any of the first ``settled`` samples, which are all of them at the end.

    Raises:
        SpeechModelError: the weights of the detector are missing.
    """
    segmenter = Segmenter(rules)
    heard = 0
    for part in split_blocks(blocks):
        heard += len(part)
        yield segmenter.push(part), segmenter.settled
    yield segmenter.finish(), heard


class Segmenter:
    """Cuts one recording into segments while it comes in, and tells what is open now. Belongs to one thread.

    Args:
        rules: when speech begins and ends, and how long segments get.
        detector: hears the recording (default: a new :class:`SpeechDetector`).

    Raises:
        SpeechModelError: the weights of the detector are missing.
    """

    def __init__(self, rules: SegmentRules = DEFAULT_RULES, *, detector: Detector | None = None) -> None:
        self._detector, self._rules = detector or SpeechDetector(), rules
        self._heard = 0  # samples
        self._silent = BLOCK_SAMPLES  # of them at the end, in a row; before a recording there are enough for a border
        self._begin()

    def push(self, samples: Waveform) -> list[Segment]:
        """Hear the next samples, (S,) at 16 kHz in [-1, 1], any number of them; the segments that are certain now."""
        segments: list[Segment] = []
        for part in split_blocks([samples]):
            border = self._find_border(part)
            if border is not None:
                segments += [*self._add(part[:border]), *self.finish()]
                self._begin()
            segments += self._add(part[border or 0 :])
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
        return self._sound.find_place(self._finder.needed)

    @property
    def speaking(self) -> bool:
        """Whether the last chunk heard was speech."""
        return self._finder.speaking

    @property
    def open_span(self) -> range | None:
        """The samples of :meth:`open_segment`, as places in the recording."""
        span = self._finder.find_open()
        return range(self._sound.find_place(span.start), self._sound.find_place(span.end)) if span else None

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

    def _find_border(self, part: Waveform) -> int | None:
        """The sample that ends a second and more of digital silence: a part of no more than a second has one at most."""
        loud = np.flatnonzero(np.abs(part) > SILENT)
        if not len(loud):
            self._silent += len(part)
            return None
        silent, self._silent = self._silent + int(loud[0]), len(part) - 1 - int(loud[-1])
        return int(loud[0]) if silent >= BLOCK_SAMPLES else None

    def _begin(self) -> None:
        """Count chunks from here."""
        self._finder, self._sound = SpanFinder(self._rules), SoundBuffer(self._heard)

    def _add(self, samples: Waveform) -> list[Segment]:
        self._heard += len(samples)
        self._sound.append(samples.copy())  # the caller may fill its buffer anew, and a view would hold all of it
        segments = list(self._hear(self._detector.push(samples)))
        self._sound.forget(self.settled)
        return segments

    def _hear(self, probabilities: NDArray[np.float32]) -> Iterator[Segment]:
        for probability in probabilities.tolist():
            yield from map(self._sound.take, self._finder.push(probability))


class SoundBuffer:
    """The latest sound of a stream, whose chunks are counted from a sample of the recording."""

    def __init__(self, start: int = 0) -> None:
        self._blocks: deque[Waveform] = deque()
        self._origin = self._start = start  # of the first chunk; of the first block

    def find_place(self, chunk: int) -> int:
        """The sample of the recording with which a chunk begins."""
        return self._origin + chunk * CHUNK_SAMPLES

    def append(self, block: Waveform) -> None:
        """Add the next samples."""
        self._blocks.append(block)

    def forget(self, before: int) -> None:
        """Drop the blocks that end at or before a sample of the recording."""
        while self._blocks and self._start + len(self._blocks[0]) <= before:
            self._start += len(self._blocks.popleft())

    def take(self, span: Span) -> Segment:
        """The samples of a span of chunks, up to the end of the sound."""
        first, last = self.find_place(span.start), self.find_place(span.end)
        parts, at = [], self._start
        for block in self._blocks:
            parts.append(block[max(0, first - at) : max(0, last - at)])
            at += len(block)
        samples = np.concatenate(parts)
        tail = max(0, first + len(samples) - last + span.tail * CHUNK_SAMPLES) if span.tail else 0
        voice = (max(0, span.first - span.start) * CHUNK_SAMPLES, (span.last - span.start) * CHUNK_SAMPLES)
        return Segment(samples, first, span.peak, head=span.head * CHUNK_SAMPLES, tail=tail, voice=voice)
