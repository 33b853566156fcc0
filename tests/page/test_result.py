"""The result of a recording: its words, its sound, its files, its languages."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.transcripts import (
    IS_DONE,
    SAMPLE,
    answer_stream,
    give_file,
    hear_sample,
    make_stream,
    make_transcript,
    make_wav,
    make_words,
    read_words,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.page.conftest import OpenPage

pytestmark = pytest.mark.slow

FOCUSED = "() => [...document.querySelectorAll('#words .word')].indexOf(document.activeElement)"
IN_TIME = "(seconds) => Math.abs(document.querySelector('#audio').currentTime - seconds) < 0.05"
# How many pixels of the waveform have about the colour that an element's style property has.
COUNT_COLOUR = """(property) => {
  const canvas = document.querySelector("#wave");
  const wanted = getComputedStyle(canvas)[property].match(/\\d+/g).map(Number);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let place = 0; place < data.length; place += 4) {
    const near = [0, 1, 2].every((each) => Math.abs(data[place + each] - wanted[each]) < 12);
    if (near && data[place + 3] > 60) count++;
  }
  return count;
}"""


def open_result(open_page: OpenPage, words: list[dict[str, Any]], **options: Any) -> Page:
    """A page with a result of these words, beside the sample's sound."""
    page = open_page(**options)
    answer_stream(page, make_stream(words))
    hear_sample(page)
    return page


def save(page: Page, form: str) -> tuple[str, bytes]:
    """Name and bytes of a download."""
    with page.expect_download() as download:
        page.click(f"[data-save={form}]")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_downloads_are_what_python_writes(open_page: OpenPage) -> None:
    page = open_page()
    give_file(page, "dünkü kayıt.final.wav", SAMPLE.read_bytes())
    page.wait_for_function(IS_DONE)
    name, written = save(page, "json")
    known = json.loads(written)
    assert name == "dünkü kayıt.final.json"
    words = [
        {"word": each["text"], "start": each["start_s"], "end": each["end_s"], "confidence": each["confidence"]}
        for each in known["words"]
    ]
    oracle = make_transcript(
        words, duration_s=known["duration_s"], inference_s=known["inference_s"], model=known["model"]
    )
    assert known == oracle.to_dict()
    assert [word["word"] for word in words] == read_words(page)
    assert save(page, "txt") == ("dünkü kayıt.final.txt", oracle.text.encode())
    assert save(page, "srt") == ("dünkü kayıt.final.srt", oracle.to_srt().encode())
    assert save(page, "vtt") == ("dünkü kayıt.final.vtt", oracle.to_vtt().encode())


def make_random_words(rng: random.Random) -> list[dict[str, Any]]:
    """Words with pauses, long ones, letters outside of UTF-16's first plane, and times on and between milliseconds."""
    words, now = [], rng.choice([0.0, 3599.9, 100 * 3600.0])
    for _ in range(rng.randrange(60)):
        start = now + rng.choice([0.0, 0.0625, 0.1, 0.8, 0.81, rng.random() * 2])
        end = start + rng.choice([0.0005, 0.1875, 0.3, rng.random() * 3, 8.0])
        text = "".join(rng.choices("aığüşöç😀İ", k=rng.choice([1, 5, 9, 40, 90])))
        words.append({"word": text, "start": start, "end": end, "confidence": rng.random()})
        now = end
    return words


def test_exports_are_pythons_for_any_words(open_page: OpenPage) -> None:
    page = open_page()
    rng = random.Random(7)  # noqa: S311 - examples, no secrets
    examples = [make_random_words(rng) for _ in range(150)]
    results = page.evaluate(
        """async (examples) => {
          const { toJson, toSrt, toVtt } = await import(`${location.origin}/static/js/exports.js`);
          return examples.map((words) => [
            toSrt(words), toVtt(words),
            toJson({
              text: words.map((each) => each.word).join(" "), words, duration: 0.0625, inferenceTime: 0.03125, model: "m",
            }),
          ]);
        }""",
        examples,
    )
    for words, (srt, vtt, written) in zip(examples, results, strict=True):
        oracle = make_transcript(words, duration_s=0.0625, inference_s=0.03125, model="m")
        assert srt == oracle.to_srt()
        assert vtt == oracle.to_vtt()
        assert json.loads(written) == oracle.to_dict()


def test_a_click_on_a_word_plays_from_it_and_marks_it(open_page: OpenPage) -> None:
    page = open_page()
    hear_sample(page)
    words = json.loads(save(page, "json")[1])["words"]
    place = len(words) // 2
    # Playing would go on: where it begins is what is asked.
    page.evaluate(
        "() => { HTMLMediaElement.prototype.play = function () { this.asked = true; return Promise.resolve(); }; }"
    )
    page.click(f"#words .word >> nth={place}")
    assert page.evaluate("document.querySelector('#audio').asked")
    assert page.evaluate("document.querySelector('#audio').currentTime") == pytest.approx(
        words[place]["start_s"], abs=1e-3
    )
    page.wait_for_selector("#words .word.now")
    assert page.eval_on_selector_all(".now", "all => all.map((each) => each.textContent)") == [words[place]["text"]]
    assert page.get_attribute(".now", "aria-current") == "true"


