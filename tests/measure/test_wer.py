from __future__ import annotations

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.measure.wer import (
    Edits,
    ErrorCounts,
    bootstrap_interval,
    count_errors,
    find_confusions,
    paired_bootstrap,
    pool,
)

WORDS = st.lists(st.sampled_from(["bir", "iki", "üç", "ırmak", "il", "a"]), max_size=7).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8)


def measure_distance(wanted: list[str], got: list[str]) -> int:
    """Levenshtein's distance by its textbook recurrence (Wagner and Fischer 1974)."""
    row = list(range(len(got) + 1))
    for i, unit in enumerate(wanted, start=1):
        previous, row = row, [i]
        for j, other in enumerate(got, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (unit != other)))
    return row[-1]


def make_counts(errors: list[int], words: list[int]) -> list[ErrorCounts]:
    return [
        ErrorCounts(str(number), Edits(hits=total - wrong, deletions=wrong), Edits(hits=1), ())
        for number, (wrong, total) in enumerate(zip(errors, words, strict=True))
    ]


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_pooled_rates_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    pooled = pool(count_errors(references, hypotheses, normalizer="raw"))
    words = jiwer.process_words(references, hypotheses)
    characters = jiwer.process_characters(references, hypotheses)
    assert pooled.wer == pytest.approx(words.wer)
    assert pooled.cer == pytest.approx(characters.cer)
    assert pooled.words == Edits(words.hits, words.substitutions, words.insertions, words.deletions)


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_each_clip_has_the_edit_distance_of_the_textbook(pairs: list[tuple[str, str]]) -> None:
    for (reference, hypothesis), clip in zip(
        pairs, count_errors(*zip(*pairs, strict=True), normalizer="raw"), strict=True
    ):
        assert clip.words.errors == measure_distance(reference.split(), hypothesis.split())
        assert clip.characters.errors == measure_distance(list(reference), list(hypothesis))
        assert clip.words.reference == len(reference.split())
        assert clip.words.hypothesis == len(hypothesis.split())
        assert [wanted for wanted, _ in clip.alignment if wanted is not None] == reference.split()
        assert [got for _, got in clip.alignment if got is not None] == hypothesis.split()


def test_a_hand_case_is_counted_right() -> None:
    (clip,) = count_errors(["bugün hava çok güzel"], ["bugün hava güzeldi mi"], ["a"], normalizer="raw")
    assert clip.words == Edits(hits=2, substitutions=2)
    (clip,) = count_errors(["bir iki üç beş"], ["bir üç beş dört"], ["a"], normalizer="raw")
    assert clip.alignment == (("bir", "bir"), ("iki", None), ("üç", "üç"), ("beş", "beş"), (None, "dört"))
    assert (clip.words.rate, clip.id, clip.exact) == (0.5, "a", False)


def test_rates_are_pooled_not_averaged() -> None:
    pooled = pool(count_errors(["bir", "bir iki üç dört"], ["iki", "bir iki üç dört"], normalizer="raw"))
    assert pooled.wer == 1 / 5
    assert (pooled.clips, pooled.exact, pooled.exact_share) == (2, 1, 0.5)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"),
    [("", "", 0.0), ("", "bir iki", 2.0), ("bir iki", "", 1.0), ("  ", " ", 0.0), ("?!", "", 0.0)],
)
def test_empty_references(reference: str, hypothesis: str, rate: float) -> None:
    pooled = pool(count_errors([reference], [hypothesis], normalizer="tr"))
    assert pooled.wer == rate


def test_words_for_silence_count_in_a_pool() -> None:
    assert pool(count_errors(["", "bir iki"], ["üç", "bir iki"], normalizer="raw")).wer == 0.5


def test_no_clips_at_all() -> None:
    assert count_errors([], [], normalizer="tr") == []
    assert (pool([]).wer, pool([]).exact_share) == (0.0, 0.0)
    with pytest.raises(UsageError, match="no clips"):
        bootstrap_interval([])


def test_the_normaliser_decides() -> None:
    texts = ["Işık, 3 kez İstanbul'da."], ["ışık üç kez istanbulda"]
    assert pool(count_errors(*texts, normalizer="tr")).wer == 0.0
    assert pool(count_errors(*texts, normalizer="raw")).wer == 0.75


def test_a_dotted_capital_costs_two_errors_in_whisper_basic_and_none_in_tr() -> None:
    texts = (["İstanbul güzel."], ["istanbul güzel"])
    (basic,) = count_errors(*texts, normalizer="whisper-basic")
    assert (basic.words.reference, basic.words.errors) == (3, 2)  # "i stanbul güzel"
    assert count_errors(*texts, normalizer="tr")[0].exact


def test_white_space_is_no_error() -> None:
    assert pool(count_errors(["bir\tiki\u00a0 üç\n"], [" bir iki üç"], normalizer="raw")).cer == 0.0


