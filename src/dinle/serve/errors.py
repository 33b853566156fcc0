"""The one place where exceptions become HTTP answers.

Every answer that is not a success has the body :class:`ErrorBody`. What the caller did wrong is told in full; what went
wrong inside goes to the log under the request's id, and the caller learns the id.
"""

from __future__ import annotations

import http
import logging
import re
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from dinle.errors import AudioDecodeError, AudioError, AudioLimitError, DinleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger(__name__)

REQUEST_ID_KEY = "dinle.request_id"  # in the ASGI scope


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


class ClientGoneError(DinleError):
    """The client hung up before its answer was ready."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


CLIENT_GONE_STATUS = 499  # nginx's code for it; nobody reads the answer, the access log does

# First match wins; every other DinleError is a fault of the service: 500.
STATUS_OF_ERROR: tuple[tuple[type[DinleError], int], ...] = (
    (ServiceBusyError, 503),
    (ClientGoneError, CLIENT_GONE_STATUS),
    (AudioLimitError, 413),
    (AudioDecodeError, 415),
    (AudioError, 422),
    (UsageError, 400),
)
INTERNAL_DETAIL = "the service failed on this request; its log has the reason under this request id"


class ErrorBody(BaseModel):
    """Why a request was refused or failed."""

    detail: str = Field(description="what came, what was expected and what to do")
    code: str = Field(description="the same reason for programs; stable")
    request_id: str = Field(description="also in the header X-Request-ID; the log knows it")


def add_error_handlers(app: FastAPI) -> None:
    """Answer dinle's, Starlette's and FastAPI's exceptions with an :class:`ErrorBody`."""
    for error in (DinleError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, handle_error)


async def handle_error(request: Request, error: Exception) -> JSONResponse:
    """The answer to an exception that a route raised."""
    return make_error_response(request.scope, error)


def make_error_response(scope: Mapping[str, Any], error: Exception) -> JSONResponse:
    """The answer to an exception, for the request with this ASGI scope; what is unexpected is logged."""
    headers: dict[str, str] = {}
    if isinstance(error, RequestValidationError):
        status, code, detail = 422, "invalid_request", _describe_validation(error)
    elif isinstance(error, HTTPException):
        status, code, detail = error.status_code, _name_error(error), str(error.detail)
        headers |= error.headers or {}
    else:
        status = _find_status(error)
        code, detail = _name_error(error), str(error)
    if isinstance(error, ServiceBusyError):
        headers["Retry-After"] = str(error.retry_after_s)
    request_id = str(scope.get(REQUEST_ID_KEY, ""))
    if status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request %s: %s %s failed", request_id, scope.get("method"), scope.get("path"), exc_info=error)
        code, detail = "internal", INTERNAL_DETAIL
    body = ErrorBody(detail=detail, code=code, request_id=request_id)
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def _find_status(error: Exception) -> int:
    return next((status for kind, status in STATUS_OF_ERROR if isinstance(error, kind)), 500)


def _name_error(error: Exception) -> str:
    """``AudioDecodeError`` -> ``audio_decode``; a plain 404 -> ``not_found``."""
    if isinstance(error, HTTPException) and not isinstance(error, UploadTooLargeError):
        return http.HTTPStatus(error.status_code).phrase.casefold().replace(" ", "_")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).casefold()


def _describe_validation(error: RequestValidationError) -> str:
    """One sentence from FastAPI's list of problems, without echoing the input."""
    problems = [(".".join(str(part) for part in problem["loc"]), problem["msg"]) for problem in error.errors()]
    if any(place == "body.file" for place, _ in problems):
        return (
            "the form field 'file' with an audio file is missing; "
            "send multipart/form-data, such as curl -F file=@speech.wav URL"
        )
    return "; ".join(f"{place}: {message}" for place, message in problems)
