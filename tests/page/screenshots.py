"""Takes the pictures of the page for the documentation: ``python -m tests.page.screenshots``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from dinle.serve.process import run_service
from tests.page.conftest import FLAGS
from tests.page.speaking import SAMPLE

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
WIDE = {"width": 1100, "height": 820}
PHONE = {"width": 390, "height": 844}


def open_with_text(browser: Browser, url: str, **options: Any) -> Page:
    """A page with the sample's transcript, played for a moment."""
    page = browser.new_context(**options).new_page()
    page.goto(url)
    page.set_input_files("#file", SAMPLE)
    page.wait_for_selector("#result:not([hidden]) .word")
    page.wait_for_selector("#working", state="hidden")
    page.click("#words .word:nth-of-type(6)")
    page.wait_for_timeout(400)
    page.evaluate("document.querySelector('#audio').pause()")
    page.evaluate("document.activeElement.blur()")
    return page


def main() -> None:
    """Wide, dark, on a phone; the numbers."""
    chromium = shutil.which("chromium")
    with run_service(port=8000) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS])
        page = open_with_text(browser, url, color_scheme="light", viewport=WIDE)
        page.screenshot(path=IMAGES / "page_wide.png", full_page=True)
        page.click("#tab-numbers")
        page.wait_for_selector("#reports canvas")
        page.evaluate("document.querySelector('#reports').scrollIntoView()")
        page.wait_for_timeout(1500)  # until the charts stand
        page.screenshot(path=IMAGES / "page_numbers.png")
        open_with_text(browser, url, color_scheme="dark", viewport=WIDE).screenshot(
            path=IMAGES / "page_dark.png", full_page=True
        )
        phone = open_with_text(browser, url, color_scheme="light", viewport=PHONE)
        phone.screenshot(path=IMAGES / "page_phone.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
