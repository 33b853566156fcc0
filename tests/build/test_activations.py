from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dinle.build.activations import choose_range, quantize_weight

if TYPE_CHECKING:
    from numpy.typing import NDArray


def measure_rounding(samples: NDArray[np.float32], scale: float, zero: int) -> float:
    numbers = np.clip(np.rint(samples / scale) + zero, 0, 255)
    return float(np.square((numbers - zero) * scale - samples).mean())


def test_a_range_is_better_than_the_extremes_and_holds_zero() -> None:
    samples = (
        np.random.default_rng(1).standard_t(4, 100_000).astype(np.float32)
    )  # rare large values, as activations have
    low, high = float(samples.min()), float(samples.max())
    extremes = (high - low) / 255
    scale, zero = choose_range(samples)
    assert scale * 255 < high - low, "what is rare is clipped"
    assert measure_rounding(samples, scale, zero) < 0.9 * measure_rounding(samples, extremes, round(-low / extremes))
    assert choose_range(np.array([1.0, 2.0], dtype=np.float32))[1] == 0, "silence stays silence"
    assert choose_range(np.zeros(5, dtype=np.float32))[0] > 0, "a tensor that is always zero has a scale"


def test_weights_have_a_scale_for_each_output() -> None:
    weight = np.random.default_rng(1).standard_normal((2, 30, 4)).astype(np.float32) * [1, 10, 100, 0]
    numbers, scales = quantize_weight(weight.astype(np.float32), 63)
    assert (numbers.dtype, scales.shape, np.abs(numbers[..., :3]).max(axis=1).min()) == (np.int8, (2, 4), 63)
    assert (np.abs(numbers * scales[:, None, :] - weight) <= 0.51 * scales[:, None, :]).all()
