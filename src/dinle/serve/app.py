"""The web application: routes, limits and the model's life."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from threadpoolctl import threadpool_limits

from dinle import __version__
from dinle.errors import UsageError
from dinle.recognize.bundle import find_default_bundle
from dinle.recognize.load import load
from dinle.recognize.recognizer import CtcRecognizer, Recognizer
from dinle.serve import live_openai, live_plain, model_details, openai_api, page, status, transcribe
from dinle.serve.batching import BatchingEngine, BatchRules
from dinle.serve.errors import add_error_handlers
from dinle.serve.logs import AccessMiddleware
from dinle.serve.metrics import Metrics, watch_event_loop
from dinle.serve.middleware import REQUEST_ID_HEADER, FaultMiddleware, RequestIdMiddleware, UploadGuardMiddleware
from dinle.serve.models import ModelStore
from dinle.serve.options import read_server_words
from dinle.serve.scheduler import Scheduler, StreamCounter
from dinle.serve.security import KeyGuardMiddleware, SecurityHeadersMiddleware, parse_origins, read_api_keys
from dinle.serve.service import Service
from dinle.serve.settings import Settings, read_settings
from dinle.serve.tracing import TracingMiddleware, set_up_tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# What needs no key: whether it lives, what it is, and how it is used.
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/version", "/docs", "/openapi.json"})
OPEN_PREFIXES = (f"{page.STATIC_PATH}/",)
UPLOADS_PER_PLACE = 4  # more bodies may be on their way than can wait: most clients are slower than the service
DESCRIPTION = "Send a recording to `/transcribe`, get its text. Errors say what came and what was expected."
ROUTERS = (
    transcribe.router, openai_api.router, live_plain.router, live_openai.router, model_details.router, status.router,
    page.router,
)  # fmt: skip


def create_app(
    recognizer: Recognizer | Callable[[], Recognizer] | None = None, settings: Settings | None = None
) -> FastAPI:
    """Make the application.

    Args:
        recognizer: what transcribes, or a function that makes it when the application starts; by default the model that
            the settings name.
        settings: limits and model; by default from the environment.

    Raises:
        UsageError: a setting in the environment does not fit, or the server's hot words.
    """
    settings = settings or read_settings()
    hot_words = read_server_words(settings)
    metrics = Metrics()
    batched = settings.engine_workers * settings.batch_size  # so many windows must be there for full batches
    scheduler = Scheduler(batched, settings.max_queue, slice_s=settings.slice_s, meter=metrics)
    app = FastAPI(
        title="dinle",
        version=__version__,
        summary="Turkish speech recognition",
        description=DESCRIPTION,
        lifespan=lambda app: run_service(app, recognizer, settings, scheduler, metrics, hot_words=hot_words),
        generate_unique_id_function=lambda route: route.name,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    for router in ROUTERS:
        app.include_router(router)
    app.mount(page.STATIC_PATH, page.page_files, name="static")
    add_error_handlers(app)
    app.state.tracing = set_up_tracing()
    add_middlewares(app, settings, scheduler, metrics)
    return app


@asynccontextmanager
async def run_service(
    app: FastAPI,
    recognizer: Recognizer | Callable[[], Recognizer] | None,
    settings: Settings,
    scheduler: Scheduler,
    metrics: Metrics,
    *,
    hot_words: tuple[str, ...],
) -> AsyncIterator[None]:
    """The application's life: load and warm up the default model, watch the loop and the bundles, stop the workers.

    Raises:
        BundleError, UsageError: the default model cannot be loaded.
    """
    # BLAS threads spin beside the engines' own: ten users got 3.7 answers a second on two cores with them, 5.0 without.
    one_blas_thread = threadpool_limits(limits=1, user_api="blas")
    models = await asyncio.to_thread(make_store, recognizer, settings, metrics, hot_words)
    service = Service(settings, models, scheduler, metrics, StreamCounter(settings.max_streams))
    metrics.read_gauges_from(lambda: scheduler.waiting, lambda: scheduler.running, lambda: service.streams.open)
    async with models.use():  # loaded before the first request is taken
        pass
    watches = [asyncio.ensure_future(watch_event_loop(metrics))]
    if settings.reload_s:
        watches.append(asyncio.ensure_future(models.keep_fresh(settings.reload_s)))
    app.state.service = service
    settle_memory(app)
    yield
    gc.unfreeze()
    for watch in watches:
        watch.cancel()
    await scheduler.close()
    one_blas_thread.restore_original_limits()
    if app.state.tracing is not None:
        await asyncio.to_thread(app.state.tracing.shut_down)


def settle_memory(app: FastAPI) -> None:
    """Do before the first request what would hold the event loop for 20 to 70 ms at any later one.

    Modules, routes and the model live as long as the service: the garbage collector need not go through them again and
    again. The description of the API is made at once, and kept.
    """
    app.openapi()
    gc.collect()
    gc.freeze()


def add_middlewares(app: FastAPI, settings: Settings, scheduler: Scheduler, metrics: Metrics) -> None:
    """Put around the routes what every request passes; the last one added stands outermost.

    Raises:
        UsageError: keys or origins that do not fit.
    """
    origins = parse_origins(settings.cors_origins)
    app.add_middleware(
        UploadGuardMiddleware,
        max_bytes=settings.max_bytes,
        admit=scheduler.admit,
        upload_s=settings.upload_s,
        max_uploads=UPLOADS_PER_PLACE * scheduler.places,
    )
    app.add_middleware(
        KeyGuardMiddleware, keys=read_api_keys(settings), open_paths=OPEN_PATHS, open_prefixes=OPEN_PREFIXES
    )
    app.add_middleware(FaultMiddleware)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", REQUEST_ID_HEADER],
            expose_headers=[REQUEST_ID_HEADER, "Retry-After"],
        )
    app.add_middleware(SecurityHeadersMiddleware, shared=bool(origins))
    paths = {
        path for router in ROUTERS for route in router.routes if "{" not in (path := str(getattr(route, "path", "")))
    }
    if app.state.tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=app.state.tracing, paths=paths)
    app.add_middleware(AccessMiddleware, metrics=metrics, paths=paths)
    app.add_middleware(RequestIdMiddleware)


def make_store(
    default: Recognizer | Callable[[], Recognizer] | None,
    settings: Settings,
    metrics: Metrics,
    hot_words: tuple[str, ...],
) -> ModelStore:
    """The models that the settings name, around the default one where it is given; all expect these words.

    Raises:
        BundleError: the bundled model is missing.
        UsageError: there is no such folder of models.
    """
    source: Recognizer | Path
    source = (
        default if isinstance(default, Recognizer) else default() if default is not None else find_default(settings)
    )
    if isinstance(source, Recognizer):
        source = equip_recognizer(source, settings, metrics, hot_words)
    store = ModelStore(
        lambda folder: equip_recognizer(load_folder(folder, settings), settings, metrics, hot_words),
        source,
        Path(settings.models_dir) if settings.models_dir is not None else None,
        idle_s=settings.model_idle_s,
        on_load=lambda name, outcome: note_load(metrics, store, name, outcome),
    )
    if isinstance(source, Recognizer):
        note_load(metrics, store, source.name, "loaded")
    return store


def find_default(settings: Settings) -> Path:
    """The default model's folder (for pytorch it may be a hub id).

    Raises:
        BundleNotFoundError: none is named, and the bundled one is missing.
    """
    return Path(settings.model_dir) if settings.model_dir is not None else find_default_bundle()


def load_default(settings: Settings) -> Recognizer:
    """The default model; raises as :func:`dinle.load`."""
    return load_folder(find_default(settings), settings)


def load_folder(folder: Path, settings: Settings) -> Recognizer:
    """The model in a folder, by the settings' engine; raises as :func:`dinle.load`. Blocks for seconds."""
    return load(
        folder, backend=settings.backend, threads=settings.engine_threads, language_model=settings.language_model
    )


