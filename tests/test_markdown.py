from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.markdown import LINE_WIDTH, format_alignment, format_rate, format_table
from dinle.measure.wer import count_errors

TEXTS = st.lists(st.sampled_from(["bir", "iki", "ırmaktan", "o"]), max_size=40).map(" ".join)


def test_a_cell_cannot_break_its_table() -> None:
    assert format_table(("a", "b"), [("x|y\nz", 1)]) == "| a | b |\n| --- | --- |\n| x\\|y z | 1 |"


def test_a_rate_is_shown_with_its_interval() -> None:
    assert format_rate({"rate": 0.1234, "interval": [0.1, 0.2]}) == "12.3 % [10.0, 20.0]"


def test_each_error_has_its_letter_below_it() -> None:
    pairs = (("bir", "bir"), ("iki", None), (None, "üç"), ("dörtte", "beş"))
    assert format_alignment(pairs) == "REF bir iki ** dörtte\nHYP bir *** üç beş\n        D   I  S"


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS)
def test_an_alignment_keeps_every_word_in_narrow_lines(reference: str, hypothesis: str) -> None:
    (clip,) = count_errors([reference], [hypothesis], normalizer="raw")
    lines = format_alignment(clip.alignment).splitlines()
    assert all(len(line) <= LINE_WIDTH + len("REF ") for line in lines)
    for name, text in (("REF", reference), ("HYP", hypothesis)):
        words = " ".join(line.removeprefix(name) for line in lines if line.startswith(name)).split()
        assert [word for word in words if set(word) != {"*"}] == text.split()
