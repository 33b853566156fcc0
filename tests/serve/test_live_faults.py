"""What goes wrong on live streams is told in their dialect, costs nobody else anything, and leaves nothing behind."""

from __future__ import annotations

import json
import logging
import socket as sockets
import threading
import time
import tracemalloc
from collections import deque
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
import websockets
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import ClientConnection, connect

from dinle.recognize.recognizer import CtcRecognizer
from dinle.serve import live
from dinle.serve.app import create_app
from dinle.serve.scheduler import StreamCounter
from dinle.serve.settings import Settings
from tests.fakes import FakeEngine, make_tone
from tests.recognize.hostile_sounds import make_flac_silence
from tests.recognize.writers import rest
from tests.serve.live_clients import (
    check_plain_order,
    cut_pcm,
    find_texts,
    hear_levels,
    receive_until,
    talk_now,
    to_pcm,
)
from tests.serve.servers import serve_in_process, serve_in_thread, wait_for
from tests.serve.test_live_openai import KEY
from tests.sounds import encode_container, encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI
    from numpy.typing import NDArray

SPEECH = make_tone(1.5) + 0.6
SAID = to_pcm(np.concatenate([SPEECH, rest(1.0)]))


class GateEngine(FakeEngine):
    """Holds every call while the gate is closed, and counts those that are inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = 0

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.entered += 1
        assert self.gate.wait(20)
        return super().run(waveforms, lengths)


@pytest.fixture(autouse=True)
def _levels(monkeypatch: pytest.MonkeyPatch) -> None:
    hear_levels(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No decoder's thread lives on, and no error is logged where a test does not say so."""
    yield
    wait_for(lambda: not any(thread.name == "dinle-live-audio" for thread in threading.enumerate()), 5)
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors if record.getMessage() != "a live stream failed"] == []


def make_app(engine: FakeEngine | None = None, **settings: Any) -> FastAPI:
    engine = engine or FakeEngine()
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)
    return create_app(recognizer, Settings(**{"live_idle_s": 10, **settings}))


@contextmanager
def serve(engine: FakeEngine | None = None, **settings: Any) -> Iterator[tuple[str, FastAPI]]:
    """A real server; its address without a scheme, and its application."""
    app = make_app(engine, **settings)
    with serve_in_thread(app) as port:
        yield f"127.0.0.1:{port}", app


def count_open(app: FastAPI) -> int:
    return int(app.state.service.streams.open)


def check_works(address: str) -> None:
    """Streams, health and recordings are answered, and soon."""
    began = time.monotonic()
    assert find_texts(talk_now(f"ws://{address}/stream", [SAID])) == ["merhaba"]
    check_http(address)
    assert time.monotonic() - began < 5


def check_http(address: str) -> None:
    began = time.monotonic()
    assert httpx2.get(f"http://{address}/healthz").status_code == 200
    answer = httpx2.post(f"http://{address}/transcribe", files={"file": ("a.wav", encode_wav(SPEECH))})
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < 5


@contextmanager
def start(address: str) -> Iterator[ClientConnection]:
    """A plain client whose stream is set up."""
    with connect(f"ws://{address}/stream") as client:
        client.send("{}")
        assert json.loads(client.recv())["type"] == "ready"
        yield client


@pytest.mark.parametrize("data", ["pcm", "container"])
def test_a_client_that_leaves_gives_its_place_and_its_worker_back(data: str) -> None:
    engine = GateEngine()
    with serve(engine, workers=1, max_streams=1) as (address, app), ExitStack() as leaving:
        engine.gate.clear()
        before = engine.entered
        client = leaving.enter_context(connect(f"ws://{address}/stream"))
        client.send(json.dumps({"format": "pcm16" if data == "pcm" else "container"}))
        client.recv()
        spoken = np.concatenate([SPEECH, rest(1.0), SPEECH, rest(1.0)])
        client.send(to_pcm(spoken) if data == "pcm" else encode_container(spoken, "matroska", "pcm_s16le", 16_000))
        wait_for(lambda: engine.entered == before + 1)
        client.socket.shutdown(sockets.SHUT_RDWR)  # without a word
        wait_for(lambda: count_open(app) == 0, 5)  # while the worker is inside the engine
        engine.gate.set()
        check_works(address)
        assert engine.entered - before <= 4  # of the gone client one run, one or two of each of the others


