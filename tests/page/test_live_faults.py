"""What goes wrong while somebody speaks: each is said in words, and what there is is kept."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from dinle.serve.process import start_service
from tests.page.speaking import MICROPHONE, read_wav, save_recording, speak, wait_for_words, wait_until_sent

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import WebSocketRoute

    from tests.page.conftest import OpenPage

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: the page is not tested")
expect = api.expect
pytestmark = pytest.mark.slow

NETWORK = ("WebSocket", "ERR_CONNECTION", "ERR_EMPTY_RESPONSE")  # Chromium's own lines about a server that is gone
WORD = {"word": "gezdikleri", "start": 0.1, "end": 0.7, "confidence": 0.9}
REFUSE = """(name) => {
  navigator.mediaDevices.getUserMedia = async () => {
    throw new DOMException("given by the test", name);
  };
}"""


def test_a_refused_microphone_is_explained_and_can_be_tried_again(open_page: OpenPage) -> None:
    # Without the flag that says yes for the visitor, a browser without a screen says no.
    page = open_page(flags=("--use-fake-device-for-media-stream",))
    page.click("#record")
    expect(page.locator("#problem")).to_contain_text("Mikrofona izin verilmedi")
    expect(page.locator("#live")).to_be_hidden()
    expect(page.locator("#result")).to_be_hidden()
    for name in ("record", "pick", "sample", "model"):
        expect(page.locator(f"#{name}")).to_be_enabled()
    page.click("#language")
    page.click("#record")
    expect(page.locator("#problem")).to_contain_text("The microphone was not allowed")
    page.context.grant_permissions(["microphone"])
    page.locator("#problem button").click()
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#live")).to_be_visible()
    page.click("#stop")
    expect(page.locator("#live")).to_be_hidden(timeout=20_000)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NotFoundError", "Mikrofon bulunamadı"),
        ("NotReadableError", "başka bir program"),
        ("SecurityError", "Mikrofona izin verilmedi"),
        ("OverconstrainedError", "Mikrofon açılamadı: OverconstrainedError: given by the test"),
    ],
)
def test_why_there_is_no_microphone_is_said(open_page: OpenPage, name: str, words: str) -> None:
    page = open_page()
    page.evaluate(REFUSE, name)
    page.click("#record")
    expect(page.locator("#problem")).to_contain_text(words)
    expect(page.locator("#record")).to_be_enabled()


def test_a_page_that_is_not_secure_says_how_to_open_it(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.click("#record")
    expect(page.locator("#problem")).to_contain_text("https://")
    expect(page.locator("#problem")).to_contain_text("localhost")


def test_who_stops_before_the_browser_gave_the_microphone_gets_rid_of_it(open_page: OpenPage) -> None:
    page = open_page(flags=MICROPHONE)
    page.evaluate("""() => {
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((resolve) => setTimeout(resolve, 1000));
        return (window.given = await ask(wanted));
      };
    }""")
    page.click("#record")
    expect(page.locator("#live-note")).to_contain_text("izin")
    page.click("#stop")
    expect(page.locator("#live")).to_be_hidden()
    expect(page.locator("#problem")).to_be_hidden()
    page.wait_for_function("() => window.given?.getAudioTracks()[0].readyState === 'ended'")


def test_a_full_server_says_so_and_is_asked_again(open_page: OpenPage) -> None:
    with start_service(env={"ASR_MAX_STREAMS": "1"}) as service:
        first = open_page(url=f"{service.url}/", flags=MICROPHONE)
        speak(first)
        wait_until_sent(first, 0.3)
        second = open_page(url=f"{service.url}/", flags=MICROPHONE)
        second.click("#record")
        expect(second.locator("#problem")).to_contain_text("canlı yayın")
        expect(second.locator("#live")).to_be_hidden()
        expect(second.locator("#result")).to_be_hidden()
        first.click("#stop")
        expect(first.locator("#live")).to_be_hidden(timeout=20_000)
        second.locator("#problem button").click()
        wait_for_words(second, 2)
        expect(second.locator("#problem")).to_be_hidden()


def test_a_server_that_dies_leaves_the_text_and_the_recording(open_page: OpenPage, tmp_path: Path) -> None:
    with start_service() as service:
        page = open_page(url=f"{service.url}/", flags=MICROPHONE, allowed=NETWORK)
        speak(page)
        wait_for_words(page, 3)
        os.kill(service.pid, signal.SIGKILL)
        expect(page.locator("#problem")).to_contain_text("bağlantı koptu")
        expect(page.locator("#live")).to_be_hidden()
        assert page.locator("#words button.word").count() >= 3
        rate_hz, sound = read_wav(save_recording(page, tmp_path))
        assert rate_hz == 16_000
        assert len(sound) >= page.evaluate("wire.samples") > 16_000
        assert abs(sound).max() > 0.05
        page.click("#record")
        expect(page.locator("#problem")).to_contain_text("Sunucuya ulaşılamıyor")
        expect(page.locator("#record")).to_be_enabled()


def test_a_handshake_that_only_the_stream_is_refused_is_not_called_a_dead_server(open_page: OpenPage) -> None:
    page = open_page(flags=MICROPHONE, allowed=("WebSocket",))
    page.evaluate("""() => {
      window.WebSocket = class extends WebSocket {
        constructor(url) { super(`${url}/behind-a-proxy`); }
      };
    }""")
    page.click("#record")
    expect(page.locator("#problem")).to_contain_text("WebSocket", timeout=10_000)


def test_a_server_that_stays_silent_is_not_waited_for_longer_than_it_may_take(open_page: OpenPage) -> None:
    def answer(route: WebSocketRoute) -> None:
        def take(message: str | bytes) -> None:
            if isinstance(message, str) and "format" in message:
                route.send(json.dumps({"type": "ready", "model": "quiet", "silence": 0.5}))
                partial = {"type": "partial", "segment": 0, "text": "gezdikleri", "stable": "", "words": [WORD]}
                route.send(json.dumps(partial))

        route.on_message(take)

    page = open_page(flags=MICROPHONE)
    page.route_web_socket("**/stream", answer)
    page.reload()
    page.click("#record")
    expect(page.locator("#live-text")).to_have_text("gezdikleri")
    began = time.monotonic()
    page.click("#stop")
    expect(page.locator("#live-note")).to_contain_text("Son sözler")
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#problem")).to_contain_text("15 saniyede", timeout=20_000)
    assert 14.5 < time.monotonic() - began < 18
    expect(page.locator("#words button.word")).to_have_text(["gezdikleri"])
