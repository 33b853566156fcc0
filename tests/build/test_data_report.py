"""What the data report says of a prepared folder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import soundfile
from matplotlib.image import imread

from dinle.build.data_summary import Sharing
from dinle.config import read_json
from dinle.manifest import read_manifest
from dinle.text import normalize_tr
from tests.build.corpora import run, write_corpus, write_wav

if TYPE_CHECKING:
    from pathlib import Path


def test_texts_audio_and_speakers_shared_between_splits_are_found(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 3) + write_corpus(tmp_path, 2, "test")
    rows[0] |= {"speaker": "ali"}
    rows[3] |= {"speaker": "ali", "text": rows[0]["text"].replace("bugün", "BUGÜN,")}  # the same once normalised
    write_wav(tmp_path / "test0.wav", 1.0, seed=77)
    samples, rate_hz = soundfile.read(tmp_path / "train2.wav", dtype="int16")
    soundfile.write(tmp_path / "test1.flac", samples, rate_hz)  # the same sound in another file
    rows[4] |= {"audio": "test1.flac"}
    rows.append({**rows[1], "text": "aynı ses"})

    folder = run(tmp_path, rows)

    data = read_json(folder / "data.json")
    assert data["shared_texts"] == {"train and test": 1}
    assert data["shared_audio"] == {"train and test": 1}
    assert data["shared_audio_examples"] == ["test1.flac"]
    assert data["shared_speakers"] == ["ali"]
    assert data["repeated_audio"] == 1
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "- audio (the same samples) in train and test: 1" in report
    assert "are too good" in report


def test_clean_splits_share_nothing(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 2)
    write_wav(tmp_path / "other.wav", 1.5, seed=9)
    rows.append({"audio": "other.wav", "text": "bambaşka bir cümle", "split": "test"})
    folder = run(tmp_path, rows)
    data = read_json(folder / "data.json")
    assert (data["shared_texts"], data["shared_audio"], data["repeated_audio"]) == ({}, {}, 0)
    assert "are too good" not in (folder / "report.md").read_text(encoding="utf-8")


def test_the_figures_of_the_report_are_those_of_the_manifest(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 4) + write_corpus(tmp_path, 2, "test")
    for row in rows[:4]:
        row["speaker"] = "ali" if row["audio"] == "train0.wav" else "ayşe"
    folder = run(tmp_path, rows, licence="CC0-1.0")
    data, clips = read_json(folder / "data.json"), read_manifest(folder)
    train = [clip for clip in clips if clip.split == "train"]
    assert data["splits"]["train"] | {"median_s": 0} == {
        "clips": 4,
        "hours": pytest.approx(sum(clip.duration_s for clip in train) / 3600, abs=1e-4),
        "speakers": 2,
        "clips_without_speaker": 0,
        "words": sum(len(normalize_tr(clip.text).split()) for clip in train),
        "shortest_s": 1.0,
        "median_s": 0,
        "longest_s": 1.3,
        "dropped": 0,
    }
    assert data["splits"]["test"]["clips_without_speaker"] == 2
    assert sum(data["characters"].values()) == sum(len(normalize_tr(clip.text)) for clip in clips)
    (licence,) = data["licences"]
    assert (licence["source"], licence["licence"], licence["clips"]) == ("source", "CC0-1.0", 6)


@pytest.mark.usefixtures("with_plots")
def test_the_plots_that_the_report_shows_are_there(tmp_path: Path) -> None:
    folder = run(tmp_path, write_corpus(tmp_path, 1))  # one clip: every value is the same
    report = (folder / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((.*\.png)\)", report)
    assert shown == ["durations.png", "speech_rate.png", "characters.png"]
    for name in shown:
        assert imread(folder / name).std() > 0.01  # an image, and not a blank one


def test_an_accident_of_casing_in_the_labels_is_reported(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 2)
    rows[0]["text"] = "i\u0307stanbul güzel"  # what str.lower() makes of İstanbul
    report = (run(tmp_path, rows) / "report.md").read_text(encoding="utf-8")
    assert "U+0307" in report


def test_sharing_counts_distinct_things_by_pair() -> None:
    sharing = Sharing()
    for content, split in [(b"a", "test"), (b"a", "train"), (b"a", "validation"), (b"b", "train"), (b"b", "train")]:
        sharing.add(content, split, content.decode())
    assert sharing.count_pairs() == {"train and validation": 1, "train and test": 1, "validation and test": 1}
    assert sharing.repeats == 1
