"""Prefix beam search against all alignments of all texts, and against greedy decoding."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.recognize.ctc import decode_greedy
from dinle.recognize.ctc_beam import LONGEST_S, CtcBeamRules, add_logs
from dinle.recognize.hot_words import HotWords
from dinle.recognize.text_scorer import FusionWeights, LetterScorer, TextScorer
from dinle.recognize.vocabulary import Vocabulary
from tests.fakes import spell_frames
from tests.recognize.ctc_frames import (
    HIDING,
    SHIFT_S,
    SMALL,
    SPACELESS,
    ZERO,
    Likes,
    decode,
    draw_log_probs,
    make_decoder,
    scorers,
    spell,
    spell_text,
    strip_times,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


# nothing is dropped, and no frame is taken for certain
ALL = CtcBeamRules(beam_size=10**6, margin=math.inf, min_log_prob=-math.inf, max_tokens=99, sure_blank=0.0)


def write(vocabulary: Vocabulary, path: Iterable[int]) -> str:
    """The text of a path: specials are blanks; spaces that follow each other, and those at the beginning, are none."""
    shown = (vocabulary.blank if token in vocabulary.hidden else token for token in path)
    letters = "".join(vocabulary.tokens[token] for token, _ in groupby(shown) if token != vocabulary.blank)
    ending = " " if letters.endswith(" ") and letters.strip() else ""
    return " ".join(letters.split()) + ending


def weigh_texts(log_probs: NDArray[np.float32], vocabulary: Vocabulary, scorer: TextScorer) -> dict[str, float]:
    """Every text's log-probability, the sum of all its alignments, and its score."""
    shares: dict[str, float] = defaultdict(float)
    for path in product(range(vocabulary.size), repeat=len(log_probs)):
        shares[write(vocabulary, path)] += math.exp(
            float(log_probs[np.arange(len(path)), list(path)].astype(np.float64).sum())
        )
    found = {}
    for text, share in shares.items():
        score, state = scorer.advance(scorer.start, text)
        found[text] = (math.log(share) if share else -math.inf) + score + scorer.end(state)
    return found


@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(0, 5),
    vocabulary=st.sampled_from([SMALL, SPACELESS]),
    scorer=scorers,
    spread=st.sampled_from([0.3, 1.0, 3.0]),
)
@settings(max_examples=250)
def test_a_wide_search_finds_the_best_of_all_texts(
    seed: int, frames: int, vocabulary: Vocabulary, scorer: Likes, spread: float
) -> None:
    log_probs = draw_log_probs(seed, frames, vocabulary, spread)
    weights = weigh_texts(log_probs, vocabulary, scorer)
    decoder = make_decoder(vocabulary, scorer, ALL)
    assert decoder.push(log_probs) == []
    best = decoder._best()
    assert best.total + scorer.end(best.state) == pytest.approx(max(weights.values()), abs=1e-4)
    found = spell(decoder.finish())
    assert max(weights.get(found, -math.inf), weights.get(found + " ", -math.inf)) == pytest.approx(
        max(weights.values()), abs=1e-4
    )


@given(seed=st.integers(0, 10**6), frames=st.integers(1, 4), scorer=scorers)
@settings(max_examples=60)
def test_each_text_of_a_wide_search_has_the_probability_of_all_its_alignments(
    seed: int, frames: int, scorer: Likes
) -> None:
    log_probs = draw_log_probs(seed, frames, HIDING)
    weights = weigh_texts(log_probs, HIDING, ZERO)
    decoder = make_decoder(HIDING, scorer, ALL)
    decoder.push(log_probs)
    found = {"".join(HIDING.tokens[token] for token in one.spell()): one for one in decoder._live}
    assert found.keys() == weights.keys()
    for text, one in found.items():
        assert one.total - one.score == pytest.approx(weights[text], abs=1e-4)
        assert one.score == pytest.approx(scorer.advance(scorer.start, text)[0])


def test_many_alignments_outweigh_the_likeliest_one() -> None:
    # nothing has the likeliest path, 0.6 * 0.6; "a" has three others, 0.64 together (Graves et al., 2006, figure 2)
    log_probs = np.log(np.array([[0.6, 0.4, 1e-9, 1e-9]] * 2, dtype=np.float32))
    assert decode_greedy(log_probs, SMALL, frame_shift_s=SHIFT_S) == []
    assert spell(decode(log_probs)) == "a"


def test_a_scorer_decides_between_texts_that_sound_alike() -> None:
    log_probs = np.log(np.array([[0.02, 0.5, 0.46, 0.02], [0.96, 0.01, 0.01, 0.02]], dtype=np.float32))
    assert spell(decode(log_probs)) == "a"
    assert spell(decode(log_probs, SMALL, Likes({"b": 1.0}, {}))) == "b"


