from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dinle.cli import main
from dinle.errors import UsageError
from dinle.transcribe import expand_sources
from tests.graphs import spell_levels, write_level_bundle
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path


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
