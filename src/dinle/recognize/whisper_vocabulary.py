"""The tokens that a Whisper decoder writes: pieces of UTF-8 bytes, and special tokens that steer it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dinle.errors import VocabularyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PREVIOUS = "<|startofprev|>"  # begins what was said before a transcript: Whisper's prompt
MAX_PROMPT_TOKENS = 144  # some 25 names; every token that is read makes each written one dearer
FIELDS = ("tokens", "prefix", "end", "suppressed", "suppressed_first")


def map_bytes() -> dict[str, int]:
    """Character to byte of byte-level BPE: printable characters stand for themselves, the others for U+0100 and on.

    The table is GPT-2's ``bytes_to_unicode`` (https://github.com/openai/gpt-2/blob/master/src/encoder.py), turned round.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTES = map_bytes()


@dataclass(frozen=True)
class WhisperVocabulary:
    """Tokens by index, in byte-level form, and which of them steer the decoder.

    Attributes:
        tokens: V strings, as tokenizer.json writes them; specials by their names.
        prefix: what every transcript begins with: start, language, task, no timestamps.
        end: the token that ends a transcript.
        suppressed: tokens that are never written: specials, timestamps, signs that no speech holds.
        suppressed_first: tokens that no transcript begins with.

    Raises:
        VocabularyError: an index lies outside the tokens, no text could begin or none could end.
    """

    tokens: tuple[str, ...]
    prefix: tuple[int, ...]
    end: int
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    _bytes: dict[int, bytes] = field(init=False, repr=False, compare=False, default_factory=dict)
    _index: dict[bytes, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for index in (*self.prefix, self.end, *self.suppressed, *self.suppressed_first):
            if not 0 <= index < len(self.tokens):
                raise VocabularyError(f"index {index} lies outside the vocabulary of {len(self.tokens)} tokens")
        if self.end in self.suppressed:
            raise VocabularyError(f"the end token {self.end} is suppressed; expected a token that ends a transcript")
        if not self.prefix:
            raise VocabularyError("the prefix is empty; expected the tokens that every transcript begins with")

    @property
    def size(self) -> int:
        """The number of tokens V, the specials among them."""
        return len(self.tokens)

    def spell(self, token: int) -> bytes:
        """The UTF-8 bytes of one token; a character may be spread over several tokens."""
        if token not in self._bytes:
            self._bytes[token] = bytes(BYTES[character] for character in self.tokens[token] if character in BYTES)
        return self._bytes[token]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without space at its ends; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.spell, tokens)).decode("utf-8", errors="replace").strip()

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """Tokens that spell a text, at each place the longest; a byte that no token begins with is left out.

        BPE joins in the order of its merges, which a bundle does not hold; the letters are the same.

        Args:
            text: what is spelled.
            most: so many tokens are enough (``None``: all).
        """
        if not self._index:
            steering = {*self.suppressed, *self.prefix, self.end}
            written = (token for token in range(self.size) if token not in steering and self.spell(token))
            self._index.update({self.spell(token): token for token in written})
        longest = max(map(len, self._index))
        data, at = text.encode(), 0
        found: list[int] = []
        while at < len(data) and len(found) != most:
            ends = range(min(len(data), at + longest), at, -1)
            end = next((end for end in ends if data[at:end] in self._index), None)
            if end is not None:
                found.append(self._index[data[at:end]])
            at = end or at + 1
        return found

    def prompt(self, words: Sequence[str]) -> WhisperVocabulary:
        """The same vocabulary, its transcripts beginning as if these words had been said before: so they are expected.

        It is itself where there are none, where the list is longer than :data:`MAX_PROMPT_TOKENS`, and where the model has no
        token for what was said before.
        """
        if not words or PREVIOUS not in self.tokens:
            return self
        tokens = self.encode(f" {', '.join(words)}.", MAX_PROMPT_TOKENS + 1)  # one more shows that the list is too long
        if not tokens or len(tokens) > MAX_PROMPT_TOKENS:
            return self
        return replace(self, prefix=(self.tokens.index(PREVIOUS), *tokens, *self.prefix))

    def split_words(self, tokens: Sequence[int]) -> list[range]:
        """Places of the tokens of each word: a word begins with a token that begins with white space."""
        starts = [place for place, token in enumerate(tokens) if place == 0 or self.spell(token)[:1].isspace()]
        words = [range(start, end) for start, end in pairwise([*starts, len(tokens)])]
        return [word for word in words if self.decode(tokens[word.start : word.stop])]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by :meth:`from_dict`."""
        values = {name: getattr(self, name) for name in FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WhisperVocabulary:
        """Read what :meth:`to_dict` wrote.

        Raises:
            VocabularyError: a field is missing or of the wrong type, or an index does not fit.
        """
        missing = [name for name in FIELDS if name not in data]
        lists = [name for name in FIELDS if name != "end"]
        if missing or not all(isinstance(data[name], list | tuple) for name in lists):
            raise VocabularyError(
                f"a Whisper vocabulary needs the number end and the lists {', '.join(lists)}; got {data!r:.200}"
            )
        values: dict[str, Any] = {name: data[name] if name == "end" else tuple(data[name]) for name in FIELDS}
        ids = (*values["prefix"], values["end"], *values["suppressed"], *values["suppressed_first"])
        if not all(isinstance(token, str) for token in values["tokens"]) or not all(isinstance(i, int) for i in ids):
            raise VocabularyError("the tokens of a vocabulary are strings, and what names them are indexes")
        return cls(**values)
