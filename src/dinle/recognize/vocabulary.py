"""The tokens that a CTC model can write."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dinle.errors import UnknownCharacterError, VocabularyError
from dinle.text import ALPHABET

if TYPE_CHECKING:
    from collections.abc import Mapping

BLANK_TOKEN = "<blank>"  # noqa: S105 - a CTC token, not a password
SPACE = " "


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by index; ``" "`` parts words, the blank and the specials are never written.

    Raises:
        VocabularyError: two tokens are equal, or the blank or a special is not an index of ``tokens``.
    """

    tokens: tuple[str, ...]
    blank: int
    specials: frozenset[int] = frozenset()
    _index: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        twice = sorted(token for token, count in Counter(self.tokens).items() if count > 1)
        if twice:
            raise VocabularyError(
                f"the vocabulary holds {', '.join(map(repr, twice))} more than once; each token needs one index of its own"
            )
        for index in (self.blank, *self.specials):
            if not 0 <= index < len(self.tokens):
                raise VocabularyError(f"index {index} lies outside the vocabulary of {len(self.tokens)} tokens")
        hidden = {self.blank, *self.specials}
        self._index.update((token, i) for i, token in enumerate(self.tokens) if i not in hidden)

    @classmethod
    def turkish(cls) -> Vocabulary:
        """The 29 Turkish letters and q w x, the blank first and the space last (34 tokens)."""
        return cls((BLANK_TOKEN, *ALPHABET, SPACE), blank=0)

    @property
    def size(self) -> int:
        """The number of tokens V, the blank and the specials among them."""
        return len(self.tokens)

    @property
    def hidden(self) -> frozenset[int]:
        """The indexes that are never written: the blank and the specials."""
        return self.specials | {self.blank}

    def encode(self, text: str) -> list[int]:
        """The token indexes of normalised ``text``, one for each character.

        Raises:
            UnknownCharacterError: a character is not in the vocabulary.
        """
        unknown = sorted({character for character in text if character not in self._index})
        if unknown:
            known = "".join(sorted(token for token in self._index if len(token) == 1))
            raise UnknownCharacterError(
                f"{text!r} holds {', '.join(map(repr, unknown))}, which the model cannot write; it knows {known!r}: "
                "normalise the text (dinle.text.normalize_tr) or use a model with a larger vocabulary"
            )
        return [self._index[character] for character in text]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by :meth:`from_dict`."""
        return {"tokens": list(self.tokens), "blank": self.blank, "specials": sorted(self.specials)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Read what :meth:`to_dict` wrote.

        Raises:
            VocabularyError: a field is missing or of the wrong type, or the tokens do not fit (see the class).
        """
        try:
            tokens, blank, specials = tuple(data["tokens"]), data["blank"], frozenset(data.get("specials", ()))
        except (KeyError, TypeError) as error:
            raise VocabularyError(
                f"a vocabulary needs the fields tokens and blank: {error!r} in {data!r:.200}"
            ) from error
        if not all(isinstance(token, str) for token in tokens) or not isinstance(blank, int):
            raise VocabularyError("the tokens of a vocabulary are strings and its blank is an index")
        return cls(tokens, blank, specials)
