"""Beam search with an encoder-decoder model, kept from running on where nothing more is said.

Shapes: C clips, R live beams of all clips together, V vocabulary, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dinle.recognize.whisper_engine import Sound, Step, WhisperEngine
    from dinle.recognize.whisper_vocabulary import WhisperVocabulary

MAX_COPIES = 3  # of one run of tokens in a row: people do say a word three times, a decoder that is lost never stops


@dataclass(frozen=True)
class BeamRules:
    """How wide the search is, and what it must not write.

    Attributes:
        beam_size: hypotheses that are followed side by side; 1 is greedy.
        tokens_per_s: tokens allowed for each second of sound. Fast Turkish is about six.
        tokens_more: tokens allowed besides, so that a short word can be written.
        min_log_prob: a text whose tokens are less likely than this on average is dropped.
    """

    beam_size: int = 1
    tokens_per_s: float = 8.0
    tokens_more: int = 6
    min_log_prob: float = -1.5


@dataclass(frozen=True)
class Hypothesis:
    """A text for one clip.

    Attributes:
        tokens: without prefix and end.
        log_probs: of each token, in nats.
        attention: for each token (T,), where in the sound the decoder looked when it wrote the token.
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


@dataclass
class _Search:
    """One clip's search: its live beams, and the hypotheses that are finished."""

    limit: int
    live: list[Hypothesis]
    finished: list[Hypothesis] = field(default_factory=list)

    def take_best(self) -> Hypothesis:
        return max(self.finished or self.live, key=lambda one: one.mean)


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
        For each clip the best hypothesis; an empty one where the best is less likely than ``rules.min_log_prob``.
    """
    searches = [
        _Search(limit=int(one * rules.tokens_per_s) + rules.tokens_more, live=[Hypothesis()]) for one in seconds
    ]
    prefix = np.tile(np.array(vocabulary.prefix, dtype=np.int64), (len(searches), 1))
    step = engine.decode(prefix, sound)
    owners, heard = list(range(len(searches))), sound  # the clip of each live beam, and its sound
    while rows := _advance(searches, step, vocabulary, rules):
        clips = [clip for clip, search in enumerate(searches) for _ in search.live]
        if clips != owners:
            owners, heard = clips, sound.take(clips)
        stays = rows == list(range(len(step.logits)))
        cache = step.cache if stays else tuple(each[rows] for each in step.cache)
        last = np.array([[one.tokens[-1]] for search in searches for one in search.live], dtype=np.int64)
        step = engine.decode(last, heard, cache)
    best = [search.take_best() for search in searches]
    return [one if one.mean >= rules.min_log_prob else Hypothesis() for one in best]


def _advance(searches: list[_Search], step: Step, vocabulary: WhisperVocabulary, rules: BeamRules) -> list[int]:
    """Grow every live beam by a token; the row of the step that each new live beam comes from, clip by clip."""
    kept: list[int] = []
    at = 0
    for search in searches:
        count = len(search.live)
        if count:
            log_probs = np.stack([
                mask_tokens(step.logits[at + place], one.tokens, vocabulary) for place, one in enumerate(search.live)
            ])
            grown = _grow(search, log_probs, step.attention[at : at + count, -1], vocabulary.end, rules.beam_size)
            kept += [at + parent for parent in grown]
        at += count
    return kept


def _grow(
    search: _Search, log_probs: NDArray[np.float32], attention: NDArray[np.float32], end: int, beam_size: int
) -> list[int]:
    """Replace a clip's live beams by their best continuations; the place of each one's parent."""
    totals = np.array([one.total for one in search.live])[:, None] + log_probs
    count = min(2 * beam_size, totals.size)
    best = np.argpartition(-totals, count - 1, axis=None)[:count]
    best = best[np.argsort(-totals.ravel()[best], kind="stable")]
    parents: list[int] = []
    live: list[Hypothesis] = []
    for place in best:
        parent, token = divmod(int(place), log_probs.shape[1])
        if not np.isfinite(totals[parent, token]) or len(live) == beam_size:
            continue
        one, log_prob = search.live[parent], float(log_probs[parent, token])
        if token == end:
            search.finished.append(Hypothesis(one.tokens, one.log_probs, one.attention, log_prob))
            continue
        live.append(
            Hypothesis((*one.tokens, token), (*one.log_probs, log_prob), (*one.attention, attention[parent]))
        )
        parents.append(parent)
    search.live = live
    if _is_done(search, beam_size):
        search.finished += [one for one in live if not search.finished]  # cut at the limit, and nothing else ended
        search.live = []
        return []
    return parents


def _is_done(search: _Search, beam_size: int) -> bool:
    """Whether enough texts ended, none can grow any more, or no live beam can still become better than the best."""
    if not search.live or len(search.finished) >= beam_size or len(search.live[0].tokens) >= search.limit:
        return True
    if not search.finished:
        return False
    best = max(one.mean for one in search.finished)
    # a live beam's mean can only rise with tokens that are certain
    return max(one.total for one in search.live) / (search.limit + 1) < best


def mask_tokens(
    logits: NDArray[np.float32], written: tuple[int, ...], vocabulary: WhisperVocabulary
) -> NDArray[np.float32]:
    """Log-probabilities (V,) from logits (V,), minus infinity for what must not follow ``written``."""
    highest = logits.max()
    log_probs: NDArray[np.float32] = logits - (highest + np.log(np.exp(logits - highest).sum()))
    log_probs[list(vocabulary.suppressed)] = -np.inf
    if not written:
        log_probs[list(vocabulary.suppressed_first)] = -np.inf
    looping = find_looping(written)
    if looping:
        log_probs[looping] = -np.inf
    return log_probs


def find_looping(tokens: tuple[int, ...], copies: int = MAX_COPIES) -> list[int]:
    """Tokens that would complete one more than ``copies`` copies in a row of some run of tokens."""
    found = []
    for size in range(1, len(tokens) // copies + 1):
        tail = tokens[len(tokens) - size * copies :]
        if tail == tail[:size] * copies:
            found.append(tokens[-size])
    return found
