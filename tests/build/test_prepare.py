from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from dinle.build.config import PrepareConfig
from dinle.build.prepare import choose_records, judge_clip, map_in_order, prepare
from dinle.config import read_json
from dinle.errors import DatasetError, TooManyBadClipsError, UsageError
from dinle.manifest import read_manifest
from dinle.recognize.audio import decode_audio
from tests.build.corpora import TEXT, make_sound, run, write_corpus, write_csv, write_jsonl, write_wav
from tests.sounds import encode_lossy, encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_dropped(folder: Path) -> dict[str, str]:
    lines = (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["name"]: line["reason"] for line in map(json.loads, lines)}


# --- what is kept ---


def test_every_format_ends_as_16_khz_mono_flac_of_the_same_sound(tmp_path: Path) -> None:
    stereo = np.stack([make_sound(1.0, 1, 8_000), make_sound(1.0, 2, 8_000)], axis=1)
    encoded = {
        "stereo_8k.wav": encode_wav(stereo, 8_000),
        "deep.wav": encode_wav(make_sound(1.0, 3), subtype="PCM_24"),
        "cd.flac": encode_wav(make_sound(1.0, 4, 44_100), 44_100, form="FLAC"),
        "web.opus": encode_lossy(make_sound(1.0, 5, 48_000), "opus"),
        "old.mp3": encode_lossy(make_sound(1.0, 6, 48_000), "mp3"),
    }
    for name, content in encoded.items():
        (tmp_path / name).write_bytes(content)
    rows = [{"audio": name, "text": "Işık  açık!", "speaker": name} for name in encoded]

    clips = read_manifest(run(tmp_path, rows))

    assert [clip.speaker for clip in clips] == list(encoded)
    for clip in clips:
        samples, rate_hz = soundfile.read(clip.audio, dtype="float32")
        expected = decode_audio(tmp_path / str(clip.speaker))
        assert (rate_hz, samples.ndim, clip.audio.suffix) == (16_000, 1, ".flac")
        np.testing.assert_allclose(samples, expected, rtol=0, atol=0.51 / 32768)  # 16 bits: rounded, half a step
        assert clip.duration_s == pytest.approx(len(expected) / 16_000, abs=1e-4)
        assert clip.text == "Işık  açık!"  # as the source wrote it


def test_files_that_are_ready_are_referred_to_and_not_copied(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path)
    folder = run(tmp_path, rows)
    assert [clip.audio for clip in read_manifest(folder)] == [tmp_path / row["audio"] for row in rows]
    assert list((folder / "audio").iterdir()) == []


def test_splits_speakers_sources_and_licences_are_kept_and_the_given_licence_fills_gaps(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 2)
    rows[0] |= {"speaker": "ayşe", "source": "radyo", "licence": "CC0-1.0", "split": "dev"}
    first, second = read_manifest(run(tmp_path, rows, licence="MIT"))
    assert (first.split, first.speaker, first.source, first.licence) == ("validation", "ayşe", "radyo", "CC0-1.0")
    assert (second.split, second.speaker, second.source, second.licence) == ("train", None, "source", "MIT")


def test_one_split_of_several(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 3) + write_corpus(tmp_path, 2, "test")
    assert {clip.split for clip in read_manifest(run(tmp_path, rows, split="test"))} == {"test"}
    with pytest.raises(DatasetError, match=r"source has no clips of split 'dev'; its splits are: train, test"):
        run(tmp_path, rows, split="dev")


def test_an_audiofolder_from_end_to_end(tmp_path: Path) -> None:
    write_wav(tmp_path / "set" / "train" / "a.wav")
    write_csv(tmp_path / "set" / "train" / "metadata.csv", [("file_name", "text"), ("a.wav", TEXT)])
    (clip,) = read_manifest(prepare(PrepareConfig(str(tmp_path / "set"), tmp_path / "out")))
    assert (clip.text, clip.split, clip.duration_s) == (TEXT, "train", 1.0)


# --- what is dropped ---


def test_clips_are_dropped_for_their_length_text_and_speed(tmp_path: Path) -> None:
    lengths_s = {"good": 2.0, "silent": 2.0, "short": 0.2, "long": 3.1, "fast": 1.0, "slow": 2.5}
    for name, seconds in lengths_s.items():
        write_wav(tmp_path / f"{name}.wav", seconds)
    texts = {"good": TEXT, "silent": " … ?!", "short": "ev", "long": TEXT * 3, "fast": TEXT * 3, "slow": "o"}
    rows = [{"audio": f"{name}.wav", "text": texts[name]} for name in lengths_s]

    folder = run(tmp_path, rows, max_duration_s=3.0)

    assert [clip.audio.stem for clip in read_manifest(folder)] == ["good"]
    assert read_dropped(folder) == {
        "silent.wav": "empty text",
        "short.wav": "too short",
        "long.wav": "too long",
        "fast.wav": "too many characters",
        "slow.wav": "too few characters",
    }
    data = read_json(folder / "data.json")
    assert data["dropped"] == dict.fromkeys(read_dropped(folder).values(), 1)
    assert data["splits"]["train"]["dropped"] == 5


