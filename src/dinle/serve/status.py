"""What the service says about itself: whether it is up and ready, which version, and its figures."""

from __future__ import annotations

import platform
from typing import Annotated, Literal

import onnxruntime
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from dinle import __version__
from dinle.serve.service import Service, get_service

router = APIRouter(tags=["status"])


class Health(BaseModel):
    """The service is up, its model loaded and warm."""

    status: Literal["ok"] = "ok"
    model: str = Field(description="name of the default model", examples=["dinle-base-tr"])
    backend: str = Field(description="engine that runs it", examples=["onnx_int8"])


class Readiness(BaseModel):
    """The default model is loaded and warm. Before that, and while the service stops, nothing is listened to at all."""

    status: Literal["ready"] = "ready"


class Version(BaseModel):
    """What is running."""

    version: str = Field(description="of dinle", examples=["0.1.0"])
    python: str
    onnxruntime: str


@router.get("/healthz", summary="Is it up")
async def check_health(service: Annotated[Service, Depends(get_service)]) -> Health:
    """Answers while the process lives and its event loop runs; never waits for an inference."""
    recognizer = service.models.loaded.get(service.models.default)
    backend = recognizer.backend if recognizer is not None else None
    return Health(model=service.models.default, backend=backend or service.settings.backend)


@router.get("/readyz", summary="Should requests come here")
async def check_readiness() -> Readiness:
    """200 once the default model is loaded and warm."""
    return Readiness()


@router.get("/version", summary="Which version")
async def tell_version() -> Version:
    """Versions of dinle and of what it stands on."""
    return Version(version=__version__, python=platform.python_version(), onnxruntime=onnxruntime.__version__)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"}
    },
)
async def tell_metrics(request: Request, service: Annotated[Service, Depends(get_service)]) -> Response:
    """Requests, queue, inference, audio, live streams, models and the process, in Prometheus' text format."""
    body, media_type = service.metrics.render(request.headers.get("accept", ""))
    return Response(body, media_type=media_type)
