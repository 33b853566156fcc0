"""A text's score, however it is cut into pieces, against a plain sum over its letters."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.build.ngram import estimate_ngrams, make_levels
from dinle.recognize.hot_words import START, HotWords
from dinle.recognize.ngram import Ngram
from dinle.recognize.text_scorer import USUAL_LOG_PROB, FusionWeights, LetterScorer, State, fold_piece
from dinle.text import ALPHABET, normalize_tr

if TYPE_CHECKING:
    from collections.abc import Sequence

KNOWN = [letter for letter in ALPHABET if letter not in "qwx"]  # a model that has never seen these three
LETTERS = {letter: token for token, letter in enumerate([*KNOWN, " "])}
CORPUS = ["ığdır ile izmir ", "zonguldaktan ankaraya ", "kitabı ver ", "şu çözüm günü ", "japon fil hep güç buz "]
VOCABULARY = len(LETTERS) + 1
WEIGHTS = FusionWeights(model=0.7, letter=0.4, hot_words=0.9)
SHARE = 0.2


def make_ngram() -> Ngram:
    texts = [[LETTERS[letter] for letter in text] for text in CORPUS]
    orders = estimate_ngrams(texts, [1] * len(texts), VOCABULARY, 4)
    return Ngram(make_levels(orders, (VOCABULARY - 1).bit_length()), VOCABULARY - 1)


NGRAM = make_ngram()
HOT = HotWords(["Iğdır", "İzmir Fuarı", "kitap"], SHARE)
SCORER = LetterScorer(LETTERS, NGRAM, WEIGHTS, HOT)
# composed letters only: a mark that is cut off its letter is no letter any more
written = st.text(st.sampled_from([*ALPHABET, *"IİĞŞÂéß", *"  .,'’-?12½%", "ж", "\n"]), max_size=30)


def score(scorer: LetterScorer, pieces: Sequence[str]) -> float:
    total, state = 0.0, scorer.start
    for piece in pieces:
        added, state = scorer.advance(state, piece)
        total += added
    return total + scorer.end(state)


def sum_letters(scorer: LetterScorer, text: str) -> float:
    """The same from the form ``tr`` of the whole text: words and a space after each."""
    total, hot = 0.0, START
    context = scorer.ngram.start if scorer.ngram is not None else 0
    for letter in "".join(word + " " for word in fold_piece(text).split()):
        token, expected = scorer.letters.get(letter), USUAL_LOG_PROB
        if scorer.ngram is not None:
            if token is None:
                context = 0
            else:
                expected, context = scorer.ngram.advance(context, token)
                total += scorer.weights.model * expected + scorer.weights.letter
        if scorer.hot_words is not None:
            earned, hot = scorer.hot_words.advance(hot, letter, expected)
            total += scorer.weights.hot_words * earned
    return total


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(text=written, places=st.lists(st.integers(0, 30), max_size=6), hot=st.booleans(), model=st.booleans())
@settings(max_examples=400)
def test_pieces_score_what_their_letters_score(text: str, places: list[int], hot: bool, model: bool) -> None:
    scorer = LetterScorer(LETTERS, NGRAM if model else None, WEIGHTS, HOT if hot else None)
    expected = sum_letters(scorer, text)
    assert score(scorer, cut(text, places)) == pytest.approx(expected, abs=1e-9)
    assert score(scorer, list(text)) == pytest.approx(expected, abs=1e-9)
    assert score(scorer, [text]) == pytest.approx(expected, abs=1e-9)


@given(text=written, places=st.lists(st.integers(0, 30), max_size=6))
def test_pieces_lead_to_the_state_that_letters_lead_to(text: str, places: list[int]) -> None:
    states: list[State] = []
    for pieces in (cut(text, places), list(text), [text]):
        state = SCORER.start
        for piece in pieces:
            state = SCORER.advance(state, piece)[1]
        states.append(state)
    assert states[0] == states[1] == states[2]


def test_a_text_scores_its_letters_and_a_last_space() -> None:
    total, state = 0.0, NGRAM.start
    for letter in "fil hep ":
        log_prob, state = NGRAM.advance(state, LETTERS[letter])
        total += 0.7 * log_prob + 0.4
    assert score(LetterScorer(LETTERS, NGRAM, WEIGHTS), ["Fil ", "hep"]) == pytest.approx(total)


def test_what_the_model_has_read_scores_better() -> None:
    scorer = LetterScorer(LETTERS, NGRAM, WEIGHTS)
    assert score(scorer, ["kitabı ver"]) > score(scorer, ["kıtabi ver"]) > score(scorer, ["vbtkı erai"])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (" fil", "fil"),
        ("   fil  hep ", "fil hep"),
        ("Fil, hep!", "fil hep"),
        ("fil 12 hep", "fil hep"),  # a number adds nothing
        ("12 fil", "fil"),
        ("fil12", "fil"),
        ("IĞDIR'a", "ığdıra"),
        ("İZMİR", "izmir"),
        ("kâğıt", "kağıt"),
        ("...", ""),
        ("жж", ""),
        ("", ""),
    ],
)
def test_spaces_signs_and_digits_add_nothing(text: str, same: str) -> None:
    assert score(SCORER, [text]) == pytest.approx(score(SCORER, [same]))
    assert score(SCORER, list(text)) == pytest.approx(score(SCORER, [same]))


def test_nothing_scores_nothing() -> None:
    assert score(SCORER, []) == score(SCORER, ["  "]) == score(SCORER, ["?"]) == 0


def test_the_last_space_counts_once() -> None:
    assert score(SCORER, ["izmir"]) == pytest.approx(score(SCORER, ["izmir", " "])) == score(SCORER, ["izmir  "])


def test_a_letter_that_the_model_does_not_have_adds_nothing_and_ends_the_context() -> None:
    scorer = LetterScorer(LETTERS, NGRAM, WEIGHTS)
    _, state = scorer.advance(scorer.start, "fi")
    added, state = scorer.advance(state, "q")
    assert added == 0
    assert scorer.advance(state, "l")[0] == pytest.approx(0.7 * NGRAM.advance(0, LETTERS["l"])[0] + 0.4)
    assert scorer.advance(scorer.advance(scorer.start, "fi")[1], "l")[0] > scorer.advance(state, "l")[0]
    assert score(LetterScorer(LETTERS, NGRAM, WEIGHTS, HotWords(["qx"], SHARE)), ["qx"]) == pytest.approx(
        score(scorer, ["qx"]) + 0.9 * (math.log(SHARE) - 2 * USUAL_LOG_PROB)
    )


def earn_usual(word: str, forms: int, same: int = 1) -> float:
    """What a hot word adds where no model knows its letters: ``same`` of all forms of the list begin like it."""
    return WEIGHTS.hot_words * (math.log(SHARE * same / forms) - len(word) * USUAL_LOG_PROB)


@pytest.mark.parametrize(
    ("text", "word"), [("izmir", ""), ("izmir ", ""), ("izmir fuar", ""), ("izmir fuarı", "izmir fuarı")]
)
def test_a_phrase_that_the_end_breaks_off_earns_nothing(text: str, word: str) -> None:
    scorer = LetterScorer(LETTERS, None, WEIGHTS, HOT)
    assert score(scorer, [text]) == pytest.approx(earn_usual(word, len(HOT.words)) if word else 0)


def test_without_a_model_only_hot_words_count() -> None:
    assert score(LetterScorer(LETTERS, None, WEIGHTS), ["izmir"]) == 0
    assert score(LetterScorer(LETTERS, None, WEIGHTS, HOT), ["Kitabı"]) == pytest.approx(
        earn_usual("kitabı", len(HOT.words))
    )


def test_a_hot_word_earns_by_how_little_the_model_expects_it() -> None:
    plain = LetterScorer(LETTERS, NGRAM, WEIGHTS)
    gains = []
    for word in ("zonguldaktan", "gazbe"):  # only the first is what the model has read
        hot = LetterScorer(LETTERS, NGRAM, WEIGHTS, HotWords([word], SHARE))
        log_prob, context = 0.0, NGRAM.start
        for letter in word:
            added, context = NGRAM.advance(context, LETTERS[letter])
            log_prob += added
        gains.append((score(hot, [word]) - score(plain, [word])) / WEIGHTS.hot_words)
        assert gains[-1] == pytest.approx(max(0, math.log(SHARE) - log_prob))
    assert 0 < gains[0] < gains[1]


def test_a_hot_word_that_the_model_expects_adds_nothing() -> None:
    hot = LetterScorer(LETTERS, NGRAM, WEIGHTS, HotWords(["zonguldaktan"], 1e-6))
    assert score(hot, ["zonguldaktan"]) == pytest.approx(score(LetterScorer(LETTERS, NGRAM, WEIGHTS), ["zonguldaktan"]))


def test_the_weight_of_hot_words_scales_what_they_earn() -> None:
    once, twice = (
        score(LetterScorer(LETTERS, None, FusionWeights(0, 0, weight), HOT), ["ığdır"]) for weight in (0.5, 1.0)
    )
    assert twice == pytest.approx(2 * once)
    assert once > 0
    assert score(LetterScorer(LETTERS, None, FusionWeights(0, 0, 0), HOT), ["ığdır"]) == 0


def test_weights_scale_the_model_and_count_the_letters() -> None:
    plain = score(LetterScorer(LETTERS, NGRAM, FusionWeights(1.0, 0.0)), ["fil"])
    assert plain < 0
    assert score(LetterScorer(LETTERS, NGRAM, FusionWeights(0.5, 0.0)), ["fil"]) == pytest.approx(plain / 2)
    assert score(LetterScorer(LETTERS, NGRAM, FusionWeights(1.0, 2.0)), ["fil"]) == pytest.approx(plain + 4 * 2)


@given(text=written)
def test_pieces_fold_like_the_whole_text(text: str) -> None:
    assert "".join(map(fold_piece, text)).split() == fold_piece(text).split()
    if not any(letter in "12½%" for letter in text):
        assert " ".join(fold_piece(text).split()) == normalize_tr(text)


def test_states_are_values() -> None:
    _, state = SCORER.advance(SCORER.start, "kita")
    first = SCORER.advance(state, "p")
    SCORER.advance(state, "q")
    assert SCORER.advance(state, "p") == first
    assert hash(state) == hash(SCORER.advance(SCORER.start, "kita")[1])
    assert np.isfinite(first[0])
