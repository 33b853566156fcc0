"""The likeliest alignment against all alignments that there are, on matrices small enough to list them."""

from __future__ import annotations

from itertools import groupby, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.recognize.ctc_alignment import align_ctc, count_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLANK, SIZE = 0, 3
texts = st.lists(st.integers(1, SIZE - 1), max_size=4)
Path = tuple[int, ...]


def draw_log_probs(seed: int, frames: int, *, impossible: float = 0.0) -> NDArray[np.float32]:
    """Random log-probabilities (T, V), some of them minus infinity, never all of a frame."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((frames, SIZE))
    logits[(rng.random(logits.shape) < impossible) & (logits < logits.max(axis=1, keepdims=True))] = -np.inf
    log_probs: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    return log_probs


def collapse(path: Path) -> list[int]:
    return [token for token, _ in groupby(path) if token != BLANK]


def weigh(log_probs: NDArray[np.float32], path: Path) -> float:
    return float(log_probs[np.arange(len(path)), list(path)].sum(dtype=np.float64))


def lay_path(spans: NDArray[np.int64], tokens: list[int], frames: int) -> Path:
    """The path that spans stand for."""
    path = [BLANK] * frames
    for (start, end), token in zip(spans.tolist(), tokens, strict=True):
        path[start:end] = [token] * (end - start)
    return tuple(path)


@given(seed=st.integers(0, 10**6), frames=st.integers(0, 7), tokens=texts, impossible=st.sampled_from([0.0, 0.3]))
@settings(max_examples=300)
def test_the_path_is_the_likeliest_of_all_that_spell_the_text(
    seed: int, frames: int, tokens: list[int], impossible: float
) -> None:
    assume(count_frames(tokens) <= frames)
    log_probs = draw_log_probs(seed, frames, impossible=impossible)
    best = max(weigh(log_probs, path) for path in product(range(SIZE), repeat=frames) if collapse(path) == tokens)
    path = lay_path(align_ctc(log_probs, tokens, BLANK), tokens, frames)
    assert collapse(path) == tokens
    assert weigh(log_probs, path) == pytest.approx(best, abs=1e-4)


@given(seed=st.integers(0, 10**6), frames=st.integers(1, 60), tokens=st.lists(st.integers(1, 2), max_size=20))
@settings(max_examples=300)
def test_spans_are_in_order_within_bounds_and_never_empty(seed: int, frames: int, tokens: list[int]) -> None:
    assume(count_frames(tokens) <= frames)
    spans = align_ctc(draw_log_probs(seed, frames, impossible=0.3), tokens, BLANK)
    assert spans.shape == (len(tokens), 2)
    assert (spans[:, 0] < spans[:, 1]).all()
    edges = spans.ravel()
    assert (np.diff(edges) >= 0).all()
    assert not len(edges) or (edges[0] >= 0 and edges[-1] <= frames)
    assert collapse(lay_path(spans, tokens, frames)) == tokens


@given(frames=st.integers(0, 5), tokens=texts)
def test_what_can_be_aligned_is_what_some_path_spells(frames: int, tokens: list[int]) -> None:
    possible = any(collapse(path) == tokens for path in product(range(SIZE), repeat=frames))
    assert possible == (count_frames(tokens) <= frames)


@pytest.mark.parametrize(
    ("frames", "tokens", "message"),
    [
        (0, [1], "1 tokens need 1 frames; there are 0"),
        (2, [1, 2, 1], "3 tokens need 3 frames; there are 2"),
        (2, [1, 1], "2 tokens need 3 frames; there are 2"),
        (4, [1, 1, 1], "3 tokens need 5 frames; there are 4"),
    ],
)
def test_a_text_that_needs_more_frames_is_refused(frames: int, tokens: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        align_ctc(draw_log_probs(0, frames), tokens, BLANK)


def test_two_equal_tokens_have_a_blank_between_them_however_unlikely() -> None:
    log_probs = np.log(np.array([[0.01, 0.98, 0.01]] * 3, dtype=np.float32))
    assert align_ctc(log_probs, [1, 1], BLANK).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("blank", [0, 2])
def test_the_blank_may_be_any_token(blank: int) -> None:
    log_probs = draw_log_probs(3, 6)
    turned = log_probs[:, [2, 1, 0]]
    expected = align_ctc(log_probs, [1, 2 - blank, 1], blank)
    assert align_ctc(turned, [1, blank, 1], 2 - blank).tolist() == expected.tolist()


def test_no_text_has_no_spans() -> None:
    assert align_ctc(draw_log_probs(0, 4), [], BLANK).shape == (0, 2)
    assert align_ctc(draw_log_probs(0, 0), [], BLANK).shape == (0, 2)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_frames_without_numbers_still_give_each_token_a_place(value: float) -> None:
    log_probs = draw_log_probs(1, 9)
    log_probs[2:5] = value
    tokens = [1, 2, 2, 1]
    spans = align_ctc(log_probs, tokens, BLANK)
    assert collapse(lay_path(spans, tokens, 9)) == tokens
    whole = align_ctc(np.full((9, SIZE), value, dtype=np.float32), tokens, BLANK)
    assert collapse(lay_path(whole, tokens, 9)) == tokens


def test_a_stretch_of_a_thousand_frames_is_aligned_where_its_tokens_stand() -> None:
    path = np.repeat(np.tile([0, 1, 2, 0, 2, 1], 56), 3)[:1000]
    log_probs = np.full((1000, SIZE), np.log(0.05), dtype=np.float32)
    log_probs[np.arange(1000), path] = np.log(0.9)
    tokens = collapse(tuple(path.tolist()))
    assert lay_path(align_ctc(log_probs, tokens, BLANK), tokens, 1000) == tuple(path.tolist())
