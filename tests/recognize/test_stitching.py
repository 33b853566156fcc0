"""Two hearings of overlapping sound give the text of the whole: nothing lost, nothing doubled."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.segments import Segment
from dinle.recognize.stitching import Stitcher, match_words, stitch_words
from dinle.recognize.transcript import Word

JITTER_S = 0.15
AGAIN_S = 4 * JITTER_S  # nearer, two words of one text cannot be told from one that was heard at two times
OVERLAP_S, TAIL_S = 2.0, 1.0
TEXTS = ("ırmak", "İzmir", "şey", "çok", "ve", "kâğıt")


def spell(words: list[Word]) -> list[str]:
    return [word.text for word in words]


@st.composite
def talks(
    draw: st.DrawFn, *, texts: tuple[str, ...] = TEXTS, shortest_s: float = 0.06, again_s: float = AGAIN_S
) -> list[Word]:
    """What was said: words of 0.06 to 1 s with pauses of up to 2 s, of few texts, so that many come again."""
    words: list[Word] = []
    at, last_s = draw(st.floats(0, 1)), dict.fromkeys(texts, -again_s)
    for text in draw(st.lists(st.sampled_from(texts), max_size=24)):
        at = last_s[text] = max(at, last_s[text] + again_s)
        end = at + draw(st.floats(shortest_s, 1.0))
        words.append(Word(text, at, end, 1.0))
        at = end + draw(st.one_of(st.just(0.0), st.floats(0, 0.3), st.floats(0, 2.0)))
    return words


@st.composite
def hearings(draw: st.DrawFn, said: list[Word]) -> tuple[list[Word], list[Word], float]:
    """What is heard before and after a cut at any place, each with its own errors of time; at the edges parts of words.

    A word that lies over the edge of a hearing is heard whole, or in part, or not at all.
    """
    cut_s = draw(st.floats(0, said[-1].end_s if said else 1.0))
    first_s, last_s = cut_s - OVERLAP_S, cut_s + TAIL_S
    before = [word for word in said if word.end_s <= last_s]
    after = [word for word in said if word.start_s >= first_s]
    for word in said:
        if word.start_s < last_s < word.end_s:
            before += _hear_part(draw, word, word.start_s, last_s)
        if word.start_s < first_s < word.end_s:
            after = [*_hear_part(draw, word, first_s, word.end_s), *after]
    return _shift(draw, before), _shift(draw, after), cut_s


def _hear_part(draw: st.DrawFn, word: Word, start_s: float, end_s: float) -> list[Word]:
    text = draw(st.sampled_from([None, word.text, word.text[:2] + "…", "parça"]))
    return [] if text is None else [Word(text, start_s, end_s, 0.5)]


def _shift(draw: st.DrawFn, words: list[Word]) -> list[Word]:
    """Each time wrong by up to 150 ms, rising as times do."""
    errors = st.floats(-JITTER_S, JITTER_S)
    times = sorted(max(0.0, time_s + draw(errors)) for word in words for time_s in (word.start_s, word.end_s))
    return [Word(word.text, times[2 * i], times[2 * i + 1], word.confidence) for i, word in enumerate(words)]


@given(data=st.data(), said=talks())
@settings(max_examples=200)
def test_the_stitched_text_is_what_was_said(data: st.DataObject, said: list[Word]) -> None:
    before, after, cut_s = data.draw(hearings(said))
    stitched = stitch_words(before, after, cut_s)
    assert spell(stitched) == spell(said)
    times = [time_s for word in stitched for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)


@given(texts=st.lists(st.sampled_from(TEXTS[:2]), max_size=12), data=st.data())
def test_a_word_said_again_at_once_stands_as_often_as_it_was_said(texts: list[str], data: st.DataObject) -> None:
    """Where it is not at an edge: then both sides hear all of them, and how many match decides before their times do."""
    words = [Word(text, 9.0 + 0.1 * i, 9.06 + 0.1 * i, 1.0) for i, text in enumerate(texts)]
    draw = cast("st.DrawFn", data.draw)
    before = _shift(draw, [Word("önce", 4.0, 5.0, 1.0), *words])
    after = _shift(draw, [*words, Word("sonra", 12.0, 12.5, 1.0)])
    cut_s = data.draw(st.floats(9.0, 10.0))
    assert spell(stitch_words(before, after, cut_s)) == ["önce", *texts, "sonra"]


@given(data=st.data(), said=talks(shortest_s=0.4))
@settings(max_examples=100)
def test_words_that_each_side_hears_as_another_are_there_once(data: st.DataObject, said: list[Word]) -> None:
    """The times alone decide, and are wrong by less than a third of a word; the cut is between words."""
    cut_s = data.draw(st.sampled_from([0.0, *(word.end_s for word in said)]))
    errors = st.floats(-0.06, 0.06)
    error_s, other_s = data.draw(errors), data.draw(errors)
    before = [Word("a" + word.text, word.start_s + error_s, word.end_s + error_s, 1.0) for word in said]
    after = [Word("b" + word.text, word.start_s + other_s, word.end_s + other_s, 1.0) for word in said]
    before = [word for word, true in zip(before, said, strict=True) if true.end_s <= cut_s + TAIL_S]
    after = [word for word, true in zip(after, said, strict=True) if true.start_s >= cut_s - OVERLAP_S]
    assert [text[1:] for text in spell(stitch_words(before, after, cut_s))] == spell(said)


@given(said=talks(), cut_s=st.floats(0, 20))
def test_where_one_side_hears_nothing_the_other_is_kept(said: list[Word], cut_s: float) -> None:
    assert stitch_words(said, [], cut_s) == said
    assert stitch_words([], said, cut_s) == said
    assert stitch_words([], [], cut_s) == []


def test_what_only_one_side_hears_is_kept_beside_what_the_other_hears() -> None:
    before = [Word("bir", 8.0, 8.4, 1.0), Word("iki", 10.4, 10.8, 1.0)]
    after = [Word("üç", 9.2, 9.6, 1.0), Word("dört", 12.0, 12.4, 1.0)]
    assert spell(stitch_words(before, after, 10.0)) == ["bir", "üç", "iki", "dört"]


def test_letters_decide_where_times_would_double_a_word() -> None:
    """The second hearing is 0.3 s late, longer than a word."""
    texts = [one + other for one in "abcde" for other in "uıüi"]
    before, after = (
        [Word(text, late_s + 8 + 0.25 * i, late_s + 8.2 + 0.25 * i, 1.0) for i, text in enumerate(texts)]
        for late_s in (0.0, 0.3)
    )
    for cut_s in np.arange(8, 13, 0.1).tolist():
        assert spell(stitch_words(before, after, cut_s)) == texts


def test_a_part_of_a_word_at_an_edge_is_not_a_word_beside_it() -> None:
    before = [Word("bir", 8.0, 8.4, 1.0), Word("mer", 10.80, 10.85, 0.5)]
    after = [Word("haba", 7.9, 8.1, 0.5), Word("merhaba", 11.1, 11.5, 1.0)]
    assert spell(stitch_words(before, after, 10.0)) == ["bir", "merhaba"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("IŞIK", "ışık"), ("İzmir.", "izmir"), ("Ankara'nın", "ankaranın,"), ("kâğıt", "kağıt"), ("20", "yirmi")],
)
def test_the_letters_of_a_word_count_not_how_it_is_written(one: str, other: str) -> None:
    assert match_words([Word(one, 1, 1.5, 1.0)], [Word(other, 1.1, 1.6, 1.0)]) == [(0, 0)]


@pytest.mark.parametrize(("one", "other"), [("ısık", "isik"), ("–", "–"), ("ve", "de")])
def test_other_letters_and_signs_alone_are_no_match(one: str, other: str) -> None:
    assert match_words([Word(one, 1, 1.5, 1.0)], [Word(other, 1, 1.5, 1.0)]) == []


@pytest.mark.parametrize("cut_s", [0.4, 1.0, 1.6])
def test_a_seam_has_no_capital_or_full_stop_of_a_side_that_begins_or_ends_there(cut_s: float) -> None:
    before = [Word("Bugün", 0.0, 0.5, 1.0), Word("hava", 0.5, 0.9, 1.0), Word("güzel.", 0.9, 2.0, 1.0)]
    after = [Word("Hava", 0.3, 0.9, 1.0), Word("güzel", 0.9, 1.3, 1.0), Word("diyor.", 1.3, 1.9, 1.0)]
    assert spell(stitch_words(before, after, cut_s)) == ["Bugün", "hava", "güzel", "diyor."]
    only = stitch_words(before[:2], after[:1], cut_s)
    assert [(word.start_s, word.end_s) for word in only] == [(0.0, 0.5), (0.5, 0.9)]


def make_segment(start_s: float, end_s: float, head_s: float, tail_s: float) -> Segment:
    start, end, head, tail = (round(s * SAMPLE_RATE_HZ) for s in (start_s, end_s, head_s, tail_s))
    return Segment(np.zeros(end - start, dtype=np.float32), start, 1.0, head=head, tail=tail)


@given(said=talks(), cuts_s=st.lists(st.floats(4, 8), min_size=1, max_size=4))
def test_segments_one_after_the_other_give_what_was_said(said: list[Word], cuts_s: list[float]) -> None:
    """What is certain is given at once and stands before what is done; what is held back comes with the next segment."""
    places_s = [0.0, *np.cumsum(cuts_s).tolist(), 100.0]
    stitcher, told, done = Stitcher(OVERLAP_S), list[Word](), 0
    for number, (cut_s, next_s) in enumerate(pairwise(places_s)):
        head_s, tail_s = (OVERLAP_S if number else 0.0), (TAIL_S if next_s < 100 else 0.0)
        segment = make_segment(cut_s - head_s, next_s + tail_s, head_s, tail_s)
        heard = [w for w in said if w.end_s > cut_s - head_s and w.start_s < next_s + tail_s]
        certain = stitcher.push(heard, segment)
        assert all(word.start_s >= done / SAMPLE_RATE_HZ for word in certain)
        before, done = done, stitcher.limit(segment.start + len(segment.samples))
        assert before <= done <= segment.start + len(segment.samples)
        told += certain
    assert told == said
    assert done == 100 * SAMPLE_RATE_HZ


def test_segments_that_do_not_overlap_are_not_held_back() -> None:
    stitcher, word = Stitcher(OVERLAP_S), Word("bir", 1.0, 1.5, 1.0)
    assert stitcher.push([word], make_segment(0, 2, 0, 0)) == (word,)
    assert stitcher.limit(32_000) == 32_000
