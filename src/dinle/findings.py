"""The kinds of mistakes that the linter knows, and the report of what it found."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping  # the annotations of a dataclass are read at run time
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "note"]

# kind -> severity, what it means
KINDS: Mapping[str, tuple[Severity, str]] = {
    "combining_dot": ("error", "U+0307, left behind by str.lower() on İ: use dinle.text.lower_tr"),
    "dotted_capital": ("error", "I or İ inside a lower-case word, or i or ı inside an upper-case one"),
    "not_nfc": ("error", "letters in pieces (not NFC): they look whole and compare unequal"),
    "wrong_encoding": ("error", "signs of a wrong encoding (ý þ ð for ı ş ğ, U+FFFD, UTF-8 read as Latin-1)"),
    "outside_alphabet": ("error", "characters without a Turkish reading: normalize_tr drops them, no vocabulary needs them"),
    "letter_missing": ("error", "Turkish letters that never occur: the text, or the vocabulary, has lost them"),
    "duplicate_token": ("error", "tokens, or their indexes, that occur twice"),
    "uppercase_token": ("error", "tokens with capitals: labels are lower case, so they are never learnt"),
    "twin_words": ("note", "words that differ from a far more frequent one only in i and ı"),
    "digits": ("note", "numerals: normalize_tr spells them"),
    "foreign_letters": ("note", "letters with accents: normalize_tr writes their base letter"),
    "punctuation": ("note", "punctuation and other signs: normalize_tr takes them away"),
    "empty": ("note", "texts without a single letter or digit"),
}  # fmt: skip
MAX_DETAILS = 20  # shown in a table; to_dict has all


@dataclass(frozen=True)
class Finding:
    """One kind of mistake: how often, in which characters or words, and where first."""

    kind: str
    severity: Severity
    meaning: str
    count: int
    details: Mapping[str, int]
    examples: tuple[tuple[str, str], ...]  # (where, what was there)


@dataclass(frozen=True)
class LintReport:
    """What was found in ``checked`` texts and tokens, errors first."""

    checked: int
    findings: tuple[Finding, ...]

    @property
    def count(self) -> int:
        """The number of errors, notes not counted."""
        return sum(finding.count for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: ``checked``, ``count`` and ``findings``."""
        return {
            "checked": self.checked,
            "count": self.count,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_markdown(self) -> str:
        """A table of the findings, then the first examples of each."""
        notes = sum(finding.count for finding in self.findings) - self.count
        summary = f"{self.checked} texts and tokens checked: {self.count} errors, {notes} notes."
        if not self.findings:
            return summary
        rows = [
            f"| {finding.severity} | {finding.kind} | {finding.count} | {_list_details(finding.details)} | {finding.meaning} |"
            for finding in self.findings
        ]
        examples = [f"- {finding.kind}: {_list_examples(finding)}" for finding in self.findings]
        table = ["| | kind | count | what | meaning |", "|---|---|---:|---|---|", *rows]
        return "\n".join([summary, "", *table, "", "First examples:", "", *examples])


def _list_details(details: Mapping[str, int]) -> str:
    shown = [f"{_show(what)} {count}" for what, count in list(details.items())[:MAX_DETAILS]]
    return ", ".join(shown) + (", ..." if len(details) > MAX_DETAILS else "")


def _list_examples(finding: Finding) -> str:
    return "; ".join(f"{where}: {_show(what)}" if where else _show(what) for where, what in finding.examples)


def _show(text: str) -> str:
    """As code, with its invisible and combining characters, and those that Markdown would read, as code points."""
    shown = (
        f"U+{ord(character):04X}" if unicodedata.category(character)[0] in "CM" or character in "|`" else character
        for character in text
    )
    return f"`{''.join(shown)}`"
