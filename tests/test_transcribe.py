from __future__ import annotations

import io
import json
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dinle.cli import main
from dinle.errors import UsageError
from dinle.transcribe import expand_sources
from tests.graphs import spell_levels, write_level_bundle
from tests.serve.doubtful import HEARD, HOT_WORD, MEANT, doubtful_recognizer
from tests.sounds import encode_lossy, encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dinle.recognize.recognizer import CtcRecognizer


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A bundle and a folder of recordings whose text is written in the sound."""
    write_level_bundle(tmp_path / "model")
    for name, text in (("bir.wav", "bir"), ("alt/iki.wav", "iki üç")):
        path = tmp_path / "sesler" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_wav(spell_levels(text)))
    (tmp_path / "sesler" / "notlar.txt").write_text("not audio", encoding="utf-8")
    return tmp_path


def run(room: Path, *arguments: str) -> int:
    return main(["transcribe", "--model", str(room / "model"), "--threads", "1", *arguments])


def test_prints_the_text_of_one_file(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(room, str(room / "sesler" / "bir.wav")) == 0
    assert capsys.readouterr().out == "bir\n"


def test_reads_folders_in_depth_and_names_each_file(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(room, str(room / "sesler")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.rpartition(": ")[2] for line in lines) == ["bir", "iki üç"]
    assert all("sesler" in line for line in lines)


def test_json_is_one_line_a_file(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(room, "-f", "json", str(room / "sesler" / "**" / "*.wav")) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(answer["text"] for answer in answers) == ["bir", "iki üç"]
    assert {"file", "words", "duration_s", "inference_s", "model"} <= set(answers[0])


def test_writes_subtitles_into_a_folder(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(room, "-f", "srt", "-o", str(room / "out"), str(room / "sesler")) == 0
    assert "-->" in (room / "out" / "iki.wav.srt").read_text(encoding="utf-8")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_reads_standard_input(room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encode_wav(spell_levels("ses")))))
    assert run(room, "-") == 0
    assert capsys.readouterr().out == "ses\n"


@pytest.mark.parametrize(("suffix", "total"), [("wav", 51), ("opus", 51), ("mp3", None)])
def test_a_terminal_is_shown_how_many_seconds_of_how_many_are_done(
    room: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, total: int | None
) -> None:
    """An mp3 may not say how long it is."""
    told: list[tuple[str, float | None]] = []

    class Bar:
        def update(self, **changes: float) -> None:
            told.extend(changes.items())

    @contextmanager
    def progress(description: str, total: float | None = None) -> Iterator[Bar]:
        told.append((description, total))
        yield Bar()

    monkeypatch.setattr("dinle.progress.progress", progress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    sound = np.resize(spell_levels("ses "), 51 * 16_000)
    path = room / f"uzun.{suffix}"
    path.write_bytes(encode_wav(sound) if suffix == "wav" else encode_lossy(sound, suffix, 16_000))
    assert run(room, str(path)) == 0
    first, *rest = told
    assert first == (f"transcribing {path} (seconds)", total)
    assert [value for name, value in rest if name == "completed"] == [18, 34, 51]
    assert rest[-1] == ("total", 51)


def test_goes_on_past_a_broken_file_and_says_so(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "sesler" / "bozuk.wav").write_bytes(b"x")
    assert run(room, str(room / "sesler")) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "bozuk.wav cannot be read as audio" in captured.err
    assert "1 of 3 files could not be transcribed" in captured.err


def test_wrong_usage_is_explained(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(room, str(room / "yok.wav")) == 2
    assert "matches no audio file" in capsys.readouterr().err
    assert run(room, "-f", "vtt", str(room / "sesler")) == 2
    assert "add --output_dir" in capsys.readouterr().err
    assert run(room, "-o", str(room / "sesler" / "notlar.txt"), str(room / "sesler")) == 2
    assert "notlar.txt is a file; give a folder" in capsys.readouterr().err


def test_nothing_is_overwritten(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "sesler" / "alt" / "bir.wav").write_bytes(encode_wav(np.zeros(100, np.float32)))
    assert run(room, "-o", str(room / "out"), str(room / "sesler")) == 2
    assert "would both be written to" in capsys.readouterr().err
    assert not (room / "out").exists()


def test_a_file_named_twice_is_read_once(room: Path) -> None:
    one = str(room / "sesler" / "bir.wav")
    assert expand_sources([one, one, "-"]) == [one, "-"]
    with pytest.raises(UsageError):
        expand_sources([str(room / "out")])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the model was loaded with; a recogniser in doubt is loaded instead."""
    asked: list[dict[str, Any]] = []

    def load(_model: object, **given: Any) -> CtcRecognizer:
        asked.append(given)
        return doubtful_recognizer()

    monkeypatch.setattr(import_module("dinle.recognize.load"), "load", load)
    return asked


@pytest.mark.usefixtures("asked")
def test_hot_words_are_expected(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = room / "words.txt"
    path.write_text(f"# adlar\n{HOT_WORD}\n", encoding="utf-8")
    file = str(room / "sesler" / "alt" / "iki.wav")
    for flags, text in (
        ((), HEARD),
        (("--hotwords", f"Trendyol,{HOT_WORD}"), MEANT),
        (("--hotwords_file", str(path)), MEANT),
        (("--hotwords", "Trendyol"), HEARD),
    ):
        assert run(room, *flags, file) == 0
        assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--hotwords", " , "), "--hotwords is ' , ' and holds no hot word"),
        (("--hotwords", "Kars,?!"), "--hotwords: the hot word '?!' holds no letter"),
        (("--hotwords_file", "/yok"), "--hotwords_file '/yok' cannot be read"),
    ],
)
def test_hot_words_that_are_none_are_wrong_usage(
    room: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], reason: str
) -> None:
    assert run(room, *flags, str(room / "sesler" / "bir.wav")) == 2
    assert reason in capsys.readouterr().err


def test_the_language_model_can_be_left_out(room: Path, asked: list[dict[str, Any]]) -> None:
    for flags in ((), ("--no-language_model",), ("--no-language-model",)):
        assert run(room, *flags, str(room / "sesler" / "bir.wav")) == 0
    assert [given["language_model"] for given in asked] == [True, False, False]
