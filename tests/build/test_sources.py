from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import datasets
import pytest
from datasets import Audio, Dataset, DatasetDict, Value
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from dinle.build.config import PrepareConfig
from dinle.build.sources import Record, name_split, open_source
from dinle.errors import DatasetError, HubUnreachableError, ManifestError
from dinle.recognize.audio import decode_audio
from tests.build.corpora import make_sound, write_csv, write_jsonl, write_tsv, write_wav
from tests.sounds import encode_lossy

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what ``datasets`` converts out of the user's cache, and its progress bars out of the output."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets-cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def read_all(name: Path | str, **fields: Any) -> list[Record]:
    return list(open_source(PrepareConfig(str(name), **fields)).read(lambda _split, _number: True))


# --- tables ---


def test_a_jsonl_manifest_with_our_keys(tmp_path: Path) -> None:
    row = {
        "audio": "a.wav",
        "text": "Işık",
        "duration": 2,
        "speaker": "s",
        "split": "dev",
        "source": "q",
        "licence": "CC0",
    }
    path = write_jsonl(tmp_path / "manifest.jsonl", [row])
    expected = Record("a.wav", tmp_path / "a.wav", "Işık", "validation", "s", "q", "CC0", 2.0)
    assert read_all(path) == read_all(tmp_path) == [expected]


def test_a_jsonl_manifest_with_the_keys_of_others(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "theirs.jsonl", [{"audio_filepath": "/x/a.wav", "transcript": "bir", "speaker_id": 7}]
    )
    assert read_all(path) == [Record("/x/a.wav", Path("/x/a.wav"), "bir", "train", "7", "theirs")]


def test_columns_can_be_given(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "m.jsonl", [{"audio": "a.wav", "text": "yanlış", "ses": "b.wav", "yazı": "doğru"}])
    (record,) = read_all(path, audio_column="ses", text_column="yazı")
    assert (record.audio, record.text) == (tmp_path / "b.wav", "doğru")


