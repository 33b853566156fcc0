"""``POST /transcribe``: a recording in, its text out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Depends, File, Request, UploadFile
from pydantic import BaseModel, Field

from dinle.recognize.audio import AudioLimits, decode_audio
from dinle.recognize.recognizer import Recognizer
from dinle.serve.errors import ErrorBody
from dinle.serve.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

router = APIRouter()


@dataclass(frozen=True)
class Service:
    """What the routes work with; made when the application starts."""

    recognizer: Recognizer
    scheduler: Scheduler
    limits: AudioLimits
    backend: str


def get_service(request: Request) -> Service:
    """The running application's service (a FastAPI dependency)."""
    return cast("Service", request.app.state.service)


class TranscribeAnswer(BaseModel):
    """The text of a recording."""

    text: str = Field(description="the words, parted by single spaces; empty where nothing was said")
    inference_time: float = Field(
        description="seconds of work: decoding the audio and running the model, without waiting"
    )

    model_config = {"json_schema_extra": {"examples": [{"text": "bugün hava çok güzel", "inference_time": 0.2147}]}}


def describe_error(
    status: int, description: str, code: str, detail: str, **more: Any
) -> dict[int | str, dict[str, Any]]:
    """One entry of a route's ``responses``, with an example."""
    example = {"detail": detail, "code": code, "request_id": "5f1c3e0a9b7d4c22a6e8d0f4b1c93a75"}
    content = {"application/json": {"example": example}}
    return {status: {"model": ErrorBody, "description": description, "content": content, **more}}


RETRY_AFTER = {"Retry-After": {"description": "seconds until a place should be free", "schema": {"type": "integer"}}}
ERRORS = {
    **describe_error(400, "The form cannot be parsed", "bad_request", "Missing boundary in multipart."),
    **describe_error(
        413,
        "The file or the recording is too long",
        "audio_limit",
        "the audio is longer than 600 s; cut it into shorter files",
    ),
    **describe_error(
        415,
        "Not audio, or damaged",
        "audio_decode",
        "the audio cannot be read as audio (Invalid data found when processing input); "
        "expected wav, flac, ogg, opus, mp3, m4a or webm",
    ),
    **describe_error(
        422,
        "The field `file` is missing, or the file is empty",
        "empty_audio",
        "the audio is empty (0 bytes); expected an audio file",
    ),
    **describe_error(
        500,
        "A fault of the service",
        "internal",
        "the service failed on this request; its log has the reason under this request id",
    ),
    **describe_error(
        503,
        "Every worker and every waiting place is taken",
        "service_busy",
        "the service is at capacity; try again in 3 s",
        headers=RETRY_AFTER,
    ),
}


@router.post("/transcribe", summary="Transcribe a recording", responses=ERRORS)
async def transcribe(
    request: Request,
    file: Annotated[
        UploadFile, File(description="wav, flac, ogg, opus, mp3, m4a or webm; any sample rate and channels")
    ],
    service: Annotated[Service, Depends(get_service)],
) -> TranscribeAnswer:
    """Turn one Turkish recording into text.

    ```
    curl -F file=@speech.wav http://127.0.0.1:8000/transcribe
    ```
    """
    work = partial(transcribe_file, service.recognizer, file.file, service.limits)
    return await service.scheduler.run(work, partial(wait_until_gone, request))


def transcribe_file(
    recognizer: Recognizer, file: BinaryIO, limits: AudioLimits, on_progress: Callable[[float], object]
) -> TranscribeAnswer:
    """Decode the whole recording first, so that one over the limits or damaged at its end costs no inference.

    Raises:
        AudioError: see :func:`dinle.recognize.audio.decode_audio`.
    """
    started = time.perf_counter()
    waveform = decode_audio(file, limits)
    transcript = recognizer.transcribe(waveform, on_progress=on_progress)
    return TranscribeAnswer(text=transcript.text, inference_time=round(time.perf_counter() - started, 4))


async def wait_until_gone(request: Request) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
