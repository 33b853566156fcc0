from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto

from dinle.build.config import PrepareConfig
from dinle.build.prepare import prepare
from dinle.build.speech import Delivery, SpeechEngineError, UnspeakableTextError, Voice, open_engine
from dinle.build.speech_kokoro import MAX_PHONEMES, find_vocabulary, map_phonemes, open_kokoro, read_vocabulary
from dinle.errors import UsageError
from dinle.manifest import read_manifest
from tests.build.speakers import save_kokoro_graph, write_espeak, write_kokoro

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.recognize.audio import Waveform


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release of Kokoro's shape, and a fake espeak-ng on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write_espeak(tmp_path / "bin")
    return write_kokoro(tmp_path / "kokoro")


def make_config(release: Path, **fields: Any) -> PrepareConfig:
    config = PrepareConfig(
        speech_engine="kokoro", voice_model=release / "onnx" / "model.onnx", voices=(str(release / "voices"),)
    )
    return replace(config, **fields)


def read_level(waveform: Waveform) -> float:
    """The level in the middle, away from the filter's edges."""
    return float(waveform[len(waveform) // 4 : -len(waveform) // 4].mean())


# --- the sound ---


def test_sound_comes_at_16_khz_in_the_style_of_voice_and_length(release: Path) -> None:
    engine = open_engine(make_config(release))
    waveform = engine.speak("bir iki.", Delivery(Voice("can"), 1.0, 1.0))
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(10 * 0.05 * 16_000, abs=2)  # eight tokens and two of padding
    assert read_level(waveform) == pytest.approx(0.2 + 0.007, abs=1e-3)  # row 7 for eight tokens


def test_a_blend_lies_between_its_voices(release: Path) -> None:
    engine = open_engine(make_config(release))
    ada, ece, blend = (
        read_level(engine.speak("bir", Delivery(voice, 1.0, 1.0)))
        for voice in (Voice("ada"), Voice("ece"), Voice("ada", "ece", 0.6))
    )
    assert blend == pytest.approx(0.6 * ada + 0.4 * ece, abs=1e-4)


def test_speed_reaches_the_model_and_nothing_is_over_full_scale(release: Path) -> None:
    engine = open_engine(make_config(release))
    assert read_level(engine.speak("bir", Delivery(Voice("ada"), 1.5, 1.0))) == pytest.approx(1.5 * 0.102, abs=1e-3)
    assert np.abs(engine.speak("bir", Delivery(Voice("ece"), 9.0, 1.0))).max() == pytest.approx(1.0)


def test_phonemes_that_kokoro_never_learnt_become_their_neighbours() -> None:
    assert map_phonemes("ɟyzˈæl daːɫaɾ dʒam tʃok cˈar jaɣmur") == "ɡyzˈæl daːlaɾ ʤam ʧok kˈar jamur"


def test_what_the_model_cannot_say_is_an_error_and_not_cut(release: Path) -> None:
    engine = open_engine(make_config(release))
    voice = Delivery(Voice("ada"), 1.0, 1.0)
    assert len(engine.speak("a" * MAX_PHONEMES, voice)) > 400_000
    with pytest.raises(UnspeakableTextError, match="511 phonemes, but Kokoro takes from 1 to 510; part the line"):
        engine.speak("a" * (MAX_PHONEMES + 1), voice)
    with pytest.raises(UnspeakableTextError, match="lacks the phonemes q x of 'qx a'"):
        engine.speak("qx a", voice)


def test_the_version_follows_model_vocabulary_and_voices(release: Path) -> None:
    before = open_kokoro(make_config(release)).version
    assert open_kokoro(make_config(release)).version == before
    voice = release / "voices" / "ada.bin"
    voice.write_bytes(voice.read_bytes()[1024:])
    after = open_kokoro(make_config(release)).version
    save_kokoro_graph(release / "onnx" / "model.onnx", "tokens")
    assert len({before, after, open_kokoro(make_config(release)).version}) == 3


def test_from_text_to_manifest(release: Path, tmp_path: Path) -> None:
    text = tmp_path / "sentences.txt"
    text.write_text("".join(f"Bugün {number} kedi geldi.\n" for number in range(40)), encoding="utf-8")
    fields: dict[str, Any] = {"from_text": text, "output_dir": tmp_path / "out", "test_voices": ("ece",), "threads": 2}
    clips = read_manifest(prepare(make_config(release, blend_voices=0.6, **fields)))
    speakers = {(clip.split, str(clip.speaker)) for clip in clips}
    assert ("test", "kokoro:ece") in speakers
    assert ("train", "kokoro:ada+can") in speakers
    assert not any("ece" in speaker for split, speaker in speakers if split == "train")
    assert {clip.licence for clip in clips} == {"Apache-2.0"}
    assert set(json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["inputs"]) == {
        "sentences.txt", "voice_model", "voice_vocab",
    }  # fmt: skip


# --- the files ---


def test_both_kinds_of_release_are_read(release: Path) -> None:
    delivery = Delivery(Voice("can"), 1.0, 1.0)
    first = open_engine(make_config(release)).speak("bir", delivery)
    vocabulary = read_vocabulary(release / "tokenizer.json")
    (release / "tokenizer.json").unlink()
    flat = release / "flat"
    flat.mkdir()
    save_kokoro_graph(flat / "model.onnx", "tokens")
    (flat / "vocab.json").write_text(json.dumps({"vocab": vocabulary}), encoding="utf-8")
    config = make_config(release, voice_model=flat / "model.onnx")
    np.testing.assert_array_equal(open_engine(config).speak("bir", delivery), first)
    (release / "alone.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    assert read_vocabulary(release / "alone.json") == vocabulary


def test_voices_may_be_named_after_their_folder(release: Path) -> None:
    folder = str(release / "voices")
    assert open_kokoro(make_config(release)).voices == ("ada", "can", "ece")
    assert open_kokoro(make_config(release, voices=(folder, "can"), test_voices=("ada",))).voices == ("ada", "can")
    with pytest.raises(UsageError, match="there is no voice 'zoe'; known are: ada, can, ece"):
        open_kokoro(make_config(release, voices=(folder, "zoe")))
    with pytest.raises(UsageError, match=r"--voices begins with ada, which is no folder of \*\.bin files"):
        open_kokoro(make_config(release, voices=("ada",)))


def test_settings_that_kokoro_needs(release: Path) -> None:
    for missing in ({"voice_model": None}, {"voices": ()}):
        with pytest.raises(UsageError, match=r"kokoro needs --voice_model MODEL\.onnx and --voices FOLDER"):
            open_kokoro(make_config(release, **missing))


def test_files_that_are_not_what_they_should_be_are_named(release: Path) -> None:
    model = release / "onnx" / "model.onnx"
    with pytest.raises(SpeechEngineError, match=r"there is no voice model .*none\.onnx"):
        open_kokoro(make_config(release, voice_model=release / "none.onnx"))
    save_kokoro_graph(model, speed_type=TensorProto.INT32)
    with pytest.raises(
        SpeechEngineError, match=r"has the inputs .*'speed': 'tensor\(int32\)'.*expected those of Kokoro"
    ):
        open_kokoro(make_config(release))
    model.write_bytes(b"<html>404</html>")
    with pytest.raises(SpeechEngineError, match="onnxruntime cannot read"):
        open_kokoro(make_config(release))
    save_kokoro_graph(model)
    (release / "voices" / "bad.bin").write_bytes(b"x" * 100)
    with pytest.raises(SpeechEngineError, match=r"bad\.bin is no voice: expected rows of 256 float32 numbers"):
        open_kokoro(make_config(release))


@pytest.mark.parametrize("content", ['{"vocab": {"a": "b"}}', "[1]", "{}"])
def test_a_vocabulary_that_is_none(release: Path, content: str) -> None:
    (release / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(SpeechEngineError, match="holds no vocabulary"):
        read_vocabulary(release / "tokenizer.json")
    with pytest.raises(SpeechEngineError, match=r"no vocabulary beside .* give it with --voice_vocab"):
        find_vocabulary(release / "onnx" / "model.onnx")
    (release / "tokenizer.json").write_text("<html>", encoding="utf-8")
    with pytest.raises(SpeechEngineError, match="is not JSON"):
        find_vocabulary(release / "onnx" / "model.onnx")
