"""The bodies of OpenAI's transcription API."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from dinle.recognize.transcript import split_cues

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dinle.recognize.recognizer import Recognizer
    from dinle.recognize.transcript import Transcript, Word


class Usage(BaseModel):
    """How much was heard."""

    type: Literal["duration"] = "duration"
    seconds: int = Field(description="seconds of sound, rounded up")


class Transcription(BaseModel):
    """The answer in the form `json`."""

    text: str
    usage: Usage


class VerboseWord(BaseModel):
    """A word and its times in seconds."""

    word: str
    start: float
    end: float


class VerboseSegment(BaseModel):
    """A stretch of text, as long as a subtitle."""

    id: int
    seek: int = Field(description="place of its start, in hundredths of a second")
    start: float
    end: float
    text: str
    tokens: list[int] = Field(description="always empty: the numbers of a model's tokens are its own")
    temperature: float
    avg_logprob: float = Field(description="mean logarithm of the words' confidence")
    compression_ratio: float = Field(description="bytes of the text to those of its zlib compression")
    no_speech_prob: float = Field(description="always 0: text is written only where speech was found")


class VerboseTranscription(BaseModel):
    """The answer in the form `verbose_json`."""

    task: Literal["transcribe"] = "transcribe"
    language: Literal["turkish"] = "turkish"
    duration: float = Field(description="seconds of sound")
    text: str
    words: list[VerboseWord] | None = None
    segments: list[VerboseSegment] | None = None
    usage: Usage


class ModelCard(BaseModel):
    """A model, in OpenAI's form with a few words more."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="not known: 0")
    owned_by: str = "dinle"
    loaded: bool = Field(description="whether it is in memory now")
    backend: str | None = Field(default=None, description="engine that runs it, while it is loaded")


class ModelList(BaseModel):
    """The models that there are."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def make_card(name: str, recognizer: Recognizer | None) -> ModelCard:
    """The entry of one model (``None``: not loaded)."""
    return ModelCard(
        id=name, loaded=recognizer is not None, backend=recognizer.backend if recognizer is not None else None
    )


def make_transcription(transcript: Transcript) -> Transcription:
    """The form `json`."""
    return Transcription(text=transcript.text, usage=Usage(seconds=math.ceil(transcript.duration_s)))


def make_verbose(transcript: Transcript, granularities: Collection[str], temperature: float) -> VerboseTranscription:
    """The form `verbose_json`, with the times that were asked for."""
    segments = [make_segment(number, cue, temperature) for number, cue in enumerate(split_cues(transcript.words))]
    words = [
        VerboseWord(word=word.text, start=round(word.start_s, 3), end=round(word.end_s, 3)) for word in transcript.words
    ]
    return VerboseTranscription(
        duration=round(transcript.duration_s, 3),
        text=transcript.text,
        words=words if "word" in granularities else None,
        segments=segments if "segment" in granularities else None,
        usage=Usage(seconds=math.ceil(transcript.duration_s)),
    )


def make_segment(number: int, words: Sequence[Word], temperature: float) -> VerboseSegment:
    """A segment of consecutive words, at least one."""
    text = " ".join(word.text for word in words)
    written = text.encode()
    logs = [math.log(max(word.confidence, 1e-9)) for word in words]
    return VerboseSegment(
        id=number,
        seek=round(words[0].start_s * 100),
        start=round(words[0].start_s, 3),
        end=round(words[-1].end_s, 3),
        text=text,
        tokens=[],
        temperature=temperature,
        avg_logprob=round(sum(logs) / len(logs), 4),
        compression_ratio=round(len(written) / len(zlib.compress(written)), 4),
        no_speech_prob=0.0,
    )
