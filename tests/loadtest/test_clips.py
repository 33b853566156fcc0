from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.errors import ManifestError, UsageError
from dinle.loadtest.clips import (
    LINGERS_S,
    LOUD,
    choose_runs,
    decode_pcm,
    encode_pcm,
    ends_clearly,
    find_places,
    make_clips,
    make_mix,
    make_pause,
    make_scripts,
    read_sources,
    write_finals,
)
from dinle.loadtest.stages import BYTES_PER_S, PAUSE_S
from dinle.manifest import Clip, write_manifest
from dinle.measure.service_clips import SILENCE_S, read_sound
from dinle.recognize.audio import SAMPLE_RATE_HZ, decode_audio
from dinle.recognize.segments import SegmentRules, cut_segments
from dinle.recognize.spans import CHUNK_S
from dinle.recognize.stream import StreamRules
from tests.fakes import fake_recognizer, make_tone, take_no_notes
from tests.loadtest.loud import LoudDetector
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path

MURMUR = LOUD * 0.8
LENGTHS_S = (1.0, 2.1, 4.0, 9.0, 3.4, 5.2, 3.0, 6.3, 3.7, 4.4, 5.6, 3.2, 4.9, 2.0, 6.1)


@pytest.fixture
def tones_are_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dinle.loadtest.clips", "dinle.recognize.segments"):
        monkeypatch.setattr(f"{module}.SpeechDetector", LoudDetector)
    take_no_notes(monkeypatch)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    clips = []
    for number, seconds in enumerate(LENGTHS_S):
        (folder / f"{number}.wav").write_bytes(encode_wav(make_tone(seconds)))
        clips.append(Clip(folder / f"{number}.wav", "merhaba", seconds))
    write_manifest(folder / "manifest.jsonl", clips)
    return read_sources(str(folder))


def test_the_mix_is_spread_from_2_to_60_seconds(sources: list[Clip]) -> None:
    clips = make_mix(sources, 6, seed=1)
    lengths_s = np.array([clip.audio_s for clip in clips])
    assert lengths_s == pytest.approx(np.geomspace(2, 60, 6), rel=0.3)
    assert np.all(np.diff(lengths_s) > 0)
    assert [clip.id.rpartition(".")[2] for clip in clips] == ["wav", "wav", "ogg"] * 2
    for clip in clips[:3]:
        assert len(decode_audio(read_sound(clip))) / SAMPLE_RATE_HZ == pytest.approx(clip.audio_s, abs=0.05)
    assert [clip.id for clip in make_mix(sources, 6, seed=1)] == [clip.id for clip in clips]


def test_clips_of_one_length_differ(sources: list[Clip]) -> None:
    clips = make_clips(sources, [6.0] * 3, seed=1, first=10)
    assert [clip.audio_s for clip in clips] == pytest.approx([6.0] * 3, abs=1.0)
    assert len({clip.body for clip in clips}) == 3
    assert [clip.id[:3] for clip in clips] == ["10-", "11-", "12-"]


@settings(max_examples=60)
@given(
    st.lists(st.floats(0.5, 9), min_size=1, max_size=8),
    st.lists(st.floats(1, 40), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_the_first_run_is_the_closest_of_all_runs(durations_s: list[float], wanted_s: list[float], seed: int) -> None:
    def measure(start: int, stop: int) -> float:
        return sum(durations_s[start:stop]) + SILENCE_S * (stop - start - 1)

    size = len(durations_s)
    runs = choose_runs(durations_s, wanted_s, seed)
    closest = min(abs(measure(a, b) - wanted_s[0]) for a in range(size) for b in range(a + 1, size + 1))
    assert abs(measure(runs[0].start, runs[0].stop) - wanted_s[0]) == pytest.approx(closest)
    assert len(runs) == len(wanted_s)
    used = [run.start for run in runs]
    assert len(set(used)) == min(len(used), size)


@pytest.mark.usefixtures("tones_are_speech")
def test_scripts_are_sentences_with_pauses_long_enough(sources: list[Clip]) -> None:
    scripts = make_scripts(sources, 12.0, seed=1, count=2)
    assert scripts[0].sound != scripts[1].sound
    for script in scripts:
        assert len(script.sound) >= 12 * BYTES_PER_S
        assert len(script.places) >= 2
        for (start_s, end_s), (after_s, _) in pairwise(script.places):
            assert end_s - start_s > 1.4
            assert after_s - end_s >= PAUSE_S
        sound = decode_pcm(script.sound)
        last = round(script.places[-1][1] * SAMPLE_RATE_HZ)
        assert abs(sound[last]) > 0.01 > np.abs(sound[last + 1 :]).max()
        assert np.abs(sound[last + 1 :]).max() > 0  # a microphone is never silent


@pytest.mark.parametrize(("quiet_s", "clear"), [(0.0, True), (0.2, True), (0.6, False)])
def test_a_sentence_ends_clearly_where_no_speech_follows_its_last_loud_sample(
    quiet_s: float, clear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinle.loadtest.clips.SpeechDetector", lambda: LoudDetector(0.9 * MURMUR))
    murmur = np.full(round(quiet_s * SAMPLE_RATE_HZ), MURMUR, dtype=np.float32)  # speech to the detector, but not loud
    sentence = np.concatenate([make_tone(3.0), murmur])
    pause = make_pause(np.random.default_rng(0))
    assert ends_clearly([make_tone(1.0), pause, sentence, pause]) == clear
    assert not ends_clearly([murmur, pause])


def test_the_segments_of_a_script_end_soon_after_its_sentences() -> None:
    """Else a final is late however few streams there are: sentences that linger in the detector's ear are left out."""
    rules = StreamRules().adapt(SegmentRules())
    for script in make_scripts(read_sources("mini"), 18.0, seed=1):
        segments = cut_segments([decode_pcm(script.sound)], rules)
        ends_s = [(segment.start + len(segment.samples)) / SAMPLE_RATE_HZ for segment in segments]
        for _, end_s in script.places:
            assert min(at for at in ends_s if at > end_s) - end_s <= LINGERS_S + rules.pad_s + 2 * CHUNK_S


def test_places_are_of_loud_sound_alone() -> None:
    quiet, loud = np.full(1600, 0.001, dtype=np.float32), np.full(800, 0.5, dtype=np.float32)
    sentence = np.concatenate([quiet, loud, quiet])
    places = [[0.1, 0.1499375], [0.55, 0.5999375]]
    assert np.array(find_places([sentence, quiet, quiet, sentence])) == pytest.approx(np.array(places))


def test_sound_keeps_its_sixteen_bits() -> None:
    data = np.arange(-(2**15), 2**15, dtype="<i2").tobytes()
    assert encode_pcm(decode_pcm(data)) == data
    assert decode_pcm(encode_pcm(np.array([2.0, -2.0], dtype=np.float32))).tolist() == [1 - 2**-15, -1.0]


@pytest.mark.usefixtures("tones_are_speech")
def test_finals_are_the_texts_of_the_segments(sources: list[Clip]) -> None:
    (script,) = make_scripts(sources, 8.0, seed=1, count=1)
    finals = write_finals(script, fake_recognizer("merhaba"), 0.5)
    assert finals == ("merhaba",) * len(script.places)


def test_manifests_that_hold_nothing_to_say_are_refused(sources: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no manifest"):
        read_sources(str(tmp_path / "yok"))
    with pytest.raises(UsageError, match="0 clips; expected at least 1"):
        make_mix(sources, 0, seed=1)
    with pytest.raises(UsageError, match="none of 1 clips is 2.5 to 8 s long"):
        make_scripts(sources[:1], 5.0, seed=1)
