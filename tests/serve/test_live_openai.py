"""``WS /v1/realtime``, by OpenAI's own client against a real server, and in detail without one."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest
from openai.types import realtime as events_of
from openai.types.beta.realtime import TranscriptionSessionUpdatedEvent
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import dinle
from dinle.recognize.audio import decode_audio
from dinle.recognize.live_audio import PcmDecoder
from dinle.serve.app import create_app
from dinle.serve.live_openai import OpenItem
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.graphs import CTC_BUNDLE
from tests.recognize.writers import rest
from tests.serve.live_clients import Event, cut, hear_levels, receive_until, to_pcm, write_offline
from tests.serve.servers import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pydantic import BaseModel
    from starlette.testclient import WebSocketTestSession

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-of-thirty-two-characters-0"
DELTA, COMPLETED = (f"conversation.item.input_audio_transcription.{kind}" for kind in ("delta", "completed"))
STARTED, STOPPED, COMMITTED, CLEARED = (
    f"input_audio_buffer.{kind}" for kind in ("speech_started", "speech_stopped", "committed", "cleared")
)
CLASSES: dict[str, type[BaseModel]] = {
    "session.created": events_of.SessionCreatedEvent,
    "session.updated": events_of.SessionUpdatedEvent,
    STARTED: events_of.InputAudioBufferSpeechStartedEvent,
    STOPPED: events_of.InputAudioBufferSpeechStoppedEvent,
    COMMITTED: events_of.InputAudioBufferCommittedEvent,
    CLEARED: events_of.InputAudioBufferClearedEvent,
    DELTA: events_of.ConversationItemInputAudioTranscriptionDeltaEvent,
    COMPLETED: events_of.ConversationItemInputAudioTranscriptionCompletedEvent,
    "error": events_of.RealtimeErrorEvent,
}
TONE = make_tone(1.6) + 0.6


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def cut_24k(sound: np.ndarray[Any, np.dtype[np.float32]], piece_s: float = 0.1) -> list[str]:
    """The sound as OpenAI's clients send it; 16 kHz -> 24 kHz by repeating and leaving out, crude and the same always."""
    return [encode(piece) for piece in cut(to_pcm(np.repeat(sound, 3)[::2]), 2 * round(24_000 * piece_s))]


