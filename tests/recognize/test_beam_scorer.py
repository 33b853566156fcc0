"""A scorer in the search of an encoder-decoder model: against all texts that there are, and against no scorer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.recognize.beam import BeamRules, Hypothesis, search_beams, split_characters
from dinle.recognize.hot_words import START, HotWords
from dinle.recognize.text_scorer import USUAL_LOG_PROB, FusionWeights, LetterScorer, State, TextScorer
from dinle.recognize.whisper_vocabulary import WhisperVocabulary
from tests.recognize.writers import CHARACTERS, Script, ScriptedWriter, spell_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = WhisperVocabulary(
    ("<|s|>", "<|e|>", "<|m|>", ".", "a", "b"), prefix=(0, 0), end=1, suppressed=(0, 2), suppressed_first=(3,)
)
END, LATER, A, B = 1, 3, 4, 5
ANYTHING: dict[str, Any] = {
    "tokens_per_s": 0.0,
    "min_log_prob": -np.inf,
    "min_long_log_prob": -np.inf,
    "min_opening_log_prob": -np.inf,
}


@dataclass
class Likes:
    """Adds nats for each character by a table, and at the end of a text that is not empty; ``read`` keeps all pieces."""

    table: dict[str, float]
    other: float = 0.0
    last: float = 0.0
    start: State = (0, START, False)
    read: list[tuple[State, str]] = field(default_factory=list)

    def advance(self, state: State, piece: str) -> tuple[float, State]:
        self.read.append((state, piece))
        score = sum(self.table.get(character, self.other) for character in piece)
        return score, (state[0] + len(piece), START, bool(piece) or state[2])

    def end(self, state: State) -> float:
        return self.last * state[2]


NOTHING = Likes({})


def draw_script(seed: int, *, ties: bool = False, spread: float = 2.0) -> Script:
    """Random logits for every clip and text, the same for the same seed; with ties only a few different ones."""

    def script(clip: int, text: tuple[int, ...]) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, clip, len(text), *text])
        logits = rng.integers(0, 2, SMALL.size) if ties else spread * rng.standard_normal(SMALL.size)
        return logits.astype(np.float32)

    return script


def search(
    script: Script,
    scorer: TextScorer | None,
    clips: tuple[int, ...] = (0,),
    vocabulary: WhisperVocabulary = SMALL,
    **rules: Any,
) -> list[Hypothesis]:
    writer = ScriptedWriter(script, prefix=len(vocabulary.prefix))
    return search_beams(
        writer, vocabulary, writer.hear(list(clips)), [1.0] * len(clips), BeamRules(**rules), scorer=scorer
    )


def follow(
    table: dict[tuple[int, ...], dict[int, float]], vocabulary: WhisperVocabulary = SMALL, *, least: float = 1e-6
) -> Script:
    """Probabilities of what follows each text; after any other text the end is certain."""

    def script(clip: int, text: tuple[int, ...]) -> NDArray[np.float32]:
        shares = np.full(vocabulary.size, least, dtype=np.float32)
        for token, share in table.get(text, {vocabulary.end: 1.0}).items():
            shares[token] = share
        return np.log(shares)

    return script


@given(
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
    beam_size=st.integers(1, 5),
    clips=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
    rules=st.sampled_from([ANYTHING, {}]),
)
@settings(max_examples=200)
def test_a_scorer_of_nothing_gives_what_no_scorer_gives(
    *, seed: int, ties: bool, beam_size: int, clips: tuple[int, ...], rules: dict[str, Any]
) -> None:
    script = draw_script(seed, ties=ties)
    settings_ = {**rules, "beam_size": beam_size, "tokens_more": 6}
    without, with_ = search(script, None, clips, **settings_), search(script, NOTHING, clips, **settings_)
    for first, second in zip(without, with_, strict=True):
        assert (first.tokens, first.log_probs, first.end_log_prob) == (
            second.tokens,
            second.log_probs,
            second.end_log_prob,
        )
        assert second.bonus == 0
        np.testing.assert_array_equal(np.array(first.attention), np.array(second.attention))


def weigh(script: Script, text: tuple[int, ...]) -> float:
    """The log-probability of a text and its end."""
    total = 0.0
    for place, token in enumerate((*text, END)):
        logits = script(0, text[:place]).astype(np.float64)
        total += float(logits[token] - np.log(np.exp(logits).sum()))
    return total


def has_four_copies(text: tuple[int, ...]) -> bool:
    return len(text) >= 4 and len(set(text)) == 1


penalties = st.floats(-3, 0)


@given(seed=st.integers(0, 10**6), limit=st.integers(1, 4), liked=st.tuples(penalties, penalties, penalties, penalties))
@settings(max_examples=150)
def test_a_wide_search_finds_the_text_that_is_best_with_the_scorer(
    seed: int, limit: int, liked: tuple[float, float, float, float]
) -> None:
    script = draw_script(seed)
    table = dict(zip("ab.", liked, strict=False))
    texts = [text for size in range(limit) for text in product((LATER, A, B), repeat=size) if text[:1] != (LATER,)]
    means, ranks = {}, {}
    for text in texts:
        if not has_four_copies(text):
            bonus = sum(table[SMALL.tokens[token]] for token in text) + (liked[3] if text else 0)
            means[text] = weigh(script, text) / (len(text) + 1)
            ranks[text] = means[text] + bonus / (len(text) + 1)
    best = max(ranks, key=lambda text: ranks[text])
    scorer = Likes(table, last=liked[3])
    (found,) = search(script, scorer, beam_size=200, tokens_more=limit, **ANYTHING)
    if found.tokens != best:  # where to write nothing is likelier, that stays
        assert found.tokens == ()
        assert means[best] <= means[()] + 1e-6
    elif best:
        assert found.rank == pytest.approx(ranks[best], abs=1e-5)
        assert max(means.values()) > means[()]


@given(
    seed=st.integers(0, 10**6), beam_size=st.integers(2, 4), clips=st.lists(st.integers(0, 9), max_size=4).map(tuple)
)
@settings(max_examples=40)
def test_a_clip_of_a_batch_gets_what_it_gets_alone(seed: int, beam_size: int, clips: tuple[int, ...]) -> None:
    script, scorer = draw_script(seed), Likes({"a": 0.7, "b": -0.3, ".": 0.2}, last=0.1)
    together = search(script, scorer, clips, beam_size=beam_size, tokens_more=9, **ANYTHING) if clips else []
    for clip, found in zip(clips, together, strict=True):
        (alone,) = search(script, scorer, (clip,), beam_size=beam_size, tokens_more=9, **ANYTHING)
        assert (found.tokens, found.log_probs, found.bonus) == (alone.tokens, alone.log_probs, alone.bonus)


NAMES = WhisperVocabulary(
    ("<|s|>", "<|e|>", *map(spell_bytes, (" Trend", " tren", "yol", "iol", " geldi", "i"))), prefix=(0,), end=1
)
TREND, TREN, YOL, IOL, CAME, LETTER = 2, 3, 4, 5, 6, 7


def ask_for(*words: str, share: float = 0.5, weight: float = 1.0) -> LetterScorer:
    return LetterScorer({}, None, FusionWeights(0.0, 0.0, weight), HotWords(words, share))


def test_a_rarer_word_that_is_asked_for_wins() -> None:
    script = follow(
        {
            (): {TREND: 0.4, TREN: 0.6},
            (TREND,): {YOL: 0.3, IOL: 0.7},
            (TREN,): {LETTER: 1.0},
            (TREND, YOL): {CAME: 1.0},
        },
        NAMES,
    )
    assert NAMES.decode(search(script, None, vocabulary=NAMES)[0].tokens) == "treni"
    (found,) = search(script, ask_for("Trendyol"), vocabulary=NAMES)
    assert NAMES.decode(found.tokens) == "Trendyol geldi"
    assert found.bonus == pytest.approx(math.log(0.5) - 8 * USUAL_LOG_PROB)
    assert found.log_probs == pytest.approx(np.log([0.4, 0.3, 1.0]), abs=1e-4)  # what was heard is told as it was heard
    for scorer in (ask_for("Trendyol", share=1e-6), ask_for("Trendyol", weight=0.01)):
        assert NAMES.decode(search(script, scorer, vocabulary=NAMES)[0].tokens) == "treni"


def test_a_word_that_breaks_off_wins_nothing() -> None:
    script = follow({(): {TREND: 0.3, TREN: 0.7}, (TREND,): {IOL: 1.0}, (TREN,): {LETTER: 1.0}}, NAMES)
    (found,) = search(script, ask_for("Trendyol"), vocabulary=NAMES)
    assert NAMES.decode(found.tokens) == "treni"
    assert found.bonus == 0


def test_a_live_text_that_is_better_than_what_ended_is_not_given_up() -> None:
    # "a" ends and is liked; "b" is liked more, ends a step later, and many tokens would be allowed still
    script = follow({(): {A: 0.55, B: 0.45}, (A,): {END: 1.0}, (B,): {LATER: 1.0}, (B, LATER): {END: 1.0}})
    (found,) = search(script, Likes({"a": 4.0, "b": 8.0}), beam_size=2, tokens_more=30)
    assert found.tokens == (B, LATER)


def test_the_end_of_a_text_is_scored() -> None:
    script = follow({(): {A: 0.6, B: 0.4}})
    assert search(script, NOTHING)[0].tokens == (A,)
    names = WhisperVocabulary(SMALL.tokens, (0, 0), 1)
    phrase = ask_for("b a")  # "b" only begins it
    assert search(script, phrase, vocabulary=names)[0].tokens == (A,)
    assert search(script, ask_for("b"), vocabulary=names)[0].tokens == (B,)


PARTS = WhisperVocabulary(
    ("<|s|>", "<|e|>", *(CHARACTERS[byte] for byte in "ğ€".encode()), spell_bytes("da"), spell_bytes(" a")),
    prefix=(0,),
    end=1,
)


def test_a_character_that_is_split_over_tokens_is_scored_once_and_whole() -> None:
    text = (8, 2, 3, 7, 2, 3, 4, 5, 6)
    script = follow({text[:size]: {text[size]: 1.0} for size in range(len(text))}, PARTS)
    scorer = Likes({"ğ": 1.0, "€": 10.0, "d": 0.1, "a": 0.01, " ": 0.001}, other=-99.0)
    (found,) = search(script, scorer, vocabulary=PARTS, beam_size=1, tokens_more=20)
    assert found.tokens == text
    spelled = b"".join(map(PARTS.spell, text)).decode()
    assert found.bonus == pytest.approx(sum(scorer.table[character] for character in spelled))
    assert found.rest == b""


@given(parts=st.lists(st.one_of(st.binary(max_size=6), st.text(max_size=3).map(str.encode)), max_size=8))
@settings(max_examples=400)
def test_pieces_of_bytes_give_the_text_of_the_whole(parts: list[bytes]) -> None:
    text, rest = "", b""
    for part in parts:
        piece, rest = split_characters(rest + part)
        text += piece
        assert len(rest) <= 3
    assert text + rest.decode(errors="replace") == b"".join(parts).decode(errors="replace")


@given(text=st.text(max_size=20), size=st.integers(0, 60))
def test_whole_characters_are_taken_at_once(text: str, size: int) -> None:
    data = text.encode()[:size]
    whole, rest = split_characters(data)
    assert text.startswith(whole)
    assert whole.encode() + rest == data
    assert not rest or len(text[len(whole)].encode()) > len(rest)


LOVES = Likes({"a": 3.0, "b": 9.0, ".": 1.0}, other=5.0, last=20.0)
HATES = Likes({"a": -2.0, "b": -4.0, ".": -1.0}, other=-6.0, last=-2.0)  # as a language model does what it never read
FOND_OF_B = Likes({"b": 30.0})


def write_text(text: tuple[int, ...], certainty: float) -> Script:
    def script(clip: int, written: tuple[int, ...]) -> NDArray[np.float32]:
        logits = np.zeros(SMALL.size, dtype=np.float32)
        logits[(*text, END)[min(len(written), len(text))]] = certainty
        return logits

    return script


@pytest.mark.parametrize("scorer", [LOVES, HATES, FOND_OF_B, NOTHING])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
@pytest.mark.parametrize("text", [(A,), (A, B, A, A), (A, A, B) * 4])
@pytest.mark.parametrize(("certainty", "believed"), [(0.1, False), (8.0, True)])
def test_what_is_believed_does_not_hang_on_the_scorer(
    *, scorer: Likes, beam_size: int, text: tuple[int, ...], certainty: float, believed: bool
) -> None:
    script = write_text(text, certainty)
    (found,) = search(script, scorer, beam_size=beam_size)
    assert bool(found.tokens) == believed == bool(search(script, None, beam_size=beam_size)[0].tokens)


@pytest.mark.parametrize("scorer", [LOVES, FOND_OF_B, ask_for("b", weight=30.0)])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_where_nothing_was_said_a_scorer_invents_nothing(scorer: TextScorer, beam_size: int) -> None:
    script = follow({(): {END: 0.7, A: 0.1, B: 0.2}})
    assert search(script, scorer, beam_size=beam_size)[0].tokens == ()
    assert search(script, scorer, beam_size=beam_size, **ANYTHING)[0].tokens == ()


@pytest.mark.parametrize(("scorer", "least"), [(LOVES, 1), (NOTHING, 1), (HATES, 0)])
def test_texts_end_at_their_limit_with_a_scorer_as_well(scorer: Likes, least: int) -> None:
    thue_morse = tuple((A, B)[place.bit_count() % 2] for place in range(30))
    writer = ScriptedWriter(write_text(thue_morse, 8.0))
    rules = BeamRules(beam_size=3, tokens_more=9, tokens_per_s=0.0)
    (found,) = search_beams(writer, SMALL, writer.hear([0]), [1.0], rules, scorer=scorer)
    assert len(writer.calls) <= 9
    assert least <= len(found.tokens) <= 9


def test_logits_that_are_no_numbers_give_no_text() -> None:
    def script(clip: int, text: tuple[int, ...]) -> NDArray[np.float32]:
        return np.full(SMALL.size, np.nan, dtype=np.float32)

    (found,) = search(script, LOVES, beam_size=2, tokens_more=5)
    assert found.tokens == ()
    assert not math.isnan(found.bonus)
