from __future__ import annotations

from typing import TYPE_CHECKING

from dinle.progress import progress, track

if TYPE_CHECKING:
    import pytest


def test_without_a_terminal_one_line_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), "counting")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("counting: done in ")


def test_on_a_terminal_a_bar_is_drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("working", total=2) as bar:
        bar.update(description="still working")
        bar.advance()
        bar.update(completed=2)
    assert "still working" in capsys.readouterr().err
