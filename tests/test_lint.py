from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.errors import ManifestError, UsageError, VocabularyError
from dinle.lint import ENOUGH_LETTERS, MAX_EXAMPLES, is_dotted_accident, lint_files, lint_labels, lint_vocabulary
from dinle.text import ALPHABET, normalize_tr

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.findings import LintReport

GOOD = ["<blank>", *ALPHABET, " "]


def count(report: LintReport) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.findings}


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("İstanbul".lower(), "combining_dot", 1),
        ("I\u0307stanbul", "not_nfc", 1),
        ("gu\u0308zel go\u0308l", "not_nfc", 2),
        ("kIzıl sİnema", "dotted_capital", 2),
        ("TÜRKiYE KIRMIZı", "dotted_capital", 2),
        ("þimdi", "wrong_encoding", 1),
        ("gÃ¼zel", "wrong_encoding", 1),
        ("g\ufffdzel", "wrong_encoding", 1),
        ("да 👍", "outside_alphabet", 3),
        ("a\x00b", "outside_alphabet", 1),
        ("12 elma", "digits", 2),
        ("café kâğıt", "foreign_letters", 2),
        ("Ali'nin, evi.", "punctuation", 3),
        ("...", "empty", 1),
        ("", "empty", 1),
    ],
)
def test_each_mistake_is_found(text: str, kind: str, found: int) -> None:
    report = lint_labels([("a.wav", text)])
    assert count(report)[kind] == found
    finding = next(finding for finding in report.findings if finding.kind == kind)
    assert finding.examples[0][0] == "a.wav"
    assert bool(report.count) == (finding.severity == "error")


@given(st.lists(st.text(alphabet=st.characters(), max_size=30)))
def test_normalised_labels_have_no_errors(texts: list[str]) -> None:
    labels = [label for text in texts if (label := normalize_tr(text))]
    assert not [
        finding for finding in lint_labels(labels).findings if finding.kind not in {"twin_words", "letter_missing"}
    ]


@pytest.mark.parametrize(
    "word", ["IŞIK", "İstanbul", "Irak", "Iğdır", "WiFi", "II", "ABDli", "iPhone", "McIntosh's", "ışık", "İ", "CD"]
)
def test_right_words_are_no_accidents(word: str) -> None:
    assert not is_dotted_accident(word)


def test_words_that_lost_their_dots_stand_beside_the_right_ones() -> None:
    report = lint_labels(["ışık"] * 30 + ["IŞIK".lower()])
    finding = next(finding for finding in report.findings if finding.kind == "twin_words")
    assert (finding.count, finding.details) == (1, {"işik": 1})
    assert report.count == 0
    assert not lint_labels(["sınır", "sinir"] * 5).findings  # both are words


