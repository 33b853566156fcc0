"""The kept parts of the windows tile the recording, however it arrives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.recognize.windows import cut_windows


@given(
    length=st.integers(1, 8_000),
    block=st.integers(1, 3_000),
    window=st.integers(10, 100),
    overlap_share=st.floats(0, 0.9),
)
@settings(max_examples=200, deadline=None)
def test_kept_parts_tile_the_recording(length: int, block: int, window: int, overlap_share: float) -> None:
    sound = np.arange(length, dtype=np.float32)
    blocks = (sound[i : i + block] for i in range(0, length, block))
    window_s = window * 100 / 16_000
    windows = list(cut_windows(blocks, window_s=window_s, overlap_s=window_s * overlap_share))
    kept = [w.samples[w.keep_from - w.start : w.keep_to - w.start] for w in windows]
    np.testing.assert_array_equal(np.concatenate(kept), sound)
    assert [w.last for w in windows] == [False] * (len(windows) - 1) + [True]
    assert all(len(w.samples) <= window * 100 for w in windows)


def test_one_long_block_is_not_copied_again_for_each_window() -> None:
    sound = np.zeros(16_000 * 60, dtype=np.float32)
    windows = list(cut_windows([sound], window_s=1, overlap_s=0.1))
    assert len(windows) > 60
    assert all(np.shares_memory(window.samples, sound) for window in windows)


def test_nothing_gives_no_window() -> None:
    assert list(cut_windows([], window_s=1, overlap_s=0.1)) == []


@pytest.mark.parametrize(("level", "silent"), [(0.0, True), (9e-4, True), (2e-3, False)])
def test_only_what_nobody_could_hear_is_silent(level: float, *, silent: bool) -> None:
    (window,) = cut_windows([np.full(100, level, dtype=np.float32)], window_s=1, overlap_s=0.1)
    assert window.silent is silent
