"""What goes wrong around a request: clients that leave, engines that fail, time that runs out, a service that stops."""

from __future__ import annotations

import logging
import math
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from dinle.recognize.audio import SAMPLE_RATE_HZ, decode_audio
from dinle.recognize.recognizer import CtcRecognizer
from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import FakeEngine, GateEngine, make_tone
from tests.graphs import CTC_BUNDLE
from tests.serve.servers import serve_in_process, serve_in_thread, wait_for
from tests.serve.wire import find_code, make_form, post_raw, read_answer, reset_on_close, send_request
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from numpy.typing import NDArray

SAMPLE = Path(__file__).parents[2] / "samples" / "sample.wav"
SECOND = encode_wav(make_tone(1.0))
MINUTES = encode_wav(make_tone(150.0))  # ten windows
PATHS = ("/transcribe", "/v1/audio/transcriptions")


class TroubledEngine(GateEngine):
    """Fails with ``fault`` on clips over 1.5 s, once the gate lets them pass."""

    def __init__(self, delay_s: float = 0.0, fault: BaseException | None = None) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.fault = fault

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        result = super().run(waveforms, lengths)
        if self.fault is not None and lengths.max() > 24_000:
            raise self.fault
        return result


@contextmanager
def serve_engine(engine: FakeEngine, **options: Any) -> Iterator[tuple[int, FastAPI]]:
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)
    app = create_app(recognizer, Settings(**({"workers": 1, "max_queue": 20} | options)))
    with serve_in_thread(app) as port:
        yield port, app


def count_requests(port: int, status: int, path: str = "/transcribe") -> float:
    labels = f'method="POST",route="{path}",status="{status}"'
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    found = re.search(rf"^dinle_requests_total{{{labels}}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def list_errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("reset", [False, True], ids=["farewell", "reset"])
@pytest.mark.parametrize("size", [0, 1_000, 1_500_000], ids=["head only", "in memory", "in a file"])
def test_clients_that_leave_in_the_middle_of_an_upload(
    reset: bool, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    form = make_form(bytes(2_000_000))
    with serve_engine(TroubledEngine()) as (port, app):
        for _ in range(20):
            with send_request(port, form[:size], length=len(form)) as connection:
                if reset:
                    reset_on_close(connection)
        wait_for(lambda: count_requests(port, 499) == 20, timeout_s=10)
        assert app.state.service.scheduler.taken == 0
        assert post_raw(port, make_form(SECOND))[0] == 200
        rejected = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'dinle_rejected_total{reason="client_gone"} 20.0' in rejected
    assert list_errors(caplog) == []


@pytest.mark.parametrize("path", PATHS)
def test_clients_that_leave_before_their_answer(path: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = TroubledEngine()
    with serve_engine(engine) as (port, app):
        engine.gate.clear()
        connections = [send_request(port, make_form(MINUTES), path=path) for _ in range(5)]
        for connection in connections:
            connection.__enter__()
        wait_for(lambda: app.state.service.scheduler.taken == 5, timeout_s=5)
        wait_for(lambda: len(engine.batches) == 2, timeout_s=5)  # the warm-up, and the first window of the first
        for connection in connections:
            connection.__exit__(None, None, None)
        wait_for(lambda: app.state.service.scheduler.taken == 0, timeout_s=5)
        engine.gate.set()
        wait_for(lambda: app.state.service.scheduler.running == 0, timeout_s=5)
        assert len(engine.batches) == 2  # nothing more was heard
        assert count_requests(port, 499, path) == 5
        assert post_raw(port, make_form(SECOND), path=path)[0] == 200
    assert list_errors(caplog) == []


def test_clients_that_leave_in_the_middle_of_a_stream_of_events(caplog: pytest.LogCaptureFixture) -> None:
    engine = TroubledEngine(delay_s=0.05)
    path = "/v1/audio/transcriptions"
    with serve_engine(engine) as (port, app):
        for _ in range(3):
            engine.batches.clear()
            with send_request(port, make_form(MINUTES, stream="true"), path=path) as connection:
                assert b"200 OK" in connection.recv(4096)
            wait_for(lambda: app.state.service.scheduler.taken == 0, timeout_s=5)
            wait_for(lambda: app.state.service.scheduler.running == 0, timeout_s=5)
            assert len(engine.batches) < 8
        engine.gate.clear()
        with send_request(port, make_form(MINUTES, stream="true"), path=path):  # before the first event
            wait_for(lambda: app.state.service.scheduler.taken == 1, timeout_s=5)
        wait_for(lambda: app.state.service.scheduler.taken == 0, timeout_s=5)
        engine.gate.set()
        wait_for(lambda: count_requests(port, 499, path) == 1, timeout_s=5)
        assert count_requests(port, 200, path) == 3
    assert list_errors(caplog) == []


FAULTS = [RuntimeError("secret"), MemoryError("secret"), SystemExit("secret"), KeyboardInterrupt("secret")]


@pytest.mark.parametrize("fault", FAULTS, ids=[type(fault).__name__ for fault in FAULTS])
@pytest.mark.parametrize("path", PATHS)
def test_an_engine_that_fails_fails_its_own_request(
    fault: BaseException, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_engine(TroubledEngine(fault=fault), workers=2) as (port, app):
        forms = [make_form(encode_wav(make_tone(seconds))) for seconds in (1.0, 2.0, 1.0, 2.0, 1.0)]
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda form: post_raw(port, form, path=path), forms))
        assert [status for status, _ in answers] == [200, 500, 200, 500, 200]
        for _, answer in answers[1::2]:
            assert find_code(answer) == "internal"
            assert "secret" not in str(answer)
        assert app.state.service.scheduler.taken == 0
    assert len(list_errors(caplog)) == 2
    assert "secret" in caplog.text


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}], ids=["plain", "stream"])
@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_done_in_time_is_answered_504(path: str, fields: dict[str, str]) -> None:
    engine = TroubledEngine()
    with serve_engine(engine, deadline_s=0.2) as (port, app):
        engine.gate.clear()
        started = time.perf_counter()
        status, answer = post_raw(port, make_form(SECOND, **fields), path=path)
        assert (status, find_code(answer)) == (504, "deadline")
        assert 0.2 <= time.perf_counter() - started < 2
        assert app.state.service.scheduler.taken == 0
        engine.gate.set()
        assert post_raw(port, make_form(SECOND, **fields), path="/transcribe")[0] == 200


