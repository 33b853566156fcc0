"""The web application: routes, limits and the model's life."""

from __future__ import annotations

import html
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from dinle import __version__
from dinle.recognize.audio import AudioLimits
from dinle.recognize.load import load
from dinle.recognize.recognizer import Recognizer
from dinle.serve import transcribe
from dinle.serve.errors import add_error_handlers
from dinle.serve.middleware import RequestIdMiddleware, UploadGuardMiddleware
from dinle.serve.scheduler import Scheduler
from dinle.serve.settings import Settings, read_settings
from dinle.serve.transcribe import Service, get_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PAGE = """<!doctype html>
<html lang="tr">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dinle</title>
<h1>dinle</h1>
<p>Türkçe konuşmayı yazıya çevirir. Turns Turkish speech into text.</p>
<pre>curl -F file=@speech.wav {url}transcribe</pre>
<form action="transcribe" method="post" enctype="multipart/form-data">
<input type="file" name="file" accept="audio/*,video/*" required>
<button>Yazıya çevir</button>
</form>
<p><a href="docs">API</a> · <a href="healthz">healthz</a></p>
</html>
"""

router = APIRouter()


class Health(BaseModel):
    """The service is up, its model loaded and warm."""

    status: Literal["ok"] = "ok"
    model: str = Field(description="name of the loaded model", examples=["dinle-base-tr"])
    backend: str = Field(description="engine that runs it", examples=["onnx_int8"])


@router.get("/healthz", summary="Is it up")
async def check_health(service: Annotated[Service, Depends(get_service)]) -> Health:
    """Answers as soon as requests can be served; never waits for an inference."""
    return Health(model=service.recognizer.name, backend=service.backend)


@router.get("/", include_in_schema=False)
async def show_page(request: Request) -> HTMLResponse:
    """How to use the service, for people."""
    return HTMLResponse(PAGE.format(url=html.escape(str(request.base_url))))


def create_app(
    recognizer: Recognizer | Callable[[], Recognizer] | None = None, settings: Settings | None = None
) -> FastAPI:
    """Make the application.

    Args:
        recognizer: what transcribes, or a function that makes it when the application starts; by default the model that
            the settings name.
        settings: limits and model; by default from the environment.

    Raises:
        UsageError: a setting in the environment does not fit.
    """
    settings = settings or read_settings()
    scheduler = Scheduler(settings.workers, settings.max_queue)

    @asynccontextmanager
    async def run_service(app: FastAPI) -> AsyncIterator[None]:
        ready = await run_sync(prepare_recognizer, recognizer, settings)
        limits = AudioLimits(max_bytes=settings.max_bytes, max_seconds=settings.max_seconds)
        app.state.service = Service(ready, scheduler, limits, ready.backend or settings.backend)
        yield

    app = FastAPI(
        title="dinle",
        version=__version__,
        summary="Turkish speech recognition",
        description="Send a recording to `/transcribe`, get its text. Errors say what came and what was expected.",
        lifespan=run_service,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(transcribe.router)
    app.include_router(router)
    add_error_handlers(app)
    # The last one added stands outermost: refusals of the guard carry a request id too.
    app.add_middleware(UploadGuardMiddleware, max_bytes=settings.max_bytes, admit=scheduler.admit)
    app.add_middleware(RequestIdMiddleware)
    return app


def prepare_recognizer(recognizer: Recognizer | Callable[[], Recognizer] | None, settings: Settings) -> Recognizer:
    """Load the model where it is not given, and run it once on noise so that the first request is not the slow one."""
    if recognizer is None:
        recognizer = load(settings.model_dir, backend=settings.backend, threads=settings.engine_threads)
    elif not isinstance(recognizer, Recognizer):
        recognizer = recognizer()
    recognizer.warm_up()
    return recognizer
