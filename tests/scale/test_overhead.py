from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from dinle.scale import overhead
from dinle.scale.overhead import PLAIN, RAY, OverheadConfig, measure_overhead, render_overhead

if TYPE_CHECKING:
    from dinle.measure.load_client import LoadClip


def test_services_take_turns_and_the_medians_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    rates = {PLAIN: iter([5.0, 4.0, 9.0]), RAY: iter([4.5, 1.0, 4.6])}

    def measure(name: str, config: OverheadConfig, clips: list[LoadClip], env: dict[str, str]) -> dict[str, float]:
        assert env == {"ASR_WORKERS": "2"}
        assert len(clips) == 2
        asked.append(name)
        rest = dict.fromkeys(("p50_s", "p95_s", "failed", "other_text", "ready_s"), 1.0)
        return {"per_second": next(rates[name]), **rest}

    monkeypatch.setattr(overhead, "measure_service", measure)
    monkeypatch.setattr(overhead, "load", lambda _: None)
    monkeypatch.setattr(overhead, "recognize_clips", lambda clips, _: ["" for _ in clips])
    monkeypatch.setattr(overhead, "make_clips", lambda *_, **__: [make_clip(), make_clip()])
    report: dict[str, Any] = measure_overhead(replace(OverheadConfig(), workers=2))
    assert asked == [PLAIN, RAY, RAY, PLAIN, PLAIN, RAY]
    assert report["throughput_lost"] == pytest.approx(0.1)
    assert render_overhead(report).row_count == 2


def make_clip() -> LoadClip:
    from dinle.measure.service_clips import make_clip as make

    return make("a.wav", 3.0, b"sound")
