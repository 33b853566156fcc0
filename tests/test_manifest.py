from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.errors import DatasetError, ManifestError
from dinle.manifest import Clip, read_manifest, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = {"audio": "a.wav", "text": "merhaba", "duration": 1.5}


def write_lines(folder: Path, *lines: object) -> Path:
    path = folder / "manifest.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    outside = tmp_path / "elsewhere.wav"
    inside = tmp_path / "inside" / "audio" / "ı.wav"
    inside.parent.mkdir()
    for path in (outside, inside):
        path.write_bytes(b"sound")
    clips = [
        Clip(inside, "Işık açık.", 2.25, "ayşe", "train", "somewhere", "CC0-1.0"),
        Clip(outside, "", 0.0),
    ]
    write_manifest(tmp_path / "inside" / "manifest.jsonl", clips)
    assert read_manifest(tmp_path / "inside" / "manifest.jsonl") == clips


def test_a_folder_with_its_audio_can_be_moved(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "a.wav").write_bytes(b"sound")
    write_manifest(old / "manifest.jsonl", [Clip(old / "a.wav", "a", 1.0)])
    new = Path(shutil.move(old, tmp_path / "new"))
    assert read_manifest(new)[0].audio == new / "a.wav"


@given(st.text())
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("texts") / "manifest.jsonl"
    write_manifest(path, [Clip(path.parent / "a.wav", text, 1.0)])
    assert read_manifest(path, check_files=False)[0].text == text


def test_a_writer_that_fails_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = write_lines(tmp_path, GOOD)
    before = path.read_bytes()

    def fail_after_one() -> Iterator[Clip]:
        yield Clip(tmp_path / "b.wav", "b", 1.0)
        raise DatasetError("broken source")

    with pytest.raises(DatasetError, match="broken source"):
        write_manifest(path, fail_after_one())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_blank_lines_a_byte_order_mark_and_unknown_keys_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({**GOOD, "offset": 3}).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode()
    )
    assert [clip.text for clip in read_manifest(path, check_files=False)] == ["merhaba", "merhaba"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"audio": "a.wav", "text": ', "not JSON"),
        ("[1, 2]", "list"),
        ({"audio": "a.wav", "text": "a"}, "missing duration"),
        ({"sentence": "a"}, "missing audio, text, duration; the line has sentence"),
        ({**GOOD, "audio": ""}, "audio is ''"),
        ({**GOOD, "audio": None}, "audio is None"),
        ({**GOOD, "text": 12}, "text is 12"),
        ({**GOOD, "duration": "1.5"}, "duration is '1.5'"),
        ({**GOOD, "duration": -1}, "duration is -1"),
        ({**GOOD, "duration": True}, "duration is True"),
        ('{"audio": "a.wav", "text": "a", "duration": NaN}', "duration is nan"),
        ({**GOOD, "speaker": 7}, "speaker is 7"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number(tmp_path: Path, line: object, message: str) -> None:
    path = write_lines(tmp_path, GOOD, "", line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, check_files=False)
    assert f"{path}:3: " in str(caught.value)
    assert message in str(caught.value)


def test_missing_audio_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    (tmp_path / "here.wav").write_bytes(b"sound")
    lines = [{**GOOD, "audio": name} for name in ("gone0.wav", "here.wav", "gone1.wav", "gone2.wav", "gone3.wav")]
    path = write_lines(tmp_path, *lines)
    with pytest.raises(ManifestError, match=r"4 of 5 audio files are missing: .*gone0.*gone1.*gone2.* and 1 more"):
        read_manifest(path)
    assert len(read_manifest(path, check_files=False)) == 5


def test_a_split_is_selected_and_an_unknown_one_names_the_known(tmp_path: Path) -> None:
    path = write_lines(tmp_path, {**GOOD, "split": "train"}, {**GOOD, "split": "test", "text": "son"}, GOOD)
    assert [clip.text for clip in read_manifest(path, split="test", check_files=False)] == ["son"]
    with pytest.raises(ManifestError, match=r"no clips of split 'dev'; its splits are: \(none\), test, train"):
        read_manifest(path, split="dev", check_files=False)


def test_only_the_files_of_the_chosen_split_must_exist(tmp_path: Path) -> None:
    (tmp_path / "here.wav").write_bytes(b"sound")
    path = write_lines(tmp_path, {**GOOD, "split": "train"}, {**GOOD, "audio": "here.wav", "split": "test"})
    assert len(read_manifest(path, split="test")) == 1


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "no clips"), (b"\n\n", "no clips"), (b"\xff\xfe\x00", "not UTF-8")]
)
def test_a_manifest_without_clips_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_no_manifest_at_all(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no manifest"):
        read_manifest(tmp_path)
