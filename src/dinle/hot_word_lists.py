"""Hot words as people write them down: a list with commas, or a file with one a line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dinle.errors import UsageError
from dinle.recognize.hot_words import list_forms

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BETWEEN = re.compile(r"[,\r\n]")
_COMMENT = re.compile(r"(?:^|\s)#.*")


def split_hot_words(text: str) -> tuple[str, ...]:
    """The words and phrases of a list with commas or line breaks between them, each once: ``Trendyol, Iğdır Belediyesi``."""
    return tuple(dict.fromkeys(word for part in _BETWEEN.split(text) if (word := part.strip())))


def read_hot_words_file(path: Path, name: str) -> tuple[str, ...]:
    """The words and phrases of a file, one a line; ``#`` at the beginning of a line, or after a space, begins a comment.

    Args:
        path: a text file in UTF-8.
        name: what errors call it: a flag or a variable.

    Raises:
        UsageError: it cannot be read, holds no word, or a line that is none; the message has the line's number.
    """
    place = f"{name} {str(path)!r}"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file in UTF-8"
        raise UsageError(f"{place} cannot be read ({reason}); name a file with one hot word a line") from error
    words = {number: _COMMENT.sub("", line).strip() for number, line in enumerate(lines, start=1)}
    words = {number: word for number, word in words.items() if word}
    if not words:
        raise UsageError(f"{place} holds no hot word; write one name or term a line, or leave the file out")
    for number, word in words.items():
        check_hot_word(word, f"{place}, line {number}")
    return tuple(dict.fromkeys(words.values()))


def collect_hot_words(text: str | None, path: Path | None, *, text_name: str, path_name: str) -> tuple[str, ...]:
    """The words of a list and of a file together, each once.

    Args:
        text: see :func:`split_hot_words` (``None``: not given).
        path: see :func:`read_hot_words_file` (``None``: not given).
        text_name: what errors call the list.
        path_name: what errors call the file.

    Raises:
        UsageError: one of the two is given and holds no word, or one that cannot be looked for.
    """
    words = list(_read_list(text, text_name)) if text is not None else []
    words += read_hot_words_file(path, path_name) if path is not None else ()
    return tuple(dict.fromkeys(words))


def _read_list(text: str, name: str) -> Iterable[str]:
    words = split_hot_words(text)
    if not words:
        raise UsageError(f"{name} is {text!r} and holds no hot word; write names or terms with commas between them")
    for word in words:
        check_hot_word(word, name)
    return words


def check_hot_word(word: str, place: str) -> None:
    """See that a word can be looked for.

    Raises:
        UsageError: it has no letters, or too many; the message begins with ``place``.
    """
    try:
        list_forms(word)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error