def test_a_corpus_without_its_letters_is_found() -> None:
    text = "bu cumle turkce harfleri olmayan bir klavyeyle yazildi"
    report = lint_labels([text] * (ENOUGH_LETTERS // 40))
    assert set(report.findings[0].details) == set("çğıöşü")
    assert not lint_labels([text]).count  # one label may lack any letter


def test_examples_are_few_and_counts_whole() -> None:
    report = lint_labels(["i\u0307"] * 100)
    assert report.count == 100
    assert len(report.findings[0].examples) == MAX_EXAMPLES


def test_long_examples_show_the_place() -> None:
    report = lint_labels(["a " * 200 + "i\u0307 " + "b " * 200])
    shown = report.findings[0].examples[0][1]
    assert "i\u0307" in shown
    assert len(shown) < 80


def test_the_report_shows_what_cannot_be_seen() -> None:
    report = lint_labels(["i\u0307 | `"])
    markdown = report.to_markdown()
    assert "iU+0307" in markdown
    assert "\u0307" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1  # no character of a text breaks the table
    assert json.loads(json.dumps(report.to_dict()))["count"] == 1
    assert lint_labels(["merhaba"]).to_markdown() == "1 texts and tokens checked: 0 errors, 0 notes."


def test_a_good_vocabulary_has_no_findings() -> None:
    assert lint_vocabulary(GOOD).findings == ()


@pytest.mark.parametrize(
    ("tokens", "kind", "details"),
    [
        ([*GOOD, "a", "a"], "duplicate_token", {"a": 2}),
        ([*GOOD, "I", "Ş"], "uppercase_token", {"I": 1, "Ş": 1}),
        ([*GOOD, "i\u0307"], "combining_dot", {"i\u0307": 1}),
        ([*GOOD, "u\u0308"], "not_nfc", {"u\u0308": 1}),
        ([*GOOD, "é", "7"], "outside_alphabet", {"é": 1, "7": 1}),
        ([token for token in GOOD if token not in "ğı"], "letter_missing", {"ğ": 1, "ı": 1}),
    ],
)
def test_each_mistake_of_a_vocabulary_is_found(tokens: list[str], kind: str, details: dict[str, int]) -> None:
    (finding,) = lint_vocabulary(tokens).findings
    assert (finding.kind, finding.details, finding.severity) == (kind, details, "error")


def test_special_tokens_and_word_pieces_are_passed_over() -> None:
    assert not lint_vocabulary([*GOOD, "<pad>", "[UNK]", "|", "", "▁ev", "##ler", "<s>"]).findings


def test_files(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"audio": "a.wav", "text": "i\u0307yi", "duration": 1.0}) + "\n", encoding="utf-8")
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({token: index for index, token in enumerate([*GOOD, "I"])}), encoding="utf-8")
    labels = tmp_path / "labels.txt"
    labels.write_text("\ufeffiyi\nkIzıl\n", encoding="utf-8")
    report = lint_files([manifest, vocabulary, labels])
    assert count(report) == {"combining_dot": 1, "dotted_capital": 1, "uppercase_token": 1}
    assert report.checked == 1 + len(GOOD) + 1 + 2
    places = {finding.kind: finding.examples[0][0] for finding in report.findings}
    assert places == {
        "combining_dot": "manifest.jsonl:1",
        "dotted_capital": "labels.txt:2",
        "uppercase_token": "vocab.json",
    }
    assert count(lint_files([tmp_path])) == {"combining_dot": 1, "uppercase_token": 1}  # a folder: what it holds


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        {"tokens": GOOD, "blank": 0},
        {"name": "x", "vocabulary": {"tokens": GOOD, "blank": 0}},
        {"model": {"vocab": {token: index for index, token in enumerate(GOOD)}}},
    ],
)
def test_every_form_of_vocabulary_is_read(tmp_path: Path, content: object) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    report = lint_files([path])
    assert (report.checked, report.findings) == (len(GOOD), ())


def test_duplicates_that_json_hides_are_found(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    pairs = [f"{json.dumps(token)}: {index}" for index, token in enumerate(GOOD)]
    path.write_text("{" + ", ".join([*pairs, '"a": 99']) + "}", encoding="utf-8")
    assert lint_files([path]).findings[0].details == {"a": 1}
    path.write_text("{" + ", ".join([*pairs, '"q": 1']) + "}", encoding="utf-8")
    assert count(lint_files([path])) == {"duplicate_token": 3}  # q twice, and its index is that of a


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("v.json", b"{", VocabularyError, "not JSON"),
        ("v.json", b'{"a": "b"}', VocabularyError, "no vocabulary"),
        ("v.json", b"[]", VocabularyError, "no vocabulary"),
        ("v.json", b"3", VocabularyError, "no vocabulary"),
        ("m.jsonl", b'{"audio": "a.wav"}', UsageError, "field text"),
        ("m.jsonl", b"[1]", ManifestError, "object"),
        ("t.txt", "ışık".encode("cp1254"), UsageError, "UTF-8"),
        ("v.json", b'["\xff"]', UsageError, "UTF-8"),
    ],
)
def test_unusable_files_say_why(tmp_path: Path, name: str, content: bytes, error: type[Exception], says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=says):
        lint_files([path])


def test_nothing_to_lint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to lint"):
        lint_files([tmp_path])
    with pytest.raises(UsageError, match="nothing to lint"):
        lint_files([tmp_path / "missing.txt"])
