"""``WS /stream`` by its law: the finals are those of the whole sound, however it is sent and encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import dinle
from dinle.recognize.audio import Waveform, decode_audio
from dinle.recognize.recognizer import CtcRecognizer
from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import FakeEngine, fake_recognizer, make_tone
from tests.graphs import CTC_BUNDLE, spell_levels, write_level_bundle
from tests.recognize.writers import rest
from tests.serve.live_clients import (
    Event,
    check_plain_order,
    cut,
    cut_pcm,
    find_texts,
    hear_levels,
    receive_until,
    round_to_pcm,
    talk_now,
    to_pcm,
    write_offline,
)
from tests.serve.servers import serve_in_thread
from tests.sounds import BITEXACT, encode_container, iterate_non_speech

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dinle.recognize.recognizer import Recognizer
    from dinle.serve.live_plain import PcmRate

ROOT = Path(__file__).resolve().parents[2]
TALK = np.concatenate(
    [spell_levels("dinle beni"), rest(0.8), spell_levels("ey hayat "), rest(0.3), spell_levels("sus")]
)
HEARD = ["dinle beni", "ey hayat sus"]


@pytest.fixture
def levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A service that spells levels."""
    hear_levels(monkeypatch)
    write_level_bundle(tmp_path / "levels")
    with TestClient(create_app(settings=Settings(model_dir=str(tmp_path / "levels")))) as client:
        yield client


def send(client: TestClient, pieces: list[bytes], **config: object) -> list[Event]:
    """All messages that answer these pieces and a stop."""
    with client.websocket_connect("/stream") as socket:
        socket.send_json(config)
        for piece in pieces:
            socket.send_bytes(piece)
        socket.send_json({"type": "stop"})
        return receive_until(socket, "done")


@pytest.mark.parametrize("piece_s", [0.01, 0.1, 0.37, 100.0])
def test_the_finals_are_those_of_the_whole_however_it_is_cut(levels: TestClient, piece_s: float) -> None:
    events = send(levels, cut_pcm(TALK, piece_s))
    check_plain_order(events)
    assert find_texts(events) == HEARD
    first, second = (event for event in events if event["type"] == "final")
    assert first["words"][1]["word"] == "beni"
    assert 0 <= first["start"] <= first["words"][0]["start"] < first["words"][1]["end"] <= first["end"]
    assert first["end"] <= second["start"]


def test_a_message_may_end_inside_a_sample(levels: TestClient) -> None:
    assert find_texts(send(levels, cut(to_pcm(TALK), 333))) == HEARD


def test_ready_says_what_was_chosen_and_partials_can_be_left_out(levels: TestClient) -> None:
    events = send(levels, cut_pcm(TALK), type="config", model="levels", silence=0.2, partials=False)
    assert events[0] == {"type": "ready", "model": "levels", "silence": 0.2}
    assert {event["type"] for event in events} == {"ready", "speech_started", "final", "done"}
    assert find_texts(events) == ["dinle beni", "ey hayat", "sus"]


def test_a_commit_ends_what_is_open_and_the_stream_goes_on(levels: TestClient) -> None:
    with levels.websocket_connect("/stream") as socket:
        socket.send_json({})
        socket.send_bytes(to_pcm(spell_levels("dinle")))
        socket.send_json({"type": "commit"})
        first = receive_until(socket, "committed")
        assert find_texts(first) == ["dinle"]
        socket.send_json({"type": "commit"})
        assert socket.receive_json() == {"type": "committed"}  # nothing was open
        socket.send_bytes(to_pcm(np.concatenate([rest(0.2), spell_levels("beni")])))
        socket.send_json({"type": "stop"})
        second = receive_until(socket, "done")
    assert find_texts(second) == ["beni"]
    check_plain_order([*first, *second])


def test_nothing_said_is_answered_by_done_and_a_normal_close(levels: TestClient) -> None:
    for pieces in ([], [b""], [to_pcm(rest(2))], [b"\0"]):
        with levels.websocket_connect("/stream") as socket:
            socket.send_json({})
            for piece in pieces:
                socket.send_bytes(piece)
            socket.send_json({"type": "stop"})
            assert [event["type"] for event in receive_until(socket, "done")] == ["ready", "done"]
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
        assert closed.value.code == 1000


def test_a_partial_shows_what_stands(levels: TestClient) -> None:
    with levels.websocket_connect("/stream") as socket:
        socket.send_json({})
        socket.receive_json()
        shown: list[Event] = []
        said = " ".join(["dinle beni ey hayat"] * 3)
        sound = spell_levels(said, frames_per_token=1)  # without a pause
        for piece in cut_pcm(sound, 0.6)[:-1]:
            socket.send_bytes(piece)
            shown += receive_until(socket, "partial")
    partials = [event for event in shown if event["type"] == "partial"]
    assert len(partials) == 3
    assert all(said.startswith(event["text"]) and event["text"].startswith(event["stable"]) for event in partials)
    assert [len(event["stable"]) for event in partials] == sorted(len(event["stable"]) for event in partials)
    assert partials[-1]["stable"].startswith("dinle beni")


