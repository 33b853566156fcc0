"""The search against all texts that there are, on models small enough to list them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dinle.errors import UsageError
from dinle.recognize.beam import BeamRules, Hypothesis, find_highest, find_log_probs, find_looping, search_beams
from dinle.recognize.whisper_vocabulary import WhisperVocabulary
from tests.recognize.writers import Script, ScriptedWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

# start, end, a token that is never written, one that no text begins with, and two ordinary ones
SMALL = WhisperVocabulary(
    ("<|s|>", "<|e|>", "<|m|>", ".", "a", "b"), prefix=(0, 0), end=1, suppressed=(0, 2), suppressed_first=(3,)
)
END, NEVER, LATER, A, B = 1, 2, 3, 4, 5
ALL: dict[str, Any] = {
    "beam_size": 1,
    "tokens_per_s": 0.0,
    "min_log_prob": -np.inf,
    "min_long_log_prob": -np.inf,
    "min_opening_log_prob": -np.inf,
}


def draw_script(seed: int, spread: float = 2.0) -> Script:
    """Random logits for every clip and text, the same for the same seed."""

    def script(clip: int, text: tuple[int, ...]) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, clip, len(text), *text])
        return (spread * rng.standard_normal(SMALL.size)).astype(np.float32)

    return script


def weigh(script: Script, clip: int, text: tuple[int, ...]) -> list[float]:
    """The log-probabilities of a text's tokens and its end."""
    found = []
    for place, token in enumerate((*text, END)):
        logits = script(clip, text[:place]).astype(np.float64)
        found.append(float(logits[token] - np.log(np.exp(logits).sum())))
    return found


def search(script: Script, clips: list[int], **rules: Any) -> list[Hypothesis]:
    writer = ScriptedWriter(script)
    return search_beams(writer, SMALL, writer.hear(clips), [1.0] * len(clips), BeamRules(**{**ALL, **rules}))


@given(seed=st.integers(0, 10**6), limit=st.integers(1, 4))
@settings(max_examples=60)
def test_a_wide_search_finds_the_best_of_all_texts(seed: int, limit: int) -> None:
    script = draw_script(seed)
    texts = [text for size in range(limit) for text in product((LATER, A, B), repeat=size) if text[:1] != (LATER,)]
    means = {text: float(np.mean(weigh(script, 0, text))) for text in texts if not has_four_copies(text)}
    best = max(means, key=lambda text: means[text])
    (found,) = search(script, [0], beam_size=200, tokens_more=limit)
    assert found.tokens == best
    assert found.mean == pytest.approx(means[best], abs=1e-5)
    assert (*found.log_probs, found.end_log_prob) == pytest.approx(weigh(script, 0, best), abs=1e-5)


def has_four_copies(text: tuple[int, ...]) -> bool:
    return len(text) >= 4 and len(set(text)) == 1


@given(seed=st.integers(0, 10**6))
def test_a_width_of_one_takes_the_likeliest_token_each_time(seed: int) -> None:
    script = draw_script(seed)
    written: tuple[int, ...] = ()
    while len(written) < 10:
        logits = script(0, written)
        logits[[0, NEVER, *([] if written else [LATER]), *find_looping(written)]] = -np.inf
        if (token := int(logits.argmax())) == END:
            break
        written = (*written, token)
    assert search(script, [0], tokens_more=10)[0].tokens == written


@given(
    seed=st.integers(0, 10**6), beam_size=st.integers(1, 4), clips=st.lists(st.integers(0, 9), max_size=5, min_size=1)
)
@settings(max_examples=60)
def test_a_clip_of_a_batch_gets_what_it_gets_alone(seed: int, beam_size: int, clips: list[int]) -> None:
    script = draw_script(seed)
    together = search(script, clips, beam_size=beam_size, tokens_more=9)
    for clip, found in zip(clips, together, strict=True):
        (alone,) = search(script, [clip], beam_size=beam_size, tokens_more=9)
        assert (found.tokens, found.log_probs) == (alone.tokens, alone.log_probs)
        np.testing.assert_array_equal(np.stack(found.attention), np.stack(alone.attention))