def note_load(metrics: Metrics, store: ModelStore, name: str, outcome: str) -> None:
    """Count a model that was loaded, swapped, unloaded, or could not be loaded."""
    if outcome == "unloaded":
        metrics.hide_model(name)
        return
    metrics.count_model_load(name, "failed" if outcome == "failed" else "loaded")
    recognizer = store.loaded.get(name)
    if recognizer is not None:
        family = recognizer.bundle.family if recognizer.bundle is not None else "unknown"
        metrics.show_model(name, family, recognizer.backend or "unknown")


def equip_recognizer(
    recognizer: Recognizer, settings: Settings, metrics: Metrics, hot_words: tuple[str, ...] = ()
) -> Recognizer:
    """Let a CTC model's runs be counted, and shared where that is asked for; let it expect words; run it once on noise.

    Raises:
        UsageError: batches are asked for, and the model does not take them.
    """
    if isinstance(recognizer, CtcRecognizer):
        rules = BatchRules(settings.batch_size, settings.batch_seconds, settings.batch_wait_s, settings.engine_workers)
        engine = recognizer.engine
        recognizer.engine = BatchingEngine(
            engine.engine if isinstance(engine, BatchingEngine) else engine, rules, metrics
        )
    elif settings.batch_size > 1:
        raise UsageError(
            f"ASR_BATCH_SIZE is {settings.batch_size}, and {recognizer.name} is a Whisper model, which takes one segment "
            "a run; set it to 1"
        )
    if hot_words:
        recognizer = recognizer.with_hot_words(hot_words)
    recognizer.warm_up()
    return recognizer
