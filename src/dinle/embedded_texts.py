"""What the voices say to the bundled models: sentences of Common Voice, frequent words and numbers, drawn by lot.

No text is drawn that the models are judged on, and no word of the short texts among those.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from dinle.errors import DatasetError
from dinle.manifest import read_manifest
from dinle.numerals import spell_integer
from dinle.run import write_run
from dinle.text import TURKISH_ALPHABET, lower_tr, normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NATURAL_FILE = "sentences.tsv"
ROBOTIC_FILE = "sentences-espeak.tsv"
TEXTS_RUN_FILE = "run_texts.json"
SENTENCE_FILES = "common_voice_*.txt"
WORD_FILES = "*_wordfreq.tsv"
SENTENCE_LENGTHS = range(12, 111)  # characters
FREQUENT = 12_000  # words from the top of the frequency list
MAX_WORDS = 3  # in a line of words; held-out texts of so few block their words too
NUMBER_SHARE = 0.2  # of the lines of words
NUMBER_DIGITS = 6
VALIDATION_SHARE = 0.025
_LETTERS = frozenset(TURKISH_ALPHABET)
_SENTENCE_SIGNS = _LETTERS | frozenset("âîû .,;:!?…'’-")


@dataclass(frozen=True)
class ChooseTextsConfig:
    """folder of texts -> the lines that are spoken."""

    texts: Annotated[Path, "folder with common_voice_*.txt and a *_wordfreq.tsv"]
    output_dir: Annotated[Path, "folder for the lines"]
    held_out: Annotated[tuple[Path, ...], "manifests whose texts are not taken"] = ()
    sentences: Annotated[int, "sentences in all"] = 1500
    robotic: Annotated[int, "those of them that espeak-ng says; Kokoro says the rest"] = 500
    words: Annotated[int, "lines of one to three words, or of a number"] = 800
    seed: Annotated[int, "seed of the lot"] = 1


def choose_texts(config: ChooseTextsConfig) -> Path:
    """Draw the lines and write them as ``text<TAB>split``: for Kokoro, and for espeak-ng.

    Returns:
        The file for Kokoro, NATURAL_FILE in ``output_dir``; ROBOTIC_FILE and TEXTS_RUN_FILE are beside it.

    Raises:
        DatasetError: the folder has no sentences, or no words.
        ManifestError: a manifest that is held out cannot be read.
    """
    started = time.monotonic()
    sources = find_texts(config.texts)
    lot = np.random.default_rng(config.seed)
    taken = read_held_out(config.held_out)
    sentences = draw(list_sentences(config.texts, taken), config.sentences, lot)
    words = draw_word_lines(list_words(config.texts, taken), config.words, taken, lot)
    robotic = min(config.robotic, len(sentences) // 2)
    natural = [*sentences[robotic:], *words]
    config.output_dir.mkdir(parents=True, exist_ok=True)
    write_lines(config.output_dir / ROBOTIC_FILE, sentences[:robotic], lot)
    write_lines(config.output_dir / NATURAL_FILE, natural, lot)
    write_run(
        config.output_dir,
        stage="choose_texts",
        config=config,
        seconds=time.monotonic() - started,
        inputs={path.name: path for path in sources},
        results={"sentences": len(sentences), "words": len(words), "robotic": robotic},
        name=TEXTS_RUN_FILE,
    )
    return config.output_dir / NATURAL_FILE


def find_texts(folder: Path) -> list[Path]:
    """The files of a folder that lines are drawn from.

    Raises:
        DatasetError: one kind is missing.
    """
    found = [sorted(folder.glob(pattern)) for pattern in (SENTENCE_FILES, WORD_FILES)]
    if not all(found):
        raise DatasetError(f"{folder} lacks {SENTENCE_FILES} or {WORD_FILES}; give the folder data/text of the project")
    return [path for paths in found for path in paths]


def read_held_out(manifests: Iterable[Path]) -> set[str]:
    """The texts of manifests in the form ``tr``, and the single words of the short ones."""
    texts = {normalize_tr(clip.text) for path in manifests for clip in read_manifest(path, check_files=False)}
    return texts | {word for text in texts if len(text.split()) <= MAX_WORDS for word in text.split()}


def list_sentences(folder: Path, taken: set[str]) -> list[str]:
    """Sentences of SENTENCE_LENGTHS in Turkish letters and plain punctuation, each text once, but none of ``taken``."""
    chosen: dict[str, str] = {}
    for path in sorted(folder.glob(SENTENCE_FILES)):
        for line in path.read_text(encoding="utf-8").splitlines():
            sentence = line.strip()
            if len(sentence) in SENTENCE_LENGTHS and _SENTENCE_SIGNS.issuperset(lower_tr(sentence)):
                chosen.setdefault(normalize_tr(sentence), sentence)
    return _check_some([text for form, text in chosen.items() if form not in taken], folder, SENTENCE_FILES)


def list_words(folder: Path, taken: set[str]) -> list[str]:
    """Words of two letters and more from the top of the frequency lists, but none of ``taken``."""
    words: list[str] = []
    for path in sorted(folder.glob(WORD_FILES)):
        rows = path.read_text(encoding="utf-8").splitlines()[:FREQUENT]
        words += [lower_tr(row.partition(" ")[0].partition("\t")[0]) for row in rows]
    kept = [word for word in dict.fromkeys(words) if len(word) > 1 and _LETTERS.issuperset(word)]
    return _check_some([word for word in kept if word not in taken], folder, WORD_FILES)


def _check_some(texts: list[str], folder: Path, pattern: str) -> list[str]:
    if not texts:
        raise DatasetError(f"{folder}/{pattern} holds no text that can be taken; expected Turkish, one text a line")
    return texts


def draw(texts: Sequence[str], count: int, lot: np.random.Generator) -> list[str]:
    """``count`` of the texts in a random order, or all where there are fewer."""
    return [texts[index] for index in lot.permutation(len(texts))[:count]]


def draw_word_lines(words: Sequence[str], count: int, taken: set[str], lot: np.random.Generator) -> list[str]:
    """Lines of one to three words, and NUMBER_SHARE of them a number in words; each once, none of ``taken``."""
    numbers = {spell_integer(number) for number in _draw_numbers(round(NUMBER_SHARE * count), lot)}
    lines = {" ".join(lot.choice(words, size)) for size in lot.integers(1, MAX_WORDS + 1, count - len(numbers))}
    return sorted((numbers | lines) - taken)


def _draw_numbers(count: int, lot: np.random.Generator) -> Iterator[int]:
    """Numbers of one to NUMBER_DIGITS digits, as many of each."""
    for digits in lot.integers(1, NUMBER_DIGITS + 1, count):
        yield int(lot.integers(10 ** (int(digits) - 1) if digits > 1 else 0, 10 ** int(digits)))


def write_lines(path: Path, texts: Sequence[str], lot: np.random.Generator) -> None:
    """Write texts with their split: VALIDATION_SHARE of them, and at least one, choose the best checkpoint."""
    validation = set(lot.permutation(len(texts))[: max(1, round(VALIDATION_SHARE * len(texts)))].tolist())
    lines = [f"{text}\t{'validation' if number in validation else 'train'}\n" for number, text in enumerate(texts)]
    path.write_text("".join(lines), encoding="utf-8")
