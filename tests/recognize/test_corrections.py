"""Corrected words keep their order, stay inside the sound and apart; nothing changes where nothing was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dinle
from dinle.errors import BundleCorruptError, UsageError
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.corrections import ConfidenceMap, WordCorrections
from dinle.recognize.transcript import Word
from dinle.recognize.word_edges import trim_to_sound
from tests.graphs import spell_levels, write_level_bundle

if TYPE_CHECKING:
    from pathlib import Path

offsets = st.floats(-0.3, 0.3)
MAP = {"slope": 0.5, "intercept": -0.25, "fitted_on": {"words": 3}}


@given(st.lists(st.floats(0, 10), min_size=0, max_size=12), offsets, offsets)
def test_corrected_words_stay_in_order_apart_and_inside(times: list[float], start_s: float, end_s: float) -> None:
    edges = sorted(times[: len(times) // 2 * 2])
    words = [Word("a", edges[place], edges[place + 1], 1.0) for place in range(0, len(edges), 2)]
    moved = WordCorrections(start_s, end_s).shift(words, first_s=0.0, last_s=10.0)
    assert len(moved) == len(words)
    assert all(0 <= word.start_s <= word.end_s <= 10 for word in moved)
    assert all(one.end_s <= other.start_s and one.start_s <= other.start_s for one, other in pairwise(moved))
    assert WordCorrections().shift(words, first_s=0.0, last_s=10.0) == words


def test_offsets_move_the_edges_that_are_not_those_of_the_sound() -> None:
    words = [Word("a", 1.0, 1.5, 1.0), Word("b", 1.5, 2.0, 1.0), Word("c", 2.5, 3.0, 1.0)]
    moved = WordCorrections(0.1, 0.2).shift(words, first_s=1.0, last_s=3.0)
    edges = [edge_s for word in moved for edge_s in (word.start_s, word.end_s)]
    assert edges == pytest.approx([1.0, 1.6, 1.6, 2.2, 2.6, 3.0])


def test_words_lose_the_silence_at_their_ends_and_only_that() -> None:
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 1e-3, 32_000).astype(np.float32)
    sound[4_800:8_000] += 0.3  # 0.3 to 0.5 s
    sound[12_800:14_400] += 0.3  # 0.8 to 0.9 s, a closure, 1.0 to 1.2 s
    sound[16_000:19_200] += 0.3
    words = [
        Word("a", 10.0, 10.6, 1.0),
        Word("b", 10.6, 11.1, 1.0),
        Word("c", 11.1, 12.0, 1.0),
        Word("d", 11.7, 11.8, 1.0),
    ]
    trimmed = trim_to_sound(words, sound, 10.0)
    found = [time_s for word in trimmed[:3] for time_s in (word.start_s, word.end_s)]
    assert found == pytest.approx([10.3, 10.5, 10.8, 11.1, 11.1, 11.2])
    assert 11.7 <= trimmed[3].start_s < trimmed[3].end_s <= 11.8
    assert trim_to_sound(words, np.zeros(32_000, dtype=np.float32), 10.0) == words
    assert trim_to_sound(words, sound[:100], 10.0) == words


@pytest.mark.parametrize("around_s", [0.0, 0.25, 2.0])
def test_digital_silence_around_a_segment_says_nothing_of_its_room(around_s: float) -> None:
    sound = np.random.default_rng(0).normal(0, 0.03, 32_000).astype(np.float32)  # noise 20 dB below the word
    sound[12_800:19_200] += 0.3
    around = np.zeros(round(around_s * 16_000), dtype=np.float32)
    heard = np.concatenate([around, sound, around])
    (word,) = trim_to_sound([Word("a", 10.3, 11.6, 1.0)], heard, 10.0 - around_s)
    assert (word.start_s, word.end_s) == (pytest.approx(10.8), pytest.approx(11.2))


def test_a_word_in_digital_silence_keeps_its_soft_end() -> None:
    fade = 10 ** (-3 * np.linspace(0, 1, 6_400))  # 60 dB in 0.4 s
    sound = (fade * np.random.default_rng(0).normal(0, 0.2, 6_400)).astype(np.float32)
    heard = np.concatenate([np.zeros(4_000, dtype=np.float32), sound, np.zeros(4_000, dtype=np.float32)])
    (word,) = trim_to_sound([Word("a", 10.0, 10.9, 1.0)], heard, 10.0)
    assert word.start_s == pytest.approx(10.25)
    assert word.end_s > 10.55  # 45 dB below its loudest frame


def test_a_bundle_keeps_its_corrections_and_a_recogniser_applies_them(tmp_path: Path) -> None:
    bundle = write_level_bundle(tmp_path)
    sound = spell_levels("bir iki")
    raw = dinle.load(tmp_path, threads=1).transcribe(sound)
    written = write_bundle(replace(bundle, word_start_offset_s=-0.02, word_end_offset_s=0.04, confidence_map=MAP))
    assert read_bundle(tmp_path) == written
    recognizer = dinle.load(tmp_path, threads=1)
    assert recognizer.corrections == WordCorrections(-0.02, 0.04, ConfidenceMap(0.5, -0.25))
    first, second = recognizer.transcribe(sound).words
    assert first.end_s == pytest.approx(raw.words[0].end_s + 0.04)
    assert second.start_s == pytest.approx(raw.words[1].start_s - 0.02)
    assert first.confidence == pytest.approx(ConfidenceMap(0.5, -0.25).apply(raw.words[0].confidence))


def test_an_older_bundle_is_not_corrected(tmp_path: Path) -> None:
    path = write_level_bundle(tmp_path).folder / "bundle.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for name in ("word_start_offset_s", "word_end_offset_s", "confidence_map"):
        del data[name]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert dinle.load(tmp_path, threads=1).corrections == WordCorrections()


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence_map": {"slope": 1.0}},
        {"confidence_map": {"slope": -1.0, "intercept": 0.0}},
        {"confidence_map": [1.0, 0.0]},
        {"word_end_offset_s": "0.1"},
        {"word_start_offset_s": None},
    ],
)
def test_a_bundle_with_wrong_corrections_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write_level_bundle(tmp_path).folder / "bundle.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")
    with pytest.raises(BundleCorruptError, match="expected"):
        dinle.load(tmp_path, threads=1)


@given(st.floats(0.01, 20), st.floats(-20, 20), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_map_keeps_order_and_range(slope: float, intercept: float, confidences: list[float]) -> None:
    mapped = [ConfidenceMap(slope, intercept).apply(one) for one in sorted(confidences)]
    assert mapped == sorted(mapped)
    assert all(0 <= one <= 1 for one in mapped)
    assert [ConfidenceMap().apply(one) for one in confidences] == confidences


@pytest.mark.parametrize("numbers", [(0.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_numbers_that_are_no_map_are_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="slope above 0"):
        ConfidenceMap(*numbers)
