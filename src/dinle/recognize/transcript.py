"""What a recogniser returns, and the formats it is written in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Broadcast practice for subtitles: two lines of 42 characters at most, a new cue after a pause.
CUE_CHARACTERS = 84
CUE_SECONDS = 7.0
CUE_PAUSE_S = 0.8


@dataclass(frozen=True)
class Word:
    """A recognised word: its times in seconds from the start of the audio, and a confidence from 0 to 1."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """The text of one recording with its words, and how long both the sound and the work were.

    Attributes:
        text: the words, parted by single spaces.
        words: the words in order.
        duration_s: length of the audio in seconds.
        inference_s: wall seconds from the encoded audio to this transcript.
        model: name of the bundle.
        raw_text: the text as it was recognised, where ``text`` is its written form (:mod:`dinle.recognize.written`).
    """

    text: str
    words: tuple[Word, ...]
    duration_s: float
    inference_s: float
    model: str
    raw_text: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, seconds rounded to milliseconds; ``raw_text`` only where there is one."""
        words = [
            {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(word).items()}
            for word in self.words
        ]
        return {
            "text": self.text,
            **({} if self.raw_text is None else {"raw_text": self.raw_text}),
            "words": words,
            "duration_s": round(self.duration_s, 3),
            "inference_s": round(self.inference_s, 4),
            "model": self.model,
        }

    def to_json(self) -> str:
        """One line of JSON, Turkish letters unescaped."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_srt(self) -> str:
        """SubRip subtitles; empty where nothing was said."""
        return "".join(
            f"{number}\n{_clock(cue[0].start_s, ',')} --> {_clock(cue[-1].end_s, ',')}\n{_spell(cue)}\n\n"
            for number, cue in enumerate(split_cues(self.words), start=1)
        )

    def to_vtt(self) -> str:
        """WebVTT subtitles (https://www.w3.org/TR/webvtt1/)."""
        cues = "".join(
            f"{_clock(cue[0].start_s, '.')} --> {_clock(cue[-1].end_s, '.')}\n{_spell(cue)}\n\n"
            for cue in split_cues(self.words)
        )
        return f"WEBVTT\n\n{cues}"


def split_cues(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Part words into subtitle cues, by length, by time and at pauses."""
    cue: list[Word] = []
    for word in words:
        full = cue and (
            len(_spell(cue)) + 1 + len(word.text) > CUE_CHARACTERS
            or word.end_s - cue[0].start_s > CUE_SECONDS
            or word.start_s - cue[-1].end_s > CUE_PAUSE_S
        )
        if full:
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _spell(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{mark}{milliseconds % 1000:03}"