def write_each(*texts: tuple[int, ...], certainty: float = 8.0) -> Script:
    """Clip n gets the n-th text, then the end."""

    def script(clip: int, text: tuple[int, ...]) -> NDArray[np.float32]:
        logits = np.zeros(SMALL.size, dtype=np.float32)
        wanted = (*texts[clip], END)
        logits[wanted[min(len(text), len(wanted) - 1)]] = certainty
        return logits

    return script


def test_a_finished_clip_costs_no_more_steps() -> None:
    writer = ScriptedWriter(write_each((A,), (A, B, A, B, B), (B, A)))
    found = search_beams(writer, SMALL, writer.hear([0, 1, 2]), [1.0] * 3, BeamRules(beam_size=1))
    assert [one.tokens for one in found] == [(A,), (A, B, A, B, B), (B, A)]
    assert writer.calls == [(3, 2), (3, 1), (2, 1), (1, 1), (1, 1), (1, 1)]


def test_the_attention_is_of_each_token_and_the_end() -> None:
    (found,) = search(write_each((A, B, A)), [0], beam_size=2, tokens_more=9)
    assert [int(row.argmax()) for row in found.attention] == [0, 1, 2, 3]


def test_a_longer_text_wins_by_its_mean() -> None:
    # "a" ends with 0.5; "a b" costs 0.4 and then is certain: less likely as a whole, likelier on average
    table: dict[tuple[int, ...], dict[int, float]] = {(): {A: 0.98}, (A,): {END: 0.5, B: 0.4}, (A, B): {END: 0.99}}

    def script(clip: int, text: tuple[int, ...]) -> NDArray[np.float32]:
        shares = np.full(SMALL.size, 1e-6, dtype=np.float32)
        for token, share in table.get(text, {}).items():
            shares[token] = share
        return np.log(shares)

    assert search(script, [0], tokens_more=5)[0].tokens == (A,)
    assert search(script, [0], tokens_more=3, beam_size=2)[0].tokens == (A, B)


@pytest.mark.parametrize(("seconds", "tokens"), [(0.0, 6), (1.0, 14), (2.6, 26)])
def test_a_text_is_bounded_by_the_length_of_the_sound(seconds: float, tokens: int) -> None:
    thue_morse = tuple((A, B)[place.bit_count() % 2] for place in range(30))  # holds nothing three times in a row
    writer = ScriptedWriter(write_each(thue_morse))
    (found,) = search_beams(writer, SMALL, writer.hear([0]), [seconds], BeamRules(beam_size=1))
    assert len(found.tokens) == len(found.attention) == tokens
    assert found.end_log_prob == 0
    writer.calls.clear()
    (wide,) = search_beams(writer, SMALL, writer.hear([0]), [seconds], BeamRules(beam_size=3))
    assert len(wide.tokens) <= tokens == len(writer.calls)


@pytest.mark.parametrize("run", [(A,), (A, B), (A, A, B)])
def test_a_lost_decoder_is_stopped_after_three_copies(run: tuple[int, ...]) -> None:
    (found,) = search(write_each(run * 20), [0], tokens_more=40)
    assert found.tokens[: 3 * len(run)] == run * 3
    assert found.tokens[: 3 * len(run) + 1] != (*run * 3, run[0])


@pytest.mark.parametrize(
    ("tokens", "banned"),
    [
        ((), []),
        ((A, A), []),
        ((A, A, A), [A]),
        ((B, A, A, A), [A]),
        ((A, A, A, B), []),
        ((A, B) * 3, [A]),
        ((B, A) * 3, [B]),
        ((A, B, B) * 3, [A]),
        ((A, B) * 2, []),
    ],
)
def test_what_would_begin_a_fourth_copy(tokens: tuple[int, ...], banned: list[int]) -> None:
    assert find_looping(tokens) == banned


