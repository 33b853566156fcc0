from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dinle.errors import UsageError
from dinle.hot_word_lists import collect_hot_words, read_hot_words_file, split_hot_words

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Trendyol,Iğdır Belediyesi", ("Trendyol", "Iğdır Belediyesi")),
        (" Trendyol ,\n\n Iğdır\r\nTrendyol,", ("Trendyol", "Iğdır")),
        ("", ()),
        (" , \n", ()),
    ],
)
def test_a_list_is_parted_by_commas_and_line_breaks(text: str, words: tuple[str, ...]) -> None:
    assert split_hot_words(text) == words


def test_a_file_has_one_a_line_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# markalar\nTrendyol\n\n  Iğdır Belediyesi  # kuzeydoğu\nTrendyol\n", encoding="utf-8")
    assert read_hot_words_file(path, "--hotwords_file") == ("Trendyol", "Iğdır Belediyesi")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read .No such file or directory.; name a file with one hot word a line"),
        (b"Tre\xffndyol", "cannot be read .it is not a text file in UTF-8"),
        (b"# nothing\n\n", "holds no hot word"),
        (b"Trendyol\n!!!\n", "line 2: the hot word '!!!' holds no letter"),
        (("a" * 101).encode(), "line 1: .* has 101 letters; expected at most 100"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"--hotwords_file '.*words\.txt'.*{reason}"):
        read_hot_words_file(path, "--hotwords_file")


def test_list_and_file_are_taken_together_each_word_once(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Iğdır\nTrendyol\n", encoding="utf-8")
    assert collect_hot_words("Trendyol, Kars", path, text_name="A", path_name="B") == ("Trendyol", "Kars", "Iğdır")
    assert collect_hot_words(None, None, text_name="A", path_name="B") == ()


@pytest.mark.parametrize(("text", "reason"), [(" , ", "holds no hot word"), ("Kars,?", "'.' holds no letter")])
def test_a_list_that_is_given_holds_words(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"^ASR_HOTWORDS.*{reason}"):
        collect_hot_words(text, None, text_name="ASR_HOTWORDS", path_name="B")
