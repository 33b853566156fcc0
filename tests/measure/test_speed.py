from __future__ import annotations

import numpy as np
import pytest

from dinle.measure.predictions import Prediction
from dinle.measure.speed import compare_speed, format_speed, render_speed
from dinle.measure.timing import measure_speedup


def make_predictions(seconds: list[float], durations_s: list[float], error: int | None = None) -> list[Prediction]:
    return [
        Prediction(f"c{n}", "x", "x", duration_s=duration_s, inference_s=s, error="broken" if n == error else None)
        for n, (s, duration_s) in enumerate(zip(seconds, durations_s, strict=True))
    ]


def test_medians_means_and_ratios_by_length() -> None:
    durations_s = [1.0, 1.9, 2.0, 4.9, 12.0, 30.0]
    own = make_predictions([0.1, 0.1, 0.2, 0.2, 0.5, 0.7], durations_s)
    peer = make_predictions([1.0, 1.0, 1.0, 1.0, 1.5, 2.5], durations_s)
    groups = compare_speed(own, peer, samples=50, seed=1)
    assert [(group["group"], group["clips"]) for group in groups] == [
        ("all clips", 6), ("0-2 s", 2), ("2-5 s", 2), ("10 s and more", 2),
    ]  # fmt: skip
    assert groups[0]["own_s"] == {"median_s": 0.2, "mean_s": 0.3}
    assert groups[0]["peer_s"] == {"median_s": 1.0, "mean_s": pytest.approx(8 / 6, abs=1e-5)}
    assert [group["speedup"]["ratio"] for group in groups] == [5.0, 10.0, 5.0, pytest.approx(2.0 / 0.6, abs=1e-4)]
    assert groups[1]["speedup"]["interval"] == [10.0, 10.0]


def test_the_interval_is_the_paired_one_of_the_medians() -> None:
    generator = np.random.default_rng(0)
    own_s = generator.lognormal(-2, 0.3, 60)
    peer_s = 3 * own_s * generator.lognormal(0, 0.02, 60)  # in step with ours: pairs make the interval narrow
    pairs = [make_predictions(seconds.tolist(), [3.0] * 60) for seconds in (own_s, peer_s)]
    speedup = compare_speed(*pairs, samples=300, seed=2)[0]["speedup"]
    expected = measure_speedup(peer_s.tolist(), own_s.tolist(), samples=300, seed=2)
    assert speedup["interval"] == pytest.approx(expected.interval.to_list(), abs=1e-4)
    assert speedup["interval"][0] < 3.0 < speedup["interval"][1]
    assert speedup["interval"][1] - speedup["interval"][0] < 0.3


def test_clips_that_failed_are_left_out() -> None:
    own, peer = make_predictions([1.0, 1.0], [1.0, 3.0]), make_predictions([2.0, 9.0], [1.0, 3.0], error=1)
    assert [(group["group"], group["clips"]) for group in compare_speed(own, peer, samples=5, seed=1)] == [
        ("all clips", 1), ("0-2 s", 1),
    ]  # fmt: skip
    assert compare_speed(own[1:], peer[1:], samples=5, seed=1) == []


def test_the_tables_name_both_systems() -> None:
    own, peer = make_predictions([0.1, 0.1], [1.0, 6.0]), make_predictions([0.25, 0.25], [1.0, 6.0])
    scores = {
        "model": {"name": "dinle"}, "peer": {"name": "base"}, "threads": 2, "intervals": {"samples": 20},
        "speed": compare_speed(own, peer, samples=20, seed=1),
    }  # fmt: skip
    text = format_speed(scores)
    assert (
        "| length | clips | dinle, median | dinle, mean | base, median | base, mean | ratio of medians [95 %] |" in text
    )
    assert "| all clips | 2 | 0.100 s | 0.100 s | 0.250 s | 0.250 s | 2.50 [2.50, 2.50] |" in text
    assert "both systems in one process with 2 threads each" in text
    assert list(render_speed(scores).columns[0].cells) == ["all clips", "0-2 s", "5-10 s"]
