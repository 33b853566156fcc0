from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.serve.app import create_app
from dinle.serve.batching import Batch, BatchingEngine, BatchRules
from dinle.serve.settings import read_settings
from tests.graphs import FRAME_SAMPLES, spell_levels, write_level_bundle
from tests.serve.servers import serve_in_thread, wait_for
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SECOND = 16_000
Result = tuple[np.ndarray, np.ndarray]


@dataclass
class RowEngine:
    """Log-probabilities (B, T, 2): each frame's first sample and its square, whatever is beside a row and behind its end.

    Negative samples are broken, ``gate`` holds runs, ``shapes`` and ``inputs`` keep what came.
    """

    error: BaseException = field(default_factory=lambda: RuntimeError("broken"))
    shapes: list[tuple[int, int]] = field(default_factory=list)
    inputs: list[object] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.shapes.append((waveforms.shape[0], waveforms.shape[1]))
        self.inputs.append(waveforms)
        assert self.gate.wait(10)
        for row, length in zip(waveforms, lengths, strict=True):
            assert not row[length:].any(), "padding must be silent"
        if waveforms.min() < 0:
            raise self.error
        frames = np.maximum(1, lengths // FRAME_SAMPLES)
        first = waveforms[:, ::FRAME_SAMPLES][:, : frames.max()]
        return np.stack([first, first**2], axis=-1), frames


def make_row(length: int, seed: int = 0, *, broken: bool = False) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).uniform(0.1, 1, length).astype(np.float32)
    return -row if broken else row


def run_one(engine: BatchingEngine | RowEngine, row: NDArray[np.float32]) -> Result:
    return engine.run(row[np.newaxis], np.array([len(row)], dtype=np.int64))


def run_together(engine: BatchingEngine, rows: list[NDArray[np.float32]]) -> list[Result | BaseException]:
    """Run each row in a thread of its own, all at once."""
    start = threading.Barrier(len(rows))

    def ask(row: NDArray[np.float32]) -> Result | BaseException:
        start.wait()
        try:
            return run_one(engine, row)
        except BaseException as error:  # noqa: BLE001 - what came is looked at by the test
            return error

    with ThreadPoolExecutor(len(rows)) as pool:
        return list(pool.map(ask, rows, timeout=20))


def assert_alone(row: NDArray[np.float32], result: Result | BaseException) -> None:
    """The result is what the engine gives for the row alone."""
    assert not isinstance(result, BaseException), result
    log_probs, frames = run_one(RowEngine(), row)
    np.testing.assert_array_equal(result[0], log_probs)
    np.testing.assert_array_equal(result[1], frames)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 3 * SECOND), min_size=1, max_size=12),
    size=st.integers(2, 8),
    seconds=st.sampled_from([0.5, 2.0, 6.0, 60.0]),
    wait_s=st.sampled_from([0.0, 0.005]),
    runs=st.integers(1, 3),
)
def test_every_row_gets_what_the_engine_gives_it_alone(
    lengths: list[int], size: int, seconds: float, wait_s: float, runs: int
) -> None:
    inner = RowEngine()
    rows = [make_row(length, seed) for seed, length in enumerate(lengths)]
    results = run_together(BatchingEngine(inner, BatchRules(size, seconds, wait_s, runs)), rows)
    for row, result in zip(rows, results, strict=True):
        assert_alone(row, result)
    assert sum(count for count, _ in inner.shapes) == len(rows)
    for count, samples in inner.shapes:
        assert count <= size
        assert count == 1 or count * samples <= seconds * SECOND


def test_rows_that_come_together_share_a_run() -> None:
    inner = RowEngine()
    rows = [make_row(SECOND, seed) for seed in range(4)]
    results = run_together(BatchingEngine(inner, BatchRules(size=4, wait_s=5.0)), rows)
    assert inner.shapes == [(4, SECOND)]  # at once: a full batch does not wait
    for row, result in zip(rows, results, strict=True):
        assert_alone(row, result)


def test_the_window_opens_with_the_first_row_and_is_not_prolonged() -> None:
    inner = RowEngine()
    engine = BatchingEngine(inner, BatchRules(size=10, wait_s=0.4))
    ended: list[float] = []
    started = time.perf_counter()

    def ask(after_s: float) -> None:
        time.sleep(after_s)
        run_one(engine, make_row(SECOND))
        ended.append(time.perf_counter() - started)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, (0.0, 0.1, 0.25)))
    assert inner.shapes == [(3, SECOND)]
    assert 0.4 <= min(ended) <= max(ended) < 0.6  # the last did not begin to count anew


def test_a_batch_stays_open_while_the_engine_is_busy() -> None:
    inner = RowEngine()
    engine = BatchingEngine(inner, BatchRules(size=8, wait_s=0.0))
    inner.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(run_one, engine, make_row(SECOND))
        wait_for(lambda: len(inner.shapes) == 1, timeout_s=5)
        later = [pool.submit(run_one, engine, make_row(SECOND, seed)) for seed in (1, 2, 3)]
        wait_for(lambda: engine._open is not None and len(engine._open.rows) == 3, timeout_s=5)
        inner.gate.set()
        first.result(5)
        for seed, future in enumerate(later, start=1):
            assert_alone(make_row(SECOND, seed), future.result(5))
    assert inner.shapes == [(1, SECOND), (3, SECOND)]


