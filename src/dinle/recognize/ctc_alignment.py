"""When each token of a known text was said: the likeliest alignment of CTC (Graves et al., 2006, section 4.1, by Viterbi)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dinle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def align_ctc(log_probs: NDArray[np.float32], tokens: Sequence[int], blank: int) -> NDArray[np.int64]:
    """The frames in which each token stands.

    Args:
        log_probs: (T, V), in nats.
        tokens: L tokens, none of them the blank.
        blank: the blank's index.

    Returns:
        (L, 2): the first frame of each token, and the one after its last.

    Raises:
        UsageError: the text needs more frames than there are.
    """
    needed = count_frames(tokens)
    if needed > len(log_probs):
        raise UsageError(f"{len(tokens)} tokens need {needed} frames; there are {len(log_probs)}")
    if not len(tokens):
        return np.zeros((0, 2), dtype=np.int64)
    states = _trace_states(log_probs, tokens, blank)
    spans = np.zeros((len(tokens), 2), dtype=np.int64)
    places = np.flatnonzero(states % 2)
    found = states[places] // 2
    starts = np.searchsorted(found, np.arange(len(tokens)), side="left")
    ends = np.searchsorted(found, np.arange(len(tokens)), side="right")
    spans[:, 0], spans[:, 1] = places[starts], places[ends - 1] + 1
    return spans


def count_frames(tokens: Sequence[int]) -> int:
    """The fewest frames that tokens can stand in: one each, and a blank between two that are equal."""
    return len(tokens) + sum(first == second for first, second in pairwise(tokens))


def _trace_states(log_probs: NDArray[np.float32], tokens: Sequence[int], blank: int) -> NDArray[np.int64]:
    """The state (T,) of each frame on the likeliest path: 2 i + 1 is token i, the even ones are the blanks around them."""
    labels = np.full(2 * len(tokens) + 1, blank, dtype=np.int64)
    labels[1::2] = tokens
    emitted = np.fmax(log_probs[:, labels], -1e4).astype(np.float32)  # -inf minus -inf is no number
    skips = np.zeros(len(labels), dtype=np.bool_)  # a blank between two different tokens may be left out
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    barred = np.where(skips, np.float32(0), np.float32(-np.inf))[2:]
    best = np.full(emitted.shape, -np.inf, dtype=np.float32)  # of the paths that are in a state at a frame
    best[0, :2] = emitted[0, :2]
    skipped = np.empty(len(barred), dtype=np.float32)
    for before, row, heard in zip(best, best[1:], emitted[1:], strict=False):
        np.maximum(before[1:], before[:-1], out=row[1:])
        row[0] = before[0]
        np.add(before[:-2], barred, out=skipped)
        np.maximum(row[2:], skipped, out=row[2:])
        np.add(row, heard, out=row)
    state = len(labels) - 1 if best[-1, -1] >= best[-1, -2] else len(labels) - 2
    states = [state]
    for row in best[-2::-1]:
        came_from = row[max(0, state - (2 if skips[state] else 1)) : state + 1]
        state -= int(came_from[::-1].argmax())  # of equals the one that stays
        states.append(state)
    return np.array(states[::-1], dtype=np.int64)
