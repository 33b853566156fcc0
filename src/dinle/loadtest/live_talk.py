"""One live stream in real time over ``WS /stream``, and what its listener would notice.

A piece leaves when its last sample has been spoken, as from a microphone. A final's time counts from the moment at which the
last loud sample of its sentence was spoken, so that a client that falls behind cannot make the service look better.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import websocket

from dinle.loadtest.stages import BYTES_PER_S, PAUSE_S, PIECE_S, LiveScript, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dinle.loadtest.texts import TextCheck

OK, BUSY = 200, 503  # of HTTP, for rows; a socket has no status of its own after the handshake
BUSY_CODE = "streams_busy"
SLACK_S = 0.05  # a segment may end so long before the last loud sample: it is cut in chunks
_CLOSE_S = 1


@dataclass(frozen=True)
class Heard:
    """A final: when it came, where its segment ends in the sound, what it says."""

    at_s: float
    end_s: float
    text: str


@dataclass
class Talk:
    """What became of a stream.

    Attributes:
        began_s: when its sound began, on the stage's clock.
        sent_s: when each piece had been sent.
        finals: in their order.
        status: 200, or why the stream was refused (``None``: no connection).
        error: what went wrong.
        ended_s: when all was over.
    """

    began_s: float = 0.0
    sent_s: list[float] = field(default_factory=list)
    finals: list[Heard] = field(default_factory=list)
    status: int | None = None
    error: str | None = None
    ended_s: float = 0.0


def talk(url: str, script: LiveScript, *, until_s: float, now: Callable[[], float], timeout_s: float) -> Talk:
    """Speak a script until a time of the stage, then stop and hear what is left.

    Args:
        url: base URL of the service, ``http://host:port``.
        script: what is said; where it is shorter, the stream ends with it.
        until_s: when no more is sent, on the stage's clock.
        now: that clock.
        timeout_s: seconds of silence after which the stream has failed.
    """
    heard = Talk(began_s=now())
    try:
        socket = websocket.create_connection(f"ws{url.removeprefix('http')}/stream", timeout=timeout_s)
        try:
            _converse(socket, script, heard, until_s, now)
        finally:
            socket.close(timeout=_CLOSE_S)
    except websocket.WebSocketBadStatusException as error:
        heard.status = error.status_code
    except (TimeoutError, websocket.WebSocketTimeoutException):
        heard.error = "timeout"
    except (OSError, ValueError, websocket.WebSocketException):
        heard.error = "connection"
    heard.ended_s = now()
    return heard


def _converse(
    socket: websocket.WebSocket, script: LiveScript, heard: Talk, until_s: float, now: Callable[[], float]
) -> None:
    socket.send("{}")
    _note(heard, json.loads(socket.recv()), now())
    if heard.status != OK:
        return
    heard.began_s = now()
    over = threading.Event()
    kept = {"until_s": until_s, "now": now, "over": over}
    speaker = threading.Thread(target=_speak, args=(socket, script, heard), kwargs=kept)
    speaker.start()
    try:
        while message := socket.recv():
            event = json.loads(message)
            _note(heard, event, now())
            if event["type"] in {"done", "error"}:
                break
        else:
            heard.error = heard.error or "connection"  # closed before all was told
    finally:
        over.set()
        speaker.join()


def _note(heard: Talk, event: dict[str, Any], at_s: float) -> None:
    if event["type"] == "ready":
        heard.status = OK
    elif event["type"] == "final":
        heard.finals.append(Heard(at_s, float(event["end"]), str(event["text"])))
    elif event["type"] == "error" and event["code"] == BUSY_CODE:
        heard.status = BUSY
    elif event["type"] == "error":
        heard.error = str(event["code"])


def _speak(
    socket: websocket.WebSocket, script: LiveScript, heard: Talk, *, until_s: float, now: Callable[[], float],
    over: threading.Event,
) -> None:  # fmt: skip
    size = round(PIECE_S * BYTES_PER_S)
    try:
        for number, at in enumerate(range(0, len(script.sound), size)):
            due_s = heard.began_s + (number + 1) * PIECE_S
            if due_s > until_s or over.wait(max(0.0, due_s - now())):
                break
            socket.send_binary(script.sound[at : at + size])
            heard.sent_s.append(now())
        socket.send('{"type": "stop"}')
    except (OSError, websocket.WebSocketException):
        return  # the listener meets the same end


def list_rows(heard: Talk, script: LiveScript, check: TextCheck) -> Iterator[Row]:
    """A row for each sentence that was spoken with the pause after it; one row for a stream that was refused.

    A sentence belongs to the first final whose segment reaches its end. ``start_s`` is when its last loud sample was spoken,
    ``seconds`` from then to the final, ``late_s`` how late the piece with that sample was sent. ``same_text`` is about all
    finals since the sentence before. A sentence without a final has the stream's error, or ``no_final``.
    """
    if heard.status != OK:
        yield _make_row(script, heard.began_s, heard.ended_s, status=heard.status, error=heard.error)
        return
    spoken_s = len(heard.sent_s) * PIECE_S
    told, right = 0, True
    for start_s, end_s in script.places:
        if end_s + PAUSE_S > spoken_s:
            break
        due_s, piece = heard.began_s + end_s, int(end_s / PIECE_S)
        late_s = heard.sent_s[piece] - heard.began_s - (piece + 1) * PIECE_S
        number = find_final(heard.finals, end_s)
        if number is None:
            error = heard.error or "no_final"
            yield _make_row(script, due_s, heard.ended_s, late_s=late_s, audio_s=end_s - start_s, error=error)
            continue
        if number >= told:
            right = _check_finals(heard, script, range(told, number + 1), check)
            told = number + 1
        yield _make_row(
            script, due_s, heard.finals[number].at_s, late_s=late_s, audio_s=end_s - start_s, status=OK, same_text=right
        )


def _check_finals(heard: Talk, script: LiveScript, numbers: range, check: TextCheck) -> bool:
    """Whether these finals are right; every one is looked at, so that first ones are remembered."""
    right = [check.check_final(script.id, one, heard.finals[one].text, script.finals) for one in numbers]
    return all(right)


def find_final(finals: list[Heard], end_s: float) -> int | None:
    """Number of the first final whose segment reaches a place of the sound; None where there is none."""
    return next((number for number, one in enumerate(finals) if one.end_s > end_s - SLACK_S), None)


def _make_row(
    script: LiveScript, due_s: float, ended_s: float, *, late_s: float = 0.0, audio_s: float = 0.0,
    status: int | None = None, error: str | None = None, same_text: bool | None = None,
) -> Row:  # fmt: skip
    return {
        "kind": "live",
        "clip": script.id,
        "audio_s": round(audio_s, 3),
        "start_s": round(due_s, 6),
        "late_s": round(late_s, 6),
        "seconds": round(ended_s - due_s, 6),
        "status": status,
        "error": error,
        "same_text": same_text,
        "retry_after": None,
    }
