"""The page for people: its one document, its scripts and styles below ``/static``, and a recording to try."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os

    from starlette.types import Scope

STATIC_DIR = Path(__file__).resolve().parent / "static"
STATIC_PATH = "/static"
SAMPLE = "sample.wav"
# A system's own table may know none of them, or another name: modules of a type that is not JavaScript's do not run.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
}

router = APIRouter()


class PageFiles(StaticFiles):
    """Files of the page: kept by browsers and asked for by their ETag each time, so that a new version is seen at once."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, or 304 where the browser has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        media_type = MEDIA_TYPES.get(Path(full_path).suffix)
        if isinstance(response, FileResponse) and media_type is not None:
            response.headers["Content-Type"] = media_type
        return response


def find_sample_dir() -> Path:
    """Where the recording to try is: inside the installed package, or in the source checkout."""
    return STATIC_DIR if (STATIC_DIR / SAMPLE).is_file() else STATIC_DIR.parents[3] / "samples"


page_files = PageFiles(directory=STATIC_DIR)
sample_files = PageFiles(directory=find_sample_dir(), check_dir=False)


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def show_page(request: Request) -> Response:
    """The page. Its addresses are relative, so that it works below a proxy's prefix."""
    return await page_files.get_response("index.html", request.scope)


@router.api_route(f"{STATIC_PATH}/{SAMPLE}", methods=["GET", "HEAD"], include_in_schema=False)
async def send_sample(request: Request) -> Response:
    """The recording to try."""
    return await sample_files.get_response(SAMPLE, request.scope)
