"""A text file as a :class:`dinle.build.sources.Source`: each line is said by one or several voices.

A line is an utterance, or ``text<TAB>split``. The label stays as it was written; what is said is what the label's form
``tr`` reads (numerals as words, casing and foreign letters as there), so that label and sound agree.

Clips are made where ``prepare`` would decode them, on its threads, under a name that says all that decides on the sound:
a run that was stopped goes on from the clips it has.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from dinle.build.sources import Record, name_split
from dinle.build.speech import Cast, UnspeakableTextError, check_speech, open_engine
from dinle.errors import DatasetError, ManifestError, UsageError
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.spoken import speak_numbers
from dinle.text import ALPHABET, fold_character, lower_tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dinle.build.config import PrepareConfig
    from dinle.build.speech import Delivery, SpeechEngine

# What a voice heeds and a label drops: pauses, and the circumflex of hâlâ.
_KEPT = frozenset(ALPHABET + "âîû" + " .,;:!?…")
_UNSAFE = re.compile(r"[^\w+-]", re.ASCII)
# line000012-0-tr+f1-0123456789.flac
SPOKEN_PATTERN = "line[0-9][0-9][0-9][0-9][0-9][0-9]*-[0-9]*-*-??????????.flac"


@dataclass(frozen=True)
class Line:
    """One utterance of a text file, as it was written; lines are numbered from 1."""

    number: int
    text: str
    split: str


class TextSource:
    """The lines of a text file, ``speakers_per_text`` clips each. The file is read line by line, twice."""

    def __init__(self, path: Path, engine: SpeechEngine, config: PrepareConfig) -> None:
        self.name = path.stem
        self.files = {path.name: path, **engine.files}
        self._path = path
        self._engine = engine
        self._cast = Cast(engine.voices, config)
        self._takes = config.speakers_per_text
        self._folder = config.output_dir / "audio"
        self._licence = f"{config.licence} (text), {engine.licence} (sound)" if config.licence else engine.licence

    def count(self) -> dict[str, int]:
        """Clips of each split."""
        lines = Counter(line.split for line in self._lines())
        return {split: self._takes * number for split, number in lines.items()}

    def read(self, wanted: Callable[[str, int], bool]) -> Iterator[Record]:
        """Yield the wanted clips; each is spoken when its ``audio`` is called, and not at all if it is there already."""
        numbers: Counter[str] = Counter()
        for line in self._lines():
            for take, delivery in enumerate(self._cast.draw(line.split, line.number)):
                if wanted(line.split, numbers[line.split]):
                    yield self._make_record(line, take, delivery)
                numbers[line.split] += 1

    def _lines(self) -> Iterator[Line]:
        for number, row in _read_lines(self._path):
            text, _, split = row.partition("\t")
            if "\t" in split:
                raise ManifestError(
                    f"{self._path}:{number}: {row.count(chr(9)) + 1} columns; expected a text, or a text, a tab and a split"
                )
            yield Line(
                number, text.strip(), name_split(split.strip()) if split.strip() else self._cast.choose_split(text)
            )

    def _make_record(self, line: Line, take: int, delivery: Delivery) -> Record:
        text = write_for_voice(line.text)
        path = self._folder / name_clip(self._engine, line.number, take, text, delivery)
        return Record(
            name=f"{self._path.name}:{line.number} ({delivery.voice.label})",
            audio=functools.partial(speak_clip, self._engine, text, delivery, path),
            text=line.text,
            split=line.split,
            speaker=f"{self._engine.name}:{delivery.voice.label}",
            source=self.name,
            licence=self._licence,
        )


def open_text(path: Path, config: PrepareConfig) -> TextSource:
    """Open a text file and the engine that will say it.

    Raises:
        UsageError: a setting out of range, missing, or unknown to the engine.
        DatasetError: no such file.
        SpeechEngineError: the engine cannot be opened.
    """
    check_speech(config)
    if not path.is_file():
        raise DatasetError(f"there is no file {path}; --from_text takes a text file with an utterance a line")
    if path.suffix in (".json", ".jsonl"):
        raise UsageError(f"--from_text is {path}; expected plain text: a manifest is given with --dataset_name")
    return TextSource(path, open_engine(config), config)


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and content of each line that is not blank."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def write_for_voice(text: str) -> str:
    """What a voice is given: numerals as words, lower case, the alphabet's letters, â î û, and the marks of pauses.

    Its form ``tr`` is that of ``text``, so a label scores what was said:
    ``"Saat 14:30'da, IŞIK!" -> "saat on dört otuzda, ışık!"``.
    """
    words = lower_tr(speak_numbers(text))
    return " ".join("".join(c if c in _KEPT else fold_character(c) for c in words).split())


def name_clip(engine: SpeechEngine, line: int, take: int, text: str, delivery: Delivery) -> str:
    """A file name for a clip: line, take, voice, and a hash of everything that decides on the sound."""
    voice = delivery.voice
    facts = [engine.name, engine.version, text, voice.first, voice.second, voice.share, delivery.speed, delivery.pitch]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]
    return f"line{line:06d}-{take}-{_UNSAFE.sub('_', voice.label)}-{digest}.flac"


def speak_clip(engine: SpeechEngine, text: str, delivery: Delivery, path: Path) -> Path:
    """Say ``text`` into a FLAC file of 16-bit 16 kHz mono; a file that is there already is complete, and kept.

    Raises:
        UnspeakableTextError: the engine cannot say it, or is silent.
    """
    if path.is_file():
        return path
    waveform = engine.speak(text, delivery)
    if not np.isfinite(waveform).all() or not np.abs(waveform).max(initial=0.0) > 0:
        raise UnspeakableTextError(f"{engine.name} gives silence or no numbers for {text!r}; reword the line")
    partial = path.with_name(f"{path.name}.partial")
    soundfile.write(str(partial), np.clip(waveform, -1.0, 1.0), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return partial.replace(path)