def check_types(events: list[Event]) -> None:
    """Every event is, strictly, the client's own class for its type; no event id comes twice."""
    for event in events:
        CLASSES[event["type"]].model_validate(event)
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A service that hears ``merhaba dünya`` in every sound."""
    hear_levels(monkeypatch)
    with TestClient(create_app(fake_recognizer("merhaba dünya"), Settings())) as client:
        yield client


def append(socket: WebSocketTestSession, *sounds: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    for piece in cut_24k(np.concatenate(sounds)):
        socket.send_json({"type": "input_audio_buffer.append", "audio": piece})


def test_every_event_is_the_clients_own_and_in_its_order(fake: TestClient) -> None:
    with fake.websocket_connect("/v1/realtime?intent=transcription") as socket:
        update = {"type": "transcription", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
        socket.send_json({"type": "session.update", "session": update})
        append(socket, rest(0.5), TONE, rest(1.0), TONE, rest(1.0))
        events = [event for _ in range(2) for event in receive_until(socket, COMPLETED)]
    check_types(events)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["session.created", "session.updated"]
    for at, item in enumerate(dict.fromkeys(event["item_id"] for event in events if "item_id" in event)):
        own = [event for event in events if event.get("item_id") == item]
        assert [event["type"] for event in own if event["type"] != DELTA] == [STARTED, STOPPED, COMMITTED, COMPLETED]
        assert "".join(event["delta"] for event in own if event["type"] == DELTA) == own[-1]["transcript"]
        assert own[-1]["transcript"] == "merhaba dünya"
        assert own[0]["audio_start_ms"] < next(event for event in own if event["type"] == STOPPED)["audio_end_ms"]
        start_ms = [500, 2900][at]  # first after digital silence, which is no padding
        assert own[0]["audio_start_ms"] == pytest.approx(start_ms, abs=64)
        committed = next(event for event in own if event["type"] == COMMITTED)
        assert (committed["previous_item_id"] is None) == (at == 0)


def test_an_older_client_gets_the_older_session(fake: TestClient) -> None:
    with fake.websocket_connect("/v1/realtime") as socket:
        wanted = {
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "whisper-1", "language": "tr"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300, "threshold": 0.5},
        }
        socket.send_json({"type": "transcription_session.update", "session": wanted})
        updated = receive_until(socket, "transcription_session.updated")[-1]
        session = updated["session"] | {"client_secret": {"value": "", "expires_at": 0}}  # only ever there over REST
        TranscriptionSessionUpdatedEvent.model_validate(updated | {"session": session})
        assert session["input_audio_format"] == "g711_ulaw"
        assert session["turn_detection"]["silence_duration_ms"] == 300
        sound = bytes([0x80] * 8000 + [0xFF] * 4000)  # a second of the loudest code, half a second of silence
        socket.send_json({"type": "input_audio_buffer.append", "audio": encode(sound)})
        events = receive_until(socket, COMPLETED)
    check_types(events)
    assert events[-1]["usage"]["seconds"] == pytest.approx(1.2, abs=0.1)


def test_an_update_changes_what_it_names_and_keeps_the_rest(fake: TestClient) -> None:
    with fake.websocket_connect("/v1/realtime?model=fake") as socket:
        socket.receive_json()
        for wanted in (
            {"format": {"type": "audio/pcma"}},
            {"turn_detection": {"type": "semantic_vad"}},
            {"transcription": {"language": "tr"}},
            {"turn_detection": None},
        ):
            socket.send_json({"type": "session.update", "session": {"audio": {"input": wanted}}})
            session = socket.receive_json()["session"]["audio"]["input"]
    assert session == {
        "format": {"type": "audio/pcma"},
        "transcription": {"model": "fake", "language": "tr"},
        "turn_detection": None,
        "noise_reduction": None,
    }


def test_without_turns_an_item_is_what_lies_between_two_commits(fake: TestClient) -> None:
    with fake.websocket_connect("/v1/realtime") as socket:
        socket.send_json({"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}})
        append(socket, TONE, rest(1.0), TONE)
        socket.send_json({"type": "input_audio_buffer.commit"})
        first = receive_until(socket, COMPLETED)
        append(socket, rest(1.0))
        socket.send_json({"type": "input_audio_buffer.commit"})
        second = receive_until(socket, COMPLETED)
    check_types([*first, *second])
    assert {event["type"] for event in first[2:-2]} == {DELTA}
    assert [event["type"] for event in first[-2:]] == [COMMITTED, COMPLETED]
    assert first[-1]["transcript"] == "merhaba dünya merhaba dünya"
    assert "".join(event["delta"] for event in first if event["type"] == DELTA) == first[-1]["transcript"]
    assert first[-1]["usage"]["seconds"] == pytest.approx(3.6, abs=0.2)
    assert [event["type"] for event in second] == [COMMITTED, COMPLETED]
    assert second[-1]["transcript"] == ""
    assert second[0]["previous_item_id"] == first[-1]["item_id"] != second[0]["item_id"]


def test_a_commit_with_turns_ends_the_open_speech_and_is_refused_where_there_is_none(fake: TestClient) -> None:
    with fake.websocket_connect("/v1/realtime") as socket:
        append(socket, TONE)
        socket.send_json({"type": "input_audio_buffer.commit", "event_id": "mine"})
        assert receive_until(socket, COMPLETED)[-1]["transcript"] == "merhaba dünya"
        socket.send_json({"type": "input_audio_buffer.commit"})
        refused = socket.receive_json()
    check_types([refused])
    assert refused["error"]["code"] == "input_audio_buffer_commit_empty"


def test_after_a_clear_nothing_is_left_and_no_item_comes_again(fake: TestClient) -> None:
    with fake.websocket_connect("/v1/realtime") as socket:
        append(socket, TONE)
        socket.send_json({"type": "input_audio_buffer.clear"})
        before = receive_until(socket, CLEARED)
        append(socket, rest(0.8), TONE, rest(1.0))
        after = receive_until(socket, COMPLETED)
    check_types([*before, *after])
    assert COMPLETED not in [event["type"] for event in before]
    items = [{event["item_id"] for event in events if "item_id" in event} for events in (before, after)]
    assert [len(one) for one in items] == [1, 1]
    assert not items[0] & items[1]
    assert after[0]["audio_start_ms"] == pytest.approx(1600 + 800 - 224, abs=64)  # of all sound, also the cleared


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "protocol"),
        ("[]", "protocol"),
        (b"\0\0", "protocol"),
        ('{"type": "response.create", "event_id": "e1"}', "value_refused"),
        ('{"type": "session.update"}', "value_refused"),
        ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "value_refused"),
        ('{"type": "input_audio_buffer.append", "audio": "çağ"}', "value_refused"),
        ('{"type": "session.update", "session": {"audio": {"input": {"format": {"rate": 11025}}}}}', "protocol"),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "x"}}}}}',
            "model_not_found",
        ),
        (
            '{"type": "session.update", "session": {"audio": {"input": {"transcription": {"language": "de"}}}}}',
            "value_refused",
        ),
    ],
)
def test_what_cannot_be_followed_is_an_error_and_the_stream_goes_on(
    fake: TestClient, message: str | bytes, code: str
) -> None:
    with fake.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        for at in range(2):  # before the first sound and after it
            socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(message)
            refused = receive_until(socket, "error")[-1]
            check_types([refused])
            assert at or refused["error"]["code"] == code
            assert refused["error"]["event_id"] == ("e1" if "e1" in str(message) else None)
            append(socket, TONE, rest(1.0))
            assert receive_until(socket, COMPLETED)[-1]["transcript"] == "merhaba dünya"


def test_a_model_of_the_address_that_there_is_not_ends_the_stream(fake: TestClient) -> None:
    with fake.websocket_connect("/v1/realtime?model=gpt-9") as socket:
        append(socket, TONE)
        error = receive_until(socket, "error")[-1]
        assert error["error"]["code"] == "model_not_found"
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1008


def test_deltas_that_the_final_contradicts_are_not_told_again() -> None:
    item = OpenItem(0)
    assert item.take_delta(["bir"]) == "bir"
    assert item.take_delta(["bir"]) == ""
    assert item.take_delta(["bir", "iki"]) == " iki"
    assert item.take_delta(["bar", "iki", "üç"]) == ""
    item.end_part(["bar", "iki", "üç"], 1.0)
    assert item.take_delta(["dört"]) == " dört"
    assert (item.words, item.seconds) == (["bar", "iki", "üç"], 1.0)


async def listen(client: openai.AsyncOpenAI, sound: list[str], items: int) -> AsyncIterator[Any]:
    """What OpenAI's client makes of the answers, up to so many items."""
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        turns = {"type": "server_vad", "silence_duration_ms": 500}
        form = {"type": "audio/pcm", "rate": 24_000}
        chosen = {"model": "gpt-4o-transcribe", "language": "tr"}
        audio: Any = {"input": {"format": form, "transcription": chosen, "turn_detection": turns}}
        await connection.session.update(session={"type": "transcription", "audio": audio})
        for piece in sound:
            await connection.input_audio_buffer.append(audio=piece)
        await connection.input_audio_buffer.commit()
        async for event in connection:
            yield event
            items -= event.type == COMPLETED
            if not items:
                return