def test_playing_marks_word_after_word_and_stops_at_the_end(open_page: OpenPage) -> None:
    page = open_page()
    hear_sample(page)
    last = page.locator("#words .word").last
    page.evaluate("document.querySelector('#audio').playbackRate = 4")
    page.click("#play")
    page.wait_for_selector("#play[aria-pressed=true]")
    page.wait_for_function("() => document.querySelector('#words .word:last-child').classList.contains('now')")
    assert last.get_attribute("aria-current") == "true"
    page.wait_for_selector("#play[aria-pressed=false]")
    assert page.inner_text("#position") == page.inner_text("#length") == "0:07"
    assert page.locator(".now").count() <= 1


def test_the_slider_and_the_waveform_seek(open_page: OpenPage) -> None:
    page = open_page()
    hear_sample(page)
    page.focus("#seek")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(IN_TIME, arg=5)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(IN_TIME, arg=0)
    box = page.locator("#wave").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 5)
    length_s = page.evaluate("document.querySelector('#audio').duration")
    page.wait_for_function(IN_TIME, arg=length_s / 2)
    assert float(page.input_value("#seek")) == pytest.approx(length_s / 2, abs=0.05)


def test_keys_move_between_words_over_one_tab_stop(open_page: OpenPage) -> None:
    page = open_result(open_page, make_words(200))
    stops = "() => document.querySelectorAll('#words .word[tabindex=\"0\"]').length"
    page.focus("#words .word[tabindex='0']")
    for key, place in [("ArrowRight", 1), ("End", 199), ("ArrowRight", 199), ("ArrowLeft", 198), ("Home", 0)]:
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED) == place
        assert page.evaluate(stops) == 1
    page.keyboard.press("ArrowDown")
    below = page.evaluate(FOCUSED)
    boxes = [page.locator("#words .word").nth(each).bounding_box() for each in (0, below)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[1]["y"] > boxes[0]["y"]
    assert boxes[1]["x"] == pytest.approx(boxes[0]["x"], abs=2)
    page.keyboard.press("ArrowUp")
    assert page.evaluate(FOCUSED) == 0
    page.evaluate("() => { HTMLMediaElement.prototype.play = () => Promise.resolve(); }")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function(IN_TIME, arg=0.4)


def test_confidence_is_a_colour_and_a_hint(open_page: OpenPage) -> None:
    page = open_result(open_page, make_words(11))
    classes = page.eval_on_selector_all("#words .word", "all => all.map((each) => each.className)")
    assert classes == ["word c0"] * 5 + ["word c1"] * 3 + ["word c2"] * 3
    page.hover("#words .word >> nth=3")
    assert page.get_attribute("#words .word >> nth=3", "title") == "0:01,2 · %30"
    page.click("#language")
    page.hover("#words .word >> nth=2")
    page.hover("#words .word >> nth=3")
    assert page.get_attribute("#words .word >> nth=3", "title") == "0:01.2 · 30%"


def test_the_language_changes_what_is_told_of_a_result(open_page: OpenPage) -> None:
    page = open_result(open_page, make_words(20))
    assert page.inner_text("#facts") == "7,9 saniye ses · 0,50 saniyede · 15,8 kat hızlı · by-hand"
    page.click("#language")
    assert page.inner_text("#facts") == "7.9 s of sound · in 0.50 s · 15.8 times real time · by-hand"
    assert page.get_attribute("#play", "aria-label") == "Play"
    assert page.inner_text("#copy") == "Copy"
    assert page.get_attribute("#words", "lang") == "tr"  # the words stay Turkish


def test_the_waveform_is_drawn_and_follows_the_appearance(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light", allowed=("willReadFrequently",))  # reading pixels back is the test's
    hear_sample(page)
    page.wait_for_function(f"() => ({COUNT_COLOUR})('color') > 2000")
    page.evaluate("document.querySelector('#audio').currentTime = 4")
    page.wait_for_function(f"() => ({COUNT_COLOUR})('caretColor') > 1000")
    light = page.evaluate("getComputedStyle(document.querySelector('#wave')).color")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => ({COUNT_COLOUR})('color') > 1000")
    assert page.evaluate("getComputedStyle(document.querySelector('#wave')).color") != light
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("() => { const c = document.querySelector('#wave'); return c.width === c.clientWidth; }")


def test_a_recording_too_long_to_decode_shows_where_words_are(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light", allowed=("willReadFrequently",))
    page.evaluate("() => { window.OfflineAudioContext = function () { window.decoded = true; throw new Error(); }; }")
    answer_stream(page, make_stream([*make_words(1), *make_words(2500)[1500:]]))
    give_file(page, "uzun.wav", make_wav([0] * (16 * 60 * 3000), rate_hz=3000))
    page.wait_for_function(IS_DONE)
    page.wait_for_function("() => document.querySelector('#length').textContent === '16:00'")
    page.wait_for_function(f"() => ({COUNT_COLOUR})('color') > 2000")
    assert not page.evaluate("window.decoded")


def test_a_recording_whose_end_the_browser_does_not_know_is_shown_whole(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light", allowed=("willReadFrequently",))
    answer_stream(page, make_stream(make_words(3)))
    endless = page.evaluate(
        """async () => {
          const context = new AudioContext();
          const sound = new OscillatorNode(context);
          const sink = context.createMediaStreamDestination();
          sound.connect(sink);
          sound.start();
          const recorder = new MediaRecorder(sink.stream);
          const parts = [];
          recorder.ondataavailable = ({ data }) => parts.push(data);
          const stopped = new Promise((resolve) => (recorder.onstop = resolve));
          recorder.start(100);
          await new Promise((resolve) => setTimeout(resolve, 1200));
          recorder.stop();
          await stopped;
          const transfer = new DataTransfer();
          transfer.items.add(new File(parts, "ses.webm"));
          document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
          const audio = document.querySelector("#audio");
          await new Promise((resolve) => audio.addEventListener("loadedmetadata", resolve));
          return audio.duration === Infinity;
        }"""
    )
    assert endless
    page.wait_for_function(IS_DONE)
    assert page.inner_text("#length") == "0:01"
    page.wait_for_function(f"() => ({COUNT_COLOUR})('color') > 2000")


def test_silence_is_told_and_has_no_legend(open_page: OpenPage) -> None:
    page = open_page()
    give_file(page, "sessiz.wav", make_wav([0] * 32_000))
    page.wait_for_function(IS_DONE)
    assert page.is_visible("#nothing")
    assert page.is_hidden("#legend")
    assert page.is_hidden("#words")
    hear_sample(page)
    assert page.is_hidden("#nothing")
    assert page.is_visible("#legend")


def test_what_the_browser_cannot_play_keeps_its_text(open_page: OpenPage) -> None:
    page = open_page()
    answer_stream(page, make_stream(make_words(5)))
    give_file(page, "kayıt.amr", b"#!AMR\n" + bytes(500))
    page.wait_for_function(IS_DONE)
    page.wait_for_selector("#player-note")
    assert page.inner_text("#player-note") == "Tarayıcı bu kaydı çalamıyor; metin bundan etkilenmez."
    assert page.is_hidden(".player")
    assert len(read_words(page)) == 5
    page.click("#words .word")  # does nothing, and no error
    hear_sample(page)
    assert page.is_visible(".player")
    assert page.is_hidden("#player-note")


def test_a_result_without_sound_or_time_of_work_is_shown(open_page: OpenPage) -> None:
    page = open_page()
    words = make_words(4)
    page.evaluate(
        """async (words) => {
          const { showResult } = await import(`${location.origin}/static/js/transcribe.js`);
          showResult({ blob: null, name: "canlı.wav", words, duration: 1.5, inferenceTime: undefined, model: "by-hand" });
        }""",
        words,
    )
    assert page.inner_text("#facts") == "1,5 saniye ses · by-hand"
    assert page.inner_text("#player-note") == "Kaydın sesi tutulmadı; metin duruyor."
    assert page.is_hidden(".player")
    name, written = save(page, "json")
    assert (name, json.loads(written)["inference_s"]) == ("canlı.json", None)


def test_the_text_is_copied_with_and_without_the_clipboards_permission(open_page: OpenPage, server: str) -> None:
    page = open_result(open_page, make_words(3), permissions=["clipboard-read", "clipboard-write"])
    page.click("#copy")
    page.wait_for_function("() => document.querySelector('#copied').textContent === 'Kopyalandı.'")
    assert page.evaluate("navigator.clipboard.readText()") == "söz0 söz1 söz2"
    page.evaluate("navigator.clipboard.writeText('')")
    page.evaluate(
        "() => { navigator.clipboard.writeText = () => Promise.reject(new DOMException('no', 'NotAllowedError')); }"
    )
    page.click("#language")
    assert page.inner_text("#copied") == ""
    page.click("#copy")
    page.wait_for_function("() => document.querySelector('#copied').textContent === 'Copied.'")
    assert page.evaluate("navigator.clipboard.readText()") == "söz0 söz1 söz2"


def test_two_thousand_words_are_shown_within_a_second(open_page: OpenPage) -> None:
    page = open_page()
    hear_sample(page)
    words = make_words(2000)
    answer_stream(page, make_stream(words))
    took_ms = page.evaluate(
        """async () => {
          const begun = performance.now();
          document.querySelector("#sample").click();
          while (document.querySelectorAll("#words .word").length < 2000 || !document.querySelector("#facts").textContent) {
            await new Promise(requestAnimationFrame);
          }
          return performance.now() - begun;
        }"""
    )
    assert took_ms < 1000
    assert read_words(page) == [word["word"] for word in words]
