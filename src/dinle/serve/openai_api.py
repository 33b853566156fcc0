"""OpenAI's transcription API (https://platform.openai.com/docs/api-reference/audio), so that its clients work unchanged."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, Field

from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.transcript import Transcript
from dinle.serve.answers import OPENAI_ERRORS
from dinle.serve.errors import ModelUnknownError, ValueRefusedError
from dinle.serve.events import answer_events, write_event
from dinle.serve.openai_answers import (
    ModelCard,
    ModelList,
    Transcription,
    VerboseTranscription,
    make_card,
    make_transcription,
    make_verbose,
)
from dinle.serve.options import Options, read_hot_words
from dinle.serve.service import BEGUN, Service, get_service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from dinle.recognize.recognizer import Piece

router = APIRouter(prefix="/v1", tags=["OpenAI"])

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]
TURKISH = frozenset({"", "tr", "tur", "turkish", "tr-tr", "türkçe"})


class TranscriptionForm(BaseModel):
    """The form of ``POST /v1/audio/transcriptions``. What OpenAI knows besides is taken and not looked at."""

    file: UploadFile = Field(description="flac, mp3, mp4, m4a, ogg, opus, wav or webm; any sample rate and channels")
    model: str = Field(
        default="",
        description="name of a model; OpenAI's names and an empty one mean the default",
        examples=["whisper-1"],
    )
    language: str = Field(default="", description="`tr`: dinle hears Turkish alone", examples=["tr"])
    prompt: str = Field(
        default="",
        description="its names and terms are expected: pieces of up to three words, and capitalised words of longer ones",
        examples=["Trendyol, Iğdır Belediyesi"],
    )
    response_format: ResponseFormat = Field(default="json", description="the form of the answer")
    temperature: float = Field(default=0.0, ge=0, le=1, description="accepted; the search is not random")
    timestamp_granularities: list[Granularity] = Field(
        default=["segment"],
        alias="timestamp_granularities[]",
        description="which times `verbose_json` holds",
    )
    stream: bool = Field(default=False, description="send the text as server-sent events while it is found")
    hotwords: str = Field(
        default="",
        description="dinle's own: names and terms to be expected, parted by commas or line breaks, at most 1000",
        examples=["Trendyol, Iğdır Belediyesi"],
    )
    written: bool = Field(
        default=False,
        description="dinle's own: write numbers, dates and money as people do (`150 TL`); deltas stay as heard",
    )

    def read_options(self) -> Options:
        """What is asked for besides the text.

        Raises:
            HotWordsRefusedError: too many hot words, or too long ones.
        """
        return Options(read_hot_words(self.hotwords, prompt=self.prompt), self.written)


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Transcription | VerboseTranscription,
        "description": "The text, in the form that was asked for",
        "content": {
            "application/json": {
                "example": {"text": "bugün hava çok güzel", "usage": {"type": "duration", "seconds": 3}},
            },
            "text/plain": {"schema": {"type": "string"}, "example": "bugün hava çok güzel\n"},
            "text/vtt": {"schema": {"type": "string"}},
            "application/x-subrip": {"schema": {"type": "string"}},
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'data: {"type": "transcript.text.delta", "delta": "bugün"}\n\n'
                'data: {"type": "transcript.text.done", "text": "bugün hava çok güzel"}\n\n',
            },
        },
    }
}


@router.post(
    "/audio/transcriptions",
    summary="Transcribe a recording, as OpenAI does",
    responses={**ANSWERS, **OPENAI_ERRORS},
    response_class=Response,
)
async def create_transcription(
    request: Request,
    form: Annotated[TranscriptionForm, Form(media_type="multipart/form-data")],
    service: Annotated[Service, Depends(get_service)],
) -> Response:
    """The same as `/transcribe` in OpenAI's words.

    ```
    curl http://127.0.0.1:8000/v1/audio/transcriptions -F file=@speech.wav -F model=whisper-1 -F response_format=verbose_json
    ```
    """
    check_language(form.language)
    options = form.read_options()
    if form.stream:
        pieces = service.stream(request, form.file.file, form.model, options)
        return await answer_events(request, stream_events(pieces))
    return write_answer(await service.transcribe(request, form.file.file, form.model, options), form)


def check_language(language: str) -> None:
    """Refuse what is not Turkish; an empty text means Turkish.

    Raises:
        ValueRefusedError: another language, or what is none.
    """
    if language.strip().casefold() not in TURKISH:
        raise ValueRefusedError(
            "language", f"language is {language[:40]!r}; dinle hears Turkish: send tr, or leave it out"
        )


def write_answer(transcript: Transcript, form: TranscriptionForm) -> Response:
    """A transcript in the form that was asked for."""
    writers: dict[ResponseFormat, Callable[[], Response]] = {
        "text": lambda: PlainTextResponse(f"{transcript.text}\n"),
        "srt": lambda: PlainTextResponse(transcript.to_srt(), media_type="application/x-subrip"),
        "vtt": lambda: PlainTextResponse(transcript.to_vtt(), media_type="text/vtt"),
        "json": lambda: JSONResponse(make_transcription(transcript).model_dump()),
        "verbose_json": lambda: JSONResponse(
            make_verbose(transcript, form.timestamp_granularities, form.temperature).model_dump(exclude_none=True)
        ),
    }
    return writers[form.response_format]()


async def stream_events(items: AsyncGenerator[Piece | Transcript, None]) -> AsyncGenerator[str, None]:
    """Server-sent events: ``transcript.text.delta`` for words that are certain, ``transcript.text.done`` with all of them.

    Pieces without words become comments that tell how far the work is; they mean nothing to OpenAI's clients.
    """
    begun = False
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Transcript):
                usage = make_transcription(item).usage.model_dump()
                yield write_event({"type": "transcript.text.done", "text": item.text, "usage": usage})
            elif item is BEGUN:
                continue  # the first event is the first result: what fails before it has a status of its own
            elif item.words:
                delta = " ".join(word.text for word in item.words)
                yield write_event({"type": "transcript.text.delta", "delta": f" {delta}" if begun else delta})
                begun = True
            else:
                yield f": {item.samples / SAMPLE_RATE_HZ:.1f} s heard\n\n"


@router.get("/models", summary="What models there are")
async def list_models(service: Annotated[Service, Depends(get_service)]) -> ModelList:
    """The models that a request may name, the default first."""
    loaded = service.models.loaded
    return ModelList(data=[make_card(name, loaded.get(name)) for name in service.models.names])


@router.get("/models/{model}", summary="One model", responses={each: OPENAI_ERRORS[each] for each in (404, "default")})
async def show_model(model: str, service: Annotated[Service, Depends(get_service)]) -> ModelCard:
    """One of the models."""
    if model not in service.models.names:
        raise ModelUnknownError(model, service.models.names)
    return make_card(model, service.models.loaded.get(model))