def test_a_jsonl_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a.wav", "text": "bir"}\n{"audio": \n', encoding="utf-8")
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: not JSON"):
        open_source(PrepareConfig(str(path))).count()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "bir"}, r"m\.jsonl:1 has no audio column: .* among text; name it with --audio_column"),
        ({"audio": "a.wav"}, r"m\.jsonl:1 has no text column"),
        ({"audio": 5, "text": "bir"}, r"m\.jsonl:1: the audio column holds 5"),
        ({"audio": "a.wav", "text": 5}, r"m\.jsonl:1: the text column holds 5"),
    ],
)
def test_a_jsonl_line_without_a_clip(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write_jsonl(tmp_path / "m.jsonl", [row])
    with pytest.raises(DatasetError, match=message):
        read_all(path)


def test_common_voice_uses_its_own_splits_and_takes_quotes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    header = ("client_id", "path", "sentence")
    write_tsv(tmp_path / "train.tsv", [header, ("c1", "1.mp3", '"Gel" dedi'), ("c2", "2.mp3", 'Bir " tane')])
    write_tsv(tmp_path / "dev.tsv", [header, ("c3", "3.mp3", "üç")])
    write_tsv(tmp_path / "validated.tsv", [header, ("c1", "1.mp3", "fazladan")])
    clips = tmp_path / "clips"
    assert read_all(tmp_path) == [
        Record("1.mp3", clips / "1.mp3", '"Gel" dedi', "train", "c1", tmp_path.name, "CC0-1.0"),
        Record("2.mp3", clips / "2.mp3", 'Bir " tane', "train", "c2", tmp_path.name, "CC0-1.0"),
        Record("3.mp3", clips / "3.mp3", "üç", "validation", "c3", tmp_path.name, "CC0-1.0"),
    ]


def test_common_voice_with_only_validated_clips_is_a_training_split(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_tsv(tmp_path / "validated.tsv", [("client_id", "path", "sentence"), ("c1", "1.mp3", "bir")])
    assert open_source(PrepareConfig(str(tmp_path))).count() == {"train": 1}


def test_a_common_voice_table_without_its_columns(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_tsv(tmp_path / "train.tsv", [("client_id", "path", "words"), ("c1", "1.mp3", "bir")])
    with pytest.raises(DatasetError, match=r"train\.tsv has no text column: .* among client_id, path, words"):
        open_source(PrepareConfig(str(tmp_path))).count()


def test_early_common_voice_releases_leave_the_suffix_out(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_tsv(tmp_path / "train.tsv", [("client_id", "path", "sentence"), ("c1", "1", "bir")])
    assert [record.audio for record in read_all(tmp_path)] == [tmp_path / "clips" / "1.mp3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,text\n1.wav,ışık\n".encode("iso-8859-9"), "is not UTF-8 text"),
        (b'file_name,text\n1.wav,"' + b"bir iki\n" * 20_000, "is a quotation mark left open"),
    ],
)
def test_a_csv_file_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        open_source(PrepareConfig(str(tmp_path))).count()


def test_audiofolder_with_split_folders_inside_data(tmp_path: Path) -> None:
    rows = [("file_name", "text"), ("data/train/1.wav", "bir"), ("data/testing/2.wav", "iki")]
    write_csv(tmp_path / "metadata.csv", rows)
    assert [record.split for record in read_all(tmp_path)] == ["train", "test"]


def test_audiofolder_with_metadata_at_the_root(tmp_path: Path) -> None:
    rows = [("file_name", "transcription"), ("train/1.wav", "bir, iki"), ("test/2.wav", "üç"), ("3.wav", "dört")]
    write_csv(tmp_path / "metadata.csv", rows)
    assert [(record.audio, record.text, record.split) for record in read_all(tmp_path)] == [
        (tmp_path / "train/1.wav", "bir, iki", "train"),
        (tmp_path / "test/2.wav", "üç", "test"),
        (tmp_path / "3.wav", "dört", "train"),
    ]


@pytest.mark.parametrize("parent", ["", "data"])
def test_audiofolder_with_metadata_in_each_split(tmp_path: Path, parent: str) -> None:
    train, test = tmp_path / parent / "train", tmp_path / parent / "test"
    write_jsonl(train / "metadata.jsonl", [{"file_name": "a/1.wav", "text": "bir"}])
    write_csv(test / "metadata.csv", [("file_name", "text"), ("2.wav", "iki")])
    records = sorted((record.split, record.audio, record.text) for record in read_all(tmp_path))
    assert records == [("test", test / "2.wav", "iki"), ("train", train / "a/1.wav", "bir")]


def test_only_the_wanted_records_are_made_and_numbers_count_within_a_split(tmp_path: Path) -> None:
    rows = [{"audio": f"{n}.wav", "text": "a", "split": "train" if n % 2 else "test"} for n in range(6)]
    source = open_source(PrepareConfig(str(write_jsonl(tmp_path / "m.jsonl", rows))))
    assert source.count() == {"train": 3, "test": 3}
    assert [record.name for record in source.read(lambda _split, number: number == 1)] == ["2.wav", "3.wav"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "train"),
        ("train", "train"),
        ("dev", "validation"),
        ("valid", "validation"),
        ("training", "train"),
        ("testing", "test"),
        ("evaluation", "validation"),
        ("validated", "validated"),  # Common Voice: train, dev and test once more
        ("train.clean.100", "train"),
        ("test-other", "test"),
        ("invalidated", "invalidated"),
        ("other", "other"),
    ],
)
def test_split_names(name: str | None, expected: str) -> None:
    assert name_split(name) == expected


# --- what is not a dataset ---


def test_an_unknown_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    with pytest.raises(DatasetError) as caught:
        open_source(PrepareConfig(str(tmp_path)))
    for wanted in ("manifest.jsonl", "validated.tsv", "metadata.csv", "dataset_dict.json", "*.parquet", str(tmp_path)):
        assert wanted in str(caught.value)


def test_a_file_that_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.wav is a file, but no JSONL manifest"):
        open_source(PrepareConfig(str(write_wav(tmp_path / "a.wav"))))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing-here", "a/b/c"])
def test_a_missing_path_is_not_taken_for_a_hub_id(name: str) -> None:
    with pytest.raises(DatasetError, match="there is no file or folder"):
        open_source(PrepareConfig(name))


# --- the datasets library ---


def make_rows(count: int, first: int = 0) -> Dataset:
    """Rows as khanacademy-turkish has them: Opus bytes in an Audio column, text in ``transcription``."""
    sounds = [encode_lossy(make_sound(1.0, seed, 48_000), "opus") for seed in range(first, first + count)]
    columns = {
        "audio": [{"bytes": sound, "path": f"{first + n}.opus"} for n, sound in enumerate(sounds)],
        "transcription": [f"cümle {first + n}" for n in range(count)],
        "speaker_id": list(range(first, first + count)),
    }
    features = {
        "audio": {"bytes": Value("binary"), "path": Value("string")},
        "transcription": Value("string"),
        "speaker_id": Value("int64"),
    }
    # Encoding into an Audio column needs torchcodec; casting into one does not.
    return Dataset.from_dict(columns, features=datasets.Features(features)).cast_column(
        "audio", Audio(sampling_rate=16_000)
    )


