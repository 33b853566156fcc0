"""The page as a whole: quick to show, usable by keyboard and screen reader, in both languages and colour schemes, on a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.page.speaking import SAMPLE

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.page.conftest import OpenPage

SECTIONS = ("transcribe", "models", "numbers")
PHONE = {"width": 390, "height": 844}
FIRST_PAINT_S = 1.0


def show(page: Page, section: str) -> None:
    """Open a section and wait until it is filled."""
    page.click(f"#tab-{section}")
    filled = {"transcribe": "#drop", "models": "#model-cards article", "numbers": "#reports canvas"}[section]
    page.wait_for_selector(filled)


def find_violations(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing_serious(open_page: OpenPage, scheme: str, viewport: dict[str, int] | None) -> None:
    options: dict[str, Any] = {"color_scheme": scheme} | ({"viewport": viewport} if viewport else {})
    page = open_page(**options)
    page.set_input_files("#file", SAMPLE)
    page.wait_for_selector("#result:not([hidden]) .word")
    page.click("#options summary")
    for section in SECTIONS:
        show(page, section)
        assert find_violations(page) == []


def test_a_phone_needs_no_scrolling_sideways(open_page: OpenPage) -> None:
    page = open_page(viewport=PHONE)
    page.set_input_files("#file", SAMPLE)
    page.wait_for_selector("#result:not([hidden]) .word")
    page.click("#options summary")
    for section in SECTIONS:
        show(page, section)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_page_is_painted_within_a_second(open_page: OpenPage) -> None:
    page = open_page()
    page.reload()
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    painted_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted_ms < 1000 * FIRST_PAINT_S


def test_the_language_is_switched_and_remembered(open_page: OpenPage) -> None:
    page = open_page()
    assert page.inner_text("h1") == "Türkçe konuşmayı yazıya çevirir"
    assert page.get_attribute("html", "lang") == "tr"
    page.click("#language")
    assert "Turkish" in page.inner_text("h1")
    page.reload()
    assert page.get_attribute("html", "lang") == "en"
    assert page.inner_text("#tab-models") == "Models"


def test_every_text_stands_in_both_languages(open_page: OpenPage) -> None:
    page = open_page()
    missing = page.evaluate(
        """async () => {
          const missing = [];
          for (const [file, name] of [["texts", "COMMON"], ["texts_transcribe", "TRANSCRIBE"], ["texts_live", "LIVE"],
                                      ["texts_numbers", "NUMBERS"]]) {
            const { tr, en } = (await import(`./static/js/${file}.js`))[name];
            for (const key of new Set([...Object.keys(tr), ...Object.keys(en)])) {
              const holes = (text) => [...(text ?? "").matchAll(/\\{(\\w+)\\}/g)].map((hole) => hole[1]).sort().join();
              if (!(key in tr) || !(key in en) || holes(tr[key]) !== holes(en[key])) missing.push(key);
            }
          }
          return missing;
        }"""
    )
    assert missing == []


def test_the_appearance_follows_the_system_until_it_is_chosen(open_page: OpenPage) -> None:
    page = open_page(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    assert page.get_attribute("html", "data-theme") == "light"
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == light


def test_sections_are_walked_by_keyboard_and_linked_by_address(open_page: OpenPage) -> None:
    page = open_page("#models")
    page.wait_for_selector("#models:not([hidden])")
    page.focus("#tab-models")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-numbers"
    assert page.url.endswith("#numbers")
    page.wait_for_selector("#reports canvas")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#drop")


def test_only_the_page_itself_may_run(open_page: OpenPage, server: str) -> None:
    page = open_page(allowed=("Content Security Policy", "Refused to"))
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
        }"""
    )
    assert page.evaluate("window.ran") is None
