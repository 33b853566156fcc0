from __future__ import annotations

import pytest

from dinle.loadtest.live_talk import Heard, Talk, find_final, list_rows
from dinle.loadtest.stages import PIECE_S, LiveScript, Row
from dinle.loadtest.texts import TextCheck

# Three sentences that end at 2.0, 5.0 and 8.0 s; the sound goes on for a second after the last.
SCRIPT = LiveScript("s", b"", ((0.5, 2.0), (3.0, 5.0), (6.5, 8.0)), ("bir", "iki", "üç"))


def make_talk(*finals: tuple[float, float, str], spoken_s: float = 9.0, late_s: float = 0.0) -> Talk:
    """A stream that began at 100 s, whose pieces left ``late_s`` late; finals as (came at, segment's end, text)."""
    sent_s = [100 + (number + 1) * PIECE_S + late_s for number in range(round(spoken_s / PIECE_S))]
    heard = [Heard(100 + at_s, end_s, text) for at_s, end_s, text in finals]
    return Talk(100.0, sent_s, heard, 200, None, 120.0)


def list_all(talk: Talk, script: LiveScript = SCRIPT) -> list[Row]:
    return list(list_rows(talk, script, TextCheck()))


def test_a_sentence_is_timed_from_its_last_loud_sample() -> None:
    rows = list_all(make_talk((2.6, 2.2, "bir"), (5.7, 5.2, "iki"), (8.8, 8.2, "üç"), late_s=0.03))
    assert [row["seconds"] for row in rows] == pytest.approx([0.6, 0.7, 0.8])
    assert [row["start_s"] for row in rows] == pytest.approx([102.0, 105.0, 108.0])
    assert [row["late_s"] for row in rows] == pytest.approx([0.03] * 3)
    assert [row["audio_s"] for row in rows] == pytest.approx([1.5, 2.0, 1.5])
    assert [(row["status"], row["error"], row["same_text"]) for row in rows] == [(200, None, True)] * 3


def test_what_was_cut_off_does_not_count() -> None:
    finals = (2.6, 2.2, "bir"), (5.7, 5.2, "iki"), (8.1, 8.05, "üç")
    assert len(list_all(make_talk(*finals, spoken_s=8.9))) == 2  # the last sentence, but not the pause after it
    assert len(list_all(make_talk(*finals, spoken_s=1.0))) == 0


def test_a_sentence_may_have_several_segments_and_two_may_share_one() -> None:
    script = LiveScript("s", b"", SCRIPT.places, ("bir", "buçuk", "iki üç"))
    rows = list_all(make_talk((1.5, 1.2, "bir"), (2.6, 2.2, "buçuk"), (8.8, 8.2, "iki üç")), script)
    assert [row["seconds"] for row in rows] == pytest.approx([0.6, 3.8, 0.8])
    assert [row["same_text"] for row in rows] == [True, True, True]
    rows = list_all(make_talk((1.5, 1.2, "bar"), (2.6, 2.2, "buçuk"), (8.8, 8.2, "iki üç")), script)
    assert [row["same_text"] for row in rows] == [False, True, True]


def test_wrong_texts_and_segments_too_many_are_seen() -> None:
    rows = list_all(make_talk((2.6, 2.2, "bir"), (5.7, 5.2, "ikiz"), (8.8, 8.2, "üç")))
    assert [row["same_text"] for row in rows] == [True, False, True]
    short = LiveScript("s", b"", SCRIPT.places, ("bir", "iki"))
    rows = list_all(make_talk((2.6, 2.2, "bir"), (5.7, 5.2, "iki"), (8.8, 8.2, "üç")), short)
    assert [row["same_text"] for row in rows] == [True, True, False]


def test_texts_are_compared_with_the_first_stream_where_none_are_known() -> None:
    script, check = LiveScript("s", b"", SCRIPT.places), TextCheck()
    first = list(list_rows(make_talk((2.6, 2.2, "bir"), (5.7, 5.2, "iki"), (8.8, 8.2, "üç")), script, check))
    second = list(list_rows(make_talk((2.6, 2.2, "bir"), (5.7, 5.2, "ikiz"), (8.8, 8.2, "üç")), script, check))
    assert [row["same_text"] for row in first + second] == [True, True, True, True, False, True]


def test_finals_that_never_came_are_errors() -> None:
    rows = list_all(make_talk((2.6, 2.2, "bir")))
    assert [(row["status"], row["error"]) for row in rows] == [(200, None), (None, "no_final"), (None, "no_final")]
    broken = make_talk((2.6, 2.2, "bir"))
    broken.error = "internal"
    assert [row["error"] for row in list_all(broken)] == [None, "internal", "internal"]


@pytest.mark.parametrize(("status", "error"), [(503, None), (403, None), (None, "connection")])
def test_a_stream_that_was_refused_is_one_row(status: int | None, error: str | None) -> None:
    (row,) = list_all(Talk(1.0, status=status, error=error, ended_s=1.5))
    assert (row["status"], row["error"], row["seconds"], row["same_text"]) == (status, error, 0.5, None)


def test_the_first_final_that_reaches_the_end_is_the_one() -> None:
    finals = [Heard(1.0, end_s, "") for end_s in (1.0, 1.96, 3.0)]
    assert [find_final(finals, end_s) for end_s in (0.9, 1.04, 1.1, 2.0, 2.1, 3.1)] == [0, 0, 1, 1, 2, None]
