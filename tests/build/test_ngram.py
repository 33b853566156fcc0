"""An n-gram model's probabilities sum to 1, equal a plain reading of the formulas, and stay so when it is pruned."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.build.ngram import (
    build_levels,
    count_ngrams,
    estimate_ngrams,
    find_discounts,
    make_levels,
    measure_bytes,
    prune_ngrams,
    quantize,
)
from dinle.errors import BundleError, UsageError
from dinle.recognize.ngram import ROOT, Level, Ngram, pack_levels, unpack_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS = 4  # and the one before every text
VOCABULARY = TOKENS + 1
BITS = (VOCABULARY - 1).bit_length()
texts = st.lists(st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=12), min_size=1, max_size=8)


class PlainModel:
    """Chen and Goodman's interpolated Kneser-Ney, read off the page: dictionaries and recursion."""

    def __init__(self, corpus: Sequence[Sequence[int]], order: int) -> None:
        self.order = order
        begin = VOCABULARY - 1
        seen: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for text in corpus:
            tokens = (begin, *text)
            for n in range(1, order + 1):
                seen[n].update(tokens[i : i + n] for i in range(len(tokens) - n + 1))
        self.counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        self.counts[order] = seen[order]
        for n in range(1, order):
            for gram in seen[n + 1]:
                self.counts[n][gram[1:]] += 1
            for gram, count in seen[n].items():
                if gram[0] == begin:
                    self.counts[n][gram] = count
        self.counts[1].pop((begin,), None)
        values = [np.array([*counts.values()]) for counts in self.counts]
        self.discounts = [find_discounts(each) if len(each) else np.zeros(4) for each in values]
        self.after: list[dict[tuple[int, ...], list[int]]] = []
        for counts in self.counts:
            groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for gram, count in counts.items():
                groups[gram[:-1]].append(count)
            self.after.append(groups)

    def probability(self, context: tuple[int, ...], token: int) -> float:
        n = len(context) + 1
        lower = self.probability(context[1:], token) if context else 1 / TOKENS
        counts = self.after[n].get(context)
        if not counts:
            return lower
        discount = self.discounts[n]
        count = self.counts[n][(*context, token)]
        total = sum(counts)
        spread = sum(discount[min(each, 3)] for each in counts) / total
        return float((count - discount[min(count, 3)]) / total + spread * lower)


def walk(model: Ngram, tokens: Sequence[int]) -> int:
    state = model.start
    for token in tokens:
        state = model.advance(state, token)[1]
    return state


def make_model(corpus: Sequence[Sequence[int]], order: int) -> Ngram:
    orders = estimate_ngrams(corpus, [1] * len(corpus), VOCABULARY, order)
    return Ngram(make_levels(orders, BITS), VOCABULARY - 1)


@given(corpus=texts, order=st.integers(1, 4), context=st.lists(st.integers(0, TOKENS - 1), max_size=6))
@settings(max_examples=150)
def test_probabilities_are_those_of_the_formulas(corpus: list[list[int]], order: int, context: list[int]) -> None:
    model, plain = make_model(corpus, order), PlainModel(corpus, order)
    state = walk(model, context)
    known = tuple([VOCABULARY - 1, *context][-(order - 1) :]) if order > 1 else ()
    for token in range(TOKENS):
        log_prob, _ = model.advance(state, token)
        assert math.exp(log_prob) == pytest.approx(plain.probability(known, token), rel=1e-4)


@given(
    corpus=texts,
    order=st.integers(1, 4),
    context=st.lists(st.integers(0, TOKENS - 1), max_size=6),
    cut=st.floats(-6, 0),
)
@settings(max_examples=150)
def test_what_follows_a_context_sums_to_one_before_and_after_pruning(
    corpus: list[list[int]], order: int, context: list[int], cut: float
) -> None:
    orders = estimate_ngrams(corpus, [1] * len(corpus), VOCABULARY, order)
    for kept in (orders, prune_ngrams(orders, BITS, 10.0**cut)):
        model = Ngram(make_levels(kept, BITS), VOCABULARY - 1)
        for state in (ROOT, walk(model, context)):
            total = sum(math.exp(model.advance(state, token)[0]) for token in range(TOKENS))
            assert total == pytest.approx(1, abs=1e-4)


