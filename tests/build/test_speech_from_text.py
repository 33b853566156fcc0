from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from dinle.build import text_source
from dinle.build.config import PrepareConfig
from dinle.build.prepare import prepare
from dinle.build.text_source import SPOKEN_PATTERN
from dinle.config import read_json
from dinle.errors import DatasetError, ManifestError, UsageError
from dinle.manifest import read_manifest
from tests.build.corpora import run, write_corpus
from tests.build.speakers import FakeSpeech

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "IŞIK söndü.",
    "Saat 14:30'da gel!",
    "Bugün hava güzel.",
    "Kapı açık mı?",
    "Ada vapuru geldi.",
    "Yarın okul yok.",
]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeSpeech:
    made = FakeSpeech()
    monkeypatch.setattr(text_source, "open_engine", lambda _config: made)
    return made


def speak(folder: Path, lines: list[str] | None = None, out: str = "out", **fields: Any) -> Path:
    """Prepare what the lines say; None: TEXTS."""
    folder.mkdir(exist_ok=True)
    path = folder / "sentences.txt"
    path.write_text("\n".join(TEXTS if lines is None else lines) + "\n", encoding="utf-8")
    return prepare(replace(PrepareConfig(from_text=path, output_dir=folder / out, threads=1), **fields))


def read_products(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "manifest.jsonl", *(folder / "audio").iterdir())}


# --- what is made ---


def test_each_line_becomes_a_clip(tmp_path: Path, engine: FakeSpeech) -> None:
    folder = speak(tmp_path)
    clips = read_manifest(folder)
    assert [clip.text for clip in clips] == TEXTS  # as they were written
    assert [text for text, _ in engine.said][:2] == ["ışık söndü.", "saat on dört otuzda gel!"]
    for clip, (_, voice) in zip(clips, engine.said, strict=True):
        samples, rate_hz = soundfile.read(clip.audio, dtype="float32")
        assert (rate_hz, samples.ndim, soundfile.info(clip.audio).subtype) == (16_000, 1, "PCM_16")
        assert clip.duration_s == pytest.approx(len(samples) / 16_000, abs=1e-4)
        assert clip.audio.parent == folder / "audio"
        assert (clip.speaker, clip.split, clip.source, clip.licence) == (
            f"fake:{voice}",
            "train",
            "sentences",
            "CC0-1.0",
        )


def test_splits_of_lines_and_of_voices(tmp_path: Path, engine: FakeSpeech) -> None:
    lines = [
        f"{text}\t{split}" for text, split in zip(TEXTS, ["dev", "test", "train", "test", "", "train"], strict=True)
    ]
    fields: dict[str, Any] = {"test_voices": ("can", "ece"), "speakers_per_text": 3, "blend_voices": 0.5}
    folder = speak(tmp_path, lines, **fields)
    clips = read_manifest(folder)
    assert [clip.split for clip in clips][:12] == [
        split for split in ("validation", "test", "train", "test") for _ in range(3)
    ]
    assert len(clips) == 18
    for clip in clips:
        voices = set(str(clip.speaker).removeprefix("fake:").split("+"))
        assert voices <= {"can", "ece"} if clip.split == "test" else not voices & {"can", "ece"}
    assert read_json(folder / "data.json")["shared_texts"] == {}


def test_the_licence_of_the_text_stands_beside_that_of_the_sound(tmp_path: Path, engine: FakeSpeech) -> None:
    (clip, *_) = read_manifest(speak(tmp_path, licence="CC BY 4.0"))
    assert clip.licence == "CC BY 4.0 (text), CC0-1.0 (sound)"


def test_only_what_is_wanted_is_spoken(tmp_path: Path, engine: FakeSpeech) -> None:
    lines = [f"{text}\ttest" for text in TEXTS[:3]] + TEXTS[3:]
    assert len(read_manifest(speak(tmp_path, lines, split="test", eval_percent=0.67))) == len(engine.said) == 2


def test_run_json_names_the_text(tmp_path: Path, engine: FakeSpeech) -> None:
    record = read_json(speak(tmp_path) / "run.json")
    assert record["inputs"]["sentences.txt"]["path"] == str(tmp_path / "sentences.txt")
    assert record["config"]["speed_range"] == [0.8, 1.25]


# --- laws ---


def test_the_same_seed_makes_the_same_products_on_any_number_of_threads(tmp_path: Path, engine: FakeSpeech) -> None:
    fields: dict[str, Any] = {"blend_voices": 0.5, "speakers_per_text": 2, "test_voices": ("gül",)}
    first = read_products(speak(tmp_path, out="a", **fields))
    assert read_products(speak(tmp_path, out="b", threads=4, **fields)) == first
    assert read_products(speak(tmp_path, out="c", seed=2, **fields)).keys() != first.keys()


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, engine: FakeSpeech) -> None:
    whole = read_products(speak(tmp_path, out="whole"))
    engine.said.clear()
    engine.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        speak(tmp_path, out="stopped")
    assert not (tmp_path / "stopped" / "run.json").exists()
    left = next((tmp_path / "whole" / "audio").glob("line000006-*"))
    (tmp_path / "stopped" / "audio" / f"{left.name}.partial").write_bytes(b"half a cl")  # killed while it wrote

    engine.stop_after = None
    assert read_products(speak(tmp_path, out="stopped")) == whole
    assert len(engine.said) == len(TEXTS)  # four before, two after


