"""``POST /transcribe?stream=true``: words as they are found, then the plain answer; errors before and after the first event."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from dinle.recognize.recognizer import CtcRecognizer
from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import FakeEngine, GateEngine, fake_recognizer, make_tone
from tests.graphs import spell_levels, write_level_bundle
from tests.serve.servers import serve_in_thread, wait_for
from tests.serve.wire import make_form, send_request
from tests.sounds import encode_lossy, encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI

STREAM = "/transcribe?stream=true"
SECOND = encode_wav(make_tone(1.0))
MINUTES = encode_wav(make_tone(150.0))  # ten windows
TEXT = "dinle beni ey hayat"
SPEECH = encode_wav(spell_levels(TEXT))
OPUS = encode_lossy(np.random.default_rng(0).normal(0, 0.2, 64_000).astype(np.float32), "opus")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service whose model spells levels."""
    folder = tmp_path_factory.mktemp("models") / "levels"
    write_level_bundle(folder)
    with TestClient(create_app(settings=Settings(model_dir=str(folder), max_seconds=200))) as client:
        yield client


def make_service(engine: FakeEngine, **options: Any) -> FastAPI:
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)
    return create_app(recognizer, Settings(**({"workers": 1, "max_queue": 5} | options)))


def read_events(text: str) -> list[dict[str, Any]]:
    """The events of a stream; fails where it holds anything else."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def post(client: TestClient, audio: bytes, query: str = "stream=true") -> httpx2.Response:
    return client.post(f"/transcribe?{query}", files={"file": ("speech.wav", audio)})


@pytest.mark.parametrize(
    "audio",
    [SPEECH, encode_wav(np.tile(np.concatenate([spell_levels(TEXT), np.zeros(24_000, np.float32)]), 20))],
    ids=["seconds", "a minute and more"],
)
def test_the_events_joined_are_the_plain_answer(client: TestClient, audio: bytes) -> None:
    plain = post(client, audio, "details=true").json()
    first, *pieces, last = read_events(post(client, audio).text)
    assert first == {"type": "started"}
    assert {piece["type"] for piece in pieces} == {"words"}
    words = [word for piece in pieces for word in piece["words"]]
    assert words == plain["details"]["words"] == last["details"]["words"]
    assert words
    heard = [piece["heard"] for piece in pieces]
    assert heard == sorted(heard)
    assert all(piece["words"] or piece["heard"] > before for piece, before in zip(pieces, [0.0, *heard], strict=False))
    assert heard[-1] == plain["details"]["duration"]
    assert last.keys() == plain.keys() | {"type"}
    assert last["type"] == "done"
    assert (last["text"], last["details"]) == (plain["text"], plain["details"])
    assert isinstance(last["inference_time"], float)


def test_silence_is_progress_without_words(client: TestClient) -> None:
    _, *pieces, last = read_events(post(client, encode_wav(np.zeros(64_000, dtype=np.float32))).text)
    assert [piece["words"] for piece in pieces] == [[]] * len(pieces)
    assert pieces[-1]["heard"] == 4.0
    assert (last["text"], last["details"]["words"], last["details"]["duration"]) == ("", [], 4.0)


@pytest.mark.parametrize("query", ["", "details=false", "stream=false"])
def test_without_being_asked_for_nothing_changes(client: TestClient, query: str) -> None:
    answer = post(client, SPEECH, query)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"text", "inference_time"}


def test_nobody_keeps_a_stream_back(client: TestClient) -> None:
    headers = post(client, SPEECH).headers
    assert headers["Content-Type"].partition(";")[0] == "text/event-stream"
    assert (headers["X-Accel-Buffering"], headers["Cache-Control"]) == ("no", "no-store")
    form = {"stream": "true"}
    openai = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", SPEECH)}, data=form).headers
    assert (openai["X-Accel-Buffering"], openai["Cache-Control"]) == ("no", "no-store")


@pytest.mark.parametrize(
    ("audio", "query", "status", "code"),
    [
        (b"", "", 422, "empty_audio"),
        (b"no sound at all" * 100, "", 415, "audio_decode"),
        (OPUS[: len(OPUS) // 2], "", 415, "audio_decode"),
        (encode_wav(np.zeros(3_300_000, dtype=np.int16)), "", 413, "audio_limit"),
        (SPEECH, "&model=nope", 404, "model_unknown"),
    ],
    ids=["empty", "text", "damaged at its end", "too long", "unknown model"],
)
def test_what_is_refused_has_its_own_status(
    client: TestClient, audio: bytes, query: str, status: int, code: str
) -> None:
    answer = post(client, audio, f"stream=true{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"


def test_a_full_service_refuses_a_stream_with_its_own_status() -> None:
    engine = GateEngine()
    with serve_in_thread(app := make_service(engine, max_queue=0)) as port:
        engine.gate.clear()
        with send_request(port, make_form(SECOND), path=STREAM):
            wait_for(lambda: app.state.service.scheduler.taken == 1, timeout_s=5)
            answer = httpx2.post(f"http://127.0.0.1:{port}{STREAM}", files={"file": SECOND})
            assert (answer.status_code, answer.json()["code"]) == (503, "service_busy")
            assert answer.headers["Retry-After"]
        engine.gate.set()


def test_it_starts_when_a_worker_hears_it_and_not_before() -> None:
    """One worker: the first stream starts and is held by the engine, the second one waits without an answer."""
    engine = GateEngine()
    started = [threading.Event(), threading.Event()]
    events: list[list[str]] = [[], []]

    def ask(number: int, port: int) -> None:
        with httpx2.stream("POST", f"http://127.0.0.1:{port}{STREAM}", files={"file": SECOND}, timeout=20) as answer:
            for line in answer.iter_lines():
                if line:
                    events[number].append(json.loads(line.removeprefix("data: "))["type"])
                    started[number].set()

    with serve_in_thread(app := make_service(engine)) as port:
        engine.gate.clear()
        threads = [threading.Thread(target=ask, args=(number, port)) for number in range(2)]
        threads[0].start()
        assert started[0].wait(5)
        threads[1].start()
        wait_for(lambda: app.state.service.scheduler.waiting == 1, timeout_s=5)
        assert not started[1].wait(0.2)
        assert events == [["started"], []]
        engine.gate.set()
        for thread in threads:
            thread.join(10)
    assert [kinds[0] for kinds in events] == ["started", "started"]
    assert [kinds[-1] for kinds in events] == ["done", "done"]


def test_an_error_after_the_first_event_is_the_last_event(caplog: pytest.LogCaptureFixture) -> None:
    recognizer = fake_recognizer()
    with TestClient(create_app(recognizer, Settings())) as client:
        engine: Any = client.app.state.service.models.loaded["fake"].engine.engine  # type: ignore[attr-defined]
        engine.error = RuntimeError("secret")
        answer = client.post(STREAM, files={"file": SECOND}, headers={"X-Request-ID": "request-7"})
        figures = client.get("/metrics").text
    assert answer.status_code == 200
    *_, last = read_events(answer.text)
    assert last == {
        "type": "error",
        "detail": "the service failed on this request; its log has the reason under this request id",
        "code": "internal",
        "request_id": "request-7",
    }
    assert "request request-7: POST /transcribe failed" in caplog.text
    assert "secret" in caplog.text
    assert "dinle_rejected_total{" not in figures  # a fault is no refusal


def test_the_deadline_is_an_event_too() -> None:
    with TestClient(make_service(FakeEngine(delay_s=0.3), deadline_s=0.5)) as client:
        *_, last = read_events(post(client, MINUTES).text)
        assert (last["type"], last["code"]) == ("error", "deadline")
        assert 'dinle_rejected_total{reason="deadline"} 1.0' in client.get("/metrics").text


def test_who_leaves_frees_the_place(caplog: pytest.LogCaptureFixture) -> None:
    engine = GateEngine()
    with serve_in_thread(app := make_service(engine)) as port:
        scheduler = app.state.service.scheduler
        engine.gate.clear()
        engine.batches.clear()
        with send_request(port, make_form(MINUTES), path=STREAM) as connection:
            received = b""
            while b'{"type": "started"}' not in received:
                received += connection.recv(4096)
            with send_request(port, make_form(MINUTES), path=STREAM):  # this one leaves while it waits
                wait_for(lambda: scheduler.waiting == 1, timeout_s=5)
            wait_for(lambda: scheduler.taken == 1, timeout_s=5)
        wait_for(lambda: scheduler.taken == 0, timeout_s=5)
        engine.gate.set()
        wait_for(lambda: scheduler.running == 0, timeout_s=5)
        assert len(engine.batches) == 1  # of ten
        answer = httpx2.post(f"http://127.0.0.1:{port}{STREAM}", files={"file": SECOND})
        assert read_events(answer.text)[-1]["type"] == "done"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_stream_is_described_by_what_it_sends(client: TestClient) -> None:
    route = client.get("/openapi.json").json()["paths"]["/transcribe"]["post"]
    shown = read_events(route["responses"]["200"]["content"]["text/event-stream"]["example"])
    sent = read_events(post(client, SPEECH).text)
    assert {event["type"]: event.keys() for event in shown} == {event["type"]: event.keys() for event in sent}
    assert shown[-1]["details"].keys() == sent[-1]["details"].keys()
    assert shown[1]["words"][0].keys() == sent[-1]["details"]["words"][0].keys()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_events(tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(SECOND)
    with serve_in_thread(make_service(FakeEngine())) as port:
        command = ["curl", "-sSN", "-F", f"file=@{tmp_path / 'speech.wav'}", f"http://127.0.0.1:{port}{STREAM}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [event["type"] for event in read_events(done.stdout)] == ["started", "words", "done"]
