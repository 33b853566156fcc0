"""The parts of a live stream alone: what waits to be heard, what is heard, what is sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from starlette.websockets import WebSocketDisconnect

from dinle.errors import AudioDecodeError
from dinle.recognize.live_audio import PcmDecoder
from dinle.recognize.stream import Final, SpeechStarted
from dinle.serve import live
from dinle.serve.live import Ear, Inbox, Part, Setup
from tests.fakes import fake_recognizer, make_tone
from tests.recognize.writers import rest
from tests.serve.live_clients import cut_pcm, hear_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEECH = make_tone(1.5) + 0.6


class BreakingDecoder:
    """Two and a half seconds of sound, then an error."""

    def __init__(self) -> None:
        self.pushed = 0

    def push(self, data: bytes) -> list[NDArray[np.float32]]:
        self.pushed += 1
        if self.pushed > 1:
            raise AudioDecodeError("broken")
        return [np.concatenate([SPEECH, rest(1.0)])]

    def finish(self) -> list[NDArray[np.float32]]:
        return []

    def close(self) -> None:
        pass


def test_what_was_heard_before_the_sound_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hear_levels(monkeypatch)
    ear = Ear(fake_recognizer(), Setup(BreakingDecoder, None, 0.5))
    told: list[object] = []
    with pytest.raises(AudioDecodeError, match="broken"):
        told.extend(ear.hear([Part(bytes(3 * live.PIECE_BYTES), 0.0)]))  # extend keeps what came before an error
    assert [type(one[0]) for one in told if isinstance(one, tuple)] == [SpeechStarted, Final]


def test_what_waits_to_be_heard_is_bounded() -> None:
    async def fill(item: bytes) -> tuple[int, int]:
        inbox, put = Inbox(), 0

        async def pour() -> None:
            nonlocal put
            while True:
                await inbox.put(item)
                put += 1

        task = asyncio.create_task(pour())
        await asyncio.sleep(0.3)
        first = put
        taken = await inbox.take()
        await asyncio.sleep(0.05)
        task.cancel()
        assert isinstance(taken, list)
        return first, len(taken)

    for item in (b"", bytes(3_200), bytes(4_000_000)):
        put, taken = asyncio.run(fill(item))
        assert put == taken
        assert put * (len(item) + live.ITEM_BYTES) < live.MAX_AHEAD_BYTES + len(item) + live.ITEM_BYTES


def test_sound_and_commands_keep_their_order() -> None:
    async def run() -> list[Any]:
        inbox = Inbox()
        for item in (b"a", b"b", "commit", b"", b"c", "clear", "stop"):
            await inbox.put(item)
        taken = [await inbox.take() for _ in range(5)]
        return [item if isinstance(item, str) else [part.data for part in item] for item in taken]

    assert asyncio.run(run()) == [[b"a", b"b"], "commit", [b"", b"c"], "clear", "stop"]


def test_a_client_that_does_not_read_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SEND_S", 0.05)

    class Deaf:
        async def send_text(self, text: str) -> None:
            await asyncio.sleep(10)

    class Closed:
        async def send_text(self, text: str) -> None:
            raise RuntimeError('Cannot call "send" once a close message has been sent.')

    for socket in (Deaf(), Closed()):
        with pytest.raises(WebSocketDisconnect):
            asyncio.run(live.send_text(socket, "{}"))  # type: ignore[arg-type]


def test_a_final_knows_when_its_last_word_came(monkeypatch: pytest.MonkeyPatch) -> None:
    hear_levels(monkeypatch)
    ear = Ear(fake_recognizer("merhaba"), Setup(lambda: PcmDecoder(16_000), None, 0.5))
    pieces = cut_pcm(np.concatenate([rest(1.0), SPEECH, rest(1.0)]))
    parts = [Part(piece, came_at=100 + 0.1 * number) for number, piece in enumerate(pieces, start=1)]
    told = [one for at in range(0, len(parts), 3) for one in ear.hear(parts[at : at + 3]) if one is not None]
    ((final, came_at),) = [(event, came_at) for event, came_at in told if isinstance(event, Final)]
    assert came_at - 100 == pytest.approx(final.words[-1].end_s, abs=0.1)
    assert came_at - 100 - final.words[-1].end_s >= 0  # not before it was whole


def test_after_a_clear_all_is_as_in_a_new_stream_but_for_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    hear_levels(monkeypatch)
    parts = [Part(piece, 0.0) for piece in cut_pcm(np.concatenate([SPEECH, rest(1.0), SPEECH]))]
    setup = Setup(lambda: PcmDecoder(16_000), None, 0.5)
    alone, cleared = Ear(fake_recognizer(), setup), Ear(fake_recognizer(), setup)
    list(cleared.hear(parts[:30]))  # the first is final, the second open
    assert not list(cleared.obey("clear"))
    one, other = (
        [event for told in (*ear.hear(parts), *ear.obey("stop")) if told for event in told[:1]]
        for ear in (alone, cleared)
    )
    shift = one[0].segment - other[0].segment
    assert shift == -2
    assert [live.shift_event(event, -shift, 3.0) for event in one] == other
