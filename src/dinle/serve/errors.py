"""The one place where exceptions become HTTP answers.

Every answer that is not a success has the body :class:`ErrorBody`. What the caller did wrong is told in full; what went
wrong inside goes to the log under the request's id, and the caller learns the id. Under ``/v1/`` the body has OpenAI's form
(https://platform.openai.com/docs/guides/error-codes), so that its clients raise the errors that they know.
"""

from __future__ import annotations

import http
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dinle.errors import AudioDecodeError, AudioError, AudioLimitError, DinleError, UsageError

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger(__name__)

REQUEST_ID_KEY = "dinle.request_id"  # in the ASGI scope
ERROR_CODE_KEY = "dinle.error_code"


class ServiceBusyError(DinleError):
    """Every worker and every waiting place is taken.

    Args:
        retry_after_s: when a place should be free again.
    """

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the service is at capacity; try again in {retry_after_s} s")


class UploadTooLargeError(HTTPException):
    """The body is larger than accepted. Of Starlette's class, as FastAPI's body parser turns any other into a 400."""

    def __init__(self, came: str, max_bytes: int) -> None:
        super().__init__(
            413,
            f"the upload has {came}; at most {max_bytes} are accepted: send a shorter or compressed file, such as opus",
        )


class UploadTooSlowError(HTTPException):
    """The body did not arrive in time. Of Starlette's class, see :class:`UploadTooLargeError`."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(408, f"the upload did not arrive within {limit_s:g} s; send a smaller file, or try again")


class ClientGoneError(DinleError):
    """The client hung up before its answer was ready."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


class DeadlineError(DinleError):
    """The answer was not ready in the time that the service allows."""

    def __init__(self) -> None:
        super().__init__(
            "the transcript was not ready in time; try again later, or send the recording in shorter parts"
        )


class UnauthorizedError(DinleError):
    """The request carries no valid API key."""

    def __init__(self) -> None:
        super().__init__(
            "the request carries no valid API key; send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
        )


class ModelUnknownError(DinleError):
    """There is no model of the name that was asked for."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no model {name[:80]!r}; choose from {', '.join(known)}, or leave the model out")


class ValueRefusedError(DinleError):
    """A parameter has a value that the service cannot follow.

    Args:
        param: its name.
    """

    def __init__(self, param: str, message: str) -> None:
        self.param = param
        super().__init__(message)


class HotWordsRefusedError(ValueRefusedError):
    """The hot words of a request are too many, too long, or hold no letter."""

    def __init__(self, message: str) -> None:
        super().__init__("hotwords", message)


class WrittenUnavailableError(ValueRefusedError):
    """The written form is asked for, and the server does not have it."""

    def __init__(self, reason: str) -> None:
        super().__init__("written", f"this server cannot write numbers as digits; leave out 'written', or {reason}")


class StreamsBusyError(DinleError):
    """As many live streams as the service takes are open."""

    def __init__(self, count: int) -> None:
        super().__init__(f"all {count} live streams of the service are taken; try again later")


class ProtocolError(DinleError):
    """A WebSocket's message that its dialect does not know."""


class IdleError(DinleError):
    """Nothing came on a live stream for too long."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(
            f"nothing came for {limit_s:g} s, and the stream is closed; send sound, silence too, or open another"
        )


CLIENT_GONE_STATUS = 499  # nginx's code for it; nobody reads the answer, the access log does

# First match wins; every other DinleError is a fault of the service: 500.
STATUS_OF_ERROR: tuple[tuple[type[DinleError], int], ...] = (
    (ServiceBusyError, 503),
    (StreamsBusyError, 503),
    (ProtocolError, 400),
    (IdleError, 408),
    (DeadlineError, 504),
    (ClientGoneError, CLIENT_GONE_STATUS),
    (UnauthorizedError, 401),
    (ModelUnknownError, 404),
    (ValueRefusedError, 400),
    (AudioLimitError, 413),
    (AudioDecodeError, 415),
    (AudioError, 422),
    (UsageError, 400),
)
INTERNAL_DETAIL = "the service failed on this request; its log has the reason under this request id"


OPENAI_PREFIX = "/v1/"
OPENAI_CODES = {"unauthorized": "invalid_api_key", "model_unknown": "model_not_found"}  # where OpenAI has a name for it


class ErrorBody(BaseModel):
    """Why a request was refused or failed."""

    detail: str = Field(description="what came, what was expected and what to do")
    code: str = Field(description="the same reason for programs; stable")
    request_id: str = Field(description="also in the header X-Request-ID; the log knows it")


class OpenAIError(BaseModel):
    """Why a request under ``/v1/`` was refused or failed, as OpenAI's clients read it."""

    message: str = Field(description="what came, what was expected and what to do")
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None = Field(description="the parameter that is to blame, where there is one")
    code: str = Field(description="the same reason for programs; stable")


