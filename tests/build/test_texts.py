"""Text files become weighted texts in the form that is learnt from; what cannot be read is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dinle.build.texts import WeightedText, count_words, find_text_files, part_texts, read_excluded, read_texts
from dinle.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_sentences_are_read_in_the_form_tr_and_numbers_are_spoken(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("IŞIK, Işıl'ın 2 evi!\n\n  \n...\nİyi günler\n", encoding="utf-8")
    assert read_texts([tmp_path]) == [WeightedText("ışık ışılın iki evi"), WeightedText("iyi günler")]


def test_counts_are_damped(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("bir\t6000000\nIğdır 3000\nnadir\t1\n", encoding="utf-8")
    weights = {one.text: one.weight for one in read_texts([tmp_path / "words.tsv"])}
    assert weights == {"bir": 447, "ığdır": 10, "nadir": 1}


def test_what_will_be_recognised_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(
        '{"audio": "a.wav", "text": "Yarın, gelirim.", "duration": 1.0}\n', encoding="utf-8"
    )
    (tmp_path / "a.txt").write_text("yarın gelirim\nbugün gelirim\n", encoding="utf-8")
    excluded = read_excluded([tmp_path])
    assert [one.text for one in read_texts([tmp_path / "a.txt"], excluded)] == ["bugün gelirim"]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.txt", b"\xff\xfe\x00", "not a text in UTF-8"),
        ("a.tsv", "bir\tçok\n".encode(), "line 1"),
        ("a.txt", b"... 12\n!\n".replace(b"12", b""), "no Turkish letters"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=match):
        read_texts([tmp_path / name])


def test_missing_paths_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        find_text_files([tmp_path / "none.txt"])
    with pytest.raises(UsageError, match=r"no \.txt"):
        find_text_files([tmp_path])
    with pytest.raises(UsageError, match="no text was given"):
        find_text_files([])


def test_no_text_is_in_both_parts() -> None:
    texts = [WeightedText(f"metin {number % 30}") for number in range(100)]
    most, kept_back = part_texts(texts)
    assert not {one.text for one in most} & {one.text for one in kept_back}
    assert len(most) + len(kept_back) == 30
    assert len(kept_back) == 3


def test_words_are_counted_with_their_weights() -> None:
    assert count_words([WeightedText("bir iki", 2), WeightedText("iki")]) == {"bir": 2, "iki": 3}
