"""Audio -> transcript, step by step: decode the audio, recognise its words; for CTC cut windows, run the engine, decode."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, get_args

import numpy as np

from dinle.config import Backend
from dinle.errors import EmptyAudioError, UsageError
from dinle.recognize.audio import NO_LIMITS, SAMPLE_RATE_HZ, AudioLimits, AudioSource, Waveform, stream_audio
from dinle.recognize.corrections import WordCorrections
from dinle.recognize.ctc import GreedyDecoder
from dinle.recognize.ctc_beam import BeamDecoder, CtcBeamRules
from dinle.recognize.language_model import LanguageModel
from dinle.recognize.segments import Segment, SegmentRules, hear_segments
from dinle.recognize.stitching import Stitcher
from dinle.recognize.transcript import Transcript, Word
from dinle.recognize.trimming import trim_segment
from dinle.recognize.windows import Window, cut_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from dinle.recognize.bundle import Bundle
    from dinle.recognize.engine import Engine
    from dinle.recognize.vocabulary import Vocabulary

BACKENDS: tuple[Backend, ...] = get_args(Backend)

# Attention costs grow with the square of a window and an edge costs accuracy: 20 s with 4 s shared is a common compromise.
WINDOW_S = 20.0
OVERLAP_S = 4.0
# How recordings are cut: about as long as the sentences that such models learn from. In speech without pauses the bundled model
# makes more errors the longer the sound it is given at once. See docs/long-recordings.md.
LONG_SEGMENTS = {"target_s": 6.0, "max_s": 8.0, "cut_s": 3.0, "pad_s": 0.5, "overlap_s": 1.0}
# Around a segment's sound: of 0.05 to 0.3 s the best on clips, and in recordings they are read as alone.
SILENCE_S = 0.3


@dataclass(frozen=True)
class Piece:
    """A step of a recording's recognition.

    Attributes:
        words: those that became certain with it.
        samples: of the recording that are done, but for a word that may still go on.
    """

    words: tuple[Word, ...]
    samples: int


class Recognizer(ABC):
    """Turns sound into transcripts. Safe to use from several threads.

    A family says how (:meth:`recognize`); how sound comes in and what goes out is the same for all.

    Args:
        name: reported in transcripts.
        segments: how sound is cut for :meth:`recognize_segment`.

    Attributes:
        backend: which engine runs it, where it was loaded by :func:`dinle.load`.
        bundle: what it was loaded from, where it was a bundle.
        corrections: of the words' times and confidences.
        language_model: has a say in which texts are written.
    """

    def __init__(self, name: str, segments: SegmentRules) -> None:
        self.name = name
        self.segments = segments
        self.backend: Backend | None = None
        self.bundle: Bundle | None = None
        self.corrections = WordCorrections()
        self.language_model = LanguageModel()

    def with_hot_words(self, words: Iterable[str]) -> Self:
        """The same recogniser, its engine shared, expecting these words besides: names and terms, in any case.

        Raises:
            UsageError: see :class:`dinle.recognize.hot_words.HotWords`.
        """
        expecting = copy(self)
        known = self.language_model
        expecting.language_model = replace(known, hot_words=(*known.hot_words, *words))
        _ = expecting.language_model.scorer  # what is wrong with the words is said here
        return expecting

    @abstractmethod
    def recognize(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        """The words of one recording, in order, in bounded memory and in steps of at most one run of the engine.

        Between two steps the caller may do something else for as long as it likes. A step without words comes where a
        stretch of sound turned out to hold none. The last step has all the samples of the recording.

        Args:
            blocks: consecutive samples, each (S,) at 16 kHz; all of them are read.
        """

    @abstractmethod
    def recognize_segment(self, segment: Segment, *, draft: bool = False) -> tuple[Word, ...]:
        """The words of one segment alone, their times counted from the start of the recording; none where it is a note.

        Args:
            segment: sound cut by :attr:`segments`, or by rules with shorter segments.
            draft: be quick rather than right, where the family has such a choice.
        """

    @abstractmethod
    def warm_up(self) -> None:
        """Run the engine once on noise, so that the first recording does not pay for its start."""

    def transcribe(
        self,
        source: AudioSource | NDArray[np.float32],
        *,
        limits: AudioLimits = NO_LIMITS,
        on_progress: Callable[[float], object] | None = None,
    ) -> Transcript:
        """Transcribe one recording of any length in bounded memory.

        Args:
            source: a path, encoded bytes, a binary file object, or a waveform (S,) of mono float32 at 16 kHz in [-1, 1].
            limits: bytes and seconds to accept, checked while decoding.
            on_progress: called with the seconds of sound transcribed so far.

        Raises:
            AudioError: see :func:`dinle.recognize.audio.decode_audio`.
            UsageError: the waveform is not one-dimensional float32 of finite numbers.
        """
        started = time.perf_counter()
        blocks = iter([check_waveform(source)]) if isinstance(source, np.ndarray) else stream_audio(source, limits)
        words: list[Word] = []
        samples = 0
        for piece in self.recognize(blocks):
            words += piece.words
            samples = piece.samples
            if on_progress is not None:
                on_progress(samples / SAMPLE_RATE_HZ)
        return Transcript(
            text=" ".join(word.text for word in words),
            words=tuple(words),
            duration_s=samples / SAMPLE_RATE_HZ,
            inference_s=time.perf_counter() - started,
            model=self.name,
        )


def make_noise() -> Waveform:
    """A second of noise (S,), for engines to warm up on."""
    noise = np.random.default_rng(0).normal(0.0, 0.1, SAMPLE_RATE_HZ).astype(np.float32)
    return noise.clip(-1.0, 1.0)


class CtcRecognizer(Recognizer):
    """Turns sound into transcripts with a CTC engine.

    Args:
        engine: runs the model.
        vocabulary: the tokens behind the engine's V axis.
        name: reported in transcripts.
        frame_shift_s: seconds from one frame to the next.
        frame_offset_s: start of a clip's first frame relative to its first sample.
        max_seconds: the longest clip that the engine takes (``None``: any); longer sound is cut in any case.
        speech_only: recordings are searched for speech first, and what is not speech has no words and costs no inference.
    """

    def __init__(
        self,
        engine: Engine,
        vocabulary: Vocabulary,
        *,
        name: str,
        frame_shift_s: float,
        frame_offset_s: float = 0.0,
        max_seconds: float | None = None,
        speech_only: bool = False,
    ) -> None:
        self.window_s = min(WINDOW_S, max_seconds or WINDOW_S)
        self.silence_s = min(SILENCE_S, self.window_s / 8)
        super().__init__(name, SegmentRules.up_to(self.window_s - 2 * self.silence_s))
        self.engine = engine
        self.vocabulary = vocabulary
        self.frame_shift_s = frame_shift_s
        self.frame_offset_s = frame_offset_s
        self.speech_only = speech_only
        self.long_segments = replace(self.segments, **LONG_SEGMENTS)
        self.beam = CtcBeamRules()

    def warm_up(self) -> None:
        """See :class:`Recognizer`."""
        noise = make_noise()
        self.engine.run(noise[np.newaxis], np.array([len(noise)], dtype=np.int64))

    def recognize(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        """See :class:`Recognizer`; a step is a window, or a second of sound in which speech was looked for."""
        if not self.speech_only:
            yield from self._hear_windows(blocks)
            return
        stitcher = Stitcher(self.long_segments.overlap_s)
        for segments, settled in hear_segments(blocks, self.long_segments):
            for segment in segments:
                words: list[Word] = []
                for more in self._hear_segment(segment):
                    words += more
                    yield Piece((), stitcher.limit(segment.start))
                certain = stitcher.push(words, segment)
                yield Piece(certain, stitcher.limit(segment.start + len(segment.samples)))
            yield Piece((), stitcher.limit(settled))

    def _hear_windows(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        """The words of all sound, speech or not, a window at a time: any length needs the memory of one."""
        decoder = self._make_decoder()
        ended_s = 0.0  # of the last word
        for window in cut_windows(blocks, window_s=self.window_s, overlap_s=min(OVERLAP_S, self.window_s / 4)):
            words = decoder.push(self._run_window(window))
            if window.last:
                words += decoder.finish()
            heard_s = (window.start + len(window.samples)) / SAMPLE_RATE_HZ
            words = self.corrections.shift(words, first_s=ended_s, last_s=heard_s)
            ended_s = words[-1].end_s if words else ended_s
            yield Piece(tuple(self.corrections.calibrate(words)), window.keep_to)

    def recognize_segment(self, segment: Segment, *, draft: bool = False) -> tuple[Word, ...]:  # noqa: ARG002
        """See :class:`Recognizer`; a draft is no quicker, as the search costs little beside the engine."""
        return tuple(word for words in self._hear_segment(segment) for word in words)

    def _hear_segment(self, segment: Segment) -> Iterator[list[Word]]:
        """The words of each window, at their times in the recording; none where it is a note."""
        if segment.is_note():
            return
        sound = trim_segment(segment, self.silence_s)
        last_s = (segment.start + len(segment.samples)) / SAMPLE_RATE_HZ
        for piece in self._hear_windows([sound.samples]):
            yield list(shift_words(piece.words, sound.start / SAMPLE_RATE_HZ, segment.start / SAMPLE_RATE_HZ, last_s))

    def _make_decoder(self) -> GreedyDecoder | BeamDecoder:
        """Greedy where nothing but the sound has a say in the text."""
        scorer = self.language_model.scorer
        shift_s, offset_s = self.frame_shift_s, self.frame_offset_s
        if scorer is None:
            return GreedyDecoder(self.vocabulary, frame_shift_s=shift_s, frame_offset_s=offset_s)
        return BeamDecoder(self.vocabulary, scorer, self.beam, frame_shift_s=shift_s, frame_offset_s=offset_s)

    def _run_window(self, window: Window) -> NDArray[np.float32]:
        """Log-probabilities (T, V) of the frames that this window keeps."""
        first, end = self._frame_at(window.keep_from), self._frame_at(window.keep_to)
        if window.start == 0:
            first = 0
        if window.silent:
            return self._blank_frames(max(0, end - first))
        lengths = np.array([len(window.samples)], dtype=np.int64)
        log_probs, frames = self.engine.run(window.samples[np.newaxis], lengths)
        offset = round(window.start / SAMPLE_RATE_HZ / self.frame_shift_s)
        if window.last:
            end = offset + int(frames[0])
        kept: NDArray[np.float32] = log_probs[0, : int(frames[0])][max(0, first - offset) : max(0, end - offset)]
        return kept

    def _frame_at(self, sample: int) -> int:
        """Index of the frame that starts at a sample, counted over the whole recording."""
        return round((sample / SAMPLE_RATE_HZ - self.frame_offset_s) / self.frame_shift_s)

    def _blank_frames(self, count: int) -> NDArray[np.float32]:
        log_probs = np.full((count, self.vocabulary.size), -np.inf, dtype=np.float32)
        log_probs[:, self.vocabulary.blank] = 0.0
        return log_probs


def shift_words(words: Iterable[Word], start_s: float, first_s: float, last_s: float) -> Iterator[Word]:
    """The words of a piece of a recording, their times counted from its start, between ``first_s`` and ``last_s``."""
    for word in words:
        start, end = (min(max(start_s + time_s, first_s), last_s) for time_s in (word.start_s, word.end_s))
        yield replace(word, start_s=start, end_s=end)


def check_waveform(waveform: NDArray[np.float32]) -> Waveform:
    """The waveform itself, when it is what a recogniser takes: (S,) float32, finite, at least one sample.

    Raises:
        UsageError: another shape or type, or samples that are not numbers.
        EmptyAudioError: no samples.
    """
    if waveform.ndim != 1 or waveform.dtype != np.float32:
        raise UsageError(
            f"the waveform has shape {waveform.shape} and type {waveform.dtype}; expected (samples,) of float32: "
            "mono at 16 kHz in [-1, 1]"
        )
    if not len(waveform):
        raise EmptyAudioError("the waveform holds no samples; expected at least one")
    if not np.isfinite(waveform).all():
        raise UsageError("the waveform holds NaN or infinite samples; expected numbers in [-1, 1]")
    return waveform