class OpenAIErrorBody(BaseModel):
    """The body of every answer under ``/v1/`` that is not a success."""

    error: OpenAIError


@dataclass(frozen=True)
class Problem:
    """What is told about an error: HTTP status, code for programs, text for people, the parameter to blame, headers."""

    status: int
    code: str
    detail: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def add_error_handlers(app: FastAPI) -> None:
    """Answer dinle's, Starlette's and FastAPI's exceptions with an :class:`ErrorBody` or an :class:`OpenAIErrorBody`."""
    for error in (DinleError, HTTPException, RequestValidationError, ClientDisconnect):
        app.add_exception_handler(error, handle_error)


async def handle_error(request: Request, error: Exception) -> JSONResponse:
    """The answer to an exception that a route raised."""
    return make_error_response(request.scope, error)


def make_error_response(scope: MutableMapping[str, Any], error: Exception) -> JSONResponse:
    """The answer to an exception, for the request with this ASGI scope; noted as :func:`make_error_body` does."""
    problem, body = make_error_body(scope, error)
    return JSONResponse(body.model_dump(), status_code=problem.status, headers=dict(problem.headers))


def make_error_body(scope: MutableMapping[str, Any], error: Exception) -> tuple[Problem, ErrorBody | OpenAIErrorBody]:
    """What is told about an exception to the request with this ASGI scope; what is unexpected is logged.

    The error's code is left in the scope under :data:`ERROR_CODE_KEY`.
    """
    problem = describe_error(error)
    request_id = str(scope.get(REQUEST_ID_KEY, ""))
    if problem.status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request %s: %s %s failed", request_id, scope.get("method"), scope.get("path"), exc_info=error)
    scope[ERROR_CODE_KEY] = problem.code
    if str(scope.get("path", "")).startswith(OPENAI_PREFIX):
        # 422 is FastAPI's for what OpenAI answers with 400.
        problem = replace(problem, status=400) if problem.status == http.HTTPStatus.UNPROCESSABLE_ENTITY else problem
        return problem, OpenAIErrorBody(error=to_openai(problem))
    return problem, ErrorBody(detail=problem.detail, code=problem.code, request_id=request_id)


def describe_error(error: Exception) -> Problem:
    """What is told about an error; of what went wrong inside, nothing but that it did."""
    if isinstance(error, RequestValidationError):
        return _describe_validation(error)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, _name_error(error), str(error.detail), headers=error.headers or {})
    if isinstance(error, ClientDisconnect):
        error = ClientGoneError()
    status = next((status for kind, status in STATUS_OF_ERROR if isinstance(error, kind)), 500)
    if status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem(status, "internal", INTERNAL_DETAIL)
    headers = {}
    if isinstance(error, ServiceBusyError):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    param = "model" if isinstance(error, ModelUnknownError) else getattr(error, "param", None)
    return Problem(status, _name_error(error), str(error), param, headers)


def to_openai(problem: Problem) -> OpenAIError:
    """An error in OpenAI's form."""
    kind: Literal["invalid_request_error", "rate_limit_error", "server_error"] = "invalid_request_error"
    if problem.code == "service_busy":
        kind = "rate_limit_error"
    elif problem.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "server_error"
    code = OPENAI_CODES.get(problem.code, problem.code)
    return OpenAIError(message=problem.detail, type=kind, param=problem.param, code=code)


def _name_error(error: Exception) -> str:
    """``AudioDecodeError`` -> ``audio_decode``; a plain 404 -> ``not_found``."""
    if isinstance(error, HTTPException) and not isinstance(error, UploadTooLargeError):
        return http.HTTPStatus(error.status_code).phrase.casefold().replace(" ", "_")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).casefold()


def _describe_validation(error: RequestValidationError) -> Problem:
    """One sentence from FastAPI's list of problems, without echoing the input."""
    problems = [(".".join(str(part) for part in problem["loc"]), problem["msg"]) for problem in error.errors()]
    param = next((str(problem["loc"][-1]) for problem in error.errors()), None)
    if any(place == "body.file" for place, _ in problems):
        detail = (
            "the form field 'file' with an audio file is missing; "
            "send multipart/form-data, such as curl -F file=@speech.wav URL"
        )
    else:
        detail = "; ".join(f"{place}: {message}" for place, message in problems)
    return Problem(422, "invalid_request", detail, param)