def test_what_changes_the_sound_is_spoken_anew_and_the_rest_is_kept(tmp_path: Path, engine: FakeSpeech) -> None:
    folder = speak(tmp_path)
    (folder / "audio" / "mine.flac").write_bytes(b"not ours to delete")
    engine.said.clear()
    speak(tmp_path, ["Başka bir cümle.", *TEXTS[1:]])
    assert [text for text, _ in engine.said] == ["başka bir cümle."]
    assert len(list((folder / "audio").glob(SPOKEN_PATTERN))) == len(TEXTS)
    assert (folder / "audio" / "mine.flac").exists()
    engine.version = "2"
    speak(tmp_path, TEXTS[1:])
    assert len(engine.said) == len(TEXTS)
    run(tmp_path, write_corpus(tmp_path, 1))  # another dataset into the same folder
    assert [path.name for path in (folder / "audio").iterdir()] == ["mine.flac"]


# --- what cannot be said ---


def test_lines_that_cannot_be_said_are_counted_like_other_rejected_clips(tmp_path: Path, engine: FakeSpeech) -> None:
    folder = speak(tmp_path, [*TEXTS, "dilsiz biri", "sessiz biri", "😀 … ?!"])
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["reason"], line["text"]) for line in dropped] == [
        ("unspeakable", "dilsiz biri"),
        ("unspeakable", "sessiz biri"),
        ("empty text", "😀 … ?!"),
    ]
    assert dropped[0]["name"].startswith("sentences.txt:7 (")
    assert "no tongue for 'dilsiz biri'" in dropped[0]["detail"]
    assert "fake gives silence or no numbers for 'sessiz biri'" in dropped[1]["detail"]
    assert "| unspeakable |" in (folder / "report.md").read_text(encoding="utf-8")
    assert len(read_manifest(folder)) == len(TEXTS)


def test_numbers_that_are_none_are_no_sound(
    tmp_path: Path, engine: FakeSpeech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSpeech, "speak", lambda *_: np.full(16_000, np.nan, dtype=np.float32))
    with pytest.raises(DatasetError, match="no clip of sentences is left: of 6, 6 unspeakable"):
        speak(tmp_path)


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path, engine: FakeSpeech) -> None:
    clips = read_manifest(speak(tmp_path, ["\ufeffBir iki üç.", "", "   ", " Dört beş altı. "]))
    assert [clip.text for clip in clips] == ["Bir iki üç.", "Dört beş altı."]
    assert [clip.audio.name.split("-")[0] for clip in clips] == ["line000001", "line000004"]


def test_a_file_that_is_no_text_is_named(tmp_path: Path, engine: FakeSpeech) -> None:
    with pytest.raises(
        ManifestError, match=r"sentences\.txt:2: 3 columns; expected a text, or a text, a tab and a split"
    ):
        speak(tmp_path, ["bir", "iki\ttest\tüç"])
    with pytest.raises(DatasetError, match=r"there is no file .*none\.txt"):
        prepare(PrepareConfig(from_text=tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes("ışık\n".encode("iso-8859-9"))
    with pytest.raises(ManifestError, match=r"latin\.txt is not UTF-8 text"):
        prepare(PrepareConfig(from_text=tmp_path / "latin.txt", output_dir=tmp_path / "out"))
    (tmp_path / "m.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="a manifest is given with --dataset_name"):
        prepare(PrepareConfig(from_text=tmp_path / "m.jsonl"))


# --- settings ---


def test_a_dataset_or_a_text_and_not_both(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither --dataset_name nor --from_text is given"):
        prepare(PrepareConfig(output_dir=tmp_path))
    with pytest.raises(UsageError, match="both --dataset_name and --from_text are given"):
        prepare(PrepareConfig("x", tmp_path, from_text=tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"speakers_per_text": 0}, "--speakers_per_text is 0; expected 1 or more"),
        ({"blend_voices": 1.5}, "--blend_voices is 1.5; expected a share from 0 to 1"),
        ({"speed_range": (1.0,)}, "--speed_range is 1.0; expected the least and the most"),
        ({"speed_range": (1.2, 0.8)}, "--speed_range is 1.2 0.8; expected"),
        ({"pitch_range": (0.0, 1.0)}, "--pitch_range is 0.0 1.0; expected"),
        ({"pitch_range": ()}, "--pitch_range is empty; expected"),
        ({"test_voices": ("zoe",)}, "there is no voice 'zoe'; known are: ada, can, ece, gül"),
    ],
)
def test_a_setting_out_of_range_is_named(
    tmp_path: Path, engine: FakeSpeech, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        speak(tmp_path, **fields)
