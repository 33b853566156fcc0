"""The linter of labels and vocabularies: what Turkish text suffers on its way through programs that know only English.

Two severities. An *error* is damage, or something that the form ``tr`` cannot carry: a model trained on it learns it. A
*note* is what :func:`dinle.text.normalize_tr` takes care of (digits, punctuation, accents), or a suspicion that needs
an eye. ``LintReport.count`` counts the errors alone.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError, VocabularyError
from dinle.findings import KINDS, Finding, LintReport
from dinle.manifest import MANIFEST_NAME, iterate_lines
from dinle.text import ALPHABET, APOSTROPHES, COMBINING_DOT, TURKISH_ALPHABET, fold_character, lower_tr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_EXAMPLES = 5
EXCERPT_CHARS = 60
ENOUGH_LETTERS = 2000  # of these, the rarest letter below is expected about 17 times (ö, 0.86 %): none is no accident
EVERYDAY_LETTERS = "çğıiöşü"
TWIN_RATIO = 10  # times more frequent; sınır and sinir are both words, ışık and işik are not

_WORD = re.compile(r"[^\W\d_]+")
_ENCODING = re.compile(r"[ýþðÝÞÐ\ufffd]|[ÃÄÅ][\u0080-\u00bf\u0152-\u0178\u2013-\u203a]")
_SPECIAL = re.compile(r"<.*>|\[.*\]|\|?")  # <pad>, [UNK], the word bar, the blank that is empty
_PREFIX = re.compile(r"▁|##|Ġ")
_SIGNS = frozenset("₺$€£¥°²³½¼¾№")
_VOCABULARY_NAMES = ("bundle.json", "vocab.json")


def lint_labels(texts: Iterable[str | tuple[str, str]]) -> LintReport:
    """Look for Turkish mistakes in labels as they stand, normalised or not.

    Args:
        texts: the labels, or pairs of a name to show in examples (a file, a line) and the label.
    """
    linter = _Linter()
    for number, item in enumerate(texts, start=1):
        where, text = (str(number), item) if isinstance(item, str) else item
        linter.check_label(where, text)
    return linter.finish()


def lint_vocabulary(tokens: Iterable[str], *, where: str = "") -> LintReport:
    """Look for mistakes in the tokens of a vocabulary; special tokens (``<pad>``, ``[UNK]``, ``|``) are passed over.

    Args:
        tokens: in the order of their indexes, duplicates included.
        where: a name to show in examples.
    """
    linter = _Linter()
    linter.check_vocabulary(where, tokens)
    return linter.finish()


def lint_files(paths: Sequence[Path]) -> LintReport:
    """Look for mistakes in files: one report for all of them.

    ``.jsonl`` is a manifest (field ``text``), ``.json`` a vocabulary (token -> index, a list of tokens, or a
    ``bundle.json``), a folder whatever of these it holds, and any other file plain text, a label a line.

    Raises:
        UsageError: a file is missing, is not UTF-8 text, or holds nothing of this.
        ManifestError: a line of a manifest is not a JSON object.
        VocabularyError: a ``.json`` file holds no vocabulary.
    """
    linter = _Linter()
    for path in (file for given in paths for file in _find_files(Path(given))):
        try:
            _lint_file(linter, path)
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{path} is not UTF-8 text ({error}); expected a manifest, a vocabulary or plain text"
            ) from error
    return linter.finish()


def _find_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [path / name for name in (MANIFEST_NAME, *_VOCABULARY_NAMES) if (path / name).is_file()]
    if not found:
        raise UsageError(
            f"there is nothing to lint at {path}; expected a .jsonl manifest, a vocabulary .json, a text file, "
            f"or a folder with {MANIFEST_NAME}, {' or '.join(_VOCABULARY_NAMES)}"
        )
    return found


def _lint_file(linter: _Linter, path: Path) -> None:
    suffix = path.suffix.casefold()
    if suffix == ".jsonl":
        for number, fields in iterate_lines(path):
            linter.check_label(f"{path.name}:{number}", _read_label(fields, path, number))
    elif suffix == ".json":
        linter.check_vocabulary(path.name, *read_tokens(path))
    else:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                linter.check_label(f"{path.name}:{number}", line.rstrip("\r\n"))


def _read_label(fields: Mapping[str, Any], path: Path, number: int) -> str:
    text = fields.get("text")
    if not isinstance(text, str):
        raise UsageError(
            f"{path}:{number}: the field text is {text!r:.80}; expected a string, as in 'dinle prepare' manifests"
        )
    return text


def read_tokens(path: Path) -> tuple[list[str], list[str]]:
    """The tokens of a vocabulary file in the order of their indexes, duplicates included; and what shares an index.

    Raises:
        VocabularyError: the file is not JSON or holds none of the known forms.
    """
    repeated: list[str] = []

    def keep_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in keys.items() for _ in range(count - 1))
        return dict(pairs)

    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=keep_pairs)
    except (json.JSONDecodeError, RecursionError) as error:
        raise VocabularyError(f"{path} is not JSON ({error}); expected a vocabulary such as vocab.json") from error
    tokens = _find_tokens(data)
    if tokens is None:
        raise VocabularyError(
            f"{path} holds no vocabulary; expected token -> index, a list of tokens, or the field vocabulary of a bundle.json"
        )
    return tokens[0] + repeated, tokens[1]


def _find_tokens(data: Any) -> tuple[list[str], list[str]] | None:
    if isinstance(data, list):
        return (data, []) if data and all(isinstance(token, str) for token in data) else None
    if not isinstance(data, dict):
        return None
    for key in ("vocabulary", "model", "vocab", "tokens"):  # bundle.json, tokenizer.json, and their parts
        if isinstance(data.get(key), (dict, list)):
            return _find_tokens(data[key])
    if not data or not all(isinstance(index, int) for index in data.values()):
        return None
    uses = Counter(data.values())
    tokens = sorted(data, key=lambda token: int(data[token]))
    return tokens, [f"{token} = {data[token]}" for token in tokens if uses[data[token]] > 1]


@dataclass
class _Linter:
    """Collects findings over any number of texts; memory grows with the distinct words, not with the texts."""

    checked: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    letters: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, where: str, text: str, details: Iterable[str]) -> None:
        """Count each of ``details``; keep ``text`` as an example while there are few."""
        found = Counter(details)
        if not found:
            return
        self.counts[kind].update(found)
        if len(self.examples[kind]) < MAX_EXAMPLES:
            self.examples[kind].append((where, _excerpt(text, next(iter(found)))))

    def check_label(self, where: str, text: str) -> None:
        """Look at one label."""
        self.checked += 1
        composed = unicodedata.normalize("NFC", text)
        words = _WORD.findall(composed.replace(COMBINING_DOT, ""))
        self.add("combining_dot", where, text, re.findall(rf".?{COMBINING_DOT}", composed))
        self.add("dotted_capital", where, text, filter(is_dotted_accident, words))
        self.add("not_nfc", where, text, [] if composed == text else _find_broken(text))
        self.add("wrong_encoding", where, text, _ENCODING.findall(composed))
        lowered = lower_tr(composed)
        for kind, characters in _sort_characters(lowered).items():
            self.add(kind, where, text, characters)
        if not any(character.isalnum() for character in text):
            self.add("empty", where, text, ["empty" if not text.strip() else text.strip()])
        self.letters.update(character for character in lowered if character in ALPHABET)
        self.words.update(_WORD.findall(lowered))

    def check_vocabulary(self, where: str, tokens: Iterable[str], clashes: Iterable[str] = ()) -> None:
        """Look at the tokens of one vocabulary, and count the ``clashes``: tokens that share an index."""
        tokens = list(tokens)
        self.checked += len(tokens)
        for token, count in Counter(tokens).items():
            self.add("duplicate_token", where, token, [token] * (count - 1))
            bare = _PREFIX.sub("", token)
            if not _SPECIAL.fullmatch(token) and bare.strip():
                self.check_token(where, bare)
        self.add("duplicate_token", where, "two tokens with one index", clashes)
        known = {character for token in tokens for character in token}
        missing = [letter for letter in TURKISH_ALPHABET if letter not in known]
        self.add("letter_missing", where, "".join(missing), missing)

    def check_token(self, where: str, token: str) -> None:
        """Look at one token that stands for text."""
        composed = unicodedata.normalize("NFC", token)
        self.add("combining_dot", where, token, re.findall(rf".?{COMBINING_DOT}", composed))
        self.add("not_nfc", where, token, [] if composed == token else [token])
        self.add(
            "uppercase_token", where, token, [token] if lower_tr(token) != composed.replace(COMBINING_DOT, "") else []
        )
        foreign = [
            character
            for character in lower_tr(token)
            if character not in ALPHABET and not character.isspace() and character not in APOSTROPHES
        ]
        self.add("outside_alphabet", where, token, foreign)

    def finish(self) -> LintReport:
        """The report, errors before notes."""
        missing = [letter for letter in EVERYDAY_LETTERS if not self.letters[letter]]
        if self.letters.total() >= ENOUGH_LETTERS:
            self.add("letter_missing", "", f"none of {''.join(missing)} in {self.letters.total()} letters", missing)
        self._find_twins()
        return LintReport(self.checked, tuple(self._describe(kind) for kind in KINDS if self.counts[kind].total()))

    def _find_twins(self) -> None:
        families: dict[str, list[str]] = defaultdict(list)
        for word in self.words:
            if "i" in word or "ı" in word:
                families[word.replace("ı", "i")].append(word)
        for family in families.values():
            usual = max(family, key=lambda word: self.words[word])
            for word in family:
                if word != usual and self.words[word] * TWIN_RATIO <= self.words[usual]:
                    times = f"{word} {self.words[word]}, {usual} {self.words[usual]}"
                    self.add("twin_words", "", times, [word] * self.words[word])

    def _describe(self, kind: str) -> Finding:
        severity, meaning = KINDS[kind]
        counts = self.counts[kind]
        return Finding(kind, severity, meaning, counts.total(), dict(counts.most_common()), tuple(self.examples[kind]))


def is_dotted_accident(word: str) -> bool:
    """Whether a program that knows no Turkish has changed the case of ``word``: ``kIzıl``, ``sİnema``, ``TÜRKiYE``."""
    rest = word[1:]
    capitals = [letter for letter in rest if letter.isupper()]
    small = [letter for letter in word if letter.islower()]
    if word.startswith(("Mc", "Mac")):
        return False  # McIntosh
    if capitals and set(capitals) <= {"I", "İ"}:
        return len(small) > len(capitals)
    inside_capitals = len(word) - len(small) > len(small) and word[0].isupper() and len(capitals) > 1
    return bool(small) and set(small) <= {"i", "ı"} and inside_capitals


def _find_broken(text: str) -> list[str]:
    """The letters in pieces: each base with the marks that follow it."""
    pieces = re.findall(r".[\u0300-\u036f]+", text)
    return pieces or [character for character in text if unicodedata.normalize("NFC", character) != character]


def _sort_characters(lowered: str) -> dict[str, list[str]]:
    """The characters that are neither letters of the alphabet nor white space, by the kind of finding."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for character in lowered:
        if character in ALPHABET or character.isspace():
            continue
        kinds[_classify_character(character)].append(character)
    return kinds


def _classify_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return "digits"
    if category[0] == "P" or character in APOSTROPHES or character in _SIGNS or character.isascii():
        return "punctuation" if category != "Cc" else "outside_alphabet"
    return "foreign_letters" if category[0] == "L" and fold_character(character).strip() else "outside_alphabet"


def _excerpt(text: str, around: str) -> str:
    """``text``, or what stands around ``around`` when it is long."""
    if len(text) <= EXCERPT_CHARS:
        return text
    start = max(0, min(text.find(around) - EXCERPT_CHARS // 2, len(text) - EXCERPT_CHARS))
    end = start + EXCERPT_CHARS
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
