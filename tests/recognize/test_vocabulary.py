from __future__ import annotations

import pytest

from dinle.errors import UnknownCharacterError, VocabularyError
from dinle.recognize.vocabulary import Vocabulary


def test_the_turkish_vocabulary_has_every_letter_once() -> None:
    vocabulary = Vocabulary.turkish()
    assert vocabulary.size == 34
    assert vocabulary.tokens[vocabulary.blank] == "<blank>"
    assert [vocabulary.tokens[i] for i in vocabulary.encode("ığ şq")] == ["ı", "ğ", " ", "ş", "q"]


def test_a_duplicate_token_is_named() -> None:
    with pytest.raises(VocabularyError, match="'a' more than once"):
        Vocabulary(("_", "a", "b", "a"), blank=0)


@pytest.mark.parametrize(("blank", "specials"), [(3, ()), (-1, ()), (0, (7,))])
def test_an_index_outside_is_refused(blank: int, specials: tuple[int, ...]) -> None:
    with pytest.raises(VocabularyError, match="outside the vocabulary of 3"):
        Vocabulary(("_", "a", "b"), blank=blank, specials=frozenset(specials))


def test_an_unknown_character_is_named_with_what_is_known() -> None:
    with pytest.raises(UnknownCharacterError, match="'I', 'é'.*normalise"):
        Vocabulary.turkish().encode("Ié")


@pytest.mark.parametrize("text", ["<blank>", "<"])
def test_the_blank_cannot_be_written(text: str) -> None:
    with pytest.raises(UnknownCharacterError):
        Vocabulary.turkish().encode(text)


def test_survives_json() -> None:
    vocabulary = Vocabulary(("<s>", "_", "a", " "), blank=1, specials=frozenset({0}))
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary


@pytest.mark.parametrize(
    "data", [{}, {"tokens": ["a"]}, {"tokens": [1, 2], "blank": 0}, {"tokens": ["a"], "blank": "a"}]
)
def test_unreadable_data_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(VocabularyError):
        Vocabulary.from_dict(data)
