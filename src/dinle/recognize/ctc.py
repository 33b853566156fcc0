"""Log-probabilities -> words: greedy CTC decoding (Graves et al., 2006, section 3.2).

The best token of each frame is taken, repeats are merged and blanks dropped. :class:`GreedyDecoder` does it piece by
piece, so that a recording of any length needs the memory of one window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dinle.recognize.transcript import Word
from dinle.recognize.vocabulary import SPACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dinle.recognize.vocabulary import Vocabulary


class GreedyDecoder:
    """Greedy CTC over consecutive pieces of one recording: push log-probabilities, then finish.

    A word starts with the first frame of its first token and ends with the last frame of its last one. Its confidence is the
    geometric mean of the probabilities of the frames in which its tokens stand.

    Args:
        vocabulary: the tokens; ``" "`` parts words.
        frame_shift_s: seconds from one frame to the next.
        frame_offset_s: time at which the first frame starts.
    """

    def __init__(self, vocabulary: Vocabulary, *, frame_shift_s: float, frame_offset_s: float = 0.0) -> None:
        self._vocabulary = vocabulary
        self._shift_s = frame_shift_s
        self._offset_s = frame_offset_s
        self._frame = 0
        self._previous = vocabulary.blank
        self._text = ""
        self._start_frame = self._end_frame = 0
        self._log_prob_sum = 0.0
        self._token_frames = 0

    def push(self, log_probs: NDArray[np.float32]) -> list[Word]:
        """Decode the next frames, ``log_probs`` of shape (T, V), and return the words that ended in them."""
        if not len(log_probs):
            return []
        tokens = log_probs.argmax(axis=1)
        best = log_probs[np.arange(len(tokens)), tokens]
        changed = np.flatnonzero(np.diff(tokens, prepend=tokens[0] ^ 1))
        words: list[Word] = []
        for start, end in zip(changed, [*changed[1:], len(tokens)], strict=True):
            word = self._take_run(int(tokens[start]), int(start), int(end), float(best[start:end].sum()))
            if word is not None:
                words.append(word)
        self._frame += len(tokens)
        return words

    def finish(self) -> list[Word]:
        """The word that was still open, if any; the decoder is then ready for another recording's frames."""
        word = self._close_word()
        self._previous, self._frame = self._vocabulary.blank, 0
        return [word] if word is not None else []

    def _take_run(self, token: int, start: int, end: int, log_prob: float) -> Word | None:
        repeated, self._previous = token == self._previous, token
        if token in self._vocabulary.hidden:
            return None
        if self._vocabulary.tokens[token] == SPACE:
            return self._close_word()
        if not self._text:
            self._start_frame = self._frame + start
        if not repeated:
            self._text += self._vocabulary.tokens[token]
        self._end_frame = self._frame + end
        self._log_prob_sum += log_prob
        self._token_frames += end - start
        return None

    def _close_word(self) -> Word | None:
        if not self._text:
            return None
        word = Word(
            text=self._text,
            start_s=max(0.0, self._offset_s + self._start_frame * self._shift_s),
            end_s=max(0.0, self._offset_s + self._end_frame * self._shift_s),
            confidence=float(np.exp(min(0.0, self._log_prob_sum / self._token_frames))),
        )
        self._text, self._log_prob_sum, self._token_frames = "", 0.0, 0
        return word


def decode_greedy(
    log_probs: NDArray[np.float32], vocabulary: Vocabulary, *, frame_shift_s: float, frame_offset_s: float = 0.0
) -> list[Word]:
    """The words of one clip from its log-probabilities, shape (T, V); see :class:`GreedyDecoder`."""
    decoder = GreedyDecoder(vocabulary, frame_shift_s=frame_shift_s, frame_offset_s=frame_offset_s)
    return [*decoder.push(log_probs), *decoder.finish()]
