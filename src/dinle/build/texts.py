"""Text files -> weighted texts in the form that is learnt from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dinle.errors import UsageError
from dinle.manifest import read_manifest
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

COUNTS_SUFFIX = ".tsv"
# A word of a frequency list counts like (count / RARE) ** DAMPING sentences: as often as it was seen, the commonest words
# would be all that a model learns. Chosen among 0.3 and 0.5 on clips of data/synthetic-sentences.
DAMPING = 0.5
RARE = 30
MAX_WEIGHT = 1000


@dataclass(frozen=True)
class WeightedText:
    """A text in the form ``tr``, and how many times it counts."""

    text: str
    weight: int = 1


def find_text_files(paths: Iterable[Path]) -> list[Path]:
    """Files, and the ``.txt`` and ``.tsv`` files below folders, in order.

    Raises:
        UsageError: a path that is not there, a folder without texts, or nothing at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                each for each in path.rglob("*") if each.suffix in (".txt", COUNTS_SUFFIX) and each.is_file()
            )
            if not inside:
                raise UsageError(f"the folder {path} holds no .txt and no .tsv file; give files with a sentence a line")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"there is no file or folder {path}; give texts with a sentence a line")
    if not found:
        raise UsageError("no text was given; name files with a sentence a line, or folders of them")
    return found


def read_texts(paths: Iterable[Path], excluded: Iterable[str] = ()) -> list[WeightedText]:
    """The texts of files: a sentence a line, or in ``.tsv`` files a word and its count a line.

    Args:
        paths: see :func:`find_text_files`.
        excluded: texts in the form ``tr`` that are left out, such as those that will be recognised.

    Raises:
        UsageError: a file is not UTF-8, or a count is no number; nothing is left.
    """
    without = frozenset(excluded)
    found = [
        each for path in find_text_files(paths) for each in _read_file(path) if each.text and each.text not in without
    ]
    if not found:
        raise UsageError("the texts hold no Turkish letters that are not left out; expected a sentence a line")
    return found


def _read_file(path: Path) -> Iterator[WeightedText]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not a text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    for number, line in enumerate(lines, start=1):
        if path.suffix != COUNTS_SUFFIX:
            yield WeightedText(normalize_tr(line))
            continue
        word, _, count = line.strip().rpartition("\t" if "\t" in line else " ")
        if not line.strip():
            continue
        if not count.isdecimal():
            raise UsageError(
                f"{path}, line {number} is {line[:60]!r}; expected a word, a tab and how often it was seen"
            )
        yield WeightedText(normalize_tr(word), min(MAX_WEIGHT, max(1, int((int(count) / RARE) ** DAMPING))))


def read_excluded(manifests: Iterable[Path]) -> set[str]:
    """The texts of manifests in the form ``tr``."""
    return {normalize_tr(clip.text) for manifest in manifests for clip in read_manifest(manifest, check_files=False)}


def part_texts(texts: Sequence[WeightedText], every: int = 10) -> tuple[list[WeightedText], list[WeightedText]]:
    """Most of the texts, and every tenth one, on which what was learnt from the others is judged; no text is in both."""
    unique = list(dict.fromkeys(texts))
    return [one for place, one in enumerate(unique) if place % every], unique[::every]


def count_words(texts: Iterable[WeightedText]) -> Counter[str]:
    """How often each word stands in the texts."""
    counts: Counter[str] = Counter()
    for one in texts:
        for word in one.text.split():
            counts[word] += one.weight
    return counts
