"""``POST /transcribe``: a recording in, its text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, File, Query, Request, UploadFile
from pydantic import BaseModel, Field

from dinle.serve.answers import TRANSCRIBE_ERRORS
from dinle.serve.service import Service, get_service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dinle.recognize.transcript import Transcript, Word

router = APIRouter(tags=["transcribe"])


class TimedWord(BaseModel):
    """A word, where it was said, and how sure it is."""

    word: str
    start: float = Field(description="seconds from the start of the recording")
    end: float
    confidence: float = Field(ge=0, le=1)


class Details(BaseModel):
    """What is told besides, when it is asked for."""

    duration: float = Field(description="seconds of sound")
    model: str = Field(description="name of the model that heard it")
    words: list[TimedWord]


class TranscribeAnswer(BaseModel):
    """The text of a recording."""

    text: str = Field(description="the words, parted by single spaces; empty where nothing was said")
    inference_time: float = Field(
        description="seconds of work: decoding the audio and running the model, without waiting"
    )
    details: Details | None = Field(default=None, description="only with `details=true`")

    model_config = {"json_schema_extra": {"examples": [{"text": "bugün hava çok güzel", "inference_time": 0.2147}]}}


@router.post(
    "/transcribe",
    summary="Transcribe a recording",
    responses=TRANSCRIBE_ERRORS,
    response_model_exclude_none=True,
)
async def transcribe(
    request: Request,
    file: Annotated[
        UploadFile, File(description="wav, flac, ogg, opus, mp3, m4a or webm; any sample rate and channels")
    ],
    service: Annotated[Service, Depends(get_service)],
    details: Annotated[
        bool, Query(description="also tell the words with their times, the length and the model")
    ] = False,
    model: Annotated[
        str | None, Query(description="name of a model, see `/v1/models` (default: the default model)", examples=[None])
    ] = None,
) -> TranscribeAnswer:
    """Turn one Turkish recording into text.

    ```
    curl -F file=@speech.wav http://127.0.0.1:8000/transcribe
    ```
    """
    transcript = await service.transcribe(request, file.file, model)
    return TranscribeAnswer(
        text=transcript.text,
        inference_time=round(transcript.inference_s, 4),
        details=tell_details(transcript) if details else None,
    )


def tell_details(transcript: Transcript) -> Details:
    """Words, length and model of a transcript; seconds rounded to milliseconds."""
    return Details(
        duration=round(transcript.duration_s, 3),
        model=transcript.model,
        words=time_words(transcript.words),
    )


def time_words(words: Iterable[Word]) -> list[TimedWord]:
    """Words as they are answered: seconds rounded to milliseconds."""
    return [
        TimedWord(
            word=word.text,
            start=round(word.start_s, 3),
            end=round(word.end_s, 3),
            confidence=round(min(1.0, word.confidence), 3),
        )
        for word in words
    ]
