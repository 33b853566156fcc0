"""Beam search with an encoder-decoder model, kept from running on and from writing where nothing is said.

Shapes: C clips, R live beams of all clips together, V vocabulary, T frames.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinle.errors import UsageError
from dinle.recognize.text_scorer import State, TextScorer
from dinle.recognize.whisper_vocabulary import WhisperVocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.recognize.whisper_engine import Sound, Step, WhisperEngine

MAX_COPIES = 3  # of one run of tokens in a row: people do say a word three times, a decoder that is lost never stops
LONG_TOKENS = 8  # more than a word or two
BLOCK = 128  # of values that are looked at by their maximum first
WIDER = 3  # times as many continuations are looked at where a scorer has a say in which are best
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
        bonus: what a scorer adds to the text, in nats: it decides between texts, not whether one is believed.
        state: the scorer's, after the text.
        rest: bytes of a character that is not whole yet.
    """

    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    attention: tuple[NDArray[np.float32], ...] = ()
    end_log_prob: float = 0.0
    bonus: float = 0.0
    state: State | None = None
    rest: bytes = b""

    @property
    def total(self) -> float:
        """The log-probability of the whole text."""
        return sum(self.log_probs) + self.end_log_prob

    @property
    def mean(self) -> float:
        """The mean log-probability of a token, the end among them: long and short texts compare by it (Wu et al., 2016)."""
        return self.total / (len(self.tokens) + 1)

    @property
    def rank(self) -> float:
        """By which texts of one clip compare: :attr:`mean` with the bonus."""
        return (self.total + self.bonus) / (len(self.tokens) + 1)

    @property
    def opening(self) -> float:
        """The mean log-probability of the first :data:`OPENING_TOKENS` tokens, the end among them."""
        first = (*self.log_probs, self.end_log_prob)[:OPENING_TOKENS]
        return sum(first) / len(first)


class _Gain(NamedTuple):
    """What a scorer says of one token more: nats, its state after it, and the bytes of a character that is not whole yet."""

    bonus: float
    state: State | None
    rest: bytes


@dataclass
class _Search:
    """One clip's search: its live beams, the hypotheses that are finished, and the beams that were left when it was done."""

    limit: int
    scorer: TextScorer | None
    vocabulary: WhisperVocabulary
    live: list[Hypothesis] = field(default_factory=list)
    finished: list[Hypothesis] = field(default_factory=list)
    left: list[Hypothesis] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = [Hypothesis(state=self.scorer.start if self.scorer is not None else None)]

    def take_best(self) -> Hypothesis:
        return max(self.finished, key=lambda one: one.rank, default=Hypothesis())

    def take_likeliest(self) -> Hypothesis:
        """The best without the scorer: what a language model likes says nothing about whether somebody spoke."""
        return max((*self.finished, *self.left), key=lambda one: one.mean, default=Hypothesis())

    def choose(self, rules: BeamRules) -> Hypothesis:
        """The best, where the likeliest is believed; where the likeliest is to write nothing, a scorer must not invent."""
        likeliest = self.take_likeliest()
        if not rules.believe(likeliest):
            return Hypothesis()
        return self.take_best() if likeliest.tokens else likeliest

    def judge(self, one: Hypothesis, token: int) -> _Gain:
        """What the scorer says of a token more, the end token among them."""
        if self.scorer is None or one.state is None:
            return _Gain(0.0, one.state, one.rest)
        if token == self.vocabulary.end:
            return _Gain(self.scorer.end(one.state), one.state, one.rest)
        piece, rest = split_characters(one.rest + self.vocabulary.spell(token))
        return _Gain(*self.scorer.advance(one.state, piece), rest)

    def extend(self, one: Hypothesis, token: int, log_prob: float, gain: _Gain) -> Hypothesis:
        """The hypothesis with that token; where the decoder looked is added later."""
        bonus = one.bonus + gain.bonus
        if token == self.vocabulary.end:
            return replace(one, end_log_prob=log_prob, bonus=bonus)
        tokens, log_probs = (*one.tokens, token), (*one.log_probs, log_prob)
        return replace(one, tokens=tokens, log_probs=log_probs, bonus=bonus, state=gain.state, rest=gain.rest)


def search_beams(
    engine: WhisperEngine,
    vocabulary: WhisperVocabulary,
    sound: Sound,
    seconds: Sequence[float],
    rules: BeamRules,
    *,
    scorer: TextScorer | None = None,
) -> list[Hypothesis]:
    """The most likely text of each clip of a batch.

    Args:
        engine: decodes.
        vocabulary: prefix, end and suppressed tokens.
        sound: what the engine heard, C clips.
        seconds: length of each clip, which bounds its tokens.
        rules: width and bounds.
        scorer: has a say in which texts are followed and chosen.

    Returns:
        For each clip the best hypothesis; an empty one where ``rules`` do not believe the likeliest, or where that is empty.
    """
    searches = [_Search(rules.count_tokens(one), scorer, vocabulary) for one in seconds]
    banned = _ban_tokens(vocabulary.suppressed, vocabulary.size)
    first = _ban_tokens((*vocabulary.suppressed, *vocabulary.suppressed_first), vocabulary.size)
    prefix = np.tile(np.array(vocabulary.prefix, dtype=np.int64), (len(searches), 1))
    step = engine.decode(prefix, sound)
    owners, heard = list(range(len(searches))), sound  # the clip of each live beam, and its sound
    rows = _advance(searches, step, find_log_probs(step.logits, first), rules.beam_size)
    while rows:
        clips = [clip for clip, search in enumerate(searches) for _ in search.live]
        if clips != owners and len(searches) > 1:  # what one clip's beams heard is shared, not copied
            owners, heard = clips, sound.take(clips)
        stays = rows == list(range(len(step.logits)))
        cache = step.cache if stays else tuple(each.take(rows, axis=0) for each in step.cache)
        last = np.array([[one.tokens[-1]] for search in searches for one in search.live], dtype=np.int64)
        step = engine.decode(last, heard, cache)
        rows = _advance(searches, step, find_log_probs(step.logits, banned), rules.beam_size)
    return [search.choose(rules) for search in searches]


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