def write_parquet(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    make_rows(3).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    make_rows(1, first=3).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def check_opus_rows(records: list[Record]) -> None:
    assert [(record.text, record.split, record.speaker) for record in records] == [
        ("cümle 0", "train", "0"),
        ("cümle 1", "train", "1"),
        ("cümle 2", "train", "2"),
        ("cümle 3", "test", "3"),
    ]
    assert [record.name for record in records][-2:] == ["train[2] 2.opus", "test[0] 3.opus"]
    for record in records:
        assert isinstance(record.audio, bytes)
        assert len(decode_audio(record.audio)) == pytest.approx(16_000, abs=400)


def test_a_parquet_folder_with_encoded_bytes(tmp_path: Path) -> None:
    check_opus_rows(read_all(write_parquet(tmp_path / "set")))


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    DatasetDict({"train": make_rows(3), "test": make_rows(1, first=3)}).save_to_disk(tmp_path / "set")
    check_opus_rows(read_all(tmp_path / "set"))


def test_a_single_saved_split_with_paths_as_strings(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"file": [str(tmp_path / "a.wav"), None], "sentence": ["bir", None], "number": [1, 2]})
    rows.save_to_disk(tmp_path / "set")
    first, second = read_all(tmp_path / "set")
    assert (first.audio, first.text, first.split) == (tmp_path / "a.wav", "bir", "train")
    assert (second.audio, second.text) == (b"", "")  # decodes to an error that names the row


def test_another_audio_column_is_left_alone(tmp_path: Path) -> None:
    rows = make_rows(1)
    rows = rows.add_column("noise", [row["audio"] for row in rows.cast_column("audio", Audio(decode=False))])
    rows.cast_column("noise", Audio()).save_to_disk(tmp_path / "set")
    assert len(read_all(tmp_path / "set", audio_column="audio")) == 1


def test_a_dataset_without_a_text_column_lists_its_columns(tmp_path: Path) -> None:
    make_rows(1).rename_column("transcription", "words").save_to_disk(tmp_path / "set")
    message = r"set \(train\) has no text column: .* among audio, words, speaker_id; name it with --text_column"
    with pytest.raises(DatasetError, match=message):
        open_source(PrepareConfig(str(tmp_path / "set")))
    assert read_all(tmp_path / "set", text_column="words")[0].text == "cümle 0"


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 this is no table PAR1")
    with pytest.raises(DatasetError, match="cannot be loaded: .*Parquet"):
        open_source(PrepareConfig(str(tmp_path)))


# --- the hub ---


def cut_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(HfApi, "dataset_info", fail)


def test_an_unreachable_hub_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_the_line(monkeypatch)
    started = time.monotonic()
    with pytest.raises(
        HubUnreachableError, match=r"does not answer \(TimeoutError.*'ysdede/khanacademy-turkish'.*give a folder"
    ):
        open_source(PrepareConfig("ysdede/khanacademy-turkish"))
    assert time.monotonic() - started < 5  # datasets alone would retry for about 25 s


def test_a_cached_copy_is_used_when_the_hub_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.load_dataset(str(write_parquet(tmp_path / "tiny")))
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    (converted,) = (path.parent for path in cache.glob("**/dataset_info.json"))
    stored = cache / "someone___tiny" / "default" / "0.0.0" / "0123456789abcdef"
    stored.parent.mkdir(parents=True)
    converted.rename(stored)
    for path in stored.glob("*.arrow"):
        path.rename(stored / path.name.replace("parquet-", "tiny-"))
    cut_the_line(monkeypatch)
    check_opus_rows(read_all("someone/tiny"))


def test_a_dataset_that_the_hub_does_not_give_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise RepositoryNotFoundError("404: no such repository", response=MagicMock())

    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    with pytest.raises(DatasetError, match=r"does not give out the dataset 'someone/nothing' .*hf auth login"):
        open_source(PrepareConfig("someone/nothing"))


def test_a_hub_dataset_carries_the_licence_of_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_parquet(tmp_path / "set")
    load_dataset = datasets.load_dataset
    asked: list[tuple[str, str | None]] = []

    def load_local(name: str, config: str | None = None) -> Any:
        asked.append((name, config))
        return load_dataset(str(folder))

    card = SimpleNamespace(card_data={"license": ["cc-by-4.0", "mit"]})
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_kwargs: card)
    monkeypatch.setattr(datasets, "load_dataset", load_local)
    records = read_all("google/fleurs", dataset_config="tr_tr")
    check_opus_rows(records)
    assert asked == [("google/fleurs", "tr_tr")]
    assert {(record.source, record.licence) for record in records} == {("google/fleurs", "cc-by-4.0, mit")}
