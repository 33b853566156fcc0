"""Beam search with an encoder-decoder model, kept from running on and from writing where nothing is said.

Shapes: C clips, R live beams of all clips together, V vocabulary, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dinle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.recognize.whisper_engine import Sound, Step, WhisperEngine
    from dinle.recognize.whisper_vocabulary import WhisperVocabulary

MAX_COPIES = 3  # of one run of tokens in a row: people do say a word three times, a decoder that is lost never stops
LONG_TOKENS = 8  # more than a word or two
BLOCK = 128  # of values that are looked at by their maximum first
OPENING_TOKENS = 2  # where nobody speaks, a decoder begins in doubt; what it goes on with may be sure of itself


@dataclass(frozen=True)
class BeamRules:
    """How wide the search is, and what it must not write.

    The thresholds were chosen on sounds without speech, words spoken by people and synthetic sentences. What a decoder
    invents has an unsure opening, even where the rest follows from it with certainty.

    Attributes:
        beam_size: hypotheses that are followed side by side; 1 is greedy.
        tokens_per_s: tokens allowed for each second of sound. Fast Turkish is about six.
        tokens_more: tokens allowed besides, so that a short word can be written.
        min_log_prob: a text whose tokens are less likely than this on average is dropped.
        min_long_log_prob: the same for texts of LONG_TOKENS and more; openai/whisper's own threshold (transcribe.py,
            logprob_threshold). Single words of people are less likely than that and right.
        min_opening_log_prob: so is one whose first two tokens are less likely than this on average, unless it is
        sure_log_prob: on average at least this likely as a whole.

    Raises:
        UsageError: a width below 1, or a bound that leaves no token.
    """

    beam_size: int = 3
    tokens_per_s: float = 8.0
    tokens_more: int = 6
    min_log_prob: float = -1.15
    min_long_log_prob: float = -1.0
    min_opening_log_prob: float = -1.65
    sure_log_prob: float = -0.45

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise UsageError(f"beam_size is {self.beam_size}; expected 1 or more")
        if self.tokens_per_s < 0 or self.tokens_more < 1:
            raise UsageError(
                f"tokens_per_s is {self.tokens_per_s:g} and tokens_more {self.tokens_more}; expected 0 or more and 1 or more"
            )

    def count_tokens(self, seconds: float) -> int:
        """The most tokens that a clip of this length may get."""
        return int(seconds * self.tokens_per_s) + self.tokens_more

    def believe(self, text: Hypothesis) -> bool:
        """Whether a text is likely enough to have been said."""
        doubtful = text.opening < self.min_opening_log_prob and text.mean < self.sure_log_prob
        least = self.min_log_prob if len(text.tokens) < LONG_TOKENS else self.min_long_log_prob
        return text.mean >= least and not doubtful


@dataclass(frozen=True)
class Hypothesis:
    """A text for one clip.

    Attributes:
        tokens: without prefix and end.
        log_probs: of each token, in nats.
        attention: for each token (T,), where in the sound the decoder looked when it wrote the token; where the text ended
            by itself, one more for the end.
        end_log_prob: of the end token (0 where the text was cut at its limit).
    """

    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    attention: tuple[NDArray[np.float32], ...] = ()
    end_log_prob: float = 0.0

    @property
    def total(self) -> float:
        """The log-probability of the whole text."""
        return sum(self.log_probs) + self.end_log_prob

    @property
    def mean(self) -> float:
        """The mean log-probability of a token, the end among them: long and short texts compare by it (Wu et al., 2016)."""
        return self.total / (len(self.tokens) + 1)

    @property
    def opening(self) -> float:
        """The mean log-probability of the first :data:`OPENING_TOKENS` tokens, the end among them."""
        first = (*self.log_probs, self.end_log_prob)[:OPENING_TOKENS]
        return sum(first) / len(first)


@dataclass
class _Search:
    """One clip's search: its live beams, and the hypotheses that are finished."""

    limit: int
    live: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    finished: list[Hypothesis] = field(default_factory=list)

    def take_best(self) -> Hypothesis:
        return max(self.finished, key=lambda one: one.mean, default=Hypothesis())


def search_beams(
    engine: WhisperEngine, vocabulary: WhisperVocabulary, sound: Sound, seconds: Sequence[float], rules: BeamRules
) -> list[Hypothesis]:
    """The most likely text of each clip of a batch.

    Args:
        engine: decodes.
        vocabulary: prefix, end and suppressed tokens.
        sound: what the engine heard, C clips.
        seconds: length of each clip, which bounds its tokens.
        rules: width and bounds.

    Returns:
        For each clip the best hypothesis; an empty one where ``rules`` do not believe the best.
    """
    searches = [_Search(rules.count_tokens(one)) for one in seconds]
    banned = _ban_tokens(vocabulary.suppressed, vocabulary.size)
    first = _ban_tokens((*vocabulary.suppressed, *vocabulary.suppressed_first), vocabulary.size)
    prefix = np.tile(np.array(vocabulary.prefix, dtype=np.int64), (len(searches), 1))
    step = engine.decode(prefix, sound)
    owners, heard = list(range(len(searches))), sound  # the clip of each live beam, and its sound
    rows = _advance(searches, step, find_log_probs(step.logits, first), vocabulary.end, rules.beam_size)
    while rows:
        clips = [clip for clip, search in enumerate(searches) for _ in search.live]
        if clips != owners and len(searches) > 1:  # what one clip's beams heard is shared, not copied
            owners, heard = clips, sound.take(clips)
        stays = rows == list(range(len(step.logits)))
        cache = step.cache if stays else tuple(each.take(rows, axis=0) for each in step.cache)
        last = np.array([[one.tokens[-1]] for search in searches for one in search.live], dtype=np.int64)
        step = engine.decode(last, heard, cache)
        rows = _advance(searches, step, find_log_probs(step.logits, banned), vocabulary.end, rules.beam_size)
    best = [search.take_best() for search in searches]
    return [one if rules.believe(one) else Hypothesis() for one in best]


