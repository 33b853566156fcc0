"""When each token was said, from where the decoder looked: dynamic time warping over its attention.

The method is that of openai/whisper's timing.py: the attention of a few heads that follow the sound, normalised over the
tokens, smoothed over time, and the cheapest monotonic path through it.

Shapes: N tokens, T frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEDIAN_FRAMES = 7  # openai/whisper timing.py: medfilt_width
SMALLEST_SPREAD = 1e-6  # frames at which every token looks alike tell nothing


def align_tokens(attention: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first frame (N,) of each token, and in one more entry the end of the last: (N + 1,), never falling.

    Args:
        attention: (N, T) over the valid frames, at least one, a row for each token.
    """
    if len(attention) > 1:  # one token has nothing to be compared with, and takes all frames in any case
        spread = attention.std(axis=0, keepdims=True)
        attention = (attention - attention.mean(axis=0, keepdims=True)) / np.maximum(spread, SMALLEST_SPREAD)
    return np.append(trace_path(-smooth(attention)), attention.shape[1])


def smooth(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median over :data:`MEDIAN_FRAMES` frames of (N, T), mirrored at both ends; shorter rows stay as they are."""
    margin = MEDIAN_FRAMES // 2
    if weights.shape[1] <= margin:
        return weights
    padded = np.pad(weights, ((0, 0), (margin, margin)), mode="reflect")
    windows = np.array(sliding_window_view(padded, MEDIAN_FRAMES, axis=1))
    windows.partition(margin, axis=-1)  # the median of an odd number, for a fraction of the time of np.median
    smoothed: NDArray[np.float32] = windows[..., margin]
    return smoothed


def trace_path(costs: NDArray[np.float32]) -> NDArray[np.int64]:
    """The column at which the cheapest monotonic path through ``costs`` (N, T) enters each row: (N,).

    A path begins in the first row and column, ends in the last ones, and goes right, down or both by one step (Sakoe and
    Chiba, 1978). Going right along a row is a running minimum, so that only rows are looped over.
    """
    rows, columns = costs.shape
    places = np.arange(columns)
    entered = np.zeros((rows, columns), dtype=np.int64)  # where the best path to a cell came into the cell's row
    came_from = np.zeros((rows, columns), dtype=np.int64)  # the column above from which a path enters a row
    total = entry = np.append(0.0, np.full(columns - 1, np.inf))  # cost of a path that enters the row at a column
    for row in range(rows):
        if row:
            diagonal = np.append(np.inf, total[:-1])
            entry = np.minimum(total, diagonal)
            came_from[row] = places - (diagonal <= total)
        along = np.append(0.0, np.cumsum(costs[row], dtype=np.float64))
        offers = entry - along[:-1]  # entering at k and going right to j costs entry[k] + along[j + 1] - along[k]
        best = np.minimum.accumulate(offers)
        entered[row] = np.maximum.accumulate(np.where(offers <= best, places, 0))
        total = best + along[1:]
    starts = np.zeros(rows, dtype=np.int64)
    column = columns - 1
    for row in reversed(range(rows)):
        starts[row] = entered[row, column]
        column = max(0, int(came_from[row, starts[row]]))
    return starts
