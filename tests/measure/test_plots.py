from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from dinle.measure.plots import (
    plot_changes,
    plot_clip_rates,
    plot_group_rates,
    plot_latency,
    plot_reliability,
    plot_size_and_latency,
)

if TYPE_CHECKING:
    from pathlib import Path


def make_group(name: str, rate: float, width: float) -> dict[str, Any]:
    return {"group": name, "clips": 3, "wer": {"rate": rate, "interval": [max(0.0, rate - width), rate + width]}}


def make_backend(label: str, backend: str, median_s: float) -> dict[str, Any]:
    samples_s = [median_s * factor for factor in (0.9, 1.0, 1.2)]
    return {
        "label": label, "backend": backend, "samples_s": samples_s, "latency": {"median_s": median_s}, "size_mb": 41.2,
        "peak_memory_mb": 500.0,
    }  # fmt: skip


def check_image(path: Path) -> None:
    assert path.stat().st_size < 100_000
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1200
        assert len(np.unique(np.asarray(image.convert("L")))) > 5  # not empty


@pytest.mark.parametrize(
    "groups",
    [
        [make_group("0-2 s", 0.0, 0.0)],
        [make_group("only", 2.5, 0.5)],
        [make_group(f"speaker with a long name {number}", number / 20, 0.1) for number in range(12)],
    ],
    ids=["no errors", "above 100 %", "many"],
)
def test_rates_of_any_groups_can_be_drawn(tmp_path: Path, groups: list[dict[str, Any]]) -> None:
    plot_group_rates(tmp_path / "p.png", groups, title="WER", whole=groups[0]["wer"]["rate"])
    check_image(tmp_path / "p.png")


@pytest.mark.parametrize("rates", [[0.0], [0.0, 0.05, 0.1, 0.3, 1.0, 7.0]])
def test_rates_of_clips_can_be_drawn(tmp_path: Path, rates: list[float]) -> None:
    plot_clip_rates(tmp_path / "p.png", rates, title="clips")
    check_image(tmp_path / "p.png")


@pytest.mark.parametrize("count", [1, 10])
def test_reliability_can_be_drawn(tmp_path: Path, count: int) -> None:
    bins = [{"words": 10 + n, "confidence": (n + 0.5) / count, "accuracy": n / count} for n in range(count)]
    plot_reliability(tmp_path / "p.png", {"words": 100, "bins": bins}, title="reliability")
    check_image(tmp_path / "p.png")


@pytest.mark.parametrize("changes", [[0], [-20, 0, 1, 3, 50]])
def test_changes_can_be_drawn(tmp_path: Path, changes: list[int]) -> None:
    plot_changes(tmp_path / "p.png", changes, title="changes")
    check_image(tmp_path / "p.png")


def test_backends_can_be_drawn(tmp_path: Path) -> None:
    backends = [make_backend("PyTorch fp32", "pytorch", 2.0), make_backend("ONNX INT8", "onnx_int8", 0.0123)]
    for draw, shown in ((plot_latency, backends), (plot_size_and_latency, backends), (plot_latency, backends[:1])):
        draw(tmp_path / "p.png", shown, title="backends")
        check_image(tmp_path / "p.png")
