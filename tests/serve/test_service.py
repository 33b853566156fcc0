"""A recording as a job in steps: decoded whole before it is heard, in flat memory, and to the recogniser's own text."""

from __future__ import annotations

import io
import json
import time
import tracemalloc
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from starlette.testclient import TestClient

from dinle.errors import AudioDecodeError, AudioError, AudioLimitError, EmptyAudioError
from dinle.recognize.audio import NO_LIMITS, AudioLimits
from dinle.recognize.load import load
from dinle.serve import service
from dinle.serve.app import create_app
from dinle.serve.service import HOLD_S, transcribe_steps
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.graphs import spell_levels, write_level_bundle
from tests.recognize.hostile_sounds import make_flac_silence
from tests.sounds import encode_lossy, encode_wav

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.recognize.recognizer import Piece, Recognizer
    from dinle.recognize.transcript import Transcript
    from tests.fakes import FakeEngine

POEM = "dinle beni ey hayat "


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    folder = tmp_path_factory.mktemp("levels")
    write_level_bundle(folder)
    return load(folder, threads=1)


def run_steps(
    recognizer: Recognizer, data: bytes, limits: AudioLimits = NO_LIMITS
) -> tuple[Transcript, list[Piece | None]]:
    steps = transcribe_steps(recognizer, io.BytesIO(data), limits)
    yielded: list[Piece | None] = []
    while True:
        try:
            yielded.append(next(steps))
        except StopIteration as end:
            return end.value, yielded


@pytest.mark.parametrize("times", [1, 10, 30], ids=["short", "held", "read twice"])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_the_text_is_the_recognisers_own(levels: Recognizer, times: int, rate_hz: int) -> None:
    samples = spell_levels((POEM * times).strip())
    data = encode_wav(np.repeat(samples, rate_hz // 16_000), rate_hz)
    assert (len(samples) / 16_000 > HOLD_S) == (times == 30)
    expected = levels.transcribe(data)
    transcript, yielded = run_steps(levels, data)
    assert transcript.text == expected.text
    assert transcript.words == expected.words
    assert (transcript.duration_s, transcript.model) == (expected.duration_s, expected.model)
    if rate_hz == 16_000:
        assert transcript.text == (POEM * times).strip()
    first_piece = next(at for at, item in enumerate(yielded) if item is not None)
    assert None not in yielded[first_piece:]  # decoded to the end, then heard
    assert [word for piece in yielded[first_piece:] if piece for word in piece.words] == list(expected.words)


def test_a_long_recording_takes_flat_memory() -> None:
    peaks = [trace_peak(encode_wav(make_tone(60.0 * minutes))) for minutes in (2, 10)]
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 12_000_000  # ten minutes in float32 are 38 MB; a minute is held at most


def trace_peak(data: bytes) -> int:
    recognizer, file = fake_recognizer(), io.BytesIO(data)
    tracemalloc.start()
    try:
        for _ in transcribe_steps(recognizer, file, NO_LIMITS):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


NOISE = np.random.default_rng(0).normal(0, 0.2, 16_000 * 90).astype(np.float32)


def make_damaged(seconds: float) -> bytes:
    """An MP3 whose last three quarters are noise."""
    data = bytearray(encode_lossy(np.tile(make_tone(1.0), round(3 * seconds)), "mp3"))
    quarter = len(data) // 4
    data[quarter:] = np.random.default_rng(1).integers(0, 256, len(data) - quarter, dtype=np.uint8).tobytes()
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyAudioError),
        (b"metin " * 100, AudioDecodeError),
        (encode_wav(make_tone(130.0)), AudioLimitError),
        (make_flac_silence(20 * 3600, declare=False), AudioLimitError),
        (make_damaged(20), AudioError),
        (make_damaged(100), AudioError),
    ],
    ids=["empty", "text", "too long", "20 hours, not declared", "damaged", "long and damaged"],
)
def test_what_is_refused_costs_no_inference(data: bytes, error: type[AudioError]) -> None:
    recognizer = fake_recognizer()
    with pytest.raises(error):
        run_steps(recognizer, data, AudioLimits(max_seconds=120))
    assert cast("FakeEngine", recognizer.engine).batches == []


def test_no_step_of_decoding_is_long() -> None:
    """Others get their turn between two steps, also while hours are judged."""
    file = io.BytesIO(make_flac_silence(20 * 3600, declare=False))
    slowest, since, count = 0.0, time.perf_counter(), 0
    started = since
    for item in transcribe_steps(fake_recognizer(), file, NO_LIMITS):
        now = time.perf_counter()
        slowest, since, count = max(slowest, now - since), now, count + 1
        if item is not None:
            break
    assert time.perf_counter() - started > 2 * slowest
    assert slowest < 0.4
    assert count > 10


def test_who_leaves_ends_the_work_and_closes_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HOLD_S", 1.0)
    recognizer = fake_recognizer()
    steps = transcribe_steps(recognizer, io.BytesIO(encode_wav(NOISE)), NO_LIMITS)
    pieces = 0
    for item in steps:
        pieces += item not in (None, service.BEGUN)
        if pieces == 2:
            break
    steps.close()
    assert len(cast("FakeEngine", recognizer.engine).batches) == 2


def test_a_long_recording_is_streamed_to_its_end(tmp_path: Path) -> None:
    """The upload stays open while events leave: a recording of more than a minute is read from it until then."""
    write_level_bundle(tmp_path)
    audio = encode_wav(spell_levels((POEM * 60).strip()))
    with TestClient(create_app(settings=Settings(model_dir=str(tmp_path), threads=1))) as client:
        answer = client.post("/v1/audio/transcriptions", data={"stream": "true"}, files={"file": audio})
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert len(events) > 8
    assert events[-1]["text"] == "".join(event["delta"] for event in events[:-1]) == (POEM * 60).strip()
