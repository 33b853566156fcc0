"""What the tests of results share: answers of a service made by hand, and what the page shows of them."""

from __future__ import annotations

import json
import struct
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.recognize.transcript import Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from playwright.sync_api import Page, Route

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "sample.wav"
TRANSCRIBE = "**/transcribe?*"
IS_DONE = "() => !document.querySelector('#result').hidden && document.querySelector('#facts').textContent !== ''"


def make_words(count: int, word_s: float = 0.4) -> list[dict[str, Any]]:
    """Words of Turkish letters, one after the other, of every confidence."""
    return [
        {
            "word": f"söz{place}",
            "start": round(place * word_s, 3),
            "end": round(place * word_s + word_s * 0.75, 3),
            "confidence": round(place % 11 / 10, 3),
        }
        for place in range(count)
    ]


def make_stream(words: Sequence[dict[str, Any]], size: int = 20, end: dict[str, Any] | None = None) -> str:
    """Server-sent events that tell words, ``size`` of them an event, and then the end (default: that all is done)."""
    duration = words[-1]["end"] if words else 1.0
    pieces = [words[first : first + size] for first in range(0, len(words), size)]
    events: list[dict[str, Any]] = [
        {"type": "words", "heard": piece[-1]["end"], "words": list(piece)} for piece in pieces
    ]
    done = {
        "type": "done",
        "text": " ".join(word["word"] for word in words),
        "inference_time": 0.5,
        "details": {"duration": duration, "model": "by-hand", "words": list(words)},
    }
    return "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in [*events, end or done])


def answer_stream(page: Page, body: str) -> None:
    """Let the page's next recordings be answered with this stream."""
    page.unroute_all()
    page.route(TRANSCRIBE, lambda route: route.fulfill(content_type="text/event-stream; charset=utf-8", body=body))


def answer_problem(route: Route, status: int, code: str, **headers: str) -> None:
    """Refuse a request as the service does."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    route.fulfill(status=status, headers=named, json={"detail": "by hand", "code": code, "request_id": "0"})


def make_wav(samples: Iterable[int], rate_hz: int = 16_000) -> bytes:
    """A mono WAV file of 16-bit samples."""
    data = array("h", samples).tobytes()
    sizes = struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE")
    form = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16, b"data", len(data))
    return sizes + form + data


def hear_sample(page: Page) -> None:
    """Press the sample's button and wait for the whole result."""
    page.click("#sample")
    page.wait_for_function(IS_DONE)


def give_file(page: Page, name: str, data: bytes) -> None:
    """Choose a file by the button."""
    with page.expect_file_chooser() as chooser:
        page.click("#pick")
    chooser.value.set_files({"name": name, "mimeType": "application/octet-stream", "buffer": data})


def read_words(page: Page) -> list[str]:
    """The words that are shown."""
    words: list[str] = page.eval_on_selector_all("#words .word", "words => words.map((word) => word.textContent)")
    return words


def make_transcript(words: Iterable[dict[str, Any]], **known: Any) -> Transcript:
    """The Python oracle: a transcript of the words as the service answers them."""
    kept = tuple(Word(word["word"], word["start"], word["end"], word["confidence"]) for word in words)
    values: dict[str, Any] = {"duration_s": 1.0, "inference_s": 0.5, "model": "by-hand"} | known
    return Transcript(text=" ".join(word.text for word in kept), words=kept, **values)
