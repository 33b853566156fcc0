"""Tokens are bytes: what is cut between them comes together again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.errors import VocabularyError
from dinle.recognize.whisper_vocabulary import BYTES, MAX_PROMPT_TOKENS, WhisperVocabulary
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


@given(text=st.text(alphabet="abc ışİé😀", max_size=30))
def test_what_is_encoded_is_decoded(text: str) -> None:
    assert SINGLE.decode(SINGLE.encode(text)) == text.strip()


def test_a_text_is_spelled_with_the_longest_tokens_and_never_with_those_that_steer() -> None:
    tokens = (
        *(CHARACTERS[byte] for byte in range(256)),
        spell_bytes(" dinle"),
        spell_bytes(" di"),
        "<|end|>",
        "<|tr|>",
    )
    vocabulary = WhisperVocabulary(tokens, prefix=(259,), end=258)
    assert vocabulary.encode(" dinle di") == [256, 257]
    assert vocabulary.encode("<|tr|>") == list(b"<|tr|>")
    assert vocabulary.encode("") == []


def test_a_prompt_stands_before_the_prefix_and_only_a_short_one() -> None:
    tokens = (*(CHARACTERS[byte] for byte in range(256)), "<|end|>", "<|startofprev|>", "<|start|>")
    plain = WhisperVocabulary(tokens, prefix=(258,), end=256, suppressed=(257, 258))
    prompted = plain.prompt(["Iğdır", "Şile"])
    assert prompted.prefix[0] == 257
    assert prompted.decode(prompted.prefix[1:-1]) == "Iğdır, Şile."
    assert prompted.prefix[-1] == 258
    assert prompted.suppressed == plain.suppressed
    assert plain.prompt([]) is plain
    assert plain.prompt(["a" * (MAX_PROMPT_TOKENS - 2)]).prefix != plain.prefix
    assert plain.prompt(["a" * (MAX_PROMPT_TOKENS - 1)]) is plain  # the space before it and the full stop count too
    assert SINGLE.prompt(["Iğdır"]) is SINGLE  # no token for what was said before


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
