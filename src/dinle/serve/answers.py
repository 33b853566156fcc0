"""The refusals of the routes, as OpenAPI describes them, each with an example."""

from __future__ import annotations

from typing import Any

from dinle.serve.errors import ErrorBody, OpenAIErrorBody, Problem, to_openai

RETRY_AFTER = {"Retry-After": {"description": "seconds until a place should be free", "schema": {"type": "integer"}}}
REQUEST_ID = "5f1c3e0a9b7d4c22a6e8d0f4b1c93a75"

# What can go wrong with a recording: status, when, code, an example of the reason.
RECORDING_PROBLEMS = (
    (400, "The form or a parameter cannot be understood", "bad_request", "Missing boundary in multipart."),
    (401, "The service needs an API key", "unauthorized", "the request carries no valid API key; send one as ..."),
    (
        404,
        "No such model",
        "model_unknown",
        "there is no model 'base'; choose from dinle-base-tr, or leave the model out",
    ),
    (
        408,
        "The upload took too long",
        "request_timeout",
        "the upload did not arrive within 120 s; send a smaller file, ...",
    ),
    (
        413,
        "The file or the recording is too long",
        "audio_limit",
        "the audio is longer than 7200 s; cut it into shorter files",
    ),
    (
        415,
        "Not audio, or damaged",
        "audio_decode",
        (
            "the audio cannot be read as audio (Invalid data found when processing input); "
            "expected wav, flac, ogg, opus, mp3, m4a or webm"
        ),
    ),
    (
        422,
        "The field `file` is missing, or the file is empty",
        "empty_audio",
        "the audio is empty (0 bytes); expected an audio file",
    ),
    (
        500,
        "A fault of the service",
        "internal",
        "the service failed on this request; its log has the reason under this request id",
    ),
    (
        503,
        "Every worker and every waiting place is taken",
        "service_busy",
        "the service is at capacity; try again in 3 s",
    ),
    (504, "Not done in time", "deadline", "the transcript was not ready in time; try again later, or send ..."),
)


def describe_responses(
    problems: tuple[tuple[int, str, str, str], ...], *, openai: bool
) -> dict[int | str, dict[str, Any]]:
    """A route's ``responses``, in the service's own form or in OpenAI's."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status, description, code, detail in problems:
        example: dict[str, Any] = {"detail": detail, "code": code, "request_id": REQUEST_ID}
        if openai:
            example = {"error": to_openai(Problem(status, code, detail)).model_dump()}
        responses[status] = {
            "model": OpenAIErrorBody if openai else ErrorBody,
            "description": description,
            "content": {"application/json": {"example": example}},
        }
        if code == "service_busy":
            responses[status]["headers"] = RETRY_AFTER
    return responses


TRANSCRIBE_ERRORS = describe_responses(RECORDING_PROBLEMS, openai=False)
# OpenAI answers with 400 what FastAPI answers with 422; a default keeps FastAPI from describing its own form of it.
OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    **describe_responses(tuple(each for each in RECORDING_PROBLEMS if each[0] != 422), openai=True),  # noqa: PLR2004
    "default": {"model": OpenAIErrorBody, "description": "Any other error"},
}
