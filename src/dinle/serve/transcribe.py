"""``POST /transcribe``: a recording in, its text out."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import StreamingResponse  # noqa: TC002 - FastAPI evaluates it
from pydantic import BaseModel, Field

from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.transcript import Transcript
from dinle.serve.answers import TRANSCRIBE_ERRORS
from dinle.serve.events import answer_events, write_event
from dinle.serve.options import Options, read_hot_words
from dinle.serve.service import BEGUN, Service, get_service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from dinle.recognize.recognizer import Piece
    from dinle.recognize.transcript import Word

router = APIRouter(tags=["transcribe"])

HOT_WORDS = "names and terms to be expected, parted by commas or line breaks, at most 1000 in query and form together"
EXPECTED = "Trendyol, Iğdır Belediyesi"


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
    raw_text: str | None = Field(default=None, description="the text as it was recognised, only with `written=true`")
    words: list[TimedWord]


class TranscribeAnswer(BaseModel):
    """The text of a recording."""

    text: str = Field(description="the words, parted by single spaces; empty where nothing was said")
    inference_time: float = Field(
        description="seconds of work: decoding the audio and running the model, without waiting"
    )
    details: Details | None = Field(default=None, description="only with `details=true`")

    model_config = {"json_schema_extra": {"examples": [{"text": "bugün hava çok güzel", "inference_time": 0.2147}]}}


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The text; with `stream=true` events, one JSON object a `data:` line. `started`: the recording is "
        "accepted and being heard. `words`: those that became certain, perhaps none, and the seconds of sound that are "
        "done (`heard`). Last comes `done` with the fields of the plain answer, `details` always, or `error` with "
        "`detail`, `code` and `request_id`. With `written=true` `done` alone is written; `words` are as they were recognised.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'data: {"type": "started"}\n\n'
                'data: {"type": "words", "heard": 1.28, "words": '
                '[{"word": "bugün", "start": 0.12, "end": 0.58, "confidence": 0.971}]}\n\n'
                'data: {"type": "done", "text": "bugün", "inference_time": 0.2147, "details": {"duration": 1.28, '
                '"model": "dinle-base-tr", "words": '
                '[{"word": "bugün", "start": 0.12, "end": 0.58, "confidence": 0.971}]}}\n\n',
            },
        },
    }
}


@router.post(
    "/transcribe",
    summary="Transcribe a recording",
    responses=ANSWERS | TRANSCRIBE_ERRORS,
    response_model=TranscribeAnswer,
    response_model_exclude_none=True,
)
async def transcribe(
    *,
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
    stream: Annotated[bool, Query(description="send the words as server-sent events while they are found")] = False,
    hotwords: Annotated[str, Query(description=HOT_WORDS, examples=[EXPECTED])] = "",
    hotwords_field: Annotated[str, Form(alias="hotwords", description=HOT_WORDS, examples=[EXPECTED])] = "",
    written: Annotated[
        bool,
        Query(description="write numbers, dates, times and money as people do (`150 TL`); needs the extra `itn`"),
    ] = False,
) -> TranscribeAnswer | StreamingResponse:
    """Turn one Turkish recording into text.

    ```
    curl -F file=@speech.wav http://127.0.0.1:8000/transcribe
    ```
    """
    options = Options(read_hot_words(hotwords, hotwords_field), written)
    if stream:
        return await answer_events(request, stream_events(service.stream(request, file.file, model, options)))
    return make_answer(await service.transcribe(request, file.file, model, options), details=details)


def make_answer(transcript: Transcript, *, details: bool) -> TranscribeAnswer:
    """A transcript as it is answered, with or without words, length and model."""
    return TranscribeAnswer(
        text=transcript.text,
        inference_time=round(transcript.inference_s, 4),
        details=tell_details(transcript) if details else None,
    )


async def stream_events(items: AsyncGenerator[Piece | Transcript, None]) -> AsyncGenerator[str, None]:
    """Server-sent events: ``started``, ``words`` for each piece that has some or is a progress, ``done`` with all of it."""
    heard_s = 0.0
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Transcript):
                yield write_event({"type": "done"} | make_answer(item, details=True).model_dump(exclude_none=True))
            elif item is BEGUN:
                yield write_event({"type": "started"})
            elif item.words or item.samples / SAMPLE_RATE_HZ > heard_s:
                heard_s = item.samples / SAMPLE_RATE_HZ
                words = [word.model_dump() for word in time_words(item.words)]
                yield write_event({"type": "words", "heard": round(heard_s, 3), "words": words})


def tell_details(transcript: Transcript) -> Details:
    """Words, length and model of a transcript; seconds rounded to milliseconds."""
    return Details(
        duration=round(transcript.duration_s, 3),
        model=transcript.model,
        raw_text=transcript.raw_text,
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
