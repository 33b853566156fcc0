"""Speaking into the page's microphone, in a real Chromium, against a real service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

import dinle
from dinle.serve.process import start_service
from tests.page.speaking import (
    MICROPHONE,
    SAMPLE_S,
    find_events,
    read_wav,
    save_recording,
    speak,
    wait_for_words,
    wait_until_sent,
)
from tests.serve.live_clients import check_plain_order, write_offline

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.page.conftest import OpenPage

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: the page is not tested")
expect = api.expect
pytestmark = pytest.mark.slow

SPEECH_PEAK = 0.1
FIRST_DRAFT_S = 0.7
DRAFTS_S = 0.4  # between drafts: of the first letters of a word the first draft may make nothing
BUSY_S = 0.5  # what a machine that does other work at the same time may take on top
KEY = "a-key-for-the-tests-of-the-page-0123456789"
# Two segments: a draft that grows, its final, and one that turns out to be no speech.
EVENTS = [
    {"type": "partial", "segment": 0, "text": "gezdikleri yer", "stable": "gezdikleri", "words": []},
    {"type": "partial", "segment": 0, "text": "gezdikleri yerde her", "stable": "gezdikleri yerde", "words": []},
    {"type": "final", "segment": 0, "text": "Gezdikleri yerde her", "words": [{"word": "Gezdikleri"}]},
    {"type": "partial", "segment": 1, "text": "öh", "stable": "", "words": []},
    {"type": "final", "segment": 1, "text": "", "words": []},
]
WRITE = """async (events) => {
  const { LiveText } = await import("/static/js/live_text.js");
  const box = document.createElement("div");
  const text = new LiveText(box);
  return events.map((event) => {
    text.write(event);
    const spans = [...box.querySelectorAll(".segment")].map((span) => ({
      text: span.textContent.trim(), stable: span.querySelector(".stable")?.textContent ?? null,
      draft: span.classList.contains("draft"), hidden: span.getAttribute("aria-hidden") === "true",
    }));
    return { spans, words: text.words.map(({ word }) => word) };
  });
}"""
MAKE_WAV = """async ([rate, seconds, minutes]) => {
  const { Recording } = await import("/static/js/recording.js");
  const recording = new Recording(rate);
  for (let each = 0; each < minutes * 60 / seconds; each += 1) {
    recording.add(new Int16Array(rate * seconds).fill(-2));
  }
  const wav = recording.toWav();
  return { duration: recording.durationS, bytes: wav && [...new Uint8Array(await wav.arrayBuffer())] };
}"""


def measure_drafts(page: Page) -> tuple[float, float]:
    """Seconds from the sending of the first piece with speech in it to the first draft, and to the first with a word in it.

    The sample begins with 0.2 s of silence, in which its first word's time may lie: loudness is what tells.
    """
    said = next(piece["at"] for piece in page.evaluate("wire.sent") if piece["peak"] > SPEECH_PEAK)
    drafts = find_events(page, "partial")
    with_words = next(draft["at"] for draft in drafts if draft["text"])
    return float(drafts[0]["at"] - said) / 1000, float(with_words - said) / 1000


def test_what_is_spoken_is_drafted_at_once_and_ends_as_the_stream_law_says(
    open_page: OpenPage, tmp_path: Path, record_property: Any
) -> None:
    page = open_page(flags=MICROPHONE)
    speak(page)
    expect(page.locator("#live-text .draft")).not_to_have_count(0, timeout=10_000)
    assert not find_events(page, "final"), "the first draft must be seen before the final"
    wait_until_sent(page, SAMPLE_S + 1.0)
    assert page.inner_text("#live-clock") in {"0:08", "0:09"}
    page.click("#stop")
    expect(page.locator("#result")).to_be_visible(timeout=20_000)
    expect(page.locator("#live")).to_be_hidden()
    expect(page.locator("#problem")).to_be_hidden()
    check_plain_order(page.evaluate("wire.heard"))

    rate_hz, sound = read_wav(save_recording(page, tmp_path))
    assert (rate_hz, len(sound)) == (16_000, page.evaluate("wire.samples"))
    assert round(float(sound.sum()) * 2**15) == page.evaluate("wire.sum")
    offline = [text for text in write_offline(dinle.load(threads=1), sound) if text]
    assert [event["text"] for event in find_events(page, "final") if event["text"]] == offline
    assert page.inner_text("#words").split() == " ".join(offline).split()
    assert len(" ".join(offline).split()) == 10

    first_s, word_s = measure_drafts(page)
    record_property("first_draft_s", first_s)
    record_property("first_word_s", word_s)
    print(f"from the first speech to the first draft {first_s:.3f} s, to its first word {word_s:.3f} s")  # noqa: T201
    assert 0 < first_s < FIRST_DRAFT_S + BUSY_S
    assert word_s < FIRST_DRAFT_S + DRAFTS_S + BUSY_S


def test_escape_finishes_and_the_result_can_be_played_word_by_word_in_both_languages(open_page: OpenPage) -> None:
    page = open_page(flags=MICROPHONE)
    speak(page)
    for name in ("record", "pick", "sample", "model"):
        expect(page.locator(f"#{name}")).to_be_disabled()
    expect(page.locator("#live-note")).to_contain_text("Konuşun")
    page.click("#language")
    expect(page.locator("#live-title")).to_have_text("Listening")
    expect(page.locator("#live-note")).to_contain_text("Speak")
    wait_for_words(page, 4)
    assert page.evaluate("document.activeElement.id") in {"language", "stop"}
    page.keyboard.press("Escape")
    expect(page.locator("#result")).to_be_visible(timeout=20_000)
    expect(page.locator("#record")).to_be_enabled()
    expect(page.locator("#recording")).to_contain_text("Last microphone recording")
    page.click("#language")
    expect(page.locator("#recording")).to_contain_text("Son mikrofon kaydı")

    said = [word for event in find_events(page, "final") for word in event["words"]]
    buttons = page.locator("#words button.word")
    expect(buttons).to_have_count(len(said))
    length_s = page.evaluate("wire.samples") / 16_000
    page.wait_for_function("() => document.querySelector('#audio').duration > 0")
    assert page.evaluate("document.querySelector('#audio').duration") == pytest.approx(length_s, abs=0.01)
    buttons.nth(2).click()
    page.wait_for_function("(start) => document.querySelector('#audio').currentTime >= start", arg=said[2]["start"])
    assert page.evaluate("document.querySelector('#audio').currentTime") < said[2]["start"] + 2
    assert page.evaluate("document.querySelector('#audio').error") is None


def test_other_sections_stop_nothing_and_leaving_the_page_lets_the_microphone_go(open_page: OpenPage) -> None:
    page = open_page(flags=MICROPHONE)
    page.evaluate("""() => {
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => (window.given = await ask(wanted));
    }""")
    speak(page)
    wait_until_sent(page, 0.5)
    page.click("#tab-models")
    page.keyboard.press("Escape")
    before = page.evaluate("wire.samples")
    wait_until_sent(page, before / 16_000 + 0.5)
    page.click("#tab-transcribe")
    expect(page.locator("#live")).to_be_visible()
    assert page.evaluate("given.getAudioTracks()[0].readyState") == "live"
    page.evaluate("window.dispatchEvent(new Event('pagehide'))")
    assert page.evaluate("given.getAudioTracks()[0].readyState") == "ended"
    expect(page.locator("#live")).to_be_hidden()
    expect(page.locator("#record")).to_be_enabled()


def test_a_browser_that_takes_only_the_microphones_own_rate_is_heard_at_that(open_page: OpenPage) -> None:
    page = open_page(flags=MICROPHONE)
    page.evaluate("""() => {
      const make = AudioContext.prototype.createMediaStreamSource;
      AudioContext.prototype.createMediaStreamSource = function (sound) {
        if (this.sampleRate === 16000) throw new DOMException("other rates are not supported", "NotSupportedError");
        return make.call(this, sound);
      };
    }""")
    speak(page)
    wait_for_words(page, 2)
    assert page.evaluate("wire.config.rate") in {44_100, 48_000}
    page.click("#stop")
    expect(page.locator("#words button.word")).not_to_have_count(0, timeout=20_000)


def test_names_and_digits_are_asked_for_in_a_live_stream_too(open_page: OpenPage) -> None:
    page = open_page(flags=MICROPHONE)
    speak(page)
    wait_until_sent(page, 0.3)
    assert set(page.evaluate("wire.config")) == {"format", "rate"}
    page.click("#stop")
    expect(page.locator("#live")).to_be_hidden(timeout=20_000)
    page.click("#options summary")
    page.fill("#hotwords", "Gezdikleri, kandil")
    page.check("#written")
    speak(page)
    wait_for_words(page, 4)  # of fewer the whole search may believe none
    expect(page.locator("#hotwords")).to_be_disabled()
    config = page.evaluate("wire.config")
    assert (config["hotwords"], config["written"]) == (["Gezdikleri", "kandil"], True)
    page.click("#stop")
    expect(page.locator("#words button.word")).not_to_have_count(0, timeout=20_000)
    expect(page.locator("#hotwords")).to_be_enabled()
    assert page.is_hidden("#problem")


def test_the_level_is_drawn_in_the_colours_of_the_appearance(open_page: OpenPage) -> None:
    page = open_page(flags=MICROPHONE, color_scheme="light", allowed=("willReadFrequently",))
    speak(page)
    wait_until_sent(page, 2.0)
    drawn = """() => {
      const canvas = document.querySelector("#live-level");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) seen.add([...data.slice(at, at + 3)].join());
      return [...seen];
    }"""
    assert page.evaluate(drawn) == ["11,110,105"]
    page.click("#theme")  # light
    page.click("#theme")  # dark
    assert page.evaluate(drawn) == ["79,209,197"]


def test_drafts_are_replaced_in_place_and_only_finals_are_read_out(open_page: OpenPage) -> None:
    page = open_page()
    first, second, third, fourth, fifth = page.evaluate(WRITE, EVENTS)
    draft = {"text": "gezdikleri yer", "stable": "gezdikleri", "draft": True, "hidden": True}
    final = {"text": "Gezdikleri yerde her", "stable": None, "draft": False, "hidden": False}
    assert first["spans"] == [draft]
    assert second["spans"] == [draft | {"text": "gezdikleri yerde her", "stable": "gezdikleri yerde"}]
    assert third == {"spans": [final], "words": ["Gezdikleri"]}
    assert fourth["spans"] == [final, {"text": "öh", "stable": "", "draft": True, "hidden": True}]
    assert fifth == third
    log = page.locator("#live-text")
    assert (log.get_attribute("role"), log.get_attribute("aria-live")) == ("log", "polite")
    assert page.get_attribute("#live-clock", "role") == "timer"  # silent for screen readers, which output is not


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_a_recording_is_a_wav_file_that_others_read(open_page: OpenPage, tmp_path: Path, rate_hz: int) -> None:
    made = open_page().evaluate(MAKE_WAV, [rate_hz, 0.5, 1 / 60])
    path = tmp_path / "made.wav"
    path.write_bytes(bytes(made["bytes"]))
    read_hz, sound = read_wav(path)
    assert (read_hz, len(sound), made["duration"]) == (rate_hz, rate_hz, 1.0)
    assert set(sound * 2**15) == {-2.0}
    assert path.stat().st_size == 44 + 2 * rate_hz


def test_of_more_than_half_an_hour_only_the_length_is_kept(open_page: OpenPage) -> None:
    made = open_page().evaluate(MAKE_WAV, [8_000, 10, 30.5])
    assert made == {"duration": 1830, "bytes": None}


def test_a_key_is_asked_for_and_what_was_said_meanwhile_is_heard(open_page: OpenPage) -> None:
    with start_service(env={"ASR_API_KEYS": KEY}) as service:
        page = open_page(url=f"{service.url}/", flags=MICROPHONE, allowed=("401", "WebSocket", "403"))
        dialog = page.locator("#key-dialog")
        page.wait_for_load_state("networkidle")
        if dialog.is_visible():  # the list of models may have asked first
            page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        speak(page)
        expect(dialog).to_be_visible(timeout=10_000)
        time.sleep(1.5)  # a visitor who looks for the key while the sample goes on
        assert page.evaluate("wire.samples") == 0
        for key in ("yanlış", KEY[:-1], KEY):  # not for a handshake; not the right one; the right one
            page.fill("#key", key)
            page.click("#key-dialog button.primary")
            page.wait_for_function("(key) => sessionStorage.getItem('dinle.key') === key", arg=key)
            expect(dialog).to_be_visible(visible=key != KEY, timeout=10_000)
        wait_until_sent(page, SAMPLE_S)
        page.click("#stop")
        expect(page.locator("#words button.word").first).to_have_text("Gezdikleri", timeout=20_000)
