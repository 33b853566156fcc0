"""Text -> n-gram model: interpolated Kneser-Ney estimates, pruned to a size, quantised to a byte a value.

Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling (1998), section 3 (modified Kneser-Ney);
pruning as in Stolcke, Entropy-based Pruning of Backoff Language Models (1998), equation 4, without the change of the
backoff weights, which are found anew for what is left. All n-grams of an order are one array of integers, the first token
in the highest bits: sorted, they are in the order of the trie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dinle.errors import UsageError
from dinle.recognize.ngram import Level, Ngram

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


KEY_BITS = 63
VALUES = 256  # of a byte
EXPECTED_TOKENS = 1_000_000
TEXT_TOKENS = 50  # letters of a sentence, about: how often the token before every text is met
NEVER_FOLLOWS = -90.0


@dataclass(frozen=True)
class Order:
    """All n-grams of one order, sorted.

    Attributes:
        keys: (N,) the tokens of each, the first one in the highest bits.
        counts: (N,) how often each was seen.
        log_probs: (N,) interpolated, in nats.
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    log_probs: NDArray[np.float64]


def estimate_ngrams(
    texts: Iterable[Sequence[int]], weights: Iterable[int], vocabulary: int, order: int
) -> tuple[Order, ...]:
    """Estimate a model of tokens 0 to ``vocabulary`` - 1; the last one stands before every text.

    Args:
        texts: token by token; empty ones are passed over.
        weights: how often each of them counts, 1 or more.
        vocabulary: how many tokens there are, the one before every text among them.
        order: the longest n-grams.

    Returns:
        Orders 1 to ``order``; the first has every token.

    Raises:
        UsageError: no text, a token outside of the vocabulary, or n-grams that do not fit into 63 bits.
    """
    bits = max(1, (vocabulary - 1).bit_length())
    if order < 1 or bits * order > KEY_BITS:
        raise UsageError(
            f"n-grams of order {order} of {vocabulary} tokens take {bits * order} bits; expected order 1 or more and at most "
            f"{KEY_BITS} bits: choose a lower order or fewer tokens"
        )
    counts = count_ngrams(texts, weights, vocabulary, order)
    if not counts[0][1].sum():
        raise UsageError("there is no text to learn from; expected at least one sentence")
    adjusted = [adjust_counts(counts, n, bits, vocabulary - 1) for n in range(1, order + 1)]
    orders: list[Order] = []
    for n in range(1, order + 1):
        keys, raw = counts[n - 1]
        if n == 1:
            orders.append(_interpolate_unigrams(adjusted[0], raw, vocabulary))
        else:
            lower = orders[-1]
            suffix = np.searchsorted(lower.keys, keys & ((1 << bits * (n - 1)) - 1))
            orders.append(Order(keys, raw, _interpolate(keys >> bits, adjusted[n - 1], lower.log_probs[suffix])))
    return tuple(orders)


