"""The page in a real browser: Debian's Chromium, driven by Playwright, against services that run as processes of their own."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from dinle.serve.process import start_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, Playwright

# No sandbox: the tests may run as root. The rest keeps Chromium from asking hosts of its own at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
)


class OpenPage(Protocol):
    """Opens the page in a context of its own."""

    def __call__(
        self,
        path: str = "",
        *,
        url: str | None = None,
        allowed: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        **options: Any,
    ) -> Page:
        """Open a page; see :func:`open_page`."""
        ...


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; tests of the page are skipped where it is missing."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium (apt-get install chromium): the page is not tested")
    return found


@pytest.fixture(scope="module")
def playwright(chromium: str) -> Iterator[Playwright]:
    """Playwright's driver. Not for the whole run: it keeps an event loop in this thread, beside which asyncio.run cannot be."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: the page is not tested")
    with api.sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def server(chromium: str) -> Iterator[str]:
    """The base URL, with a slash at its end, of a service with the default model."""
    with start_service() as service:
        yield f"{service.url}/"


@pytest.fixture(scope="module")
def browsers(playwright: Playwright, chromium: str) -> Iterator[dict[tuple[str, ...], Browser]]:
    """The browsers that run, by their additional flags."""
    running: dict[tuple[str, ...], Browser] = {}
    yield running
    for browser in running.values():
        browser.close()


@pytest.fixture
def open_page(
    playwright: Playwright, chromium: str, server: str, browsers: dict[tuple[str, ...], Browser]
) -> Iterator[OpenPage]:
    """A function that opens the page; at the end the test fails where the browser's console has an error.

    Its arguments: ``path`` after the base URL, ``url`` of another service, ``allowed`` pieces of console errors that the test
    provokes, ``flags`` for a browser of its own, and the options of Playwright's ``new_context`` (``color_scheme``,
    ``viewport``, ``permissions``, ...).
    """
    errors: list[str] = []
    with ExitStack() as stack:

        def open_one(
            path: str = "",
            *,
            url: str | None = None,
            allowed: tuple[str, ...] = (),
            flags: tuple[str, ...] = (),
            **options: Any,
        ) -> Page:
            if flags not in browsers:
                browsers[flags] = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])
            context = browsers[flags].new_context(**options)
            stack.callback(context.close)

            def note(text: str) -> None:
                if not any(piece in text for piece in allowed):
                    errors.append(text)

            page = context.new_page()
            page.on("console", lambda message: note(message.text) if message.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: note(str(error)))
            page.goto(f"{url or server}{path}")
            return page

        yield open_one
    assert not errors, errors
