"""The diff page of an evaluation in a real browser, opened from the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dinle.measure.diff_page import write_diff_page
from dinle.measure.predictions import Prediction
from dinle.measure.scores import compute_scores
from tests.page.conftest import FLAGS
from tests.page.transcripts import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Playwright

EVIL = "<script>document.title='run'</script><b>kalın</b>"
CLIPS = [
    Prediction("çam", "Irmak geldi.", "ırmak geldi", str(SAMPLE), 2.0, speaker="a"),
    Prediction("dal", "İki kuş uçtu.", "iki kuş kaçtı", "/gone/dal.wav", 4.0),
    Prediction("can", f"Üç kedi {EVIL}", "", "", 1.0, error="AudioDecodeError: broken"),
    Prediction("şal", "bir", "bir iki üç dört", str(SAMPLE), 3.0),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    with playwright.chromium.launch(executable_path=chromium, args=list(FLAGS)) as running:
        yield running


@pytest.fixture
def open_diff(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """A function that opens the page of some clips; at the end the test fails where the console has an error."""
    errors: list[str] = []
    context = browser.new_context()

    def open_clips(predictions: list[Prediction]) -> Page:
        file = write_diff_page(tmp_path, compute_scores(predictions, samples=5, seed=1), predictions)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield open_clips
    context.close()
    assert not errors, errors


def read_ids(page: Page) -> list[str]:
    return [name.split(" ")[0] for name in page.locator("#rows .name").all_text_contents()]


def sort_by(page: Page, title: str) -> list[str]:
    page.get_by_role("columnheader", name=title).get_by_role("button").click()
    return read_ids(page)


def test_columns_sort_and_say_so(open_diff: Callable[..., Page]) -> None:
    page = open_diff(CLIPS)
    assert read_ids(page)[-1] == "çam"  # the clip without an error, below those with the most
    assert sort_by(page, "Length") == ["dal", "şal", "çam", "can"]
    assert sort_by(page, "Length") == ["can", "çam", "şal", "dal"]
    assert page.get_by_role("columnheader", name="Length").get_attribute("aria-sort") == "ascending"
    assert sort_by(page, "Clip") == ["can", "çam", "dal", "şal"]  # ç follows c in Turkish
    assert sort_by(page, "No.") == ["çam", "dal", "can", "şal"]
    assert sort_by(page, "WER")[0] == "şal"
    assert sort_by(page, "CER")[0] == "şal"
    page.get_by_role("columnheader", name="No.").get_by_role("button").press("Enter")
    assert read_ids(page) == ["çam", "dal", "can", "şal"]


def test_filters_leave_the_clips_that_are_wanted(open_diff: Callable[..., Page]) -> None:
    page = open_diff(CLIPS)
    page.check("#wrong")
    assert sorted(read_ids(page)) == ["can", "dal", "şal"]
    page.uncheck("#wrong")
    page.fill("#search", "IRMAK")  # in Turkish I and ı are one letter, and i is another
    assert read_ids(page) == ["çam"]
    page.fill("#search", "irmak")
    assert read_ids(page) == []
    assert page.text_content("#summary") == "0 of 4 clips: 0 substituted, 0 inserted, 0 deleted"


@pytest.mark.parametrize("form", ["raw", "whisper-basic", "tr"])
def test_the_colours_are_as_many_as_the_scores_say(open_diff: Callable[..., Page], form: str) -> None:
    page = open_diff(CLIPS)
    page.select_option("#form", form)
    counted = [page.locator(f"#rows .pair.{kind}").count() for kind in ("substituted", "inserted", "deleted")]
    wer = compute_scores(CLIPS, samples=5, seed=1)["scores"][form]["wer"]
    assert counted == [wer[kind] for kind in ("substitutions", "insertions", "deletions")]
    assert page.locator("#scores tr.chosen th").text_content() == form
    summary = str(page.text_content("#summary"))
    assert summary.startswith(
        f"4 of 4 clips: {counted[0]} substituted, {counted[1]} inserted, {counted[2]} deleted; WER "
    )
    assert summary.endswith(f"{100 * wer['rate']:.1f} %")


def test_sound_plays_and_what_is_missing_is_said(open_diff: Callable[..., Page]) -> None:
    page = open_diff(CLIPS)
    page.get_by_role("button", name="Play çam").click()
    page.wait_for_function("() => document.querySelector('audio')?.currentTime > 0.05")
    assert page.evaluate("document.activeElement.tagName") == "AUDIO"
    assert page.locator("#silent").text_content() == (
        "2 of 4 clips have no sound here: dal, can. The reason stands beside each."
    )
    notes = page.locator("#rows .note").all_text_contents()
    assert "No sound: the file /gone/dal.wav is gone." in notes
    assert "Failed: AudioDecodeError: broken" in notes


def test_transcripts_are_text_and_never_markup(open_diff: Callable[..., Page]) -> None:
    page = open_diff(CLIPS)
    page.select_option("#form", "raw")
    assert page.title() == "Evaluation: predictions"
    assert page.locator("#rows b, #rows script").count() == 0
    assert page.get_by_text("<script>document.title='run'</script><b>kalın</b>").count() > 0


def test_many_clips_come_by_pages(open_diff: Callable[..., Page]) -> None:
    page = open_diff([Prediction(str(number), "bir", "bir") for number in range(450)])
    seen = []
    for place in ("1 to 200 of 450", "201 to 400 of 450", "401 to 450 of 450"):
        assert page.text_content("#place") == place
        seen += read_ids(page)
        if place[0] == "4":
            assert page.locator("#next").is_disabled()
        else:
            page.click("#next")
    assert seen == [str(number) for number in range(450)]


def test_the_page_is_accessible_and_fits_a_phone(open_diff: Callable[..., Page]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_diff(CLIPS)
    for scheme in ("light", "dark"):
        for width in (1280, 360):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.run(page)
            assert found.violations_count == 0, found.generate_report()