@pytest.mark.parametrize("rate_hz", [8_000, 24_000, 48_000])
def test_other_rates_channels_and_codes_are_heard(monkeypatch: pytest.MonkeyPatch, rate_hz: PcmRate) -> None:
    hear_levels(monkeypatch)
    with TestClient(create_app(fake_recognizer("merhaba"), Settings())) as client:
        tone = np.repeat(make_tone(2.0)[:: 16_000 // 8_000], 2 * rate_hz // 8_000)
        for config in ({"channels": 2}, {"format": "g711_ulaw"}, {"format": "g711_alaw", "channels": 2}):
            events = send(client, [to_pcm(tone)], rate=rate_hz, **config)
            assert find_texts(events) == ["merhaba"], config


SPEECH = [ROOT / "samples" / "sample.wav", *sorted((ROOT / "data" / "mini" / "audio").glob("test-*.opus"))[7:9]]


def join_speech(gap_s: float = 0.9) -> Waveform:
    """Sentences of people and of voices, with silence between them."""
    return np.concatenate([part for path in SPEECH for part in (decode_audio(path), rest(gap_s))])


def encode_opus(sound: Waveform, form: str) -> bytes:
    """As a browser's recorder writes it: clusters or pages of 100 ms."""
    options = {"webm": {"live": "1", "cluster_time_limit": "100"}, "ogg": {"page_duration": "100000"}}[form]
    wide = np.repeat(sound, 3)  # to the 48 kHz of opus, crudely: its own sound is what is decoded offline
    return encode_container(wide, form, "libopus", 48_000, options=BITEXACT | options)


def check_law(url: str, recognizer: Recognizer, *, all_kinds: bool) -> None:
    sound = round_to_pcm(join_speech())
    cases: list[tuple[Waveform, list[bytes], dict[str, object]]] = [
        (sound, cut_pcm(sound), {}),
        (sound, cut_pcm(sound, 7.0), {}),
    ]
    for form in ("webm", "ogg") if all_kinds else ():
        data = encode_opus(sound, form)
        cases += [(decode_audio(data), cut(data, size), {"format": "container"}) for size in (700, 50_000)]
    for heard, pieces, config in cases:
        events = talk_now(f"{url}/stream", pieces, config)
        check_plain_order(events)
        assert find_texts(events) == write_offline(recognizer, heard), config
        assert len(find_texts(events)) >= len(SPEECH)


@pytest.mark.slow
@pytest.mark.parametrize("model", [CTC_BUNDLE, None])
def test_the_stream_law_holds_through_a_server_with_the_bundled_models(model: Path | None) -> None:
    recognizer = dinle.load(model, threads=1)
    with serve_in_thread(create_app(recognizer, Settings())) as port:
        check_law(f"ws://127.0.0.1:{port}", recognizer, all_kinds=model is not None)


@pytest.mark.slow
def test_where_nobody_speaks_nothing_is_told() -> None:
    clips = dict(iterate_non_speech(2.0))
    names = ["digital-silence", "white-30dB", "pink-20dB", "hum-50-30dB", "tone-440Hz-12dB"]
    sound = np.concatenate([clips[name] for name in names])
    with serve_in_thread(create_app(fake_recognizer(), Settings())) as port:
        events = talk_now(f"ws://127.0.0.1:{port}/stream", cut_pcm(sound))
    assert [event["type"] for event in events] == ["ready", "done"]


def test_the_gauge_and_the_histogram_tell_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    hear_levels(monkeypatch)
    engine = FakeEngine("merhaba", delay_s=0.05)
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="fake", frame_shift_s=0.02)
    with TestClient(create_app(recognizer, Settings())) as client:

        def read(name: str) -> float:
            lines = client.get("/metrics").text.splitlines()
            return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))

        assert read("dinle_live_streams") == 0
        with client.websocket_connect("/stream") as one, client.websocket_connect("/stream") as two:
            for socket in (one, two):
                socket.send_json({})
                socket.receive_json()
            assert read("dinle_live_streams") == 2
            for piece in cut_pcm(np.concatenate([make_tone(1.5) + 0.6, rest(1.0)])):
                one.send_bytes(piece)
            receive_until(one, "final")
            for socket in (one, two):
                socket.send_json({"type": "stop"})
                receive_until(socket, "done")
        assert read("dinle_live_streams") == 0
        assert read("dinle_live_final_seconds_count") == 1
        assert 0.05 <= read("dinle_live_final_seconds_sum") <= 5


def test_the_answer_to_the_handshake_carries_the_request_id(levels: TestClient) -> None:
    with levels.websocket_connect("/stream", headers={"X-Request-ID": "mine-1"}) as socket:
        headers: Any = socket.extra_headers
        assert dict(headers)[b"x-request-id"] == b"mine-1"
        socket.send_text("{")
        error = json.loads(socket.receive_text())
    assert (error["type"], error["request_id"]) == ("error", "mine-1")
