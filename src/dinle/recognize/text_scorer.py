"""How well a text goes on: a language model of letters and words that are asked for, as one score for every search.

Both families search with it: a CTC model adds a letter at a time, a Whisper model a token, which may be several letters, a
part of one, or a sign. Scores are in nats and are added to the model's own log-probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from dinle.recognize.hot_words import START, HotWords
from dinle.recognize.hot_words import State as HotState
from dinle.recognize.ngram import ROOT, Ngram
from dinle.text import fold_letters

SPACE = " "
State = tuple[int, HotState, bool]  # of the n-grams, of the hot words, whether a word is open
KEPT_PIECES = 65536
# What a letter costs where no model knows better (nats): a letter 3-gram of Turkish sentences takes 2.4 bits.
USUAL_LOG_PROB = -1.7


class TextScorer(Protocol):
    """Says how well a text goes on. States are values: several hypotheses may go on from one."""

    @property
    def start(self) -> State:
        """The state before any text."""
        ...

    def advance(self, state: State, piece: str) -> tuple[float, State]:
        """What the next piece of a text adds to its score, and the state after it."""
        ...

    def end(self, state: State) -> float:
        """What the end of the text adds to its score."""
        ...


@dataclass(frozen=True)
class FusionWeights:
    """How much the language model counts beside what was heard.

    Attributes:
        model: factor of the language model's log-probabilities.
        letter: nats for every letter and space, against the model's liking for short texts.
        hot_words: factor of what hot words earn.
    """

    model: float
    letter: float
    hot_words: float = 1.0


@dataclass(frozen=True)
class LetterScorer:
    """A letter n-gram and hot words, either of which may be missing.

    Digits and signs part words, as in :func:`dinle.text.fold_letters`. A letter that the model does not have adds nothing,
    and the context is lost.

    Attributes:
        letters: the token of each letter; the space among them.
        ngram: the language model.
        weights: how much it counts.
        hot_words: words that are asked for.
    """

    letters: Mapping[str, int]
    ngram: Ngram | None
    weights: FusionWeights
    hot_words: HotWords | None = None

    @property
    def start(self) -> State:
        """See :class:`TextScorer`."""
        return (self.ngram.start if self.ngram is not None else ROOT, START, False)

    def advance(self, state: State, piece: str) -> tuple[float, State]:
        """See :class:`TextScorer`; the piece is in any case, and may hold signs."""
        context, hot, open_ = state
        score = 0.0
        for letter in fold_piece(piece):
            if letter == SPACE and not open_:
                continue
            open_ = letter != SPACE
            added, log_prob, context = self._score_letter(context, letter)
            score += added
            if self.hot_words is not None:
                earned, hot = self.hot_words.advance(hot, letter, log_prob)
                score += self.weights.hot_words * earned
        return score, (context, hot, open_)

    def end(self, state: State) -> float:
        """See :class:`TextScorer`: the last word ends, and so does a phrase of which only the beginning is there."""
        context, hot, open_ = state
        score = self._score_letter(context, SPACE)[0] if open_ else 0.0
        return score if self.hot_words is None else score + self.weights.hot_words * self.hot_words.end(hot)

    def _score_letter(self, context: int, letter: str) -> tuple[float, float, int]:
        """What a letter adds, its log-probability, and the n-gram's state after it."""
        token = self.letters.get(letter)
        if self.ngram is None or token is None:
            return 0.0, USUAL_LOG_PROB, ROOT
        log_prob, after = self.ngram.advance(context, token)
        return self.weights.model * log_prob + self.weights.letter, log_prob, after


@lru_cache(KEPT_PIECES)
def fold_piece(piece: str) -> str:
    """A piece of text in the letters of the form ``tr``, its spaces kept; see :mod:`dinle.text`."""
    return fold_letters(piece)