def _ban_tokens(tokens: Sequence[int], size: int) -> NDArray[np.float32]:
    """What to add to log-probabilities (V,): minus infinity for these tokens, 0 for the others."""
    banned = np.zeros(size, dtype=np.float32)
    banned[list(tokens)] = -np.inf
    return banned


def find_log_probs(logits: NDArray[np.float32], banned: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities (R, V) from logits (R, V), and ``banned`` (V,) added.

    What is banned keeps its share of the probability: where the decoder would rather write a sign for music than a word,
    the words are unlikely.
    """
    highest = logits.max(axis=-1, keepdims=True)
    shifted: NDArray[np.float32] = logits - highest
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    shifted += banned
    return shifted


def _advance(
    searches: list[_Search], step: Step, log_probs: NDArray[np.float32], end: int, beam_size: int
) -> list[int]:
    """Grow every live beam by a token; the row of the step that each new live beam comes from, clip by clip."""
    kept: list[int] = []
    at = 0
    for search in searches:
        count = len(search.live)
        if count:
            rows = slice(at, at + count)
            parents = _grow(search, log_probs[rows], step.attention[rows, -1], end, beam_size)
            kept += [at + parent for parent in parents]
        at += count
    return kept


def _grow(
    search: _Search, log_probs: NDArray[np.float32], attention: NDArray[np.float32], end: int, beam_size: int
) -> list[int]:
    """Replace a clip's live beams by their best continuations; the place of each one's parent."""
    parents: list[int] = []
    live: list[Hypothesis] = []
    for parent, token in _rank(search.live, log_probs, beam_size + len(search.live)):
        if len(live) == beam_size:
            break  # an end that is less likely than these is not worth keeping either
        one, log_prob = search.live[parent], float(log_probs[parent, token])
        looked = (*one.attention, attention[parent])
        if token == end:
            search.finished.append(Hypothesis(one.tokens, one.log_probs, looked, log_prob))
            continue
        live.append(Hypothesis((*one.tokens, token), (*one.log_probs, log_prob), looked))
        parents.append(parent)
    search.live = live
    if not _is_done(search, beam_size):
        return parents
    if not search.finished:
        search.finished = live  # cut at the limit
    search.live = []
    return []


def _rank(live: list[Hypothesis], log_probs: NDArray[np.float32], count: int) -> list[tuple[int, int]]:
    """The ``count`` likeliest continuations as (parent, token), likeliest first; only such as are possible."""
    for one, row in zip(live, log_probs, strict=True):
        row[find_looping(one.tokens)] = -np.inf
    totals = log_probs + np.array([[one.total] for one in live], dtype=np.float32)
    flat = totals.ravel()
    best = find_highest(flat, count)
    return [divmod(int(place), totals.shape[1]) for place in best if np.isfinite(flat[place])]


def find_highest(values: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Places of the ``count`` highest of values (N,), the highest first, of equals the earlier one; all of them if they are few.

    Each block has one maximum: the ``count`` highest values are none below the ``count`` highest of these maxima. For 30 000
    values that leaves a handful to sort, in a tenth of the time of np.argpartition.
    """
    whole = len(values) - len(values) % BLOCK
    highest = values[:whole].reshape(-1, BLOCK).max(axis=1)
    if len(highest) > count:
        least = np.partition(highest, len(highest) - count)[len(highest) - count]
        places = np.flatnonzero(values >= least)
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:count]


def _is_done(search: _Search, beam_size: int) -> bool:
    """Whether none can grow any more, enough texts ended, or no live beam can still become better than the best.

    The number of texts that ended is not enough, as it is in openai/whisper: where the model is sure how to go on, the next
    best is to end here, however unlikely, and a few of those would cut the transcript short.
    """
    if not search.live or len(search.live[0].tokens) >= search.limit:
        return True
    if not search.finished:
        return False
    if beam_size == 1:
        return True
    best = max(one.mean for one in search.finished)
    if len(search.finished) >= beam_size and max(one.mean for one in search.live) <= best:
        return True
    # a live beam's mean rises most with tokens that are certain, up to one token before the limit, and a certain end
    return max(one.total for one in search.live) / search.limit <= best


def find_looping(tokens: tuple[int, ...]) -> list[int]:
    """Tokens that would begin one more than :data:`MAX_COPIES` copies in a row of some run of tokens."""
    found = []
    for size in range(1, len(tokens) // MAX_COPIES + 1):
        if tokens[-1] == tokens[-1 - size]:  # most sizes end here
            tail = tokens[len(tokens) - size * MAX_COPIES :]
            if tail == tail[:size] * MAX_COPIES:
                found.append(tokens[-size])
    return found