@pytest.mark.parametrize(
    ("duration_s", "characters", "reason"),
    [
        (0.3, 3, ""),
        (0.29, 3, "too short"),
        (28.0, 100, ""),
        (28.01, 100, "too long"),
        (2.0, 60, ""),
        (2.0, 61, "too many characters"),
        (2.0, 2, ""),
        (2.0, 1, "too few characters"),
    ],
)
def test_limits_are_inclusive(duration_s: float, characters: int, reason: str) -> None:
    assert judge_clip(duration_s, characters, PrepareConfig("x"))[0] == reason


def write_bad_clips(folder: Path) -> list[str]:
    opus = encode_lossy(make_sound(4.0, 0, 48_000), "opus")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("bu bir ses dosyası değil\n" * 50, encoding="utf-8")
    (folder / "header.opus").write_bytes(opus[:60])
    (folder / "half.opus").write_bytes(opus[: len(opus) // 2])
    (folder / "nothing.wav").write_bytes(encode_wav(np.zeros(0, dtype=np.float32)))
    (folder / "nan.wav").write_bytes(encode_wav(np.full(16_000, np.nan, dtype=np.float32), subtype="FLOAT"))
    (folder / "folder.wav").mkdir()
    return ["empty.wav", "text.wav", "header.opus", "half.opus", "nothing.wav", "nan.wav", "folder.wav", "missing.wav"]


def test_corrupt_clips_are_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = write_bad_clips(tmp_path)
    rows = write_corpus(tmp_path, 3) + [{"audio": name, "text": TEXT, "duration": 4.0} for name in bad]

    folder = run(tmp_path, rows, max_bad_share=0.8)

    assert len(read_manifest(folder)) == 3
    assert read_dropped(folder) == dict.fromkeys(bad, "corrupt")
    report = (folder / "report.md").read_text(encoding="utf-8")
    for name in bad:
        assert f"`{name}`" in report
        assert f"{name}: skipped" in caplog.text
    assert "of the 4.00 s that the manifest states: cut off?" in report  # half.opus, which decodes without an error


def test_too_many_corrupt_clips_stop_the_run_at_once(tmp_path: Path) -> None:
    bad = write_bad_clips(tmp_path)
    rows = [{"audio": name, "text": TEXT} for name in bad if name != "half.opus"] + write_corpus(tmp_path, 20)
    message = r"2 of 27 clips of source cannot be decoded, more than the 5.0% that --max_bad_share allows.*empty\.wav.*text\.wav"
    with pytest.raises(TooManyBadClipsError, match=message):
        run(tmp_path, rows)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert not (tmp_path / "out" / "run.json").exists()


def test_no_clip_left_says_why(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 3)
    with pytest.raises(DatasetError, match=r"no clip of source is left: of 3, 3 too short; see .*dropped\.jsonl"):
        run(tmp_path, rows, min_duration_s=5.0)
    assert not (tmp_path / "out" / "run.json").exists()


def test_an_empty_manifest(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="source has no clips; its splits are: none"):
        run(tmp_path, [])


# --- fractions ---


def test_a_fraction_is_drawn_by_lot_and_repeats_with_the_seed() -> None:
    sizes = {"train": 1000, "test": 200}
    config = PrepareConfig("x", train_percent=0.1, eval_percent=0.5, seed=3)
    chosen = choose_records(sizes, config, "x")
    again = choose_records(sizes, config, "x")
    other = choose_records(sizes, replace(config, seed=4), "x")
    assert {split: int(mask.sum()) for split, mask in chosen.items()} == {"train": 100, "test": 100}
    assert all((chosen[split] == again[split]).all() for split in sizes)
    assert any((chosen[split] != other[split]).any() for split in sizes)
    # Spread over the whole split: were the first rows taken, their mean would be 49.5 instead of about 499.5 +- 29.
    assert 380 < np.flatnonzero(chosen["train"]).mean() < 620


def test_more_of_one_split_keeps_what_was_drawn_before() -> None:
    small = choose_records({"train": 500, "test": 50}, PrepareConfig("x", train_percent=0.1, eval_percent=0.2), "x")
    large = choose_records({"train": 500, "test": 50}, PrepareConfig("x", train_percent=0.3, eval_percent=0.2), "x")
    assert (small["train"] <= large["train"]).all()
    assert (small["test"] == large["test"]).all()


def test_a_tiny_fraction_takes_one_clip(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path, 5)
    assert len(read_manifest(run(tmp_path, rows, train_percent=0.01))) == 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, 10.0, float("nan")])