def _advance(searches: list[_Search], step: Step, log_probs: NDArray[np.float32], beam_size: int) -> list[int]:
    """Grow every live beam by a token; the row of the step that each new live beam comes from, clip by clip."""
    kept: list[int] = []
    at = 0
    for search in searches:
        count = len(search.live)
        if count:
            rows = slice(at, at + count)
            parents = _grow(search, log_probs[rows], step.attention[rows, -1], beam_size)
            kept += [at + parent for parent in parents]
        at += count
    return kept


def _grow(search: _Search, log_probs: NDArray[np.float32], attention: NDArray[np.float32], beam_size: int) -> list[int]:
    """Replace a clip's live beams by their best continuations; the place of each one's parent."""
    parents: list[int] = []
    live: list[Hypothesis] = []
    for parent, one in _rank(search, log_probs, beam_size):
        if len(live) == beam_size:
            break  # an end that is less likely than these is not worth keeping either
        grown = replace(one, attention=(*one.attention, attention[parent]))
        if len(one.tokens) == len(search.live[parent].tokens):  # it ended
            search.finished.append(grown)
            continue
        live.append(grown)
        parents.append(parent)
    search.live = live
    if not _is_done(search, beam_size):
        return parents
    if not search.finished:
        search.finished = live  # cut at the limit
    if (
        search.scorer is not None and beam_size > 1
    ):  # what is cut at the limit would be dropped without a scorer as well
        search.left = [one for one in live if len(one.tokens) < search.limit]
    search.live = []
    return []


def _rank(search: _Search, log_probs: NDArray[np.float32], beam_size: int) -> Iterator[tuple[int, Hypothesis]]:
    """The best continuations and each one's parent, the best first; only such as are possible, ends among them.

    What is likeliest without the scorer is always among the first ``beam_size``: without it nobody could tell whether to
    believe that somebody spoke.
    """
    live, size = search.live, log_probs.shape[1]
    count = beam_size + len(live)
    for one, row in zip(live, log_probs, strict=True):
        row[find_looping(one.tokens)] = -np.inf
    flat = (log_probs + np.array([[one.total + one.bonus] for one in live], dtype=np.float32)).ravel()
    places = find_highest(flat, count if search.scorer is None else WIDER * count).tolist()
    likeliest = places[0]
    if search.scorer is not None:
        likeliest = int((log_probs + np.array([[one.total] for one in live], dtype=np.float32)).argmax())
        places += [likeliest] if likeliest not in places else []
    ranked = [place for place in places if np.isfinite(flat[place])]
    gains = {place: search.judge(live[place // size], place % size) for place in ranked}
    if search.scorer is not None:
        # by the sums that were found above, so that a scorer of nothing changes nothing
        ranked.sort(key=lambda place: float(flat[place]) + gains[place].bonus, reverse=True)
        if likeliest in ranked[beam_size:]:
            ranked.remove(likeliest)
            ranked.insert(beam_size - 1, likeliest)
    for place in ranked[:count]:
        parent, token = divmod(place, size)
        yield parent, search.extend(live[parent], token, float(log_probs[parent, token]), gains[place])


def split_characters(data: bytes) -> tuple[str, bytes]:
    """The whole characters of UTF-8 bytes, and the bytes of one that is not whole yet; what is no UTF-8 becomes U+FFFD."""
    text, used = codecs.utf_8_decode(data, "replace")
    return text, data[used:]


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
    best = max(one.rank for one in search.finished)
    if len(search.finished) >= beam_size and max(one.rank for one in search.live) <= best:
        return True
    # a live beam's mean rises most with tokens that are certain, up to one token before the limit, and a certain end
    return max(max(one.rank, (one.total + one.bonus) / search.limit) for one in search.live) <= best


def find_looping(tokens: tuple[int, ...]) -> list[int]:
    """Tokens that would begin one more than :data:`MAX_COPIES` copies in a row of some run of tokens."""
    found = []
    for size in range(1, len(tokens) // MAX_COPIES + 1):
        if tokens[-1] == tokens[-1 - size]:  # most sizes end here
            tail = tokens[len(tokens) - size * MAX_COPIES :]
            if tail == tail[:size] * MAX_COPIES:
                found.append(tokens[-size])
    return found
