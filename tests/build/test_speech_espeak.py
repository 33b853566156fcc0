from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dinle.build import speech_espeak
from dinle.build.config import PrepareConfig
from dinle.build.prepare import prepare
from dinle.build.speech import Delivery, SpeechEngineError, UnspeakableTextError, Voice, open_engine
from dinle.build.speech_espeak import EspeakEngine, list_variants, open_espeak, run_espeak, spell_phonemes
from dinle.build.text_source import write_for_voice
from dinle.cli import main
from dinle.errors import UsageError
from dinle.manifest import read_manifest
from tests.build.speakers import read_calls, write_espeak

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Delivery(Voice("tr+f1"), 1.0, 1.0)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake espeak-ng, and nothing else on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return write_espeak(tmp_path / "bin")


@pytest.fixture
def espeak_ng() -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed; the same paths are tested with a program in its place")


def write_text(folder: Path, *lines: str) -> Path:
    path = folder / "sentences.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_text_is_spoken_from_the_command_line(program: Path, tmp_path: Path) -> None:
    path, out = write_text(tmp_path, "Saat 14:30'da gel.", "-v IŞIK", "bozuk plak", "sessiz gece"), tmp_path / "out"
    flags = ["--from_text", str(path), "--speech_engine", "espeak-ng", "--voices", "f1", "m3", "--output_dir", str(out)]
    assert main(["prepare", *flags, "--test_voices", "klatt2", "--threads", "2"]) == 0
    first, second = read_manifest(out)
    assert (first.text, second.text) == ("Saat 14:30'da gel.", "-v IŞIK")
    assert first.duration_s == pytest.approx(0.06 * len("saat on dört otuzda gel."), abs=0.01)
    assert {str(clip.speaker) for clip in (first, second)} <= {
        f"espeak-ng:tr+{name}" for name in ("f1", "m3", "klatt2")
    }
    assert {clip.licence for clip in (first, second)} == {"output of a GPL program"}
    dropped = (out / "dropped.jsonl").read_text(encoding="utf-8")
    assert "out of breath" in dropped
    assert "espeak-ng gives no sound for 'sessiz gece'" in dropped
    spoken = [text for arguments, text in read_calls(program) if "--stdout" in arguments]
    assert sorted(spoken) == ["bozuk plak", "saat on dört otuzda gel.", "sessiz gece", "v ışık"]


def test_speed_and_pitch_become_the_program_s_own_units_within_its_limits(program: Path) -> None:
    engine = EspeakEngine(["tr+f1"])
    for delivery in (Delivery(Voice("tr+f1"), 1.2, 0.5), Delivery(Voice("tr"), 0.1, 9.0)):
        engine.speak("merhaba", delivery)
    calls = [arguments for arguments, _ in read_calls(program) if "--stdout" in arguments]
    assert calls[0] == ["-b", "1", "-v", "tr+f1", "-s", "210", "-p", "25", "--stdout", "--stdin"]
    assert calls[1][2:8] == ["-v", "tr", "-s", "80", "-p", "99"]
    assert engine.version == "eSpeak NG text-to-speech: 9.9"


def test_voices_are_the_usual_ones_or_those_named(program: Path) -> None:
    assert list_variants() == ["f1", "m3", "klatt2", "Mr serious"]
    assert open_engine(PrepareConfig()).voices == ("tr", "tr+m3", "tr+f1", "tr+klatt2")
    named = PrepareConfig(voices=("f1", "Mr serious"), test_voices=("tr",))
    assert open_espeak(named).voices == ("tr+f1", "tr+Mr serious", "tr")
    with pytest.raises(UsageError, match=r"there is no voice 'f9'; known are: tr, tr\+f1, tr\+m3"):
        open_espeak(PrepareConfig(voices=("f9",)))
    with pytest.raises(UsageError, match="espeak-ng cannot blend voices"):
        open_espeak(PrepareConfig(blend_voices=0.5))


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("bir iki", "bir iki"),
        ("bir, iki; üç!", "bir, iki; üç!"),
        ("bir... iki", "bir… iki"),
        ("bu hafta", "bu hafta"),  # foreign words are fenced with (en) and (tr)
        ("?! bir, iki.", "bir iki."),  # marks without a clause: no telling which is whose
    ],
)
def test_phonemes_keep_the_marks_of_clauses(program: Path, text: str, phonemes: str) -> None:
    assert spell_phonemes(text) == phonemes


def test_a_missing_program_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = PrepareConfig(from_text=write_text(tmp_path, "bir"), output_dir=tmp_path / "out")
    with pytest.raises(SpeechEngineError, match="espeak-ng is not on the PATH; install it: apt-get install espeak-ng"):
        prepare(config)


def test_a_program_that_hangs_is_stopped(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_espeak, "TIMEOUT_S", 0.001)
    with pytest.raises(UnspeakableTextError, match="timed out"):
        run_espeak("--stdout", text="bir")


# --- the real program ---


def speak_really(folder: Path, **fields: Any) -> Path:
    lines = write_text(folder, "Bugün hava çok güzel.", "Saat 14:30'da, IŞIK açıkken gel!", "[[a]] -v en")
    return prepare(replace(PrepareConfig(from_text=lines, output_dir=folder / "out", threads=2), **fields))


@pytest.mark.usefixtures("espeak_ng")
def test_the_real_program_speaks(tmp_path: Path) -> None:
    clips = read_manifest(speak_really(tmp_path, voices=("f1", "m3")))
    assert len(clips) == 3
    assert all(0.3 < clip.duration_s < 6 for clip in clips)
    once, again = (EspeakEngine(["tr+f1"]).speak("bir iki üç", PLAIN) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert 0.1 < np.abs(once).max() <= 1


@pytest.mark.usefixtures("espeak_ng")
def test_the_real_program_spells_turkish() -> None:
    spelt = spell_phonemes(write_for_voice("IŞIK açık, gel!"))
    first, second = spelt.split(", ")  # vowels and stress change a little from version to version
    assert "ʃ" in first
    assert "tʃ" in first
    assert first.count("ɯ") == 3
    assert second.endswith("l!")
    assert {"f1", "m3", "klatt2"} <= set(list_variants())
