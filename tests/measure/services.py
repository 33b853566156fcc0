"""A service without a model, that answers, refuses, stalls or hangs up as it is told."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from dinle.measure.service_clips import make_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dinle.measure.load_client import LoadClip

TEXT = "merhaba"
METRICS = """\
# HELP dinle_event_loop_lag_seconds How late the loop wakes up.
# TYPE dinle_event_loop_lag_seconds histogram
dinle_event_loop_lag_seconds_bucket{le="0.001"} 6.0
dinle_event_loop_lag_seconds_bucket{le="0.01"} 10.0
dinle_event_loop_lag_seconds_bucket{le="+Inf"} 10.0
dinle_event_loop_lag_seconds_count 10.0
dinle_event_loop_lag_seconds_sum 0.01
dinle_event_loop_lag_max_seconds 0.0042
"""


class FakeService(ThreadingHTTPServer):
    """Answers posts by number, from 0, with what ``behave`` says.

    ``ok``, ``wrong`` (another text), ``garbage`` (200 without JSON), ``busy`` (503 with Retry-After 0), ``limited`` (429
    with Retry-After), ``silent`` (503 without), ``early`` (503 before the body is read, and closes), ``broken`` (500),
    ``stall`` (no answer until the end), ``drop`` (hangs up), ``close`` (answers, then closes without having said so).

    ``text`` makes the text of a right answer from the posted body; ``delay_s`` makes each post last; ``capacity`` refuses,
    as ``busy`` does, more posts at once than that.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, behave: Callable[[int], str], delay_s: float, capacity: int, text: Callable[[bytes], str]
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.delay_s, self.capacity, self.text = behave, delay_s, capacity, text
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.posts = self.connections = self.under_way = 0
        self.done: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self) -> str:
        with self.lock:
            what = self.behave(self.posts)
            self.posts += 1
            self.under_way += 1
            if self.under_way > self.capacity:
                what = "busy"
            self.done.append(what)
            return what

    def end(self) -> None:
        with self.lock:
            self.under_way -= 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeService
    timeout = 30

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, METRICS.encode())
        else:
            self.answer(200, b'{"status": "ok"}')

    def do_POST(self) -> None:
        what = self.server.begin()
        try:
            self.respond(what)
        finally:
            self.server.end()

    def respond(self, what: str) -> None:
        if what == "early":
            self.close_connection = True
            self.answer(503, b"{}", {"Retry-After": "1", "Connection": "close"})
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if what == "stall":
            self.server.over.wait()
        if what in {"stall", "drop"}:
            self.close_connection = True
            return
        if what in {"ok", "wrong", "close"}:
            time.sleep(self.server.delay_s)
        text = "yanlış" if what == "wrong" else self.server.text(body)
        good = json.dumps({"text": text, "inference_time": 0.01}).encode()
        answers: dict[str, tuple[int, bytes, dict[str, str]]] = {
            "garbage": (200, b"<html>", {}),
            "busy": (503, b"{}", {"Retry-After": "0"}),
            "limited": (429, b"{}", {"Retry-After": "0"}),
            "silent": (503, b"{}", {}),
            "broken": (500, b"{}", {}),
        }
        self.answer(*answers.get(what, (200, good, {})))
        self.close_connection = self.close_connection or what == "close"

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake_service(
    behave: Callable[[int], str] = lambda _: "ok",
    *,
    delay_s: float = 0.0,
    capacity: int = 10_000,
    text: Callable[[bytes], str] = lambda _: TEXT,
) -> Iterator[FakeService]:
    server = FakeService(behave, delay_s, capacity, text)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def small_clips(count: int = 3, text: str | None = TEXT) -> list[LoadClip]:
    """Forms that hold no sound, of 3, 4, 5 ... seconds, all expected to be answered alike."""
    made = [make_clip(f"clip-{number}.wav", 3.0 + number, bytes([number]) * 100) for number in range(count)]
    return [replace(clip, expected_text=text) for clip in made]