@pytest.mark.parametrize("field", ["train_percent", "eval_percent"])
def test_a_percentage_that_is_no_fraction(tmp_path: Path, field: str, share: float) -> None:
    with pytest.raises(UsageError, match=f"--{field} is .*such as 0.1 for a tenth"):
        run(tmp_path, write_corpus(tmp_path, 1), **{field: share})


# --- the report ---


def test_run_json_records_the_source_and_the_seed(tmp_path: Path) -> None:
    folder = run(tmp_path, write_corpus(tmp_path, 2), seed=5)
    record = read_json(folder / "run.json")
    assert (record["stage"], record["config"]["seed"]) == ("prepare", 5)
    assert record["inputs"]["source.jsonl"]["path"] == str(tmp_path / "source.jsonl")
    assert record["results"]["splits"]["train"]["clips"] == 2


def test_a_second_run_replaces_the_first_and_its_audio(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(encode_wav(make_sound(1.0, number, 8_000), 8_000))
    rows = [{"audio": f"{number}.wav", "text": TEXT} for number in range(3)]
    assert len(list((run(tmp_path, rows) / "audio").iterdir())) == 3
    (tmp_path / "out" / "audio" / "mine.flac").write_bytes(b"not ours to delete")
    folder = run(tmp_path, rows[:1])
    assert sorted(path.name for path in (folder / "audio").iterdir()) == ["mine.flac", "train-000000.flac"]
    assert len(read_manifest(folder)) == 1


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "manifest.jsonl", write_corpus(tmp_path, 1))
    before = source.read_bytes()
    with pytest.raises(UsageError, match="would overwrite the dataset it reads"):
        prepare(PrepareConfig(str(tmp_path), tmp_path))
    assert source.read_bytes() == before


@pytest.mark.parametrize("output", [".", ".."])
def test_the_recordings_of_the_source_are_not_removed(tmp_path: Path, output: str) -> None:
    folder = tmp_path / "set" / "audio"
    names = [f"rec-{number:06d}.wav" for number in range(4)]
    for number, name in enumerate(names):
        write_wav(folder / name, seed=number).rename((folder / name).with_suffix(".flac"))
    write_csv(folder / "metadata.csv", [("file_name", "text"), *((f"{name[:-4]}.flac", "bir iki") for name in names)])
    with pytest.raises(UsageError, match="would overwrite the dataset it reads"):
        prepare(PrepareConfig(str(folder), folder / output, train_percent=0.25))
    assert len(list(folder.glob("rec-*.flac"))) == len(names)


def test_no_threads_is_a_usage_error(tmp_path: Path) -> None:
    rows = write_corpus(tmp_path)
    with pytest.raises(UsageError, match="--threads is 0; expected 1 or more"):
        run(tmp_path, rows, threads=0)


def test_a_licence_may_be_a_list_and_a_split_may_hold_a_slash(tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(encode_wav(make_sound(1.0, rate_hz=8000), rate_hz=8000))
    row = {"audio": "1.wav", "text": "bir iki", "duration": 1.0, "split": "a/b", "source": 5, "license": ["x", "y"]}
    (clip,) = read_manifest(run(tmp_path, [row]))
    assert (clip.split, clip.source, clip.licence, clip.audio.is_file()) == ("a/b", "5", "x, y", True)


def test_a_prepared_folder_can_be_prepared_again(tmp_path: Path) -> None:
    first = run(tmp_path, write_corpus(tmp_path, 3))
    second = prepare(PrepareConfig(str(first), tmp_path / "again"))
    assert read_manifest(second) == read_manifest(first)


# --- parts ---


def test_map_in_order_keeps_the_order_and_reads_only_a_little_ahead() -> None:
    read: list[int] = []

    def count() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    def double(number: int) -> int:
        time.sleep(0.002 if number % 3 else 0.0)
        return 2 * number

    results = map_in_order(double, count(), threads=2)
    assert [next(results) for _ in range(20)] == [2 * number for number in range(20)]
    assert len(read) <= 20 + 8
    results.close()  # type: ignore[attr-defined]  # a generator; callers only need an iterator


def test_map_in_order_passes_errors_on() -> None:
    def fail(number: int) -> int:
        return 1 // (number - 2)

    results = map_in_order(fail, range(5), threads=2)
    assert [next(results), next(results)] == [1 // -2, 1 // -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


# --- the bundled data ---
