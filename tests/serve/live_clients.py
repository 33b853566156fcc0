"""Clients of live streams, sound in pieces for them, and a service whose streams hear levels instead of speech."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import websockets

from dinle.recognize.segments import Segment, cut_segments
from dinle.recognize.stream import LiveStream, StreamRules
from dinle.serve import live
from tests.fakes import take_no_notes
from tests.recognize.writers import LevelDetector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pytest
    from starlette.testclient import WebSocketTestSession

    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer

Event = dict[str, Any]
PIECE_S = 0.1


class LevelStream(LiveStream):
    """A live stream to which everything but silence is speech."""

    def __init__(self, recognizer: Recognizer, rules: StreamRules | None = None) -> None:
        super().__init__(recognizer, rules, detector=LevelDetector())


def hear_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service's streams take every sound for speech."""
    monkeypatch.setattr(live, "LiveStream", LevelStream)
    take_no_notes(monkeypatch)


def to_pcm(sound: Waveform) -> bytes:
    """(S,) as little-endian 16-bit samples."""
    return np.round(sound * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()


def round_to_pcm(sound: Waveform) -> Waveform:
    """The sound as 16 bits carry it."""
    return (np.frombuffer(to_pcm(sound), "<i2") / 2**15).astype(np.float32)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut_pcm(sound: Waveform, piece_s: float = PIECE_S, rate_hz: int = 16_000) -> list[bytes]:
    """16-bit samples in pieces of so many seconds."""
    return cut(to_pcm(sound), 2 * round(piece_s * rate_hz))


async def talk(
    url: str, pieces: Iterable[bytes], config: Mapping[str, object] | None = None, *, pace_s: float = 0.0
) -> list[tuple[float, Event]]:
    """Send pieces, one each ``pace_s`` seconds, and stop.

    Returns:
        All messages up to the close, and how many seconds after the first piece was due each came.
    """
    async with websockets.connect(url) as socket:
        await socket.send(json.dumps(config or {}))
        first = json.loads(await socket.recv())
        began = time.perf_counter()
        listener = asyncio.create_task(_listen(socket, began))
        for number, piece in enumerate(pieces):
            await asyncio.sleep(max(0.0, began + number * pace_s - time.perf_counter()))
            await socket.send(piece)
        await socket.send('{"type": "stop"}')
        return [(0.0, first), *await listener]


async def _listen(socket: websockets.ClientConnection, began: float) -> list[tuple[float, Event]]:
    return [(time.perf_counter() - began, json.loads(message)) async for message in socket]


def talk_now(url: str, pieces: Iterable[bytes], config: Mapping[str, object] | None = None) -> list[Event]:
    """The messages that answer pieces sent as fast as they are taken."""
    return [event for _, event in asyncio.run(talk(url, pieces, config))]


def receive_until(socket: WebSocketTestSession, kind: str) -> list[Event]:
    """The messages up to the first of this type."""
    events: list[Event] = []
    while not events or events[-1]["type"] != kind:
        events.append(socket.receive_json())
    return events


def find_texts(events: Iterable[Event], kind: str = "final") -> list[str]:
    return [event["text"] for event in events if event["type"] == kind]


def write_offline(
    recognizer: Recognizer, sound: Waveform, silence_s: float = 0.5, *, levels: bool = False
) -> list[str]:
    """What the finals of a live stream of this sound must say: the stream law."""
    rules = StreamRules(silence_s=silence_s).adapt(recognizer.segments)
    segments = cut_segments([sound], rules, detector=LevelDetector() if levels else None)
    return [spell(recognizer, segment) for segment in segments]


def spell(recognizer: Recognizer, segment: Segment) -> str:
    return " ".join(word.text for word in recognizer.recognize_segment(segment))


def check_plain_order(events: Sequence[Event]) -> None:
    """``ready``; for each segment, counted from 0, its start, its partials, its final; ``done``."""
    assert (events[0]["type"], events[-1]["type"]) == ("ready", "done")
    spoken = [event for event in events[1:-1] if event["type"] != "committed"]
    numbers = [event["segment"] for event in spoken]
    assert numbers == sorted(numbers)
    for number in range(max(numbers, default=-1) + 1):
        kinds = [event["type"] for event in spoken if event["segment"] == number]
        assert kinds == ["speech_started", *["partial"] * (len(kinds) - 2), "final"]
    committed: dict[int, str] = {}
    for event in spoken:
        if event["type"] == "partial":
            before = committed.get(event["segment"], "")
            assert event["text"].startswith(event["stable"])
            assert event["stable"].startswith(before)
            committed[event["segment"]] = event["stable"]