def test_unequal_sequences_and_unknown_normalisers_are_refused() -> None:
    with pytest.raises(UsageError, match="2 references, 1 hypotheses and 2 ids"):
        count_errors(["a", "b"], ["a"], normalizer="raw")
    with pytest.raises(UsageError, match="unknown normaliser 'lower'; choose from raw, whisper-basic, tr"):
        count_errors(["a"], ["a"], normalizer="lower")


def test_confusions_are_counted_and_ranked() -> None:
    counts = count_errors(
        ["bir evde", "bir evde", "iki kuş", "su"], ["bir elde", "bir elde", "kuş", "su su"], normalizer="raw"
    )
    found = find_confusions(counts, top=1)
    assert found.substitutions == ((("evde", "elde"), 2),)
    assert (found.insertions, found.deletions) == ((("su", 1),), (("iki", 1),))


def test_the_interval_is_the_binomial_one_for_one_word_clips() -> None:
    # Clips of one word are coin tosses: the bootstrap must find the binomial's 95 % interval.
    errors = [1] * 80 + [0] * 320
    interval = bootstrap_interval(make_counts(errors, [1] * 400), samples=4000)
    deviation = (0.2 * 0.8 / 400) ** 0.5
    assert interval.low == pytest.approx(0.2 - 1.96 * deviation, abs=0.004)
    assert interval.high == pytest.approx(0.2 + 1.96 * deviation, abs=0.004)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(9, 20)), min_size=2, max_size=30), st.integers(0, 5))
def test_the_interval_is_that_of_a_plain_loop(clips: list[tuple[int, int]], seed: int) -> None:
    errors, words = (np.array(column) for column in zip(*clips, strict=True))
    generator = np.random.default_rng(seed)
    rates = []
    for _ in range(200):
        drawn = generator.integers(len(clips), size=len(clips))
        rates.append(errors[drawn].sum() / words[drawn].sum())
    interval = bootstrap_interval(make_counts(errors.tolist(), words.tolist()), samples=200, seed=seed)
    assert interval.to_list() == pytest.approx(list(np.percentile(rates, [2.5, 97.5])))


def test_resampling_in_parts_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = make_counts([1, 0, 2, 5], [4, 5, 6, 7])
    whole = bootstrap_interval(counts, samples=100)
    monkeypatch.setattr("dinle.measure.wer._DRAWS_AT_ONCE", 12)
    assert bootstrap_interval(counts, samples=100) == whole


def test_one_clip_gives_an_interval_without_width() -> None:
    assert bootstrap_interval(make_counts([1], [4])).to_list() == [0.25, 0.25]


def test_equal_systems_do_not_differ() -> None:
    counts = make_counts([1, 0, 2, 5], [4, 5, 6, 7])
    result = paired_bootstrap(counts, counts)
    assert (result.difference, result.interval.to_list(), result.significant) == (0.0, [0.0, 0.0], False)


def test_pairing_finds_a_small_steady_gain_that_two_intervals_hide() -> None:
    generator = np.random.default_rng(0)
    hard = generator.integers(1, 11, size=200)
    baseline = make_counts(hard.tolist(), [12] * 200)
    candidate = make_counts((hard - generator.integers(0, 2, size=200)).tolist(), [12] * 200)
    result = paired_bootstrap(baseline, candidate)
    assert result.difference == pytest.approx(pool(candidate).wer - pool(baseline).wer)
    assert result.interval.high < 0
    assert result.significant
    assert result.share_better == 1.0
    assert bootstrap_interval(baseline).low < bootstrap_interval(candidate).high


def test_the_interval_of_the_exact_share_is_the_binomial_one() -> None:
    counts = make_counts([0] * 300 + [3] * 100, [4] * 400)
    interval = bootstrap_interval(counts, measure="exact", samples=4000)
    deviation = (0.75 * 0.25 / 400) ** 0.5
    assert interval.to_list() == pytest.approx([0.75 - 1.96 * deviation, 0.75 + 1.96 * deviation], abs=0.004)
    assert pool(counts).read("exact") == pool(counts).exact_share == 0.75


def test_more_exact_clips_are_better() -> None:
    worse, better = make_counts([1] * 50 + [0] * 50, [4] * 100), make_counts([1] * 10 + [0] * 90, [4] * 100)
    result = paired_bootstrap(worse, better, measure="exact")
    assert result.difference == pytest.approx(0.4)
    assert (result.share_better, result.significant) == (1.0, True)
    assert result.interval.low > 0.3


@pytest.mark.parametrize(
    ("reference", "hypothesis", "exact"),
    [
        ("Işık, 3 kez.", "ışık üç kez", True),
        ("IŞIK", "işik", False),
        ("bir iki", "biriki", False),
        ("", "", True),
        ("", "bir", False),
    ],
)
def test_exact_is_equality_of_normalised_texts(reference: str, hypothesis: str, *, exact: bool) -> None:
    (clip,) = count_errors([reference], [hypothesis], normalizer="tr")
    assert clip.exact is exact


def test_different_clips_are_not_compared() -> None:
    counts = make_counts([1, 0], [4, 5])
    with pytest.raises(UsageError, match="different clips"):
        paired_bootstrap(counts, counts[::-1])
