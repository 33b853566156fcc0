"""Sound -> transcript with an encoder-decoder model: find speech, hear it, write its text, time its words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.alignment import align_tokens
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform
from dinle.recognize.beam import BeamRules, Hypothesis, search_beams
from dinle.recognize.recognizer import Piece, Recognizer, make_noise
from dinle.recognize.segments import Segment, Segmenter, SegmentRules, split_blocks
from dinle.recognize.transcript import Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dinle.recognize.whisper_engine import WhisperEngine
    from dinle.recognize.whisper_vocabulary import WhisperVocabulary


@dataclass(frozen=True)
class WindowRules:
    """What the encoder hears of a segment.

    Attributes:
        min_s: a shorter window is filled up with silence.
        tail_s: silence after every segment.
        max_s: the longest window.
        frame_shift_s: seconds from one encoder frame to the next.
    """

    min_s: float
    tail_s: float
    max_s: float
    frame_shift_s: float


class WhisperRecognizer(Recognizer):
    """Turns sound into transcripts with an encoder-decoder engine. Safe to use from several threads.

    Args:
        engine: runs the model.
        vocabulary: what it writes.
        name: reported in transcripts.
        window: what the encoder hears of a segment.
        beam: how texts are searched, and kept from running on.
        batch_size: segments of one recording that are decoded together.
    """

    def __init__(
        self,
        engine: WhisperEngine,
        vocabulary: WhisperVocabulary,
        *,
        name: str,
        window: WindowRules,
        beam: BeamRules | None = None,
        batch_size: int = 1,
    ) -> None:
        super().__init__(name, SegmentRules.up_to(window.max_s - window.tail_s))
        self.engine = engine
        self.vocabulary = vocabulary
        self.window = window
        self.beam = beam if beam is not None else BeamRules()
        self.batch_size = batch_size

    def warm_up(self) -> None:
        """See :class:`Recognizer`; what is written of the noise is thrown away."""
        tuple(self.write_segments([Segment(make_noise(), 0, 1.0)]))

    def recognize(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        """See :class:`Recognizer`; speech is found first, and nothing is written where there is none.

        A step is a second of sound in which speech was looked for, or a batch of segments that was written.
        """
        waiting: list[Segment] = []
        settled = 0
        for segments, settled in hear_segments(blocks, self.segments):
            for segment in segments:
                waiting.append(segment)
                if len(waiting) == self.batch_size:
                    yield Piece(tuple(self.write_segments(waiting)), segment.start + len(segment.samples))
                    waiting = []
            yield Piece((), waiting[0].start if waiting else settled)
        if waiting:
            yield Piece(tuple(self.write_segments(waiting)), settled)

    def recognize_segment(self, segment: Segment, *, draft: bool = False) -> tuple[Word, ...]:
        """See :class:`Recognizer`; a draft is searched greedily."""
        return tuple(self.write_segments([segment], replace(self.beam, beam_size=1) if draft else None))

    def write_segments(self, segments: Sequence[Segment], beam: BeamRules | None = None) -> Iterator[Word]:
        """The words of segments that are heard and decoded as one batch; by other rules than the recogniser's, if given."""
        lengths = np.array([self._fill(len(one.samples)) for one in segments], dtype=np.int64)
        waveforms = np.zeros((len(segments), int(lengths.max())), dtype=np.float32)
        for row, one in enumerate(segments):
            waveforms[row, : len(one.samples)] = one.samples
        sound = self.engine.encode(waveforms, lengths)
        seconds = [len(one.samples) / SAMPLE_RATE_HZ for one in segments]
        texts = search_beams(self.engine, self.vocabulary, sound, seconds, beam or self.beam)
        for segment, text in zip(segments, texts, strict=True):
            yield from self._time_words(segment, text)

    def _fill(self, samples: int) -> int:
        """Samples of a window: the segment and its tail, at least the shortest window."""
        tail, least = (round(s * SAMPLE_RATE_HZ) for s in (self.window.tail_s, self.window.min_s))
        return max(samples + tail, least)

    def _time_words(self, segment: Segment, text: Hypothesis) -> Iterator[Word]:
        if not text.tokens:
            return
        shift_s, start_s = self.window.frame_shift_s, segment.start / SAMPLE_RATE_HZ
        spoken = max(1, round(len(segment.samples) / SAMPLE_RATE_HZ / shift_s))
        frames = align_tokens(np.stack(text.attention)[:, :spoken])
        for places in self.vocabulary.split_words(text.tokens):
            yield Word(
                text=self.vocabulary.decode(text.tokens[places.start : places.stop]),
                start_s=start_s + float(frames[places.start]) * shift_s,
                end_s=start_s + float(frames[places.stop]) * shift_s,
                confidence=float(np.exp(np.mean(text.log_probs[places.start : places.stop]))),
            )


def hear_segments(blocks: Iterable[Waveform], rules: SegmentRules) -> Iterator[tuple[list[Segment], int]]:
    """For each part of at most a second, and for the end: the segments that it completes, and the samples now settled.

    Args:
        blocks: consecutive samples, each (S,) at 16 kHz.
        rules: when speech begins and ends, and how long segments get.

    Returns:
        Pairs; no later segment holds any of the first ``settled`` samples, which are all of them at the end.
    """
    segmenter = Segmenter(rules)
    heard = 0
    for part in split_blocks(blocks):
        heard += len(part)
        yield segmenter.push(part), segmenter.settled
    yield segmenter.finish(), heard