def test_a_row_that_fits_no_more_opens_the_next_batch() -> None:
    batch = Batch([make_row(SECOND)])
    rules = BatchRules(size=3, seconds=4.0)
    assert batch.fits(2 * SECOND, rules)  # two rows of 2 s
    assert not batch.fits(2 * SECOND + 1, rules)
    batch.rows.append(make_row(SECOND))
    assert not batch.fits(2 * SECOND, rules)  # three of 2 s
    assert batch.fits(SECOND, rules)
    batch.rows.append(make_row(SECOND))
    assert not batch.fits(1, rules)
    assert Batch().fits(3600 * SECOND, rules)  # alone, whatever its length


@pytest.mark.parametrize("broken", [{1}, {0, 3}, {0, 1, 2, 3}])
def test_a_row_that_fails_fails_alone(broken: set[int]) -> None:
    inner = RowEngine()
    engine = BatchingEngine(inner, BatchRules(size=4, wait_s=5.0))
    rows = [make_row(SECOND, seed, broken=seed in broken) for seed in range(4)]
    for at, result in enumerate(run_together(engine, rows)):
        if at in broken:
            assert isinstance(result, RuntimeError)
            assert str(result) == "broken"
        else:
            assert_alone(rows[at], result)
    assert sorted(count for count, _ in inner.shapes) == [1, 1, 1, 1, 4]


@pytest.mark.parametrize("error", [MemoryError("full"), SystemExit(3)])
def test_nobody_waits_for_ever_when_the_leader_dies(error: BaseException) -> None:
    inner = RowEngine(error=error)
    engine = BatchingEngine(inner, BatchRules(size=3, wait_s=5.0))
    results = run_together(engine, [make_row(SECOND, broken=True)] * 3)
    assert all(isinstance(result, BaseException) for result in results)
    if isinstance(error, SystemExit):  # raised where it was, told to the others
        assert sorted(type(result).__name__ for result in results) == ["RuntimeError", "RuntimeError", "SystemExit"]
        assert any("ended by SystemExit(3)" in str(result) for result in results)
    rows = [make_row(SECOND, seed) for seed in range(3)]
    for row, result in zip(rows, run_together(engine, rows), strict=True):  # and the next ones are served
        assert_alone(row, result)


@pytest.mark.parametrize(("size", "rows"), [(1, 1), (1, 3), (4, 3)])
def test_without_batches_or_with_ones_own_the_engine_is_called_as_it_is(size: int, rows: int) -> None:
    inner = RowEngine()
    waveforms = np.stack([make_row(SECOND, seed) for seed in range(rows)])
    BatchingEngine(inner, BatchRules(size, wait_s=1.0)).run(waveforms, np.full(rows, SECOND))
    assert len(inner.inputs) == 1
    assert inner.inputs[0] is waveforms


def test_every_run_is_counted_with_its_padding() -> None:
    runs: list[tuple[int, float]] = []

    class Meter:
        def observe_batch(self, rows: int, seconds: float) -> None:
            runs.append((rows, seconds))

    engine = BatchingEngine(RowEngine(), BatchRules(size=2, wait_s=5.0), Meter())
    run_together(engine, [make_row(SECOND), make_row(3 * SECOND)])
    assert runs == [(2, 6.0)]


def test_a_service_with_batches_gives_everybody_their_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_level_bundle(tmp_path / "levels")
    given_env = {"MODEL_DIR": str(tmp_path / "levels"), "BATCH_SIZE": "4", "BATCH_WAIT_S": "0.2", "WORKERS": "1"}
    for name, value in given_env.items():
        monkeypatch.setenv(f"ASR_{name}", value)
    texts = [f"{word} {other}" for word in ("bir", "iki", "üç", "dört") for other in ("elma", "armut", "kiraz")]
    with serve_in_thread(create_app(settings=read_settings())) as port:
        ask = make_asker(f"http://127.0.0.1:{port}/transcribe")
        with ThreadPoolExecutor(len(texts)) as pool:
            answers = list(pool.map(ask, texts))
        metrics = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    assert answers == texts
    count, rows = (read_number(metrics, f"dinle_batch_size_{name}") for name in ("count", "sum"))
    assert rows == len(texts) + 1  # and the warm-up
    assert count < rows / 1.5


def make_asker(url: str) -> Callable[[str], str]:
    def ask(text: str) -> str:
        answer = httpx2.post(url, files={"file": ("a.wav", encode_wav(spell_levels(text)))}, timeout=30)
        return str(answer.json()["text"])

    return ask


def read_number(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    assert found, metrics
    return float(found[1])
