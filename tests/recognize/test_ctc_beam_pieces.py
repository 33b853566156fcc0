"""Prefix beam search piece by piece: pauses, long stretches without one, and what is held meanwhile."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.recognize import ctc_beam
from dinle.recognize.ctc import decode_greedy
from dinle.recognize.ctc_beam import LONGEST_S, BeamDecoder, CtcBeamRules
from dinle.recognize.hot_words import HotWords
from dinle.recognize.text_scorer import FusionWeights, LetterScorer
from tests.fakes import spell_frames
from tests.recognize.ctc_frames import (
    HIDING,
    LIKES_A,
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
    from numpy.typing import NDArray

    from dinle.recognize.transcript import Word
    from dinle.recognize.vocabulary import Vocabulary

PAUSE = 30  # frames
texts = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=8).map(" ".join)


def push_pieces(decoder: BeamDecoder, log_probs: NDArray[np.float32], places: list[int]) -> list[Word]:
    edges = [0, *sorted(min(place, len(log_probs)) for place in places), len(log_probs)]
    words = [word for start, end in pairwise(edges) for word in decoder.push(log_probs[start:end])]
    return [*words, *decoder.finish()]


@given(
    seed=st.integers(0, 10**6),
    texts=st.lists(texts, min_size=1, max_size=4),
    places=st.lists(st.integers(0, 400), max_size=8),
    scorer=scorers,
)
@settings(max_examples=100)
def test_pieces_give_what_the_whole_gives(seed: int, texts: list[str], places: list[int], scorer: Likes) -> None:
    log_probs = speak(texts, seed)
    whole = decode(log_probs, SMALL, scorer)
    assert push_pieces(make_decoder(SMALL, scorer), log_probs, places) == whole
    assert push_pieces(make_decoder(SMALL, scorer), log_probs, list(range(len(log_probs)))) == whole


def speak(texts: list[str], seed: int, doubt: float = 1.0, pause: int = 2 * PAUSE) -> NDArray[np.float32]:
    """Frames of texts, in doubt by so many nats, and certain silence after each."""
    noise = np.random.default_rng(seed)
    parts = []
    for text in texts:
        spoken = spell_text(text, SMALL, 0.8)
        spoken += (doubt * noise.standard_normal(spoken.shape)).astype(np.float32)
        spoken -= np.log(np.exp(spoken).sum(axis=1, keepdims=True))
        parts += [spoken, spell_frames(np.zeros(pause, dtype=np.int64), SMALL, 0.9999)]
    return np.concatenate(parts)


@given(seed=st.integers(0, 10**6), texts=st.lists(texts, min_size=1, max_size=4), scorer=scorers)
@settings(max_examples=50)
def test_what_lies_between_pauses_gives_what_it_gives_alone(seed: int, texts: list[str], scorer: Likes) -> None:
    log_probs = speak(texts, seed)
    frames, alone = 0, []
    for text in texts:
        size = 2 * len(text) + 2 * PAUSE
        words = decode(log_probs[frames : frames + size], SMALL, scorer)
        alone += [(word.text, word.start_s + frames * SHIFT_S, word.end_s + frames * SHIFT_S) for word in words]
        frames += size
    found = decode(log_probs, SMALL, scorer)
    assert [word.text for word in found] == [text for text, *_ in alone]
    assert [(word.start_s, word.end_s) for word in found] == [
        pytest.approx((start_s, end_s)) for _, start_s, end_s in alone
    ]


def test_words_are_given_out_at_the_pause_that_ends_them() -> None:
    decoder, quiet = make_decoder(), spell_frames(np.zeros(1, dtype=np.int64), SMALL, 0.9999)
    assert decoder.push(np.concatenate([spell_text("ab ba", SMALL), *[quiet] * (PAUSE - 1)])) == []
    assert spell(decoder.push(quiet)) == "ab ba"
    assert decoder.push(quiet) == decoder.finish() == []


@pytest.mark.parametrize(
    ("pause", "probability", "text"),
    [(PAUSE, 0.9999, "ab ba"), (PAUSE - 2, 0.9999, "abba"), (3 * PAUSE, 0.997, "abba")],
)
def test_a_certain_pause_parts_words(pause: int, probability: float, text: str) -> None:
    silence = spell_frames(np.zeros(pause, dtype=np.int64), SMALL, probability)
    assert spell(decode(np.concatenate([spell_text("ab", SMALL), silence, spell_text("ba", SMALL)]))) == text


def test_a_scorer_knows_at_a_pause_that_a_word_has_ended() -> None:
    hot = LetterScorer({}, None, FusionWeights(0.0, 0.0), HotWords(["bb aa"], 0.5))
    silence = spell_frames(np.zeros(PAUSE, dtype=np.int64), SMALL, 0.9999)
    log_probs = np.concatenate([spell_text("bb", SMALL), silence, spell_text("ab", SMALL)])
    log_probs[-2] = np.log([0.02, 0.36, 0.6, 0.02])
    assert spell(decode(log_probs, SMALL, ZERO)) == "bb ab"
    assert spell(decode(log_probs, SMALL, hot)) == "bb aa"


SLOW_S = 0.08  # a frame: half an hour has fewer of these
LONGEST = round(LONGEST_S / SLOW_S)


def decode_watched(decoder: BeamDecoder, log_probs: NDArray[np.float32]) -> tuple[list[Word], int]:
    """The words, and the most frames that were held meanwhile."""
    words, most = [], 0
    for row in log_probs:
        words += decoder.push(row[np.newaxis])
        most = max(most, len(decoder._held))
    return [*words, *decoder.finish()], most


def check_order(words: list[Word], duration_s: float) -> None:
    edges = [edge for word in words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert all(word.start_s < word.end_s and word.text for word in words)
    assert not edges or (edges[0] >= 0 and edges[-1] <= duration_s + 1e-6)


def test_half_an_hour_without_a_pause_needs_the_memory_of_its_longest_stretch() -> None:
    letters = np.random.default_rng(2).choice(["a", "b"], 40_000).tolist()
    sizes = np.random.default_rng(3).integers(1, 9, 40_000).tolist()
    at = 0
    said: list[str] = []
    while sum(len(word) + 1 for word in said) < 11_000:
        said.append("".join(letters[at : at + sizes[len(said)]]))
        at += sizes[len(said) - 1]
    log_probs = spell_text(" ".join(said), SMALL, 0.995)
    assert len(log_probs) * SLOW_S > 1750
    words, most = decode_watched(make_decoder(shift_s=SLOW_S), log_probs)
    assert [word.text for word in words] == said
    assert strip_times(words) == strip_times(decode_greedy(log_probs, SMALL, frame_shift_s=SLOW_S))
    assert most <= LONGEST


def test_words_are_given_out_soon_after_the_longest_stretch() -> None:
    decoder = make_decoder(shift_s=SLOW_S)
    log_probs = spell_text("ab " * 200, SMALL)
    given = 0
    for frame, row in enumerate(log_probs):
        given += len(decoder.push(row[np.newaxis]))
        assert given >= (frame - LONGEST) // 6 - 1
    assert given + len(decoder.finish()) == 200


@pytest.mark.parametrize(
    ("vocabulary", "ids"),
    [
        (SMALL, [1, 0, 2, 0]),  # never a space
        (SPACELESS, [1, 0, 2, 0]),
        (SMALL, [0]),  # silence that is not quite certain
        (SMALL, [1]),  # one letter, on and on
        (SMALL, [3]),  # a space, on and on
        (SMALL, [3, 0]),
        (SMALL, [1, 0, 0, 0, 0, 0, 0, 0, *[0] * 200, 3, 0, 0, *[0] * 200]),  # very slowly
        (HIDING, [0, 5]),  # specials
    ],
)
def test_what_never_comes_to_a_third_space_is_bounded_as_well(vocabulary: Vocabulary, ids: list[int]) -> None:
    path = np.tile(np.array(ids, dtype=np.int64), 3000 // len(ids))
    log_probs = spell_frames(path, vocabulary, 0.995)
    words, most = decode_watched(make_decoder(vocabulary, shift_s=SLOW_S), log_probs)
    assert most <= LONGEST + 1
    check_order(words, len(path) * SLOW_S)
    expected = decode_greedy(log_probs, vocabulary, frame_shift_s=SLOW_S)
    assert "".join(word.text for word in words) == "".join(word.text for word in expected)


def test_an_hour_of_silence_is_held_for_a_pause_at_most() -> None:
    log_probs = spell_frames(np.zeros(45_000, dtype=np.int64), SMALL, 0.9999)
    words, most = decode_watched(make_decoder(shift_s=SLOW_S), log_probs)
    assert words == []
    assert most <= 0.6 / SLOW_S + 1


def count_prefixes(decoder: BeamDecoder) -> int:
    """The texts that are kept: whatever hangs together with those that are alive."""
    found, open_ = set(), list(decoder._live)
    while open_:
        one = open_.pop()
        if id(one) not in found:
            found.add(id(one))
            open_ += [*one.children.values(), *([one.parent] if one.parent is not None else [])]
    return len(found)


def test_texts_that_are_settled_are_forgotten() -> None:
    decoder = make_decoder(shift_s=SLOW_S)
    counts = []
    for row in spell_text("abba ab b ba " * 60, SMALL, 0.6):
        decoder.push(row[np.newaxis])
        counts.append(count_prefixes(decoder))
    assert max(counts[2 * LONGEST :]) < 1.5 * max(counts[: 2 * LONGEST])


MILD = Likes({"a": 0.3, "b": -0.2}, {"a": 0.2, "b": -0.3, " ": 0.1}, last=0.1)


def speak_clearly(text: str, seed: int) -> NDArray[np.float32]:
    """Frames of a text of which one letter in eight is in doubt."""
    noise = np.random.default_rng(seed)
    log_probs = spell_text(text, SMALL, 0.95) + (0.2 * noise.standard_normal((2 * len(text), SMALL.size)))
    for frame in np.flatnonzero(noise.random(len(log_probs)) < 1 / 16):
        if (best := int(log_probs[frame].argmax())) in (1, 2):
            log_probs[frame, [best, 3 - best]] = np.log([0.55, 0.4])
    log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
    return log_probs.astype(np.float32)


@given(
    seed=st.integers(0, 10**6),
    text=st.lists(st.text("ab", min_size=1, max_size=4), min_size=20, max_size=50).map(" ".join),
    scorer=st.sampled_from([ZERO, MILD]),
)
@settings(max_examples=40, derandomize=True)  # no law: where frames are in doubt, what is settled early may differ
def test_settling_early_gives_the_words_of_a_search_that_never_does(seed: int, text: str, scorer: Likes) -> None:
    log_probs = speak_clearly(text, seed)
    late = decode(log_probs, SMALL, scorer)  # at 20 ms a frame, this is never too long
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctc_beam, "LONGEST_S", 1.2)
        decoder = make_decoder(SMALL, scorer)
        words = decoder.push(log_probs)
        assert words  # it did settle
        words += decoder.finish()
    assert strip_times(words) == strip_times(late)


@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(0, 60),
    longest=st.integers(1, 12),
    open_words=st.integers(1, 3),
    scorer=scorers,
    vocabulary=st.sampled_from([SMALL, SPACELESS, HIDING]),
    impossible=st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=400)
def test_noise_is_settled_in_order_however_early(
    *,
    seed: int,
    frames: int,
    longest: int,
    open_words: int,
    scorer: Likes,
    vocabulary: Vocabulary,
    impossible: float,
) -> None:
    log_probs = draw_log_probs(seed, frames, vocabulary, (0.3, 2.0, 6.0)[seed % 3])
    log_probs[np.random.default_rng(seed).random(log_probs.shape) < impossible] = -np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctc_beam, "LONGEST_S", longest * SHIFT_S)
        patch.setattr(ctc_beam, "OPEN_WORDS", open_words)
        rules = CtcBeamRules(min_log_prob=-math.inf, margin=1000.0, beam_size=50, sure_blank=0.0)
        words, most = decode_watched(make_decoder(vocabulary, scorer, rules), log_probs)
    assert most <= longest + 2
    check_order(words, frames * SHIFT_S)


def test_without_a_space_all_letters_between_pauses_are_one_word() -> None:
    ids = np.array([1, 0, 2, *[0] * PAUSE, 2, 2, 0, 2], dtype=np.int64)
    assert spell(decode(spell_frames(ids, SPACELESS, 0.9999), SPACELESS)) == "ab bb"


def test_an_empty_push_changes_nothing() -> None:
    log_probs, nothing = spell_text("ab ba", SMALL), np.zeros((0, SMALL.size), dtype=np.float32)
    decoder = make_decoder()
    words = decoder.push(nothing)
    for row in log_probs:
        words += [*decoder.push(row[np.newaxis]), *decoder.push(nothing)]
    assert [*words, *decoder.finish()] == decode(log_probs)
    assert decode(nothing) == make_decoder().finish() == []


@pytest.mark.parametrize("scorer", [ZERO, LIKES_A])
def test_a_finished_decoder_starts_anew(scorer: Likes) -> None:
    decoder = make_decoder(SMALL, scorer)
    log_probs = speak(["ab ba", "b"], 0, 0.3)[: -2 * PAUSE]
    first = [*decoder.push(log_probs), *decoder.finish()]
    assert first
    assert decoder.finish() == []
    assert [*decoder.push(log_probs), *decoder.finish()] == first
