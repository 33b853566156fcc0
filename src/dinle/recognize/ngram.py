"""A back-off n-gram model, read from a compact trie: how likely is a token after those before it.

The form is that of a pruned, quantised trie (as in KenLM: Heafield, 2011), a level for each order. A node is an n-gram; its
parent is the n-gram without the last token, so the children of a node lie side by side, sorted by token. A node that is not
a context has no children. Tokens are letters or words; the model does not know which.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dinle.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


ROOT = 0  # the state without a context
CACHED = 100_000  # answers that are remembered, about 25 MB; then they are forgotten and found anew


@dataclass(frozen=True)
class Level:
    """The n-grams of one order, sorted by context, then by token.

    Attributes:
        tokens: (N,) the last token of each.
        log_probs: (N,) its quantised log-probability: an index of ``log_prob_values``.
        log_prob_values: (at most 256,) in nats.
        backoffs: (N,) quantised as well; empty at the highest order.
        backoff_values: (at most 256,) in nats.
        children: (N,) how many n-grams of the next order begin with it; empty at the highest order.
    """

    tokens: NDArray[np.unsignedinteger]
    log_probs: NDArray[np.uint8]
    log_prob_values: NDArray[np.float32]
    backoffs: NDArray[np.uint8]
    backoff_values: NDArray[np.float32]
    children: NDArray[np.unsignedinteger]


class Ngram:
    """Answers how likely tokens are, one after another. Safe to use from several threads.

    A state is the longest context that the model knows: the number of its node. :data:`ROOT` knows nothing; the first
    token of every text is ``begin``, which itself is never scored.

    Args:
        levels: orders 1 and up; every token has a node of order 1, in the order of the tokens.
        begin: the token before every text.

    Raises:
        BundleError: the levels do not fit together.
    """

    def __init__(self, levels: tuple[Level, ...], begin: int) -> None:
        check_levels(levels, begin)
        sizes = [len(level.tokens) for level in levels]
        starts = np.cumsum([1, *sizes])  # node 0 is the root
        self.order = len(levels)
        self.begin = begin
        # plain arrays, as single values are read: that is three times as fast as from numpy
        self._tokens = array("I", np.concatenate([level.tokens for level in levels]).astype(np.uint32).tobytes())
        self._log_probs = np.concatenate([level.log_prob_values[level.log_probs] for level in levels])
        self._backoffs = np.concatenate(
            [level.backoff_values[level.backoffs] for level in levels[:-1]] or [np.zeros(0, dtype=np.float32)]
        )
        counts = np.concatenate([[sizes[0]], *(level.children.astype(np.int64) for level in levels[:-1])])
        self._first = np.concatenate([[1], 1 + np.cumsum(counts)])
        self._inner = int(starts[-2]) if self.order > 1 else 1  # from here on nodes have no children
        self._levels = starts
        self._suffixes: dict[int, int] = {}
        self._answers: dict[tuple[int, int], tuple[float, int]] = {}

    @property
    def start(self) -> int:
        """The state at the beginning of a text."""
        return self.advance(ROOT, self.begin)[1]

    def advance(self, state: int, token: int) -> tuple[float, int]:
        """The log-probability of a token in a state, in nats, and the state after it.

        Args:
            state: :attr:`start`, :data:`ROOT`, or what an earlier call returned.
            token: one of the model's.
        """
        key = (state, token)
        found = self._answers.get(key)
        if found is None:
            if len(self._answers) >= CACHED:
                self._answers = {}
            found = self._answers[key] = self._find(state, token)
        return found

    def list_levels(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]:
        """For each order the last tokens (N,), the log-probabilities (N,) and the place (N,) of each context one order below."""
        for start, end in pairwise(self._levels.tolist()):
            parents = np.searchsorted(self._first, np.arange(start, end), side="right") - 1
            below = 0 if start == 1 else int(self._levels[np.searchsorted(self._levels, start) - 1])
            tokens = np.frombuffer(self._tokens, dtype=np.uint32)[start - 1 : end - 1].astype(np.int64)
            yield tokens, self._log_probs[start - 1 : end - 1].astype(np.float64), parents - below

    def _find(self, state: int, token: int) -> tuple[float, int]:
        backed_off = 0.0
        while True:
            child = self._child(state, token)
            if child is not None:
                after = child if child < self._inner else self._suffix(child)
                return backed_off + float(self._log_probs[child - 1]), after
            backed_off += float(self._backoffs[state - 1])
            state = self._suffix(state)

    def _child(self, state: int, token: int) -> int | None:
        if state >= self._inner:
            return None
        if state == ROOT:
            return 1 + token
        low, high = int(self._first[state]), int(self._first[state + 1])
        place = bisect_left(self._tokens, token, low - 1, high - 1)
        return place + 1 if place < high - 1 and self._tokens[place] == token else None

    def _suffix(self, node: int) -> int:
        """The longest known n-gram that this one ends with, itself excepted."""
        found = self._suffixes.get(node)
        if found is None:
            found = self._suffixes[node] = self._find_suffix(node)
        return found

    def _find_suffix(self, node: int) -> int:
        parent = int(np.searchsorted(self._first, node, side="right")) - 1
        if parent == ROOT:
            return ROOT
        state, token = self._suffix(parent), self._tokens[node - 1]
        while (child := self._child(state, token)) is None:
            state = self._suffix(state)
        return child


def check_levels(levels: tuple[Level, ...], begin: int) -> None:
    """Refuse what no model can be.

    Raises:
        BundleError: sizes that contradict each other, tokens that do not exist.
    """
    if not levels:
        raise BundleError("a language model has no n-grams; expected at least those of order 1; build it again")
    vocabulary = len(levels[0].tokens)
    if not np.array_equal(levels[0].tokens, np.arange(vocabulary)) or not 0 <= begin < vocabulary:
        raise BundleError("a language model's first level is not its tokens in order; build it again")
    for order, level in enumerate(levels, start=1):
        last = order == len(levels)
        size = len(level.tokens)
        fits = len(level.log_probs) == size and all(
            len(each) == (0 if last else size) for each in (level.backoffs, level.children)
        )
        if fits and not last:
            fits = int(level.children.sum(dtype=np.int64)) == len(levels[order].tokens)
        if not fits or (size and int(level.tokens.max()) >= vocabulary):
            raise BundleError(f"the n-grams of order {order} of a language model do not fit together; build it again")


def pack_levels(levels: tuple[Level, ...]) -> dict[str, NDArray[np.generic]]:
    """The arrays of a model by name, as they are stored; read back by :func:`unpack_levels`."""
    return {
        f"{order}.{name}": np.ascontiguousarray(getattr(level, name))
        for order, level in enumerate(levels, start=1)
        for name in Level.__dataclass_fields__
    }


def unpack_levels(arrays: Mapping[str, NDArray[np.generic]]) -> tuple[Level, ...]:
    """The levels from what :func:`pack_levels` made.

    Raises:
        BundleError: an array is missing.
    """
    orders = 1 + max((int(name.partition(".")[0]) for name in arrays if name[:1].isdigit()), default=0)
    try:
        return tuple(
            Level(**{name: arrays[f"{order}.{name}"] for name in Level.__dataclass_fields__})  # type: ignore[arg-type]
            for order in range(1, orders)
        )
    except KeyError as error:
        raise BundleError(f"a language model has no array {error}; build it again") from error
