"""Tokens are bytes: what is cut between them comes together again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.errors import VocabularyError
from dinle.recognize.whisper_vocabulary import BYTES, WhisperVocabulary
from tests.recognize.writers import CHARACTERS, VOCABULARY, spell_bytes

SINGLE = WhisperVocabulary(tokens=(*(CHARACTERS[byte] for byte in range(256)), "<|end|>"), prefix=(256,), end=256)


def test_the_table_has_every_byte_once() -> None:
    assert sorted(BYTES.values()) == list(range(256))
    # GPT-2's own table: space, newline and the first byte of most Turkish letters
    assert (BYTES["Ġ"], BYTES["Ċ"], BYTES["a"], BYTES["Ä"], BYTES["Å"]) == (32, 10, ord("a"), 0xC4, 0xC5)
    assert all(character.isprintable() and not character.isspace() for character in BYTES)


@given(text=st.text())
def test_decodes_what_was_spelled_byte_by_byte(text: str) -> None:
    assert (
        SINGLE.decode(text.encode("utf-8", errors="ignore")) == text.encode("utf-8", errors="ignore").decode().strip()
    )


def test_a_character_may_be_spread_over_tokens() -> None:
    tokens = (spell_bytes(" dili"), CHARACTERS[0xC5], CHARACTERS[0x9F])
    vocabulary = WhisperVocabulary((*tokens, "<|end|>"), prefix=(3,), end=3)
    assert vocabulary.decode([0, 1, 2]) == "diliş"
    assert vocabulary.decode([0, 1]) == "dili\ufffd"
    assert vocabulary.split_words([0, 1, 2]) == [range(3)]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([], []),
        ([4], [range(1)]),
        ([7, 4], [range(1), range(1, 2)]),  # the first token needs no space
        ([4, 5, 6, 7, 10], [range(1), range(1, 2), range(2, 5)]),
    ],
)
def test_words_begin_with_a_space(tokens: list[int], words: list[range]) -> None:
    assert VOCABULARY.split_words(tokens) == words


@pytest.mark.parametrize("blank", [" ", "  ", "\n", "\t"])
def test_white_space_parts_words_and_is_none(blank: str) -> None:
    vocabulary = WhisperVocabulary(("a", spell_bytes(blank), "b", "<|end|>"), prefix=(3,), end=3)
    assert vocabulary.split_words([0, 1, 2]) == [range(1), range(1, 3)]
    assert vocabulary.decode([1, 2]) == "b"
    assert vocabulary.split_words([0, 1]) == [range(1)]


def test_goes_through_json_and_back() -> None:
    assert WhisperVocabulary.from_dict(json.loads(json.dumps(VOCABULARY.to_dict()))) == VOCABULARY
    assert VOCABULARY.size == 11


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": 11}, "index 11 lies outside the vocabulary of 11 tokens"),
        ({"prefix": [-1]}, "index -1 lies outside"),
        ({"prefix": []}, "the prefix is empty"),
        ({"suppressed": [2]}, "the end token 2 is suppressed"),
        ({"tokens": "abc"}, "needs the number end and the lists tokens, prefix"),
        ({"suppressed": None}, "needs the number end and the lists"),
        ({"tokens": [1, 2, 3]}, "tokens of a vocabulary are strings"),
        ({"end": "2"}, "what names them are indexes"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        WhisperVocabulary.from_dict(VOCABULARY.to_dict() | changes)


@pytest.mark.parametrize("name", ["tokens", "prefix", "end", "suppressed", "suppressed_first"])
def test_a_missing_field_is_named(name: str) -> None:
    data = {key: value for key, value in VOCABULARY.to_dict().items() if key != name}
    with pytest.raises(VocabularyError, match=name):
        WhisperVocabulary.from_dict(data)