@given(corpus=texts, weights=st.lists(st.integers(1, 5), min_size=8, max_size=8))
@settings(max_examples=50)
def test_a_weight_counts_like_so_many_copies(corpus: list[list[int]], weights: list[int]) -> None:
    used = weights[: len(corpus)]
    copied = [text for text, weight in zip(corpus, used, strict=True) for _ in range(weight)]
    weighted = count_ngrams(corpus, used, VOCABULARY, 3)
    for (keys, counts), (other_keys, other_counts) in zip(
        weighted, count_ngrams(copied, [1] * len(copied), VOCABULARY, 3), strict=True
    ):
        np.testing.assert_array_equal(keys, other_keys)
        np.testing.assert_array_equal(counts, other_counts)


def test_a_model_is_pruned_to_the_size_that_is_asked_for() -> None:
    rng = np.random.default_rng(1)
    corpus = [rng.choice(TOKENS, 40, p=[0.6, 0.2, 0.15, 0.05]).tolist() for _ in range(50)]
    orders = estimate_ngrams(corpus, [1] * 50, VOCABULARY, 6)
    whole = measure_bytes(make_levels(orders, BITS))
    sizes = [measure_bytes(build_levels(orders, BITS, limit)) for limit in (whole, whole // 2, whole // 4)]
    assert sizes[0] == whole
    assert whole // 4 < sizes[1] <= whole // 2
    assert sizes[2] <= whole // 4
    with pytest.raises(UsageError, match="allow more"):
        build_levels(orders, BITS, 10)


def test_pruning_keeps_what_matters() -> None:
    corpus = [[0, 1, 0, 1, 0, 1, 0, 1, 2]] * 20 + [[3, 3, 2, 1]]
    orders = estimate_ngrams(corpus, [1] * len(corpus), VOCABULARY, 3)
    whole, small = (
        Ngram(make_levels(each, BITS), VOCABULARY - 1) for each in (orders, prune_ngrams(orders, BITS, 1e-2))
    )
    assert small.advance(walk(small, [0]), 1)[0] == pytest.approx(whole.advance(walk(whole, [0]), 1)[0], abs=0.05)


def test_what_was_stored_is_read_back() -> None:
    orders = estimate_ngrams([[0, 1, 2, 3, 0, 1]], [1], VOCABULARY, 3)
    levels = make_levels(orders, BITS)
    again = unpack_levels(pack_levels(levels))
    assert len(again) == len(levels)
    for first, second in zip(levels, again, strict=True):
        for name in Level.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    arrays = pack_levels(levels)
    del arrays["2.tokens"]
    with pytest.raises(BundleError, match=r"2\.tokens"):
        unpack_levels(arrays)


def test_levels_that_contradict_each_other_are_refused() -> None:
    levels = make_levels(estimate_ngrams([[0, 1, 2, 3, 0, 1]], [1], VOCABULARY, 3), BITS)
    with pytest.raises(BundleError, match="no n-grams"):
        Ngram((), 0)
    with pytest.raises(BundleError, match="order 2"):
        Ngram((levels[0], levels[2], levels[2]), VOCABULARY - 1)
    with pytest.raises(BundleError, match="first level"):
        Ngram(levels, VOCABULARY)


def test_values_are_quantised_to_a_byte_with_little_loss() -> None:
    values = np.random.default_rng(0).normal(-5, 3, 10_000)
    codes, table = quantize(values)
    assert codes.dtype == np.uint8
    assert len(table) <= 256
    assert np.abs(table[codes] - values).mean() < 0.02
    few = np.array([-1.0, -2.0, -1.0])
    codes, table = quantize(few)
    np.testing.assert_array_equal(table[codes], few.astype(np.float32))


@pytest.mark.parametrize(
    ("corpus", "order", "match"),
    [([], 2, "no text"), ([[9]], 2, "token 9"), ([[0]], 40, "63 bits"), ([[0]], 0, "order 1 or more")],
)
def test_what_no_model_can_be_made_of_is_refused(corpus: list[list[int]], order: int, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        estimate_ngrams(corpus, [1] * len(corpus), VOCABULARY, order)
