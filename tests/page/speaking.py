"""A page whose microphone hears the sample, and what went over its WebSocket."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from dinle.recognize.audio import Waveform

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "sample.wav"
SAMPLE_S = 7.725
# Chromium's own device: it plays the file once, in real time, from the moment the microphone is opened, and says yes for the
# visitor.
MICROPHONE = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    f"--use-file-for-fake-audio-capture={SAMPLE}%noloop",
)
# Notes all messages of the page's WebSockets, with performance.now() in milliseconds.
TAP = """() => {
  const wire = (window.wire = { sent: [], heard: [], config: null, samples: 0, sum: 0 });
  window.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => wire.heard.push({ at: performance.now(), ...JSON.parse(data) }));
    }
    send(data) {
      if (typeof data === "string") wire.config ??= JSON.parse(data);
      else {
        wire.samples += data.length;
        for (const sample of data) wire.sum += sample;
        wire.sent.push({ at: performance.now(), peak: Math.max(...data.map(Math.abs)) / 2 ** 15 });
      }
      super.send(data);
    }
  };
}"""
WAIT_MS = 30_000


def speak(page: Page) -> None:
    """Click the microphone's button, with the wires tapped."""
    page.evaluate(TAP)
    page.click("#record")


def wait_until_sent(page: Page, seconds: float) -> None:
    """Return when so much sound has been sent."""
    page.wait_for_function("(samples) => window.wire.samples >= samples", arg=seconds * 16_000, timeout=WAIT_MS)


def wait_for_words(page: Page, words: int) -> None:
    """Return when the live text has so many words."""
    count = "(words) => document.querySelector('#live-text').textContent.trim().split(/\\s+/).length >= words"
    page.wait_for_function(count, arg=words, timeout=WAIT_MS)


def find_events(page: Page, kind: str) -> list[dict[str, Any]]:
    """The service's messages of one type, in their order."""
    events: list[dict[str, Any]] = page.evaluate("(kind) => wire.heard.filter(({ type }) => type === kind)", kind)
    return events


def save_recording(page: Page, folder: Path) -> Path:
    """Save what the page offers as the last recording."""
    with page.expect_download() as saving:
        page.click("#recording-link")
    path = folder / saving.value.suggested_filename
    saving.value.save_as(path)
    return path


def read_wav(path: Path) -> tuple[int, Waveform]:
    """Sample rate in Hz and samples of a mono 16-bit file."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getcomptype()) == (1, 2, "NONE")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(samples) == file.getnframes()
        return file.getframerate(), (samples / 2**15).astype(np.float32)
