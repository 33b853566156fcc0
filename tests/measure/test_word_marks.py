from __future__ import annotations

import pytest

from dinle.measure.word_marks import mark_words


@pytest.mark.parametrize(
    ("reference", "words", "marks"),
    [
        ("bir iki üç", ["Bir,", "iki", "ÜÇ."], [0, 1, 2]),
        ("bir iki üç", ["bir", "üç"], [0, 2]),
        ("bir iki", ["bir", "dokuz", "iki"], [0, None, 1]),
        ("yirmi üç kuş", ["23", "kuş"], [0, 2]),
        ("yirmi dört kuş", ["23", "kuş"], [None, 2]),
        ("bir", ["-", "bir"], [None, 0]),
        ("", ["bir"], [None]),
        ("bir", [], []),
    ],
)
def test_right_words_have_their_place(reference: str, words: list[str], marks: list[int | None]) -> None:
    assert mark_words(reference, words) == marks
