"""Locust's users: those who post clips, a process of arrivals, and those who speak live.

Locust lets gevent replace sockets and threads when it is imported, which is before all that uses them. Each user is made for
one :class:`Load`. What becomes of a request is fired as Locust's ``request`` event with the row as its context, so that
Locust's own statistics and ours see the same.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from locust.env import Environment
from locust.exception import StopUser
from locust.user.task import task
from locust.user.users import User
from locust.user.wait_time import between

from dinle.loadtest.live_talk import list_rows, talk
from dinle.loadtest.stages import Material, Stage, find_gap_s
from dinle.loadtest.texts import TextCheck
from dinle.measure.load import draw_clips, find_pause_s
from dinle.measure.load_client import OK, ROUTE, Client, LoadClip

if TYPE_CHECKING:
    from collections.abc import Callable

    from dinle.loadtest.stages import LiveScript, Row

_MS = 1000


@dataclass
class Load:
    """A stage under way, shared by its users.

    Attributes:
        url: base URL of the service.
        timeout_s: seconds of silence after which a request has failed.
        stage: what is to be done.
        material: the sound.
        check: compares texts.
        environment: Locust's.
    """

    url: str
    timeout_s: float
    stage: Stage
    material: Material
    check: TextCheck
    environment: Environment | None = None
    began: float = field(default_factory=time.perf_counter)

    def now(self) -> float:
        """Seconds since the stage began."""
        return time.perf_counter() - self.began

    def sleep_until(self, due_s: float) -> None:
        """Let the others work until a time of the stage."""
        time.sleep(max(0.0, due_s - self.now()))

    def list_clips(self) -> list[LoadClip]:
        """The stage's clips."""
        return [self.material.clips[name] for name in self.stage.sounds]

    def list_scripts(self) -> list[LiveScript]:
        """The stage's live scripts."""
        return [self.material.scripts[name] for name in self.stage.sounds]

    def post(self, client: Client, clip: LoadClip, due_s: float) -> Row:
        """Post a clip that was due at a time of the stage; fire and give its row (see :mod:`dinle.measure.load`)."""
        sent_s = self.now()
        answer = client.post(clip)
        ended_s = self.now()
        same = None if answer.text is None else self.check.check(clip.id, answer.text, clip.expected_text)
        row: Row = {
            "kind": "file",
            "clip": clip.id,
            "audio_s": round(clip.audio_s, 3),
            "start_s": round(due_s, 6),
            "late_s": round(sent_s - due_s, 6),
            "seconds": round(ended_s - due_s, 6),
            "status": answer.status,
            "error": answer.error,
            "same_text": same,
            "retry_after": answer.retry_after,
        }
        self.fire(row, "POST", ROUTE)
        return row

    def fire(self, row: Row, method: str, name: str) -> None:
        """Tell Locust what became of a request."""
        if self.environment is None:
            return
        fault = row["error"] or (None if row["status"] == OK else f"status {row['status']}")
        fault = fault or ("another text than expected" if row["same_text"] is False else None)
        request: Any = self.environment.events.request  # Locust's events have no types
        request.fire(
            request_type=method, name=name, response_time=_MS * row["seconds"], response_length=0, exception=fault,
            context=row,
        )  # fmt: skip


def make_once(load: Load) -> type[User]:
    """A user who posts every clip once, one after another."""

    class Once(User):
        """See above."""

        @task
        def post_all(self) -> None:
            """Post them, and leave."""
            client = Client(load.url, load.timeout_s)
            for clip in load.list_clips():
                load.post(client, clip, load.now())
            client.close()
            raise StopUser

    return Once


def make_poster(load: Load) -> type[User]:
    """A user of a closed loop: posts a clip, waits for the answer, thinks, posts the next."""
    numbers, stage = count(), load.stage

    class Poster(User):
        """See above."""

        wait_time = between(0.5 * stage.think_s, 1.5 * stage.think_s)

        def on_start(self) -> None:
            """Open a connection and shuffle the clips."""
            self._client = Client(load.url, load.timeout_s)
            self._draws = draw_clips(load.list_clips(), [stage.seed, next(numbers)])

        @task
        def post(self) -> None:
            """One clip; after a refusal the user waits as long as the service says."""
            time.sleep(find_pause_s(load.post(self._client, next(self._draws), load.now())))

        def on_stop(self) -> None:
            """Hang up."""
            self._client.close()

    return Poster


def make_arrivals(load: Load) -> type[User]:
    """One user who stands for many: a request is sent whenever one is due, whatever became of those before."""

    class Arrivals(User):
        """See above."""

        @task
        def arrive(self) -> None:
            """Send them all, wait for the last answer, and leave."""
            clients, draws, under_way = deque[Client](), draw_clips(load.list_clips(), load.stage.seed), []
            for due_s in load.stage.arrivals_s:
                load.sleep_until(due_s)
                one = threading.Thread(target=_post_with_any, args=(load, clients, next(draws), due_s))
                one.start()
                under_way.append(one)
            load.sleep_until(load.stage.seconds)
            for one in under_way:
                one.join()
            for client in clients:
                client.close()
            raise StopUser

    return Arrivals


def _post_with_any(load: Load, clients: deque[Client], clip: LoadClip, due_s: float) -> None:
    """Post with the client that rested the least, or a new one when all are taken."""
    client = clients.pop() if clients else Client(load.url, load.timeout_s)
    load.post(client, clip, due_s)
    clients.append(client)


def make_speaker(load: Load) -> type[User]:
    """A live user: speaks in real time until the stage ends."""
    numbers, scripts = count(), load.list_scripts()

    class Speaker(User):
        """See above."""

        @task
        def speak(self) -> None:
            """One stream, and leave."""
            number = next(numbers)
            script = scripts[number % len(scripts)]
            load.sleep_until(number * find_gap_s(load.stage.users))
            heard = talk(load.url, script, until_s=load.stage.seconds, now=load.now, timeout_s=load.timeout_s)
            for row in list_rows(heard, script, load.check):
                load.fire(row, "WS", "/stream")
            raise StopUser

    return Speaker


MAKERS: dict[str, Callable[[Load], type[User]]] = {
    "once": make_once,
    "users": make_poster,
    "arrivals": make_arrivals,
    "live": make_speaker,
}
