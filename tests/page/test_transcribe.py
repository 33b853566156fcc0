"""A recording given to the page: where it comes from, what becomes of it, and what is told when it fails."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dinle.serve.process import post_audio, start_service
from tests.page.transcripts import (
    IS_DONE,
    SAMPLE,
    TRANSCRIBE,
    answer_problem,
    answer_stream,
    give_file,
    hear_sample,
    make_stream,
    make_wav,
    make_words,
    read_words,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request, Route

    from tests.page.conftest import OpenPage

pytestmark = pytest.mark.slow

DROP = """([selector, names, data]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const transfer = new DataTransfer();
  for (const name of names) transfer.items.add(new File([bytes], name));
  const send = (type) => document.querySelector(selector).dispatchEvent(
    new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  const over = send("dragover");
  const lit = document.querySelector("#drop").classList.contains("over");
  return { taken: !over && !send("drop"), lit };
}"""


UPLOADS = "() => document.querySelector('#working-text').textContent.startsWith('Yükleniyor')"


def drop_files(page: Page, selector: str, *names: str) -> dict[str, bool]:
    """Drop the sample under these names; whether the browser's own handling was prevented, and the card was lit."""
    data = base64.b64encode(SAMPLE.read_bytes()).decode()
    told: dict[str, bool] = page.evaluate(DROP, [selector, list(names), data])
    return told


def hold(route: Route) -> None:
    """Answer never: as a server that is busy with something else."""


def expected_words(server: str) -> list[str]:
    details = post_audio(f"{server}transcribe?details=true", SAMPLE)["details"]
    return [word["word"] for word in details["words"]]


def test_the_sample_shows_the_words_of_the_plain_answer(open_page: OpenPage, server: str) -> None:
    page = open_page()
    hear_sample(page)
    answer = post_audio(f"{server}transcribe?details=true", SAMPLE)
    assert read_words(page) == [word["word"] for word in answer["details"]["words"]]
    assert page.inner_text("#words") == answer["text"]  # the spaces between buttons are text
    facts = page.inner_text("#facts")
    assert facts.startswith("7,7 saniye ses · ")
    assert facts.endswith(f" kat hızlı · {answer['details']['model']}")
    assert page.is_hidden("#working")


def test_the_stages_of_the_work_are_told_in_order(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(
        """() => {
          const text = document.querySelector("#working-text");
          window.stages = [];
          new MutationObserver(() => window.stages.push(text.textContent)).observe(text, { childList: true });
        }"""
    )
    hear_sample(page)
    stages = page.evaluate("window.stages")
    assert stages[0] == "Örnek alınıyor"
    assert stages[1] == "Yükleniyor %0"
    assert "Sırada bekliyor" in stages[2:]
    assert stages[-1].startswith("Dinleniyor: ")
    assert stages[-1].endswith(" / 8 saniye")


def test_words_are_there_within_two_seconds_of_the_click(open_page: OpenPage) -> None:
    page = open_page()
    hear_sample(page)  # the model is warm; browser and page are now
    took_ms = page.evaluate(
        """async () => {
          const begun = performance.now();
          document.querySelector("#sample").click();
          const words = document.querySelector("#words");
          while (!words.children.length || !document.querySelector("#facts").textContent) {
            await new Promise(requestAnimationFrame);
          }
          return performance.now() - begun;
        }"""
    )
    assert took_ms < 2000


def test_a_chosen_file_is_transcribed_and_can_be_chosen_again(open_page: OpenPage, server: str) -> None:
    page = open_page()
    for _ in range(2):
        give_file(page, "kayıt.wav", SAMPLE.read_bytes())
        page.wait_for_function(IS_DONE)
        assert read_words(page) == expected_words(server)


def test_a_dropped_file_is_transcribed(open_page: OpenPage, server: str) -> None:
    page = open_page()
    assert drop_files(page, "#drop", "kayıt.wav") == {"taken": True, "lit": True}
    page.wait_for_function(IS_DONE)
    assert read_words(page) == expected_words(server)


def test_a_drop_beside_the_card_neither_navigates_nor_transcribes(open_page: OpenPage) -> None:
    page = open_page()
    assert drop_files(page, "footer", "kayıt.wav") == {"taken": True, "lit": False}
    assert page.is_hidden("#working")


def test_several_files_at_once_are_refused_in_words(open_page: OpenPage) -> None:
    page = open_page()
    drop_files(page, "#drop", "a.wav", "b.wav")
    assert page.inner_text("#problem") == "Tek bir ses ya da video dosyası bırakın."


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [(b"no sound at all" * 99, "415", "Bu dosya ses olarak okunamadı."), (b"", "422", "Dosya boş.")],
    ids=["text", "empty"],
)
def test_a_file_that_is_no_recording_is_told_and_the_page_goes_on(
    open_page: OpenPage, server: str, data: bytes, status: str, message: str
) -> None:
    page = open_page(allowed=(status,))
    give_file(page, "kayıt.wav", data)
    page.wait_for_selector("#problem")
    assert page.inner_text("#problem").startswith(message)
    assert page.locator("#problem button").count() == 0  # the same file would fail again
    assert page.is_hidden("#result")
    assert page.is_hidden("#working")
    hear_sample(page)
    assert page.is_hidden("#problem")
    assert read_words(page) == expected_words(server)


def test_cancel_before_the_first_word_leaves_nothing(open_page: OpenPage, server: str) -> None:
    page = open_page()
    page.route(TRANSCRIBE, hold)
    page.click("#sample")
    page.wait_for_function(UPLOADS)
    page.click("#cancel")
    for gone in ("#working", "#result", "#problem"):
        assert page.is_hidden(gone)
    page.unroute_all()
    hear_sample(page)
    assert read_words(page) == expected_words(server)


def make_long_recording() -> bytes:
    """The sample's samples, 20 times: 2.5 minutes, of which a model makes several windows."""
    with wave.open(str(SAMPLE)) as file:
        frames = memoryview(file.readframes(file.getnframes())).cast("h")
    return make_wav(list(frames) * 20)


def test_cancel_keeps_the_words_that_came_and_frees_the_server(open_page: OpenPage, server: str) -> None:
    page = open_page()
    give_file(page, "uzun.wav", make_long_recording())
    page.wait_for_selector("#words .word")
    assert " / 155 saniye" in page.inner_text("#working-text")
    page.click("#cancel")
    words = read_words(page)
    assert words
    assert page.inner_text("#facts").startswith("Yarım kaldı: ilk ")
    assert page.is_enabled("#copy")
    end = time.monotonic() + 10
    while read_running(server) and time.monotonic() < end:
        time.sleep(0.1)
    assert read_running(server) == 0
    assert read_words(page) == words


def read_running(server: str) -> float:
    with urllib.request.urlopen(f"{server}metrics", timeout=5) as answer:  # noqa: S310 - our own server
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("dinle_running "))


