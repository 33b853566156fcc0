"""Sound -> transcript with an encoder-decoder model: find speech, hear it, write its text, time its words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from dinle.recognize.alignment import align_tokens
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform
from dinle.recognize.beam import BeamRules, Hypothesis, search_beams
from dinle.recognize.recognizer import Piece, Recognizer, make_noise
from dinle.recognize.second_hearing import hear_again
from dinle.recognize.segments import Segment, SegmentRules, hear_segments
from dinle.recognize.stitching import Stitcher
from dinle.recognize.transcript import Word
from dinle.recognize.trimming import trim_segment
from dinle.recognize.word_edges import trim_to_sound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dinle.recognize.whisper_engine import WhisperEngine
    from dinle.recognize.whisper_vocabulary import WhisperVocabulary

OVERLAP_S = 2.0  # where speech must be cut: a few words, so that both sides have some in common
# Of several sentences heard at once the bundled model skips some: joined up to 15 s, sentences with pauses had 47 % WER, up to
# 5 s 29 %, at nearly the same speed. See docs/long-recordings.md.
TARGET_S = 5.0
PAD_S = 0.4  # of the recording, in which the sound's first and last sample are looked for
# Around a segment's sound: of 0.05 to 0.4 s none is surely better on clips, and with this word times are right.
SILENCE_S = 0.25
SENTENCE_S = 2.0  # of speech and the silence kept around it: a shorter segment is a word or two


@dataclass(frozen=True)
class WindowRules:
    """What the encoder hears of a segment.

    Attributes:
        min_s: a shorter window is filled up with silence.
        tail_s: silence after every segment.
        max_s: the longest window.
        frame_shift_s: seconds from one encoder frame to the next.
        sentence_min_s, sentence_tail_s: the first two for segments of :data:`SENTENCE_S` and more, where a model reads them as
            well in shorter windows; 0 for the first: as for all.
    """

    min_s: float
    tail_s: float
    max_s: float
    frame_shift_s: float
    sentence_min_s: float = 0.0
    sentence_tail_s: float = 0.0

    @property
    def longest_segment_s(self) -> float:
        """Seconds of sound that fit into the longest window."""
        return self.max_s - max(self.tail_s, self.sentence_tail_s if self.sentence_min_s else 0.0)

    def fill(self, seconds: float) -> float:
        """Seconds of the window for a segment of so many."""
        if self.sentence_min_s and seconds >= SENTENCE_S:
            return max(seconds + self.sentence_tail_s, self.sentence_min_s)
        return max(seconds + self.tail_s, self.min_s)


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
        super().__init__(name, SegmentRules.up_to(window.longest_segment_s - 2 * SILENCE_S))
        self.long_segments = replace(
            self.segments,
            target_s=min(TARGET_S, self.segments.target_s),
            pad_s=min(PAD_S, self.segments.max_s / 8),
            overlap_s=min(OVERLAP_S, self.segments.max_s / 8),
        )
        self.engine = engine
        self.vocabulary = self.prompted = vocabulary
        self.window = window
        self.beam = beam if beam is not None else BeamRules()
        self.batch_size = batch_size

    def with_hot_words(self, words: Iterable[str]) -> Self:
        """See :class:`Recognizer`; a short list is the decoder's prompt besides."""
        expecting = super().with_hot_words(words)
        expecting.prompted = self.vocabulary.prompt(expecting.language_model.hot_words)
        return expecting

    def warm_up(self) -> None:
        """See :class:`Recognizer`; what is written of the noise is thrown away."""
        tuple(self.write_segments([Segment(make_noise(), 0, 1.0)]))

    def recognize(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        """See :class:`Recognizer`; speech is found first, and nothing is written where there is none.

        A step is a second of sound in which speech was looked for, or a batch of segments that was written.
        """
        stitcher = Stitcher(self.long_segments.overlap_s)
        waiting: list[Segment] = []
        settled = 0
        for segments, settled in hear_segments(blocks, self.long_segments):
            for segment in segments:
                waiting.append(segment)
                if len(waiting) == self.batch_size:
                    words = self._stitch_segments(waiting, stitcher)
                    yield Piece(words, stitcher.limit(segment.start + len(segment.samples)))
                    waiting = []
            yield Piece((), stitcher.limit(waiting[0].start if waiting else settled))
        if waiting:
            yield Piece(self._stitch_segments(waiting, stitcher), settled)

    def recognize_segment(self, segment: Segment, *, draft: bool = False) -> tuple[Word, ...]:
        """See :class:`Recognizer`; a draft is searched greedily, and what was passed over is not heard again."""
        return tuple(self.write_segments([segment], draft=draft))

    def write_segments(self, segments: Sequence[Segment], *, draft: bool = False) -> Iterator[Word]:
        """The words of segments that are heard and decoded as one batch; see :meth:`recognize_segment` for drafts."""
        for words in self._write_each(segments, draft=draft):
            yield from words

    def _stitch_segments(self, segments: Sequence[Segment], stitcher: Stitcher) -> tuple[Word, ...]:
        """Write segments of a recording; its words that are certain now."""
        written = zip(segments, self._write_each(segments), strict=True)
        return tuple(word for segment, words in written for word in stitcher.push(words, segment))

    def _write_each(self, segments: Sequence[Segment], *, draft: bool = False) -> Iterator[list[Word]]:
        beam = replace(self.beam, beam_size=1) if draft else self.beam
        notes = [segment.is_note() for segment in segments]
        voices = [trim_segment(one, SILENCE_S) for one, note in zip(segments, notes, strict=True) if not note]
        heard = iter(zip(voices, self._hear(voices, beam), strict=True) if voices else ())
        for segment, note in zip(segments, notes, strict=True):
            if note:
                yield []
                continue
            voice, words = next(heard)
            whole = words if draft else hear_again(voice, words, self._hear_part)
            yield self._correct_words(segment, voice, whole)

    def _hear_part(self, part: Segment) -> list[Word]:
        return self._hear([part], self.beam)[0]

    def _hear(self, segments: Sequence[Segment], beam: BeamRules) -> list[list[Word]]:
        """What is written of each segment, with times as the alignment gives them."""
        seconds = [len(one.samples) / SAMPLE_RATE_HZ for one in segments]
        lengths = np.array([round(self.window.fill(one) * SAMPLE_RATE_HZ) for one in seconds], dtype=np.int64)
        waveforms = np.zeros((len(segments), int(lengths.max())), dtype=np.float32)
        for row, one in enumerate(segments):
            waveforms[row, : len(one.samples)] = one.samples
        sound = self.engine.encode(waveforms, lengths)
        scorer = self.language_model.scorer
        texts = search_beams(self.engine, self.prompted, sound, seconds, beam, scorer=scorer)
        return [list(self._time_words(segment, text)) for segment, text in zip(segments, texts, strict=True)]

    def _correct_words(self, segment: Segment, voice: Segment, words: list[Word]) -> list[Word]:
        """The words within the segment, of which ``voice`` is what was heard."""
        start_s, length_s = segment.start / SAMPLE_RATE_HZ, len(segment.samples) / SAMPLE_RATE_HZ
        words = self.corrections.shift(words, first_s=start_s, last_s=start_s + length_s)
        return self.corrections.calibrate(trim_to_sound(words, voice.samples, voice.start / SAMPLE_RATE_HZ))

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
