"""OpenAI's prompt: which names and terms are read out of it, and that nothing in it is ever an error."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.recognize.hot_words import HotWords
from dinle.serve.prompts import MAX_PROMPT_CHARACTERS, MAX_PROMPT_WORDS, read_prompt


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Trendyol, Iğdır Belediyesi; ZyntriQix\nkâğıt", ["Trendyol", "Iğdır Belediyesi", "ZyntriQix", "kâğıt"]),
        (
            "Trendyol. Hepsiburada! Yemeksepeti? Getir… Migros.",
            ["Trendyol", "Hepsiburada", "Yemeksepeti", "Getir", "Migros"],
        ),
        ("“Çiçek Sepeti.” (Getir)", ["Çiçek Sepeti", "Getir"]),
        ("Toplantıda Işık ile İpek konuştu", ["Işık", "İpek"]),
        ("Dün İstanbul'dan Şişli'ye geçip Ali Bey’i gördüm", ["İstanbul", "Şişli", "Ali", "Bey"]),
        ("Toplantıda Ayşe ile İpek'i dinliyoruz.", ["Ayşe", "İpek"]),
        ("Bu kayıtta D'Artagnan ile Ömer konuşuyor", ["D'Artagnan", "Ömer"]),
        ("Konuşma teknolojiyle ilgili kelimeler içeriyor olabilir.", []),
        ("bir iki üç, bir iki üç dört", ["bir iki üç"]),
        ("sürüm 3.5 çıktı", ["sürüm 3.5 çıktı"]),
        ("Trendyol, TRENDYOL, trendyol, Trendyol", ["Trendyol"]),
        ("", []),
        ("!!! ... ,;\n\r —", []),
        ("a, o, ki", ["ki"]),
        ("語, Kars", ["Kars"]),
        ("x" * 101 + ", Kars", ["Kars"]),
        ("9" * 60 + ", Kars", ["Kars"]),
    ],
)
def test_names_and_terms_are_read_out(prompt: str, words: list[str]) -> None:
    assert list(read_prompt(prompt)) == words


def test_of_a_long_prompt_the_first_words_are_taken() -> None:
    letters = "abcdefghij"
    words = [a + b + c + d for a in letters for b in letters for c in letters for d in letters]
    assert list(read_prompt(",".join(words))) == words[:MAX_PROMPT_WORDS]
    assert read_prompt("," * MAX_PROMPT_CHARACTERS + "Kars") == ()


@pytest.mark.parametrize("piece", [",", "1,", "12 ", "9" * 90 + ",", "Ş", "a. ", "'", "\U0001f600,"])
def test_a_megabyte_takes_no_time(piece: str) -> None:
    started = time.perf_counter()
    read_prompt(piece * (1_000_000 // len(piece)))
    assert time.perf_counter() - started < 0.5


@given(st.text(max_size=300))
def test_whatever_is_read_can_be_looked_for(prompt: str) -> None:
    words = read_prompt(prompt)
    if words:
        HotWords(words)
    assert len(set(words)) == len(words)