def test_another_recording_takes_the_place_of_the_first(open_page: OpenPage, server: str) -> None:
    page = open_page()
    page.route(TRANSCRIBE, hold, times=1)
    give_file(page, "birinci.wav", SAMPLE.read_bytes())
    page.wait_for_function(UPLOADS)
    hear_sample(page)
    assert read_words(page) == expected_words(server)


def test_a_full_server_is_told_with_its_seconds_and_tried_again(open_page: OpenPage, server: str) -> None:
    page = open_page(allowed=("503",))
    page.route(TRANSCRIBE, lambda route: answer_problem(route, 503, "service_busy", Retry_After="7"), times=1)
    page.click("#sample")
    page.wait_for_selector("#problem button")
    assert page.inner_text("#problem span") == "Sunucu şu anda dolu. 7 saniye sonra yeniden deneyin."
    page.click("#problem button")
    page.wait_for_function(IS_DONE)
    assert page.is_hidden("#problem")
    assert read_words(page) == expected_words(server)


def test_a_server_that_is_not_there_is_told_and_tried_again(open_page: OpenPage, server: str) -> None:
    page = open_page(allowed=("net::ERR",))
    page.route("**/static/sample.wav", lambda route: route.abort(), times=1)
    page.route(TRANSCRIBE, lambda route: route.abort(), times=1)
    page.click("#sample")
    page.wait_for_selector("#problem button")
    assert page.inner_text("#problem span").startswith("Sunucuya ulaşılamıyor.")
    page.click("#problem button")  # the sample comes now, and its upload fails
    page.wait_for_selector("#problem button")
    page.click("#problem button")
    page.wait_for_function(IS_DONE)
    assert read_words(page) == expected_words(server)


CUT = {"type": "words", "heard": 9.0, "words": []}  # and nothing more: the connection ends without "done"
LATE = {"type": "error", "code": "deadline", "detail": "by hand", "request_id": "0"}


@pytest.mark.parametrize(
    ("end", "message"),
    [(CUT, "Bağlantı yarıda koptu."), (LATE, "Kayıt zamanında yetişmedi.")],
    ids=["cut", "error event"],
)
def test_a_stream_that_fails_keeps_its_words(open_page: OpenPage, end: dict[str, Any], message: str) -> None:
    page = open_page()
    words = make_words(30)
    answer_stream(page, make_stream(words, end=end))
    page.click("#sample")
    page.wait_for_selector("#problem button")
    assert page.inner_text("#problem span").startswith(message)
    assert read_words(page) == [word["word"] for word in words]
    assert page.is_hidden("#working")


def test_a_key_is_asked_for_and_the_recording_sent_again(open_page: OpenPage) -> None:
    key = "0123456789abcdef"
    with start_service(env={"ASR_API_KEYS": key}) as service:
        page = open_page(url=f"{service.url}/", allowed=("401",))
        page.click("#sample")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_function(IS_DONE)
        assert read_words(page)
        assert page.is_hidden("#problem")
        page.wait_for_function("() => document.querySelector('#model').value !== ''")  # the list needs the key too


