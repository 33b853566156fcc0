from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from dinle.loadtest.rows import read_rows, write_rows
from dinle.loadtest.stages import ALL_BEGUN_S, LiveScript, Stage, find_gap_s, read_material, write_material
from dinle.loadtest.texts import TextCheck
from tests.measure.services import small_clips

if TYPE_CHECKING:
    from pathlib import Path

STAGE = Stage("açık", "arrivals", ("a", "b"), 2.5, 3, 2.0, 0.5, (0.1, 0.25), 7)


def test_a_stage_travels_as_one_line() -> None:
    line = STAGE.to_json()
    assert "\n" not in line
    assert Stage.from_json(line) == STAGE


def test_sound_and_texts_travel_in_a_folder(tmp_path: Path) -> None:
    clips = small_clips(3, "ışık")
    scripts = [LiveScript("live-0", b"\x01\x02", ((0.5, 1.25),), ("ışık", "")), LiveScript("live-1", b"", ())]
    write_material(tmp_path, clips, scripts)
    material = read_material(tmp_path)
    assert list(material.clips.values()) == clips
    assert list(material.scripts.values()) == scripts
    assert material.clips["clip-1.wav"] == replace(clips[1])


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"model": "a, b", "phase": "closed loop", "audio_s": 3.0, "status": 200, "error": None, "same_text": True,
         "retry_after": None, "seconds": 0.25},
        {"model": 'a"b', "phase": "ö", "audio_s": 1.5, "status": None, "error": "timeout", "same_text": None,
         "retry_after": "1", "seconds": 1e-6},
        {"model": "a", "phase": "ö", "audio_s": 1.5, "status": 503, "error": None, "same_text": False,
         "retry_after": "Wed, 21 Oct 2026", "seconds": 60.0},
    ]  # fmt: skip
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    write_rows(tmp_path / "none.csv", [])
    assert read_rows(tmp_path / "none.csv") == []


def test_texts_are_compared_with_what_is_expected_or_came_first() -> None:
    check = TextCheck()
    assert [check.check("a", text, None) for text in ("bir", "bir", "iki")] == [True, True, False]
    assert check.check("a", "üç", "üç")
    assert not check.check("b", "bir", "iki")
    assert check.check_final("s", 0, "bir", None)
    assert not check.check_final("s", 0, "iki", None)
    assert check.check_final("s", 1, "iki", None)
    assert check.check_final("s", 1, "üç", ("bir", "üç"))
    assert not check.check_final("s", 2, "", ("bir", "üç"))  # a segment that nobody expected


@given(st.integers(1, 500))
def test_live_users_have_all_begun_in_three_seconds(users: int) -> None:
    assert 0 < users * find_gap_s(users) <= ALL_BEGUN_S + 1e-9