def test_the_real_client_hears_what_the_stream_law_says() -> None:
    recognizer = dinle.load(CTC_BUNDLE, threads=1)
    speech = np.concatenate([decode_audio(ROOT / "samples" / "sample.wav"), rest(1.0)])
    pieces = cut_24k(np.concatenate([speech, speech[: 16_000 * 7]]))
    decoder = PcmDecoder(24_000)
    heard = [block for piece in pieces for block in decoder.push(base64.b64decode(piece))]
    expected = write_offline(recognizer, np.concatenate(heard))

    async def collect(port: int) -> list[Any]:
        url = f"127.0.0.1:{port}/v1"
        async with openai.AsyncOpenAI(
            base_url=f"http://{url}", websocket_base_url=f"ws://{url}", api_key=KEY
        ) as client:
            return [event async for event in listen(client, pieces, len(expected))]

    with serve_in_thread(create_app(recognizer, Settings(api_keys=KEY))) as port:  # type: ignore[arg-type]
        events = asyncio.run(collect(port))
    assert {type(event) for event in events} == {
        CLASSES[kind] for kind in ("session.created", "session.updated", STARTED, DELTA, STOPPED, COMMITTED, COMPLETED)
    }
    check_types([event.to_dict() for event in events])
    assert events[1].session.audio.input.format.rate == 24_000
    assert [event.transcript for event in events if event.type == COMPLETED] == expected
    assert len(expected) >= 2
