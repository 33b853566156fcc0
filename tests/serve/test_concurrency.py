"""The whole application under several requests at once, in one event loop."""

from __future__ import annotations

import gc
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx2

from dinle.recognize.recognizer import CtcRecognizer
from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import FakeEngine, GateEngine, fake_recognizer, make_tone
from tests.graphs import spell_levels, write_level_bundle
from tests.recognize.hostile_sounds import make_flac_silence
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import numpy as np
    from fastapi import FastAPI
    from numpy.typing import NDArray

SPEECH = encode_wav(make_tone(1.0))


def make_gated(*, workers: int, max_queue: int) -> tuple[FastAPI, GateEngine]:
    engine = GateEngine()
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="gate", frame_shift_s=0.02)
    return create_app(recognizer, Settings(workers=workers, max_queue=max_queue)), engine


@asynccontextmanager
async def open_client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def wait_for(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in threads
            await anyio.sleep(0.005)


def test_the_event_loop_answers_while_inferences_run() -> None:
    app, engine = make_gated(workers=2, max_queue=0)

    async def main() -> None:
        async with open_client(app) as client, anyio.create_task_group() as group:
            engine.gate.clear()
            for _ in range(2):
                group.start_soon(post, client, SPEECH)
            await wait_for(lambda: len(engine.batches) == 3)  # the warm-up and both
            for _ in range(20):
                started = time.perf_counter()
                assert (await client.get("/healthz")).status_code == 200
                assert time.perf_counter() - started < 0.2
            engine.gate.set()

    anyio.run(main)


async def post(client: httpx2.AsyncClient, audio: bytes) -> httpx2.Response:
    return await client.post("/transcribe", files={"file": ("speech.wav", audio)})


def test_a_full_service_says_when_to_come_back() -> None:
    app, engine = make_gated(workers=1, max_queue=1)
    answers: list[int] = []

    async def main() -> None:
        async with open_client(app) as client:

            async def keep_answer() -> None:
                answers.append((await post(client, SPEECH)).status_code)

            async with anyio.create_task_group() as group:
                engine.gate.clear()
                group.start_soon(keep_answer)
                await wait_for(lambda: len(engine.batches) == 2)
                group.start_soon(keep_answer)
                await wait_for(lambda: app.state.service.scheduler.taken == 2)
                started = time.perf_counter()
                refused = await post(client, SPEECH)
                assert time.perf_counter() - started < 0.2
                assert (refused.status_code, refused.json()["code"]) == (503, "service_busy")
                assert 1 <= int(refused.headers["Retry-After"]) <= 60
                assert (await client.get("/healthz")).status_code == 200
                engine.gate.set()
            assert (await post(client, SPEECH)).status_code == 200

    anyio.run(main)
    assert answers == [200, 200]


def test_a_full_service_refuses_before_it_reads_the_upload() -> None:
    app, engine = make_gated(workers=1, max_queue=0)

    async def main() -> None:
        async with open_client(app) as client, anyio.create_task_group() as group:
            engine.gate.clear()
            group.start_soon(post, client, SPEECH)
            await wait_for(lambda: len(engine.batches) == 2)
            answered: list[dict[str, Any]] = []

            async def receive() -> dict[str, Any]:
                assert answered, "the body was read before the answer was sent"
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                answered.append(message)

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/transcribe",
                "query_string": b"",
                "headers": [(b"content-length", b"100000"), (b"content-type", b"multipart/form-data; boundary=x")],
            }
            await app(scope, receive, send)
            assert answered[0]["status"] == 503
            engine.gate.set()

    anyio.run(main)


def test_everybody_gets_the_text_of_their_own_recording(tmp_path: Path) -> None:
    write_level_bundle(tmp_path / "levels")
    app = create_app(settings=Settings(model_dir=str(tmp_path / "levels"), workers=3, max_queue=50, threads=1))
    texts = [
        f"{word} {other}" for word in ("bir", "iki", "üç", "dört") for other in ("elma", "armut", "çilek", "kiraz")
    ]
    answers: dict[str, str] = {}

    async def main() -> None:
        async with open_client(app) as client, anyio.create_task_group() as group:

            async def ask(text: str) -> None:
                answers[text] = (await post(client, encode_wav(spell_levels(text)))).json()["text"]

            for text in texts:
                group.start_soon(ask, text)

    anyio.run(main)
    assert answers == {text: text for text in texts}


def test_an_inference_that_fails_leaves_its_neighbours_alone() -> None:
    class PickyEngine(FakeEngine):
        def run(
            self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
        ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            if lengths.max() > 30_000:
                raise RuntimeError("out of memory")
            return super().run(waveforms, lengths)

    engine = PickyEngine(delay_s=0.02)
    recognizer = CtcRecognizer(engine, engine.vocabulary, name="picky", frame_shift_s=0.02)
    app = create_app(recognizer, Settings(workers=2, max_queue=20))
    answers: list[tuple[float, int]] = []

    async def main() -> None:
        async with open_client(app) as client, anyio.create_task_group() as group:

            async def ask(seconds: float) -> None:
                answers.append((seconds, (await post(client, encode_wav(make_tone(seconds)))).status_code))

            for seconds in (1.0, 2.0, 1.0, 1.0, 2.0, 1.0):
                group.start_soon(ask, seconds)

    anyio.run(main)
    assert sorted(answers) == [(1.0, 200)] * 4 + [(2.0, 500)] * 2


def test_a_short_recording_is_done_while_hours_are_judged() -> None:
    """One worker: what decodes for seconds gives way after each slice, as what recognises does."""
    app = create_app(fake_recognizer(), Settings(workers=1, max_queue=5, slice_s=0.05))
    hours = make_flac_silence(7_000, declare=False)
    ended: list[str] = []

    async def main() -> None:
        async with open_client(app) as client, anyio.create_task_group() as group:

            async def ask(name: str, audio: bytes) -> None:
                assert (await post(client, audio)).status_code == 200
                ended.append(name)

            group.start_soon(ask, "hours", hours)
            await wait_for(lambda: app.state.service.scheduler.running == 1)
            for number in range(3):
                started = time.perf_counter()
                await ask(f"short {number}", SPEECH)
                assert time.perf_counter() - started < 1.0

    anyio.run(main)
    assert ended == ["short 0", "short 1", "short 2", "hours"]


def test_the_collector_passes_over_what_lives_as_long_as_the_service() -> None:
    """A full collection stops every thread, the event loop's too; over all modules and routes it would take 20 to 70 ms."""
    app = create_app(fake_recognizer(), Settings())

    async def main() -> None:
        async with open_client(app) as client:
            assert gc.get_freeze_count() > 10_000
            assert app.openapi_schema is not None
            assert (await post(client, SPEECH)).status_code == 200

    anyio.run(main)
    assert gc.get_freeze_count() == 0
