"""OpenAI's ``prompt`` -> hot words.

OpenAI's models go on from the prompt as from a text that came before; people write names and terms into it, as a list or in
sentences. dinle takes the names and terms and leaves the rest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dinle.errors import UsageError
from dinle.recognize.hot_words import MAX_LETTERS, list_forms
from dinle.text import APOSTROPHES

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PROMPT_WORDS = 1_000
MAX_PROMPT_CHARACTERS = 20_000  # OpenAI's own models read 224 tokens
PHRASE_WORDS = 3  # a longer piece is a sentence, not a name
MIN_LETTERS = 2  # a single letter would be found at the beginning of every third word
# Commas, semicolons, line breaks, and the ends of sentences with the quotes and brackets that they close.
_BETWEEN = re.compile(r"[,;\r\n]|[.!?…]+[\"'”’»)\]]*(?=\s|$)")
_AROUND = "\"'“”„‘’«»()[]{}<>:–—-•*"
_SUFFIX = re.compile(f"[{APOSTROPHES}]")


def read_prompt(prompt: str) -> tuple[str, ...]:
    """The names and terms of a prompt, each once, in order; none where it has none. Whatever the prompt is, it is no error.

    The prompt is parted at commas, semicolons, line breaks and the ends of sentences. A piece of at most
    :data:`PHRASE_WORDS` words is a term as it stands; of a longer piece the words with a capital letter are names, but for
    the first, and without the suffix after an apostrophe (``Trendyol'dan`` gives ``Trendyol``). What cannot be looked for is
    left out. The first :data:`MAX_PROMPT_WORDS` are taken, from the first :data:`MAX_PROMPT_CHARACTERS` characters.
    """
    found: dict[str, str] = {}  # letters -> as it was written first
    for term in dict.fromkeys(_find_terms(prompt[:MAX_PROMPT_CHARACTERS])):
        letters = _spell(term)
        if len(letters) >= MIN_LETTERS:
            found.setdefault(letters, term)
        if len(found) == MAX_PROMPT_WORDS:
            break
    return tuple(found.values())


def _find_terms(prompt: str) -> Iterator[str]:
    for piece in _BETWEEN.split(prompt):
        words = [word for token in piece.split() if (word := token.strip(_AROUND))]
        if len(words) <= PHRASE_WORDS:
            yield " ".join(words)
        else:
            yield from (_cut_suffix(word) for word in words[1:] if word[0].isupper())


def _cut_suffix(name: str) -> str:
    """A name without its suffix; whole where a single letter stands before the apostrophe, as in ``D'Artagnan``."""
    stem = _SUFFIX.split(name)[0]
    return stem if len(stem) >= MIN_LETTERS else name


def _spell(term: str) -> str:
    """The letters of a term; none where it cannot be looked for."""
    if len(term) > MAX_LETTERS:
        return ""
    try:
        return list_forms(term)[0]
    except UsageError:
        return ""
