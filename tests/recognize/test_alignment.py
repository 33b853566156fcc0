"""Word times come from the cheapest path: the same as that of the textbook's nested loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.recognize.alignment import MEDIAN_FRAMES, align_tokens, smooth, trace_path

if TYPE_CHECKING:
    from numpy.typing import NDArray


def find_least_cost(costs: NDArray[np.float64]) -> float:
    """Dynamic time warping as Sakoe and Chiba (1978) write it."""
    rows, columns = costs.shape
    total = np.full((rows, columns), np.inf)
    for row in range(rows):
        for column in range(columns):
            before = [
                total[row - 1, column] if row else np.inf,
                total[row, column - 1] if column else np.inf,
                total[row - 1, column - 1] if row and column else np.inf,
            ]
            total[row, column] = costs[row, column] + (min(before) if row or column else 0.0)
    return float(total[-1, -1])


def add_up(costs: NDArray[np.float64], starts: NDArray[np.int64]) -> float:
    """The cost of the cheapest path that enters the rows at these columns: straight down or diagonally."""
    total = 0.0
    for row, start in enumerate(starts):
        if row == len(starts) - 1:
            total += costs[row, start:].sum()
            continue
        down = costs[row, start : starts[row + 1] + 1].sum()
        diagonal = costs[row, start : starts[row + 1]].sum() if starts[row + 1] > start else np.inf
        total += min(down, diagonal)
    return float(total)


sizes = st.integers(1, 12)


@given(seed=st.integers(0, 10**6), rows=sizes, columns=st.integers(1, 30), whole=st.booleans())
def test_the_path_is_as_cheap_as_any(seed: int, rows: int, columns: int, *, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    # whole numbers make many paths equally cheap
    costs = rng.integers(-3, 4, (rows, columns)).astype(float) if whole else rng.standard_normal((rows, columns))
    starts = trace_path(costs.astype(np.float64))
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    assert starts[-1] < columns
    assert add_up(costs, starts) == pytest.approx(find_least_cost(costs), abs=1e-9)


@pytest.mark.parametrize("starts", [[0, 10, 25, 32], [0, 7], [0], [0, 20, 40, 60, 80]])
def test_tokens_are_found_where_the_decoder_looked(starts: list[int]) -> None:
    frames = starts[-1] + 20
    attention = np.full((len(starts), frames), 0.01, dtype=np.float32)
    for token, (start, end) in enumerate(zip(starts, [*starts[1:], frames], strict=True)):
        attention[token, start:end] = 0.5
    assert align_tokens(attention).tolist() == [*starts, frames]


@given(seed=st.integers(0, 10**6), tokens=sizes, frames=st.integers(1, 40))
def test_times_never_fall_nor_leave_the_sound(seed: int, tokens: int, frames: int) -> None:
    attention = np.random.default_rng(seed).dirichlet(np.ones(frames), tokens).astype(np.float32)
    found = align_tokens(attention)
    assert (len(found), found[0], found[-1]) == (tokens + 1, 0, frames)
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_attention_that_tells_nothing_still_gives_times(value: float) -> None:
    found = align_tokens(np.full((3, 10), value, dtype=np.float32))
    assert (np.diff(found) >= 0).all()


@given(seed=st.integers(0, 10**6), frames=st.integers(1, 30))
def test_smoothing_is_the_plain_median(seed: int, frames: int) -> None:
    weights = np.random.default_rng(seed).standard_normal((2, frames)).astype(np.float32)
    margin = MEDIAN_FRAMES // 2
    expected = weights
    if frames > margin:
        padded = np.pad(weights, ((0, 0), (margin, margin)), mode="reflect")
        expected = np.array([[np.median(row[i : i + MEDIAN_FRAMES]) for i in range(frames)] for row in padded])
    np.testing.assert_array_equal(smooth(weights), expected)


def test_one_odd_frame_moves_nothing() -> None:
    attention = np.full((2, 40), 0.01, dtype=np.float32)
    attention[0, :20] = attention[1, 20:] = 0.5
    attention[:, 5] = attention[::-1, 5]
    assert align_tokens(attention).tolist() == [0, 20, 40]
