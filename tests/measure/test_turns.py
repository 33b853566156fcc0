from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from dinle.errors import DatasetError
from dinle.manifest import Clip
from dinle.measure.predictions import read_predictions, write_predictions, write_side_by_side
from dinle.measure.systems import Heard, RecognizerSystem
from dinle.measure.turns import name_clips, transcribe_in_turns
from tests.fakes import fake_recognizer
from tests.measure.speech import write_clip

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Listener:
    """A system that writes down what it was given; a clip of the name ``bad`` is too much for it."""

    name: str
    log: list[tuple[str, str]] = field(default_factory=list)

    def transcribe(self, path: Path) -> Heard:
        self.log.append((self.name, path.stem))
        if path.stem == "bad":
            raise RuntimeError("too much")
        return Heard(f"{self.name} heard {path.stem}", 0.25, 1.5)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinle.measure.turns.SETTLE_S", 0.0)


def make_clips(folder: Path, names: str) -> list[Clip]:
    return [Clip(folder / f"{name}.wav", f"text {name}", 1.0, "s") for name in names.split()]


def test_each_clip_is_heard_by_all_and_the_order_alternates(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []
    systems = [Listener("one", log), Listener("two", log)]
    rows = list(transcribe_in_turns(systems, make_clips(tmp_path, "a b c"), tmp_path))
    assert log[:2] == [("one", "a"), ("two", "a")]  # the warm-up
    assert log[2:] == [("one", "a"), ("two", "a"), ("two", "b"), ("one", "b"), ("one", "c"), ("two", "c")]
    assert [[prediction.hypothesis for prediction in row] for row in rows] == [
        [f"{name} heard {clip}" for name in ("one", "two")] for clip in "abc"
    ]
    first = rows[0][0]
    assert (first.id, first.reference, first.duration_s, first.inference_s) == ("a.wav", "text a", 1.5, 0.25)


def test_a_failure_of_one_system_is_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Patient(Listener):
        def transcribe(self, path: Path) -> Heard:
            return Heard("all", 0.1, 1.0)

    clips = make_clips(tmp_path, "bad a")
    with caplog.at_level(logging.WARNING):
        (first, second), (third, _) = transcribe_in_turns([Listener("one"), Patient("two")], clips, tmp_path)
    assert (first.hypothesis, first.error) == ("", "RuntimeError: too much")
    assert (second.hypothesis, second.error, third.error) == ("all", None, None)
    assert "not recognised by one, counted as empty: bad.wav: RuntimeError" in caplog.text


def test_the_warm_up_takes_the_first_clip_that_works(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []
    list(transcribe_in_turns([Listener("one", log)], make_clips(tmp_path, "bad a b"), tmp_path))
    assert [stem for _, stem in log] == ["bad", "a", "bad", "a", "b"]


def test_a_system_that_fails_on_everything_leaves_no_file(tmp_path: Path) -> None:
    clip = Clip(tmp_path / "a.wav", "bir", 1.0)
    clip.audio.write_bytes(b"not sound")
    rows = transcribe_in_turns([RecognizerSystem(fake_recognizer())], [clip, clip], tmp_path)
    with pytest.raises(DatasetError, match=r"all 2 clips failed with fake; the first: a\.wav: AudioDecodeError"):
        write_side_by_side([tmp_path / "p.jsonl"], rows)
    assert not (tmp_path / "p.jsonl").exists()


def test_predictions_of_two_systems_land_in_two_files(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a b")
    rows = list(transcribe_in_turns([Listener("one"), Listener("two")], clips, tmp_path))
    write_side_by_side([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], rows)
    write_predictions(tmp_path / "alone.jsonl", [row[1] for row in rows])
    assert read_predictions(tmp_path / "one.jsonl") == [row[0] for row in rows]
    assert (tmp_path / "two.jsonl").read_text() == (tmp_path / "alone.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.jsonl", "one.jsonl", "two.jsonl"]


def test_the_same_recording_twice_gets_two_names_and_others_keep_their_whole_path(tmp_path: Path) -> None:
    clips = [*make_clips(tmp_path / "data", "a a"), *make_clips(tmp_path, "b")]
    assert name_clips(clips, tmp_path / "data") == ["a.wav", "a.wav#2", (tmp_path / "b.wav").as_posix()]


def test_a_recogniser_is_timed_from_the_file_to_the_text(tmp_path: Path) -> None:
    duration_s = write_clip(tmp_path / "a.wav", "bir")
    heard = RecognizerSystem(fake_recognizer("bir", delay_s=0.02)).transcribe(tmp_path / "a.wav")
    assert heard.duration_s == pytest.approx(duration_s)
    assert heard.seconds >= 0.02
