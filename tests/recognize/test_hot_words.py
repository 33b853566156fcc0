"""Hot words against a plain reading of the rule: from the left, the longest that a text goes on with, at word starts only."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.recognize.hot_words import MAX_LETTERS, MAX_WORDS, HotWords, list_forms
from dinle.text import normalize_tr

BOOST = 1.5
word_texts = st.text("abk", min_size=1, max_size=5)
phrases = st.lists(word_texts, min_size=1, max_size=3).map(" ".join)


def walk(hot_words: HotWords, text: str) -> list[float]:
    """What a text has earned after each of its letters, and at last after its end."""
    state, total, found = 0, 0.0, []
    for letter in text:
        earned, state = hot_words.advance(state, letter)
        total += earned
        found.append(total)
    return [*found, total + hot_words.end(state)]


def count_letters(forms: tuple[str, ...], text: str) -> int:
    """The letters of the forms that stand in a text."""
    count = at = 0
    while at < len(text):
        longest = max((form for form in forms if text.startswith(form, at)), key=len, default="")
        count += len(longest)
        space = text.find(" ", at + len(longest))
        at = space + 1 if space >= 0 else len(text)
    return count


def earn(words: list[str], text: str, boost: float = BOOST) -> float:
    return walk(HotWords(words, boost), normalize_tr(text))[-1]


@given(words=st.lists(phrases, max_size=6), said=st.lists(word_texts, max_size=8))
@settings(max_examples=600)
def test_a_text_earns_the_letters_of_the_words_that_stand_in_it(words: list[str], said: list[str]) -> None:
    hot_words, text = HotWords(words, BOOST), " ".join(said)
    found = walk(hot_words, text)
    assert found[-1] == pytest.approx(BOOST * count_letters(hot_words.words, text))
    assert min(found) >= 0


@given(words=st.lists(phrases, min_size=1, max_size=6), said=st.data())
@settings(max_examples=300)
def test_texts_made_of_hot_words_and_their_beginnings_earn_what_is_whole(words: list[str], said: st.DataObject) -> None:
    hot_words = HotWords(words, BOOST)
    parts = said.draw(st.lists(st.sampled_from(hot_words.words).flatmap(cut_anywhere), min_size=1, max_size=5))
    text = " ".join(" ".join(parts).split())
    assert walk(hot_words, text)[-1] == pytest.approx(BOOST * count_letters(hot_words.words, text))


def cut_anywhere(text: str) -> st.SearchStrategy[str]:
    return st.integers(1, len(text)).map(lambda size: text[:size])


@given(words=st.lists(phrases, max_size=6), said=st.lists(word_texts, max_size=6))
def test_the_last_space_changes_nothing(words: list[str], said: list[str]) -> None:
    hot_words, text = HotWords(words, BOOST), " ".join(said)
    assert walk(hot_words, text)[-1] == pytest.approx(walk(hot_words, text + " ")[-1] if text else 0)


@given(words=st.lists(phrases, max_size=6), said=st.lists(word_texts, max_size=6))
def test_the_order_of_the_words_and_copies_of_them_mean_nothing(words: list[str], said: list[str]) -> None:
    text = " ".join(said)
    assert earn(words, text) == pytest.approx(earn([*reversed(words), *words], text))


@pytest.mark.parametrize(
    ("words", "text", "letters"),
    [
        (["Trendyol"], "trendyol'dan aldım", 8),  # a suffix keeps it
        (["Trendyol"], "trendyo ldan", 0),
        (["Trendyol"], "netrendyol", 0),  # words begin after a space
        (["Trendyol"], "trendyol trendyol", 16),
        (["Zonguldak"], "Zonguldak'tan", 9),
        (["Zonguldak"], "Zonguldağa gitti", 10),
        (["Zonguldak"], "Zonguldağ", 0),  # no vowel, no soft form
        (["kitap"], "kitabı ver", 6),
        (["kitap"], "kitapta", 5),
        (["ağaç"], "ağacın", 5),
        (["kağıt"], "kâğıdı", 6),
        (["renk"], "rengi", 5),
        (["saç"], "sacı", 0),  # short stems stay hard
        (["IĞDIR"], "ığdır", 5),
        (["Iğdır"], "IĞDIR'A", 5),
        (["IĞDIR"], "iğdir", 0),
        (["İzmir"], "IZMIR", 0),
        (["İzmir"], "izmir", 5),
        (["izmir"], "İZMİRLİ", 5),
        (["İzmir"], "İZMİR", 5),
        (["New York"], "new york'ta", 8),
        (["New York"], "new jersey", 0),
        (["New York"], "new", 0),  # the end of a text breaks a phrase off
        (["New York"], "newyork", 0),
        (["New York City", "York"], "new york minster", 4),
        (["New York City", "York"], "new yorklu", 4),
        (["New York City", "York Minster"], "new york minster", 12),
        (["New York City", "New", "York"], "new york mets", 7),
        (["New York City", "New York"], "new york mets", 8),
        (["New York City", "City"], "new new york city", 13),
        (["a b a c", "b a b"], "a b a b", 5),
        (["4A"], "dört a", 6),  # numerals are looked for as they are said
        (["e-posta"], "e posta", 7),
        (["Ank", "Ankara"], "ankaxa", 3),
        ([], "ankara", 0),
    ],
)
def test_what_words_earn(words: list[str], text: str, letters: int) -> None:
    assert earn(words, text) == pytest.approx(BOOST * letters)


def test_a_beginning_earns_at_once_and_gives_it_back() -> None:
    assert walk(HotWords(["ankara"], 2.0), "ankax y") == [2, 4, 6, 8, 0, 0, 0, 0]


def test_a_boost_of_nothing_changes_nothing() -> None:
    assert set(walk(HotWords(["ankara"], 0.0), "ankara ankx")) == {0.0}


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("Ankara", ["ankara"]),
        ("kap", ["kap"]),
        ("Renk", ["renk", *("reng" + vowel for vowel in "aeıioöuü")]),
        ("Kara Kitap", ["kara kitap", *("kara kitab" + vowel for vowel in "aeıioöuü")]),
        ("Karabük il", ["karabük il"]),  # the last word is what suffixes follow
    ],
)
def test_the_forms_of_a_word(word: str, forms: list[str]) -> None:
    assert list_forms(word) == forms


@pytest.mark.parametrize(
    ("words", "boost", "message"),
    [
        (["ankara", "?!"], 1.0, "'\\?!' holds no letter; expected a name"),
        ([""], 1.0, "holds no letter"),
        (["a" * (MAX_LETTERS + 1)], 1.0, "has 101 letters; expected at most 100"),
        (["a"] * (MAX_WORDS + 1), 1.0, "10001 hot words are too many; expected at most 10000"),
        (["a"], -0.5, "boost of hot words is -0.5; expected 0 or more nats"),
        (["a"], math.inf, "boost of hot words is inf"),
        (["a"], math.nan, "boost of hot words is nan"),
    ],
)
def test_what_is_no_hot_word_is_refused(words: list[str], boost: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HotWords(words, boost)


def test_the_longest_word_and_the_most_words_are_taken() -> None:
    letters = "abdeghilmnorsuvyz"  # none softens
    words = [
        letters[n // 17**3 % 17] + letters[n // 289 % 17] + letters[n // 17 % 17] + letters[n % 17] + "kitap"
        for n in range(MAX_WORDS)
    ]
    start = time.process_time()
    hot_words = HotWords(words, BOOST)
    assert time.process_time() - start < 1  # asked for with a request: it must not wait for them
    assert len(hot_words.words) == 9 * MAX_WORDS
    assert walk(hot_words, words[-1] + "la")[-1] == pytest.approx(BOOST * 9)
    assert earn(["a" * MAX_LETTERS], "a" * MAX_LETTERS) == pytest.approx(BOOST * MAX_LETTERS)
