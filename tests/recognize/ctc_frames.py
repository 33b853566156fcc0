"""Frames of letters, small vocabularies and a scorer: what the tests of CTC beam search share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from dinle.recognize.ctc_beam import BeamDecoder, CtcBeamRules
from dinle.recognize.hot_words import START
from dinle.recognize.text_scorer import State, TextScorer
from dinle.recognize.vocabulary import Vocabulary
from tests.fakes import spell_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from dinle.recognize.transcript import Word

SMALL = Vocabulary(("_", "a", "b", " "), blank=0)
HIDING = Vocabulary(("<s>", "a", "_", "b", " ", "<u>"), blank=2, specials=frozenset({0, 5}))
SPACELESS = Vocabulary(("_", "a", "b"), blank=0)
SHIFT_S = 0.02


@dataclass(frozen=True)
class Likes:
    """Adds nats for each letter by a table, one table for the first letter of a word and one for the others, and at the end."""

    first: dict[str, float]
    others: dict[str, float]
    last: float = 0.0
    start: State = (0, START, False)

    def advance(self, state: State, piece: str) -> tuple[float, State]:
        score, open_ = 0.0, state[2]
        for letter in piece:
            if letter != " " or open_:
                score += (self.others if open_ else self.first).get(letter, 0.0)
            open_ = letter != " "
        return score, (0, START, open_)

    def end(self, state: State) -> float:
        return self.last * state[2]


ZERO = Likes({}, {})
LIKES_A = Likes({"a": 1.5, "b": -0.5}, {"a": 0.7, "b": -1.0, " ": 0.3}, last=0.6)
scorers = st.sampled_from([ZERO, LIKES_A, Likes({"b": 2.0}, {"b": 1.0, " ": -2.0})])


def make_decoder(
    vocabulary: Vocabulary = SMALL,
    scorer: TextScorer = ZERO,
    rules: CtcBeamRules | None = None,
    shift_s: float = SHIFT_S,
    offset_s: float = 0.0,
) -> BeamDecoder:
    return BeamDecoder(vocabulary, scorer, rules or CtcBeamRules(), frame_shift_s=shift_s, frame_offset_s=offset_s)


def decode(log_probs: NDArray[np.float32], *args: Any, **kwargs: Any) -> list[Word]:
    decoder = make_decoder(*args, **kwargs)
    return [*decoder.push(log_probs), *decoder.finish()]


def spell(words: Iterable[Word]) -> str:
    return " ".join(word.text for word in words)


def draw_log_probs(seed: int, frames: int, vocabulary: Vocabulary, spread: float = 2.0) -> NDArray[np.float32]:
    logits = spread * np.random.default_rng(seed).standard_normal((frames, vocabulary.size))
    log_probs: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    return log_probs


def spell_text(text: str, vocabulary: Vocabulary, probability: float = 0.9) -> NDArray[np.float32]:
    """A frame for each letter, and a blank after it."""
    ids = [token for letter in vocabulary.encode(text) for token in (letter, vocabulary.blank)]
    return spell_frames(np.array(ids, dtype=np.int64), vocabulary, probability)


def strip_times(words: list[Word]) -> list[tuple[str, float, float]]:
    return [(word.text, round(word.start_s, 6), round(word.end_s, 6)) for word in words]