def count_ngrams(
    texts: Iterable[Sequence[int]], weights: Iterable[int], vocabulary: int, order: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Keys and counts of the n-grams of each order, within texts that begin with the last token of the vocabulary.

    The first order has every token, also where it was never seen.
    """
    bits = max(1, (vocabulary - 1).bit_length())
    begin = vocabulary - 1
    parts = [np.asarray([begin, *text], dtype=np.int64) for text in texts]
    repeats = np.array([*weights], dtype=np.int64)
    stream = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    if len(stream) and (stream.min() < 0 or stream.max() >= vocabulary):
        raise UsageError(f"a text holds token {stream.max()}; expected 0 to {vocabulary - 1}")
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    left = np.arange(len(stream)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # tokens before, in the same text
    weight = np.repeat(repeats, lengths)
    found, keys = [], stream.copy()
    for n in range(1, order + 1):
        if n > 1:
            keys[n - 1 :] |= stream[: len(stream) - n + 1] << bits * (n - 1)
        inside = left >= n - 1
        unique, places = np.unique(keys[inside], return_inverse=True)
        total = np.bincount(places, weights=weight[inside], minlength=len(unique)).astype(np.int64)
        if n == 1:
            total = np.bincount(unique, weights=total, minlength=vocabulary).astype(np.int64)
            unique = np.arange(vocabulary, dtype=np.int64)
        found.append((unique, total))
    return found


def adjust_counts(
    counts: list[tuple[NDArray[np.int64], NDArray[np.int64]]], n: int, bits: int, begin: int
) -> NDArray[np.int64]:
    """Kneser-Ney's counts of order ``n``: of the highest order as seen, of a lower one how many tokens stood before it.

    N-grams at the beginning of a text have nothing before them, and keep their counts.
    """
    keys, seen = counts[n - 1]
    if n == len(counts):
        adjusted = seen.copy()
    else:
        longer = counts[n][0] & ((1 << bits * n) - 1)
        adjusted = np.bincount(np.searchsorted(keys, longer), minlength=len(keys)).astype(np.int64)
        at_begin = keys >> bits * (n - 1) == begin
        adjusted[at_begin] = seen[at_begin]
    if n == 1:
        adjusted[begin] = 0  # never follows anything
    return adjusted


def find_discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much is taken off counts of 0, 1, 2, and 3 and more (Chen and Goodman, equation 26).

    0.5, 1 and 1.5 where too few n-grams were seen to tell.
    """
    ones, twos, threes, fours = (float(np.count_nonzero(counts == value)) for value in (1, 2, 3, 4))
    if not (ones and twos and threes):
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = ones / (ones + 2 * twos)
    found = np.array([0.0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes])
    clipped: NDArray[np.float64] = np.clip(found, [0.0, 0.1, 0.1, 0.1], [0.0, 0.95, 1.9, 2.8])
    return clipped


def _interpolate_unigrams(adjusted: NDArray[np.int64], raw: NDArray[np.int64], vocabulary: int) -> Order:
    """Order 1, mixed with the uniform distribution over all tokens but the one before every text."""
    uniform = np.full(vocabulary, -np.log(max(1, vocabulary - 1)))
    context = np.zeros(vocabulary, dtype=np.int64)
    log_probs = _interpolate(context, adjusted, uniform)
    log_probs[-1] = -99.0  # ARPA's mark of what never follows
    return Order(np.arange(vocabulary, dtype=np.int64), raw, log_probs)


def _interpolate(
    contexts: NDArray[np.int64], counts: NDArray[np.int64], lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Discounted shares of each context, and what was taken off spread as the lower order says; all in nats."""
    _, group = np.unique(contexts, return_inverse=True)
    taken = find_discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(group, weights=counts)
    spread = np.bincount(group, weights=taken) / np.maximum(totals, 1)
    share = (counts - taken) / np.maximum(totals, 1)[group]
    result: NDArray[np.float64] = np.log(np.maximum(share + spread[group] * np.exp(lower), 1e-40))
    return result


def find_backoffs(orders: Sequence[Order], bits: int) -> list[NDArray[np.float64]]:
    """The backoff weight (nats) of each n-gram below the highest order, such that all tokens after it sum to 1.

    What its known continuations leave, over what the lower order leaves beside them.
    """
    backoffs: list[NDArray[np.float64]] = []
    for n, level in enumerate(orders[:-1], start=1):
        longer = orders[n]
        parents = np.searchsorted(level.keys, longer.keys >> bits)
        known = np.bincount(parents, weights=np.exp(longer.log_probs), minlength=len(level.keys))
        token = longer.keys & ((1 << bits) - 1)
        suffix = (longer.keys >> bits) & ((1 << bits * (n - 1)) - 1)
        lower = np.exp(score_ngrams(orders[:n], backoffs, bits, suffix, token, length=n - 1))
        beside = np.bincount(parents, weights=lower, minlength=len(level.keys))
        left, below = np.maximum(1 - known, 1e-9), np.maximum(1 - beside, 1e-9)
        backoffs.append(np.log(left / below))
    return backoffs


def score_ngrams(
    orders: Sequence[Order],
    backoffs: Sequence[NDArray[np.float64]],
    bits: int,
    contexts: NDArray[np.int64],
    tokens: NDArray[np.int64],
    *,
    length: int,
) -> NDArray[np.float64]:
    """The log-probability (nats) of each token after a context of ``length`` tokens, backing off where it is not known."""
    scores = np.zeros(len(tokens))
    open_ = np.ones(len(tokens), dtype=np.bool_)
    for n in range(length, -1, -1):
        context = contexts & ((1 << bits * n) - 1)
        keys = orders[n].keys
        wanted = (context << bits) | tokens
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = open_ & (keys[place] == wanted)
        scores[found] += orders[n].log_probs[place[found]]
        open_ &= ~found
        if n:
            keys = orders[n - 1].keys
            place = np.minimum(np.searchsorted(keys, context), len(keys) - 1)
            backs = open_ & (keys[place] == context)
            scores[backs] += backoffs[n - 1][place[backs]]
    return scores


def prune_ngrams(orders: Sequence[Order], bits: int, threshold: float) -> tuple[Order, ...]:
    """Drop n-grams that say little beyond their lower order, the longest first; one that others begin with stays.

    Little is: the share of its context times its probability times the difference of the logarithms is below ``threshold``.
    """
    backoffs = find_backoffs(orders, bits)
    total = max(1, int(orders[0].counts.sum()))
    kept = list(orders)
    for n in range(len(orders), 1, -1):
        level = orders[n - 1]
        context = level.keys >> bits
        shorter = orders[n - 2]
        parents = np.searchsorted(shorter.keys, context)
        suffix = context & ((1 << bits * (n - 2)) - 1)
        lower = score_ngrams(orders[: n - 1], backoffs, bits, suffix, level.keys & ((1 << bits) - 1), length=n - 2)
        lower += backoffs[n - 2][parents]
        worth = shorter.counts[parents] / total * np.exp(level.log_probs) * (level.log_probs - lower)
        stays = np.abs(worth) >= threshold
        if n < len(orders):
            needed = np.isin(level.keys, kept[n].keys >> bits)
            stays |= needed
        kept[n - 1] = Order(level.keys[stays], level.counts[stays], level.log_probs[stays])
    while len(kept) > 1 and not len(kept[-1].keys):
        kept.pop()
    return tuple(kept)


def make_levels(orders: Sequence[Order], bits: int) -> tuple[Level, ...]:
    """The stored form: quantised, with the number of children of each n-gram."""
    backoffs = [*find_backoffs(orders, bits), np.zeros(0)]
    levels = []
    for n, (level, backoff) in enumerate(zip(orders, backoffs, strict=True), start=1):
        tokens = level.keys & ((1 << bits) - 1)
        children = np.zeros(0, dtype=np.int64)
        if n < len(orders):
            children = np.bincount(np.searchsorted(level.keys, orders[n].keys >> bits), minlength=len(level.keys))
        log_prob_codes, log_prob_values = quantize(level.log_probs)
        backoff_codes, backoff_values = quantize(backoff)
        levels.append(
            Level(_shrink(tokens), log_prob_codes, log_prob_values, backoff_codes, backoff_values, _shrink(children))
        )
    return tuple(levels)


def quantize(values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes (N,) and at most 256 values: bins of equal counts, each by its mean (Whittaker and Raj, 2001)."""
    unique = np.unique(values)
    if len(unique) <= VALUES:
        return np.searchsorted(unique, values).astype(np.uint8), unique.astype(np.float32)
    edges = np.unique(np.quantile(values, np.arange(1, VALUES) / VALUES))
    codes = np.searchsorted(edges, values, side="right")
    totals = np.bincount(codes, weights=values, minlength=len(edges) + 1)
    counts = np.bincount(codes, minlength=len(edges) + 1)
    means = totals / np.maximum(counts, 1)
    return codes.astype(np.uint8), means.astype(np.float32)


def _shrink(values: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """The same numbers in the smallest unsigned type that holds them."""
    highest = int(values.max()) if len(values) else 0
    kind = np.uint8 if highest < 1 << 8 else np.uint16 if highest < 1 << 16 else np.uint32
    return values.astype(kind)


def measure_bytes(levels: Sequence[Level]) -> int:
    """What the arrays of a model take."""
    return sum(getattr(level, name).nbytes for level in levels for name in Level.__dataclass_fields__)


def build_levels(orders: Sequence[Order], bits: int, max_bytes: int) -> tuple[Level, ...]:
    """The largest model of at most ``max_bytes``, by the threshold of :func:`prune_ngrams`.

    Raises:
        UsageError: the tokens alone take more.
    """
    levels = make_levels(orders, bits)
    if measure_bytes(levels) <= max_bytes:
        return levels
    low, high = -20.0, 0.0  # decimal logarithms of the threshold
    best: tuple[Level, ...] | None = None
    for _ in range(14):
        middle = (low + high) / 2
        levels = make_levels(prune_ngrams(orders, bits, 10.0**middle), bits)
        if measure_bytes(levels) <= max_bytes:
            best, high = levels, middle
        else:
            low = middle
    if best is None:
        raise UsageError(f"a model of {len(orders[0].keys)} tokens does not fit into {max_bytes} bytes; allow more")
    return best


def restore_orders(model: Ngram, bits: int) -> tuple[Order, ...]:
    """A model's n-grams as they are mixed and pruned; their counts are expected ones, for a text of a million tokens."""
    orders: list[Order] = []
    expected = np.ones(1)
    keys = np.zeros(1, dtype=np.int64)
    for tokens, log_probs, parents in model.list_levels():
        keys = (keys[parents] << bits) | tokens
        likely = np.where(log_probs < NEVER_FOLLOWS, 1 / TEXT_TOKENS, np.exp(log_probs))
        expected = expected[parents] * likely
        orders.append(Order(keys, np.maximum(1, np.round(EXPECTED_TOKENS * expected)).astype(np.int64), log_probs))
    return tuple(orders)


def mix_orders(first: Sequence[Order], second: Sequence[Order], bits: int, share: float) -> tuple[Order, ...]:
    """The n-grams of both models, their probabilities mixed: ``share`` of the first, the rest of the second.

    Contexts count as their texts would, were they as long as each other and weighted so.
    """
    backoffs = [find_backoffs(orders, bits) for orders in (first, second)]
    totals = [max(1, int(orders[0].counts.sum())) for orders in (first, second)]
    mixed: list[Order] = []
    for n in range(1, max(len(first), len(second)) + 1):
        known = [orders[n - 1].keys for orders in (first, second) if n <= len(orders)]
        keys = np.unique(np.concatenate(known))
        probability = np.zeros(len(keys))
        counts = np.zeros(len(keys))
        for orders, weights, total, part in zip((first, second), backoffs, totals, (share, 1 - share), strict=True):
            context, token = keys >> bits, keys & ((1 << bits) - 1)
            length = min(n, len(orders)) - 1
            scores = score_ngrams(orders, weights, bits, context, token, length=length)
            probability += part * np.exp(scores)
            if n <= len(orders):
                place = np.minimum(np.searchsorted(orders[n - 1].keys, keys), len(orders[n - 1].keys) - 1)
                seen = orders[n - 1].keys[place] == keys
                counts[seen] += part * EXPECTED_TOKENS / total * orders[n - 1].counts[place[seen]]
        mixed.append(
            Order(keys, np.maximum(1, np.round(counts)).astype(np.int64), np.log(np.maximum(probability, 1e-40)))
        )
    return tuple(mixed)
