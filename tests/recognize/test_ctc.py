"""Greedy CTC decoding: by hand, by oracle, and piece by piece."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.recognize.ctc import GreedyDecoder, decode_greedy
from dinle.recognize.vocabulary import Vocabulary
from tests.fakes import spell_frames

VOCABULARY = Vocabulary(("_", "a", "b", " ", "<s>"), blank=0, specials=frozenset({4}))


def read(ids: list[int]) -> list[str]:
    log_probs = spell_frames(np.array(ids, dtype=np.int64), VOCABULARY)
    return [word.text for word in decode_greedy(log_probs, VOCABULARY, frame_shift_s=0.02)]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], []),
        ([0, 0, 0], []),
        ([3, 3, 0, 3], []),
        ([1], ["a"]),
        ([1, 1, 1], ["a"]),
        ([1, 0, 1], ["aa"]),
        ([1, 1, 0, 2, 3, 3, 2], ["ab", "b"]),
        ([3, 1, 3, 0, 3, 2, 3], ["a", "b"]),
        ([4, 1, 4, 1], ["aa"]),
    ],
)
def test_merges_repeats_and_drops_blanks_and_specials(ids: list[int], words: list[str]) -> None:
    assert read(ids) == words


@given(st.lists(st.integers(0, 4), max_size=40))
def test_equals_the_textbook_definition(ids: list[int]) -> None:
    collapsed = [token for token, _ in itertools.groupby(ids)]
    text = "".join(VOCABULARY.tokens[token] for token in collapsed if token not in VOCABULARY.hidden)
    assert read(ids) == text.split()


@given(st.lists(st.integers(0, 4), max_size=40), st.lists(st.integers(0, 40), max_size=5))
@settings(max_examples=200)
def test_pieces_give_what_the_whole_gives(ids: list[int], cuts: list[int]) -> None:
    log_probs = spell_frames(np.array(ids, dtype=np.int64), VOCABULARY)
    whole = decode_greedy(log_probs, VOCABULARY, frame_shift_s=0.02)
    decoder = GreedyDecoder(VOCABULARY, frame_shift_s=0.02)
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    pieces = [word for start, end in itertools.pairwise(edges) for word in decoder.push(log_probs[start:end])]
    pieces += decoder.finish()
    assert [(w.text, w.start_s, w.end_s) for w in pieces] == [(w.text, w.start_s, w.end_s) for w in whole]
    assert [w.confidence for w in pieces] == pytest.approx([w.confidence for w in whole], rel=1e-5)


def test_words_carry_times_and_confidence() -> None:
    log_probs = spell_frames(np.array([0, 1, 1, 0, 2, 3, 0, 1, 0]), VOCABULARY, probability=0.8)
    first, second = decode_greedy(log_probs, VOCABULARY, frame_shift_s=0.02, frame_offset_s=-0.01)
    assert (first.text, first.start_s, first.end_s) == ("ab", pytest.approx(0.01), pytest.approx(0.09))
    assert (second.text, second.start_s, second.end_s) == ("a", pytest.approx(0.13), pytest.approx(0.15))
    assert first.confidence == pytest.approx(0.8)


def test_times_never_start_before_the_recording() -> None:
    (word,) = decode_greedy(
        spell_frames(np.array([1, 0]), VOCABULARY), VOCABULARY, frame_shift_s=0.02, frame_offset_s=-0.25
    )
    assert (word.start_s, word.end_s) == (0.0, 0.0)


def test_a_finished_decoder_starts_anew() -> None:
    decoder = GreedyDecoder(VOCABULARY, frame_shift_s=0.02)
    log_probs = spell_frames(np.array([1]), VOCABULARY)
    first = [*decoder.push(log_probs), *decoder.finish()]
    assert [*decoder.push(log_probs), *decoder.finish()] == first