def test_a_key_that_is_not_given_is_told(open_page: OpenPage) -> None:
    page = open_page(allowed=("401",))
    page.route(TRANSCRIBE, lambda route: answer_problem(route, 401, "unauthorized"))
    page.click("#sample")
    page.click("#key-dialog button[value=cancel]")
    assert page.inner_text("#problem span") == "Bu sunucu bir API anahtarı istiyor."


def test_the_chosen_model_is_named_unless_it_is_the_default(open_page: OpenPage) -> None:
    page = open_page()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "transcribe?" in request.url else None)
    answer_stream(page, make_stream(make_words(3)))
    models = {"data": [{"id": "first", "loaded": True}, {"id": "second", "loaded": False}]}
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    # Chosen before it is listed: the Models section may have been quicker.
    page.evaluate("document.dispatchEvent(new CustomEvent('model-chosen', { detail: 'second' }))")
    page.evaluate("document.dispatchEvent(new CustomEvent('models'))")
    page.wait_for_function("() => document.querySelector('#model').value === 'second'")
    assert page.inner_text("#model option:first-child") == "first (varsayılan)"
    hear_sample(page)
    page.select_option("#model", "first")
    hear_sample(page)
    assert "model=second" in asked[0].url
    assert "model=" not in asked[1].url


SPOKEN = ("yüz", "elli", "lira", "verdim")
WRITTEN = "() => document.querySelector('#words').textContent.includes('150')"


def answer_written(page: Page) -> list[Request]:
    """Let recordings be answered with numbers, written where that is asked for; the requests, as they come."""
    requests: list[Request] = []
    spoken = [
        {"word": word, "start": n * 0.5, "end": n * 0.5 + 0.4, "confidence": 0.9} for n, word in enumerate(SPOKEN)
    ]
    number = {"word": "150 TL", "start": 0.0, "end": 1.4, "confidence": 0.9}

    def answer(route: Route) -> None:
        requests.append(route.request)
        details: dict[str, Any] = {"duration": 2.0, "model": "by-hand", "words": spoken}
        if "written=true" in route.request.url:
            details |= {"raw_text": " ".join(SPOKEN), "words": [number, spoken[3]]}
        text = " ".join(word["word"] for word in details["words"])
        end = {"type": "done", "text": text, "inference_time": 0.5, "details": details}
        body = make_stream(spoken, end=end)
        route.fulfill(content_type="text/event-stream; charset=utf-8", body=body)

    page.route(TRANSCRIBE, answer)
    return requests


def test_names_and_digits_are_asked_for_and_kept(open_page: OpenPage) -> None:
    page = open_page()
    requests = answer_written(page)
    hear_sample(page)
    assert read_words(page) == list(SPOKEN)
    assert "written" not in requests[0].url
    assert b'name="hotwords"' not in (requests[0].post_data_buffer or b"")
    assert not page.is_visible("#hotwords")
    page.click("#options summary")
    page.fill("#hotwords", " Trendyol, Iğdır Belediyesi,, ")
    page.check("#written")
    hear_sample(page)
    page.wait_for_function(WRITTEN)
    assert read_words(page) == ["150 TL", "verdim"]
    assert page.inner_text("#words") == "150 TL verdim"
    body = (requests[1].post_data_buffer or b"").decode("utf-8", "replace")
    assert 'name="hotwords"\r\n\r\nTrendyol,Iğdır Belediyesi\r\n' in body
    with page.expect_download() as saving:
        page.click("[data-save=json]")
    kept = json.loads(Path(saving.value.path()).read_text(encoding="utf-8"))
    assert (kept["text"], kept["raw_text"]) == ("150 TL verdim", " ".join(SPOKEN))
    page.reload()
    assert page.is_visible("#hotwords")  # what is asked for is not hidden
    assert page.input_value("#hotwords") == " Trendyol, Iğdır Belediyesi,, "
    assert page.is_checked("#written")


@pytest.mark.parametrize(("language", "text"), [("tr", "rakamla yazamıyor"), ("en", "cannot write numbers as digits")])
def test_a_server_that_cannot_write_digits_says_so_and_goes_on_without(
    open_page: OpenPage, language: str, text: str
) -> None:
    page = open_page(allowed=("400 (Bad Request)",))
    if language == "en":
        page.click("#language")
    page.route(TRANSCRIBE, lambda route: answer_problem(route, 400, "written_unavailable"))
    page.click("#options summary")
    page.check("#written")
    page.click("#sample")
    page.wait_for_selector("#problem:not([hidden])")
    assert text in page.inner_text("#problem")
    page.unroute_all()
    requests = answer_written(page)
    page.uncheck("#written")
    page.click("#problem button")
    page.wait_for_function(IS_DONE)
    assert read_words(page) == list(SPOKEN)
    assert "written" not in requests[0].url


def test_a_name_that_fits_nothing_is_told_by_the_server(open_page: OpenPage) -> None:
    page = open_page(allowed=("400 (Bad Request)",))
    page.click("#options summary")
    page.fill("#hotwords", "?!")
    page.click("#sample")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem").startswith("Beklenen adlar kullanılamadı")
