from __future__ import annotations

import subprocess
import sys

import pytest

from dinle.errors import UsageError
from dinle.scale import bulk_overhead as module
from dinle.scale.bulk_overhead import BulkOverheadConfig, Watched, describe_run, measure_bulk_overhead

SPEAK = "import time\nfor n in range(4):\n time.sleep(0.2)\n print(n)\ntime.sleep(0.3)"


def test_work_is_what_lies_between_the_first_and_the_last_text() -> None:
    """60 of 80 files, each with 10 s of sound for a core, in 30 s."""
    found = describe_run(Watched(50.0, [(12.0, 20), (30.0, 50), (42.0, 80)]), 80, 800.0)
    assert found == {"start_and_end_s": 20.0, "work_s": 30.0, "audio_s_per_core_s": 20.0}


def test_too_few_files_say_nothing() -> None:
    with pytest.raises(UsageError, match="give some hundred"):
        describe_run(Watched(5.0, [(4.0, 8)]), 8, 10.0)


def test_lines_are_counted_as_they_come() -> None:
    watched = module._watch_lines([[sys.executable, "-c", SPEAK]] * 2)
    (first_s, first), (last_s, last) = watched.steps[0], watched.steps[-1]
    assert first < last == 8
    assert 0.4 < last_s - first_s < watched.seconds - 0.2


def test_a_run_that_fails_is_no_measurement() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        module._watch_lines([[sys.executable, "-c", "raise SystemExit(3)"]])


def test_ways_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def act(name: str) -> Watched:
        asked.append(name)
        return Watched(3.0, [(1.0, 1), (2.0, 2)])

    for name in module.WAYS:
        monkeypatch.setitem(module.WAYS, name, lambda *_, name=name: act(name))
    monkeypatch.setattr(module, "expand_sources", lambda _: ["a", "b"])
    monkeypatch.setattr(module, "find_duration", lambda _: 3.0)
    report = measure_bulk_overhead(BulkOverheadConfig(("x",), rounds=2))
    ways = list(module.WAYS)
    assert asked == ways + ways[::-1]
    assert module.render_bulk_overhead(report).row_count == 3