@pytest.mark.parametrize(
    ("messages", "code", "closed_with"),
    [
        (["{"], "protocol", 1008),
        (["null"], "protocol", 1008),
        (["[" * 100_000], "protocol", 1008),
        (['"\\ud800"'], "protocol", 1008),
        ([b"\0\0"], "protocol", 1008),
        (['{"format": "mp3"}'], "protocol", 1008),
        (['{"rate": 11025}'], "protocol", 1008),
        (['{"channels": 0}'], "protocol", 1008),
        (['{"silence": 1e400}'], "protocol", 1008),
        (['{"colour": "red"}'], "protocol", 1008),
        (['{"channels": 3}'], "audio_limit", 1008),
        (['{"model": "gpt-9"}'], "model_unknown", 1008),
        (["{}", "later"], "protocol", 1008),
        (["{}", '{"type": "config"}'], "protocol", 1008),
        (['{"format": "container"}', b"this is no sound " * 5_000], "audio_decode", 1003),
        (['{"format": "container"}', b"\x1aE\xdf\xa3" + bytes(100), '{"type": "stop"}'], "audio_decode", 1003),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_makes_no_sense_is_an_error_event_and_a_close(
    messages: list[str | bytes], code: str, closed_with: int
) -> None:
    with (
        TestClient(make_app(max_channels=2)) as client,
        client.websocket_connect("/stream", headers={"X-Request-ID": "r1"}) as socket,
    ):
        for message in messages:
            socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(message)
        error = receive_until(socket, "error")[-1]
        assert (error["code"], error["request_id"]) == (code, "r1")
        assert len(error["message"]) < 600
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == closed_with


@pytest.mark.parametrize(("rate_hz", "hours", "code"), [(8_000, 100, "audio_limit"), (192_000, 0.2, None)])
def test_hours_in_a_few_bytes_cost_little_memory(rate_hz: int, hours: float, code: str | None) -> None:
    bomb = make_flac_silence(hours * 3600, rate_hz, declare=False)
    assert len(bomb) < 1_000_000
    with TestClient(make_app()) as client, client.websocket_connect("/stream") as socket:
        tracemalloc.start()
        try:
            socket.send_json({"format": "container"})
            socket.send_bytes(bomb)
            socket.send_json({"type": "stop"})
            end = receive_until(socket, "error" if code else "done")[-1]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert end.get("code") == code
    assert peak < 40_000_000  # 100 hours are 23 GB; 12 minutes 46 MB


def test_bytes_without_end_and_without_sound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_SILENT_BYTES", 100_000)
    with TestClient(make_app()) as client, client.websocket_connect("/stream") as socket:
        socket.send_json({"format": "container"})
        void = b"\x1aE\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff\xec\x10\xff\xff\xff\xff\xff"
        socket.send_bytes(void)  # an EBML head, an endless segment, a void element of 64 GB
        for _ in range(20):
            socket.send_bytes(bytes(10_000))
        assert receive_until(socket, "error")[-1]["code"] in ("audio_limit", "audio_decode")


def test_a_client_that_sends_too_fast_waits_and_loses_nothing() -> None:
    engine = GateEngine()
    with serve(engine, workers=1) as (address, _):
        engine.gate.clear()
        threading.Timer(1.0, engine.gate.set).start()
        sound = np.concatenate([SPEECH, rest(1.5)] * 40)  # 2 minutes, 4 MB
        events = talk_now(f"ws://{address}/stream", cut_pcm(sound))
    check_plain_order(events)
    assert find_texts(events) == ["merhaba"] * 40


@pytest.mark.parametrize("path", ["/stream", "/v1/realtime"])
@pytest.mark.parametrize("begun", [False, True])
def test_an_idle_client_is_told_and_closed(path: str, begun: bool) -> None:
    with (
        TestClient(make_app(live_idle_s=0.2)) as client,
        client.websocket_connect(path) as socket,
    ):
        if begun and path == "/stream":
            socket.send_json({})
            socket.send_bytes(bytes(3200))
        elif begun:
            socket.send_json({"type": "input_audio_buffer.append", "audio": "AAAA"})
        error = receive_until(socket, "error")[-1]
        assert error.get("code", error.get("error", {}).get("code")) == "idle"
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1000
        assert client.app.state.service.streams.open == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["/stream", "/v1/realtime"])
def test_one_stream_too_many_is_told_so_and_the_next_place_is_taken(path: str) -> None:
    with TestClient(make_app(max_streams=1)) as client:
        with client.websocket_connect("/stream") as first:
            first.send_json({})
            first.receive_json()
            with client.websocket_connect(path) as second:
                error = second.receive_json()
                assert error.get("code", error.get("error", {}).get("code")) == "streams_busy"
                with pytest.raises(WebSocketDisconnect) as closed:
                    second.receive_json()
                assert closed.value.code == 1013
            first.send_json({"type": "stop"})
            assert first.receive_json()["type"] == "done"
        with client.websocket_connect("/stream") as third:
            third.send_json({})
            assert third.receive_json()["type"] == "ready"
        assert 'dinle_rejected_total{reason="streams_busy"} 1.0' in client.get("/metrics").text


def test_no_streams_at_all_can_be_chosen() -> None:
    with TestClient(make_app(max_streams=0)) as client, client.websocket_connect("/stream") as socket:
        assert socket.receive_json()["code"] == "streams_busy"
    counter = StreamCounter(1)
    with pytest.raises(RuntimeError, match="inside"), counter.take():
        raise RuntimeError("inside")
    assert counter.open == 0


def test_an_engine_that_fails_is_told_without_detail_and_the_next_stream_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = FakeEngine()
    with TestClient(make_app(engine)) as client:
        for path, messages in (
            ("/stream", [{}, SAID]),
            ("/v1/realtime", [{"type": "input_audio_buffer.append", "audio": "/38A" * 40_000}]),
        ):
            engine.error = RuntimeError("/secret/model.onnx: no memory")
            with client.websocket_connect(path) as socket:
                for message in messages:
                    socket.send_bytes(message) if isinstance(message, bytes) else socket.send_json(message)
                answer = receive_until(socket, "error")[-1]
                error = answer.get("error", answer)
                assert error["code"] == "internal"
                assert "secret" not in json.dumps(answer)
                with pytest.raises(WebSocketDisconnect) as closed:
                    socket.receive_json()
                assert closed.value.code == 1011
            engine.error = None
            with client.websocket_connect("/stream") as socket:
                socket.send_json({})
                socket.send_bytes(SAID)
                assert find_texts(receive_until(socket, "final")) == ["merhaba"]
    failures = [record for record in caplog.records if record.getMessage() == "a live stream failed"]
    assert len(failures) == 2
    assert all(record.exc_info for record in failures)


def test_200_sockets_left_open_keep_nobody_waiting() -> None:
    with serve(workers=1) as (address, app), ExitStack() as open_ones:
        host, _, port = address.partition(":")
        for _ in range(100):
            open_ones.enter_context(sockets.create_connection((host, int(port))))
        left = [open_ones.enter_context(connect(f"ws://{address}/stream")) for _ in range(100)]
        assert json.loads(left[-1].recv())["code"] == "streams_busy"
        assert count_open(app) == 8
        check_http(address)
        left[0].close()
        wait_for(lambda: count_open(app) == 7, 5)
        check_works(address)
        for client in left:
            client.close()


@pytest.mark.slow
def test_a_service_that_ends_does_not_wait_for_its_streams(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["dinle.cli", "serve", "--model", "models/dinle-ctc-tr", "--port", "0"]
    with serve_in_process(command, log) as (url, process), ExitStack() as open_ones:
        address = url.removeprefix("http://")
        talking = [open_ones.enter_context(start(address)) for _ in range(4)]
        for client in talking:
            client.send(to_pcm(np.tile(SPEECH, 10)))
        open_ones.enter_context(connect(f"ws://{address}/stream"))  # sets nothing up
        began = time.monotonic()
        process.terminate()
        process.wait(10)
        took_s = time.monotonic() - began
        for client in talking:
            with pytest.raises(websockets.ConnectionClosed):
                deque(client, maxlen=0)  # what was told before the close
            assert client.close_code == 1012  # service restart
    assert took_s < 5
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("path", ["/stream", "/v1/realtime"])
def test_a_stream_needs_the_key_where_there_are_keys(path: str) -> None:
    with serve(api_keys=KEY) as (address, _):
        url = f"ws://{address}{path}"
        for headers in ({}, {"Authorization": "Bearer wrong-key-of-many-letters"}):
            with pytest.raises(websockets.InvalidStatus, match="403"):
                connect(url, additional_headers=headers).__enter__()
        protocols = [websockets.Subprotocol(name) for name in ("realtime", f"openai-insecure-api-key.{KEY}")]
        with connect(url, subprotocols=protocols) as client:
            assert client.subprotocol == "realtime"
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
            with connect(url, additional_headers=headers) as client:
                client.send("{")
                assert json.loads(client.recv())["type"] in ("error", "session.created")