@given(tokens=st.lists(st.sampled_from([A, B]), max_size=30).map(tuple))
def test_loops_are_those_of_the_plain_definition(tokens: tuple[int, ...]) -> None:
    expected = [
        tokens[-size] for size in range(1, 11) if len(tokens) >= 3 * size and tokens[-3 * size :] == tokens[-size:] * 3
    ]
    assert find_looping(tokens) == expected


@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_unlikely_ends_do_not_cut_a_sure_text_short(beam_size: int) -> None:
    text = (A, B, B, A, B, A, A)

    def script(clip: int, written: tuple[int, ...]) -> NDArray[np.float32]:
        logits = write_each(text)(clip, written)
        logits[END] += 1  # the second best everywhere
        return logits

    assert search(script, [0], beam_size=beam_size, tokens_more=20)[0].tokens == text


@pytest.mark.parametrize("certainty", [0.1, 8.0])
def test_an_unlikely_text_is_dropped(certainty: float) -> None:
    writer = ScriptedWriter(write_each((A, B, A, A), certainty=certainty))
    (found,) = search_beams(writer, SMALL, writer.hear([0]), [1.0], BeamRules(beam_size=1))
    assert bool(found.tokens) == (certainty > 1)


@pytest.mark.parametrize(
    ("log_probs", "end", "believed"),
    [
        ((-0.1, -0.2), -0.1, True),
        ((-1.6,) * 9, -1.6, False),  # unlikely as a whole
        ((-1.1,) * 9, -1.1, False),  # so many tokens, and never sure
        ((-1.1,) * 3, -1.1, True),  # a word
        ((-3.0, -0.5, -0.9, -0.9), -0.9, False),  # an opening in doubt, and nothing sure after it
        ((-3.0, -0.5, *(-0.1,) * 20), -0.1, True),  # the same opening of a sure sentence
        ((-3.0,), -0.2, False),
        ((-2.0,), -0.1, True),  # the end counts: a short word that certainly ends
    ],
)
def test_what_is_believed(log_probs: tuple[float, ...], end: float, believed: bool) -> None:
    assert BeamRules().believe(Hypothesis((A,) * len(log_probs), log_probs, (), end)) is believed


def test_nothing_said_is_an_empty_text() -> None:
    (found,) = search(write_each(()), [0], beam_size=3, tokens_more=5)
    assert found.tokens == ()


def test_logits_that_are_no_numbers_give_no_text() -> None:
    (found,) = search(lambda clip, text: np.full(SMALL.size, np.nan, dtype=np.float32), [0], beam_size=2, tokens_more=5)
    assert found == Hypothesis()


def test_banned_tokens_keep_their_share() -> None:
    banned = np.array([0, -np.inf, 0], dtype=np.float32)
    found = find_log_probs(np.log(np.array([[1, 2, 5], [3, 3, 2]], dtype=np.float32)), banned)
    np.testing.assert_allclose(np.exp(found), [[1 / 8, 0, 5 / 8], [3 / 8, 0, 2 / 8]], rtol=1e-6)
    huge = find_log_probs(np.array([[1000, 0, 999]], dtype=np.float32), np.zeros(3, dtype=np.float32))
    assert np.exp(huge).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0; expected 1 or more"),
        ({"tokens_more": 0}, "tokens_more 0"),
        ({"tokens_per_s": -1.0}, "tokens_per_s is -1"),
    ],
)
def test_rules_without_sense_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BeamRules(**rules)


@given(
    values=arrays(np.float32, st.integers(0, 700), elements=st.sampled_from([-np.inf, -2.5, -1.0, 0.0, 0.5, 3.0])),
    count=st.integers(1, 9),
)
def test_the_highest_are_those_of_a_full_sort(values: NDArray[np.float32], count: int) -> None:
    expected = np.lexsort((np.arange(len(values)), -values))[:count]
    assert find_highest(values, count).tolist() == expected.tolist()