@pytest.mark.parametrize("path", PATHS)
def test_an_upload_that_does_not_come_is_answered_408(path: str, caplog: pytest.LogCaptureFixture) -> None:
    form = make_form(SECOND)
    with serve_engine(TroubledEngine(), upload_s=0.3) as (port, _):
        started = time.perf_counter()
        with send_request(port, form[:100], path=path, length=len(form)) as connection:
            for byte in form[100:103]:  # a trickle does not help
                time.sleep(0.05)
                connection.sendall(bytes([byte]))
            status, headers, answer = read_answer(connection)
        assert (status, find_code(answer), headers["connection"]) == (408, "request_timeout", "close")
        assert "did not arrive within 0.3 s" in str(answer)
        assert time.perf_counter() - started < 1.5
        assert count_requests(port, 408, path) == 1
    assert list_errors(caplog) == []


def make_talk(seconds: float) -> bytes:
    """The sample again and again: noise is passed over by the search for speech in no time."""
    sample = decode_audio(SAMPLE)
    return encode_wav(np.tile(sample, math.ceil(seconds * SAMPLE_RATE_HZ / len(sample))))


def start_posting(pool: ThreadPoolExecutor, url: str, count: int, audio: bytes) -> list[Any]:
    """Post so often at once; returns when all are accepted."""
    ask = lambda: httpx2.post(f"{url}/transcribe", files={"file": audio}, timeout=60)  # noqa: E731
    futures = [pool.submit(ask) for _ in range(count)]

    def accepted() -> bool:
        text = httpx2.get(f"{url}/metrics").text
        found = re.findall(r"^dinle_(?:queue_depth|running) (\S+)$", text, re.MULTILINE)
        return sum(map(float, found)) >= count

    wait_for(accepted, timeout_s=20)
    return futures


@pytest.mark.slow
def test_who_was_accepted_is_answered_before_the_service_stops(tmp_path: Path) -> None:
    command = ["dinle.cli", "serve", "--port", "0", "--model", str(CTC_BUNDLE)]
    env = {"ASR_WORKERS": "1", "ASR_THREADS": "1", "ASR_SHUTDOWN_S": "30"}
    audio = make_talk(50.0)
    with serve_in_process(command, tmp_path / "log", env) as (url, process), ThreadPoolExecutor(5) as pool:
        futures = start_posting(pool, url, 5, audio)
        process.send_signal(signal.SIGTERM)
        stopped = time.perf_counter()
        wait_for(lambda: not listens(url), timeout_s=2)
        assert process.poll() is None
        assert [future.result(30).status_code for future in futures] == [200] * 5
        assert process.wait(timeout=30) == 0
        assert time.perf_counter() - stopped < 30
    assert "Traceback" not in (tmp_path / "log").read_text()


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.slow
def test_a_service_does_not_wait_longer_than_it_was_told(tmp_path: Path) -> None:
    command = ["dinle.cli", "serve", "--port", "0", "--model", str(CTC_BUNDLE)]
    env = {"ASR_WORKERS": "1", "ASR_THREADS": "1", "ASR_SHUTDOWN_S": "1"}
    audio = make_talk(780.0)
    with serve_in_process(command, tmp_path / "log", env) as (url, process), ThreadPoolExecutor(2) as pool:
        futures = start_posting(pool, url, 2, audio)
        process.send_signal(signal.SIGTERM)
        stopped = time.perf_counter()
        process.wait(timeout=30)
        assert 0.9 < time.perf_counter() - stopped < 8
        for future in futures:
            assert future.exception(10) is not None or future.result().status_code >= 500
