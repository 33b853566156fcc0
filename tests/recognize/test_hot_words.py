"""Hot words against a plain reading of the rule: from the left, at word starts only, each whole word by what it is likelier."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.recognize.hot_words import (
    DEFAULT_SHARE,
    MAX_LETTERS,
    MAX_LIST_LETTERS,
    MAX_WORDS,
    START,
    HotWords,
    list_forms,
)
from dinle.recognize.text_scorer import FusionWeights, LetterScorer
from dinle.text import normalize_tr

SHARE = 0.2
RARE = -2.5  # nats, of a letter that is not expected
HARD = "abdeghilmnorsuvyz"  # letters that none softens
word_texts = st.text("abk", min_size=1, max_size=5)
phrases = st.lists(word_texts, min_size=1, max_size=3).map(" ".join)
texts = st.lists(word_texts, max_size=8).map(" ".join)
seeds = st.integers(0, 10**6)


def draw_expected(seed: int, text: str) -> list[float]:
    """A log-probability of each letter, some near 0, some far below."""
    rng = np.random.default_rng(seed)
    mean = rng.choice([0.01, 1.0, 4.0])
    return [-float(rng.exponential(mean)) for _ in text]


def walk(hot_words: HotWords, text: str, expected: list[float] | None = None) -> list[float]:
    """What a text has earned after each of its letters, and at last after its end."""
    state, total, found = START, 0.0, []
    for letter, log_prob in zip(text, expected or [RARE] * len(text), strict=True):
        earned, state = hot_words.advance(state, letter, log_prob)
        total += earned
        found.append(total)
    return [*found, total + hot_words.end(state)]


def measure_gain(forms: tuple[str, ...], form: str, expected: float, share: float = SHARE) -> float:
    """By how many nats a form is likelier than ``expected``, which is its log-probability without hot words."""
    alike = sum(other.startswith(form) for other in forms)
    return max(0.0, math.log(share) + math.log(alike / len(forms)) - expected)


def sum_gains(forms: tuple[str, ...], text: str, expected: list[float]) -> float:
    """What the forms that stand in a text earn; of several that begin at one place, the one that earns most."""
    total, at = 0.0, 0
    while at < len(text):
        whole = [form for form in forms if text.startswith(form, at)]
        total += max((measure_gain(forms, form, sum(expected[at : at + len(form)])) for form in whole), default=0.0)
        broken = at
        while broken < len(text) and any(form.startswith(text[at : broken + 1]) for form in forms):
            broken += 1
        at = (text.find(" ", broken) + 1) or len(text)
    return total


def earn(words: list[str], text: str, share: float = SHARE) -> float:
    return walk(HotWords(words, share), normalize_tr(text))[-1]


@given(words=st.lists(phrases, max_size=6), text=texts, seed=seeds)
@settings(max_examples=600)
def test_a_text_earns_what_its_hot_words_are_likelier(words: list[str], text: str, seed: int) -> None:
    hot_words, expected = HotWords(words, SHARE), draw_expected(seed, text)
    found = walk(hot_words, text, expected)
    assert found[-1] == pytest.approx(sum_gains(hot_words.words, text, expected), abs=1e-9)
    assert min(found) >= -1e-9


def cut_anywhere(text: str) -> st.SearchStrategy[str]:
    return st.integers(1, len(text)).map(lambda size: text[:size])


@given(words=st.lists(phrases, min_size=1, max_size=6), said=st.data(), seed=seeds)
@settings(max_examples=400)
def test_texts_made_of_hot_words_and_their_beginnings_earn_what_is_whole(
    words: list[str], said: st.DataObject, seed: int
) -> None:
    hot_words = HotWords(words, SHARE)
    parts = said.draw(st.lists(st.sampled_from(hot_words.words).flatmap(cut_anywhere), min_size=1, max_size=5))
    text = " ".join(" ".join(parts).split())
    expected = draw_expected(seed, text)
    assert walk(hot_words, text, expected)[-1] == pytest.approx(sum_gains(hot_words.words, text, expected), abs=1e-9)


@given(words=st.lists(phrases, max_size=6), text=texts.filter(bool), seed=seeds)
def test_the_last_space_changes_nothing(words: list[str], text: str, seed: int) -> None:
    hot_words, expected = HotWords(words, SHARE), draw_expected(seed, text + " ")
    assert walk(hot_words, text + " ", expected)[-1] == pytest.approx(walk(hot_words, text, expected[:-1])[-1])


@given(words=st.lists(phrases, max_size=6), text=texts)
def test_the_order_of_the_words_and_copies_of_them_mean_nothing(words: list[str], text: str) -> None:
    assert earn(words, text) == pytest.approx(earn([*reversed(words), *words], text))


@given(
    words=st.lists(phrases, max_size=6),
    text=texts,
    places=st.lists(st.integers(0, 60), max_size=6),
    weight=st.floats(0, 3),
)
@settings(max_examples=300)
def test_any_cutting_into_pieces_earns_the_same(words: list[str], text: str, places: list[int], weight: float) -> None:
    scorer = LetterScorer({}, None, FusionWeights(0.0, 0.0, weight), HotWords(words, SHARE))
    edges = sorted({0, len(text), *(min(place, len(text)) for place in places)})
    totals = []
    for cuts in (edges, [0, len(text)], list(range(len(text) + 1))):
        total, state = 0.0, scorer.start
        for start, end in pairwise(cuts):
            added, state = scorer.advance(state, text[start:end])
            total += added
        totals.append(total + scorer.end(state))
    assert totals == pytest.approx([totals[0]] * 3)


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        (["Trendyol"], "Trendyol'dan aldım", ["trendyol"]),  # a suffix keeps it
        (["Trendyol"], "trendyoldan", ["trendyol"]),
        (["Trendyol"], "trendyo ldan", []),
        (["Trendyol"], "netrendyol", []),  # words begin after a space
        (["Trendyol"], "ne trendyol", ["trendyol"]),
        (["Trendyol"], "trendyol trendyol", ["trendyol", "trendyol"]),
        (["Trendyol"], "trendyoltrendyol", ["trendyol"]),
        (["Zonguldak"], "Zonguldak'tan", ["zonguldak"]),
        (["Zonguldak"], "Zonguldağa gitti", ["zonguldağa"]),
        (["Zonguldak"], "Zonguldağ", []),  # no vowel, no soft form
        (["kitap"], "kitabı ver", ["kitabı"]),
        (["kitap"], "kitapta", ["kitap"]),
        (["ağaç"], "ağacın", ["ağacı"]),
        (["kağıt"], "kâğıdı", ["kağıdı"]),
        (["renk"], "rengi", ["rengi"]),
        (["saç"], "sacı", []),  # short stems stay hard
        (["IĞDIR"], "ığdır", ["ığdır"]),
        (["Iğdır"], "IĞDIR'A", ["ığdır"]),
        (["IĞDIR"], "iğdir", []),
        (["İzmir"], "IZMIR", []),
        (["İzmir"], "izmir", ["izmir"]),
        (["izmir"], "İZMİRLİ", ["izmir"]),
        (["New York"], "new york'ta", ["new york"]),
        (["New York"], "new jersey", []),
        (["New York"], "new", []),  # the end of a text breaks a phrase off
        (["New York"], "newyork", []),
        (["New York City", "New York"], "new york mets", ["new york"]),
        (["New York City", "New"], "new york mets", ["new"]),  # back to the last whole word
        (["New York City", "Mets"], "new york mets mets", ["mets"]),
        (["4A"], "dört a", ["dört a"]),  # numerals are looked for as they are said
        (["e-posta"], "e posta", ["e posta"]),
        (["Ank", "Ankara"], "ankaxa", ["ank"]),
        ([], "ankara", []),
    ],
)
def test_which_words_earn(words: list[str], text: str, found: list[str]) -> None:
    forms = HotWords(words, SHARE).words
    gains = [measure_gain(forms, form, RARE * len(form)) for form in found]
    assert all(gain > 0 for gain in gains)
    assert earn(words, text) == pytest.approx(sum(gains))


@pytest.mark.parametrize(
    ("words", "text", "lost", "later"),
    [
        (["New York City", "York Minster"], "new york minster", "york minster", "new york minster york minster"),
        (["New York", "Jersey"], "new jersey", "jersey", "new jersey jersey"),
        (["New York City", "City"], "new city", "city", "new york minster city"),
    ],
)
def test_a_word_that_begins_where_a_phrase_breaks_off_is_not_found(
    words: list[str], text: str, lost: str, later: str
) -> None:
    """A known simplification: one place in the trie is followed, so the word in which a phrase breaks off begins no other."""
    assert earn(words, text) == 0
    assert earn(words, lost) > 0
    assert earn(words, later) > 0  # what begins after it is


def test_a_word_earns_as_soon_as_it_is_likelier_and_gives_back_where_it_breaks_off() -> None:
    least = -math.log(SHARE)  # 1.6 nats, which the first letter does not reach
    assert walk(HotWords(["ankara"], SHARE), "ankax y", [-1.0] * 7) == pytest.approx(
        [0, 2 - least, 3 - least, 4 - least, 0, 0, 0, 0]
    )


def test_what_is_whole_is_kept_through_any_suffix() -> None:
    found = walk(HotWords(["trendyol"], SHARE), "trendyoldan geldi")
    assert found[7:] == pytest.approx([math.log(SHARE) - 8 * RARE] * 11)


def test_a_word_that_is_whole_keeps_what_it_earned_though_a_longer_one_is_expected() -> None:
    text, expected = "new jersey times", [RARE] * 10 + [0.0] * 6
    found = walk(HotWords(["New Jersey", "New Jersey Times"], SHARE), text, expected)
    assert found[9:] == pytest.approx([math.log(SHARE) - 10 * RARE] * 8)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.9, 0.999])
def test_a_word_that_is_expected_anyway_earns_nothing(share: float) -> None:
    assert walk(HotWords(["ankara"], share), "ankara ", [-1e-9] * 7) == pytest.approx([0] * 8, abs=1e-6)
    assert walk(HotWords(["ankara"], share), "ankara", [math.log(share) / 6] * 6)[-1] == pytest.approx(0)


@given(seed=seeds, place=st.integers(0, 5), less=st.floats(0.1, 9))
def test_the_less_a_word_is_expected_the_more_it_earns(seed: int, place: int, less: float) -> None:
    hot_words, expected = HotWords(["ankara"], SHARE), draw_expected(seed, "ankara")
    rarer = [log_prob - less * (at == place) for at, log_prob in enumerate(expected)]
    before, after = walk(hot_words, "ankara", expected)[-1], walk(hot_words, "ankara", rarer)[-1]
    assert after == pytest.approx(max(0, math.log(SHARE) - sum(expected) + less))
    assert after == pytest.approx(before + less) if before > 0 else after >= before


@pytest.mark.parametrize("share", [0.01, DEFAULT_SHARE, 0.9])
def test_the_only_word_of_a_list_costs_its_share_once(share: float) -> None:
    assert earn(["Ankara"], "ankara", share) == pytest.approx(math.log(share) - 6 * RARE)


@pytest.mark.parametrize("others", [1, 9, 999])
def test_each_word_of_a_longer_list_earns_less(others: int) -> None:
    words = [HARD[n // 289] + HARD[n // 17 % 17] + HARD[n % 17] for n in range(others)]
    assert earn(["çankaya", *words], "çankaya") == pytest.approx(earn(["çankaya"], "çankaya") - math.log(others + 1))


def test_soft_forms_count_as_words_of_the_list() -> None:
    assert len(HotWords(["kitap"], SHARE).words) == 9
    assert earn(["kitap"], "kitap") == pytest.approx(math.log(SHARE / 9) - 5 * RARE)
    assert earn(["kitap", "ankara"], "ankara") == pytest.approx(math.log(SHARE / 10) - 6 * RARE)


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
    ("words", "share", "message"),
    [
        (["ankara", "?!"], 0.1, "'\\?!' holds no letter; expected a name"),
        ([""], 0.1, "holds no letter"),
        (["a" * (MAX_LETTERS + 1)], 0.1, "has 101 letters; expected at most 100"),
        (["a"] * (MAX_WORDS + 1), 0.1, "10001 hot words are too many; expected at most 10000"),
        (
            ["a" * MAX_LETTERS] * 2000 + ["a"],
            0.1,
            "have 200001 letters together; expected at most 200000: ask for fewer or shorter ones",
        ),
        (["a"], 0.0, "share of hot words is 0; expected more than 0 and less than 1"),
        (["a"], 1.0, "share of hot words is 1; expected"),
        (["a"], -0.5, "share of hot words is -0.5"),
        (["a"], math.inf, "share of hot words is inf"),
        (["a"], math.nan, "share of hot words is nan"),
    ],
)
def test_what_is_no_hot_word_is_refused(words: list[str], share: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HotWords(words, share)


def test_the_longest_list_is_taken() -> None:
    words = [HARD[n // 289 % 17] + HARD[n // 17 % 17] + HARD[n % 17] + "a" * (MAX_LETTERS - 3) for n in range(2000)]
    assert sum(map(len, words)) == MAX_LIST_LETTERS
    gain = earn(words, words[-1])
    assert gain == pytest.approx(math.log(SHARE / 2000) - MAX_LETTERS * RARE)


def test_the_most_words_are_taken_soon() -> None:
    stems = [HARD[n // 17**3 % 17] + HARD[n // 289 % 17] + HARD[n // 17 % 17] + HARD[n % 17] for n in range(MAX_WORDS)]
    words = [stem + "kitap" for stem in stems]
    start = time.process_time()
    hot_words = HotWords(words, SHARE)
    assert time.process_time() - start < 2  # asked for with a request: it must not wait for them
    assert len(hot_words.words) == 9 * MAX_WORDS
    assert walk(hot_words, words[-1] + "la")[-1] == pytest.approx(math.log(SHARE / 9 / MAX_WORDS) - 9 * RARE)