def test_hot_words_are_found_where_they_are_nearly_heard() -> None:
    vocabulary = Vocabulary.turkish()
    log_probs = spell_text("trendyol dan", vocabulary)
    (place,) = np.flatnonzero(log_probs[:, vocabulary.encode("y")[0]] > -1)
    log_probs[place, vocabulary.encode("y")[0]], log_probs[place, vocabulary.encode("i")[0]] = np.log([0.2, 0.7])
    hot = LetterScorer({}, None, FusionWeights(0.0, 0.0), HotWords(["Trendyol"], 0.5))
    assert spell(decode(log_probs, vocabulary)) == "trendiol dan"
    assert spell(decode(log_probs, vocabulary, hot)) == "trendyol dan"


# no pause is as long as to part a word
runs = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=30)


@given(runs=runs, probability=st.sampled_from([0.99, 0.9999]), offset_s=st.sampled_from([0.0, -0.05]))
@settings(max_examples=400)
def test_certain_frames_give_what_greedy_decoding_gives(
    runs: list[tuple[int, int]], probability: float, offset_s: float
) -> None:
    ids = np.array([token for token, size in runs for _ in range(size)], dtype=np.int64)
    log_probs = spell_frames(ids, HIDING, probability)
    rules = CtcBeamRules(pause_s=LONGEST_S)
    expected = decode_greedy(log_probs, HIDING, frame_shift_s=SHIFT_S, frame_offset_s=offset_s)
    found = decode(log_probs, HIDING, rules=rules, offset_s=offset_s)
    assert strip_times(found) == strip_times(expected)
    assert [word.confidence for word in found] == pytest.approx([word.confidence for word in expected], rel=1e-4)


@given(ids=st.lists(st.integers(0, 3), max_size=40))
@settings(max_examples=300)
def test_frames_without_any_doubt_give_what_greedy_decoding_gives(ids: list[int]) -> None:
    log_probs = np.full((len(ids), SMALL.size), -np.inf, dtype=np.float32)
    log_probs[np.arange(len(ids)), ids] = 0.0
    rules = CtcBeamRules(pause_s=LONGEST_S)
    found, expected = decode(log_probs, rules=rules), decode_greedy(log_probs, SMALL, frame_shift_s=SHIFT_S)
    assert strip_times(found) == strip_times(expected)
    assert all(word.confidence == 1 for word in found)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_frames_without_numbers_lose_no_words(value: float) -> None:
    log_probs = spell_text("ab ba ab", SMALL)
    nothing = np.full((5, SMALL.size), value, dtype=np.float32)
    whole = np.concatenate([nothing, log_probs[:6], nothing, log_probs[6:], nothing])
    assert spell(decode(whole)) == "ab ba ab"
    assert decode(nothing) == []


@given(ids=st.lists(st.integers(0, 3), max_size=30))
def test_spaces_make_no_empty_words(ids: list[int]) -> None:
    path = [3, 3, 0, 3, *ids, 3, 0, 3, 3]
    words = decode(spell_frames(np.array(path, dtype=np.int64), SMALL, 0.99))
    assert all(word.text.strip() == word.text != "" for word in words)
    assert [word.text for word in words] == write(SMALL, path).split()


@given(seed=st.integers(0, 10**6), frames=st.integers(0, 20))
def test_specials_are_never_written(seed: int, frames: int) -> None:
    log_probs = draw_log_probs(seed, frames, HIDING)
    log_probs[:, [0, 5]] += 3
    assert set("".join(word.text for word in decode(log_probs, HIDING))) <= {"a", "b"}


def test_a_special_counts_as_silence() -> None:
    # "a" is likelier than the blank alone, and less likely than nothing
    log_probs = np.log(np.array([[0.6, 0.3, 0.05, 0.02, 0.02, 0.01]], dtype=np.float32))
    assert decode(log_probs, HIDING) == []


def test_words_carry_times_and_confidence() -> None:
    ids = np.array([0, 1, 1, 0, 2, 3, 0, 1, 0], dtype=np.int64)
    first, second = decode(spell_frames(ids, SMALL, 0.8), offset_s=-0.01)
    assert (first.text, first.start_s, first.end_s) == ("ab", pytest.approx(0.01), pytest.approx(0.09))
    assert (second.text, second.start_s, second.end_s) == ("a", pytest.approx(0.13), pytest.approx(0.15))
    assert first.confidence == pytest.approx(0.8)


@given(st.floats(-800, 0), st.floats(-800, 0))
def test_logs_are_added(a: float, b: float) -> None:
    assert add_logs(a, b) == add_logs(b, a) == pytest.approx(float(np.logaddexp(a, b)), abs=1e-12)
    assert add_logs(a, -math.inf) == add_logs(-math.inf, a) == a
    assert add_logs(-math.inf, -math.inf) == -math.inf


@pytest.mark.parametrize("rules", [{"beam_size": 0}, {"max_tokens": 0}, {"margin": 0.0}, {"margin": math.nan}])
def test_rules_without_sense_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected 1 or more, 1 or more, and more than 0"):
        CtcBeamRules(**rules)
