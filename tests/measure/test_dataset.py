"""Evaluation straight from a dataset: small local copies of the shapes that the hub's Turkish datasets have."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import datasets
import pytest
from datasets import Audio, ClassLabel, Dataset, Features, Value
from huggingface_hub import HfApi

from dinle.cli import main
from dinle.config import read_json
from dinle.errors import DatasetError, MissingExtraError, UsageError
from dinle.measure.config import EvaluateConfig
from dinle.measure.evaluate import evaluate
from dinle.measure.predictions import read_predictions
from tests.build.corpora import write_tsv
from tests.graphs import spell_levels, write_level_bundle
from tests.measure.speech import write_clip
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SPOKEN = ("ırmak geldi", "iki kuş uçtu", "bir")
WRITTEN = ("Irmak geldi.", "İki kuş kaçtı.", "Bir!")
# Columns besides the sound, as the cards of the datasets list them; the order is the cards' too.
FLEURS: dict[str, tuple[Any, Any]] = {
    "id": (Value("int32"), 1001), "num_samples": (Value("int32"), 16_000), "path": (Value("string"), "/a/1.wav"),
    "audio": (None, None), "transcription": (Value("string"), SPOKEN), "raw_transcription": (Value("string"), WRITTEN),
    "gender": (ClassLabel(names=["male", "female", "other"]), 1), "lang_id": (ClassLabel(names=["de_de", "tr_tr"]), 1),
    "language": (Value("string"), "Turkish"), "lang_group_id": (ClassLabel(names=["western_european_we"]), 0),
}  # fmt: skip
COMMON_VOICE: dict[str, tuple[Any, Any]] = {
    "client_id": (Value("string"), "f00d"), "path": (Value("string"), "common_voice_tr_1.mp3"), "audio": (None, None),
    "sentence": (Value("string"), WRITTEN), "up_votes": (Value("int64"), 2), "down_votes": (Value("int64"), 0),
    "age": (Value("string"), "twenties"), "gender": (Value("string"), ""), "accent": (Value("string"), ""),
    "locale": (Value("string"), "tr"), "segment": (Value("string"), ""), "variant": (Value("string"), ""),
}  # fmt: skip
MEDIA_SPEECH: dict[str, tuple[Any, Any]] = {"audio": (None, None), "sentence": (Value("string"), WRITTEN)}
KHAN_ACADEMY: dict[str, tuple[Any, Any]] = {"audio": (None, None), "transcription": (Value("string"), WRITTEN)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what ``datasets`` converts out of the user's cache, its progress bars out of the output, and plots undrawn."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets-cache"))
    for name in ("report.plot_group_rates", "report.plot_clip_rates"):
        monkeypatch.setattr(f"dinle.measure.{name}", lambda *_, **__: None)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def make_rows(columns: Mapping[str, tuple[Any, Any]], spoken: tuple[str, ...] = SPOKEN) -> Dataset:
    """One row for each text; a column's value is one for each row, or the same for all."""
    sounds = [
        {"bytes": encode_wav(spell_levels(text), subtype="FLOAT"), "path": f"{n}.wav"} for n, text in enumerate(spoken)
    ]
    stored = {"bytes": Value("binary"), "path": Value("string")}
    features = {name: stored if name == "audio" else feature for name, (feature, _) in columns.items()}
    values = {
        name: sounds if name == "audio" else list(value[: len(spoken)]) if isinstance(value, tuple) else [value] * len(spoken)
        for name, (_, value) in columns.items()
    }  # fmt: skip
    # Encoding into an Audio column needs torchcodec; casting into one does not.
    rows = Dataset.from_dict(values, features=Features(features))
    return rows.cast_column("audio", Audio(sampling_rate=16_000))


def write_repository(folder: Path, name: str, splits: Mapping[str, Dataset]) -> Path:
    """A dataset as the hub stores it: Parquet files of one configuration, and a card that says where they are."""
    lines = ["---", "license: cc-by-4.0", "configs:", f"- config_name: {name}", "  data_files:"]
    (folder / name).mkdir(parents=True)
    for split, rows in splits.items():
        rows.to_parquet(folder / name / f"{split}-00000-of-00001.parquet")
        lines += [f"  - split: {split}", f"    path: {name}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    return folder


def run(root: Path, dataset: str | Path, **fields: Any) -> Path:
    model = write_level_bundle(root / "model").folder
    return evaluate(
        EvaluateConfig(
            dataset=str(dataset), model=str(model), output_dir=root / "out", threads=1, bootstrap_samples=10, **fields
        )
    )


@pytest.mark.parametrize(
    ("columns", "name", "split", "references", "speaker"),
    [
        (FLEURS, "tr_tr", "test", SPOKEN, None),
        (COMMON_VOICE, "tr", "test", WRITTEN, "f00d"),
        (MEDIA_SPEECH, "tr", "train", WRITTEN, None),
        (KHAN_ACADEMY, "default", "test", WRITTEN, None),
    ],
    ids=["fleurs", "common voice", "media speech", "khan academy"],
)
def test_each_shape_is_read_and_scored(
    tmp_path: Path, columns: Any, *, name: str, split: str, references: tuple[str, ...], speaker: str | None
) -> None:
    source = write_repository(tmp_path / "set", name, {split: make_rows(columns)})
    folder = run(tmp_path, source, dataset_config=name, split=split)
    predictions = read_predictions(folder)
    assert tuple(one.hypothesis for one in predictions) == SPOKEN
    assert tuple(one.reference for one in predictions) == references
    assert {one.speaker for one in predictions} == {speaker}
    scores = read_json(folder / "scores.json")
    assert scores["data"] == {
        "manifest": str(folder / "data" / "manifest.jsonl"), "split": split, "dataset": str(source),
        "dataset_config": name, "text_column": None, "dropped": {},
    }  # fmt: skip
    assert scores["scores"]["tr"]["exact"]["clips"] == (3 if references == SPOKEN else 2)
    assert f"| data | `{source}`, `{name}`, split {split}, left out: no clip |" in (folder / "report.md").read_text()


def test_the_written_form_can_be_scored_instead(tmp_path: Path) -> None:
    source = write_repository(tmp_path / "set", "tr_tr", {"test": make_rows(FLEURS)})
    folder = run(tmp_path, source, dataset_config="tr_tr", text_column="raw_transcription")
    assert tuple(one.reference for one in read_predictions(folder)) == WRITTEN


def test_the_split_is_test_unless_another_is_named(tmp_path: Path) -> None:
    splits = {"train": make_rows(MEDIA_SPEECH), "test": make_rows(MEDIA_SPEECH, ("bir",))}
    source = write_repository(tmp_path / "set", "default", splits)
    assert [one.id for one in read_predictions(run(tmp_path, source))] == ["audio/test-000000.flac"]
    only_train = write_repository(tmp_path / "train", "default", {"train": splits["train"]})
    with pytest.raises(DatasetError, match=r"no clips of split 'test'; its splits are: train"):
        run(tmp_path, only_train)


def test_no_clip_is_judged_by_its_length_or_text_and_losses_are_reported(tmp_path: Path) -> None:
    long_text = " ".join(["beş"] * 90)
    columns = {"audio": (None, None), "sentence": (Value("string"), ("a", long_text, "", "bir"))}
    rows = make_rows(columns, ("a", long_text, "bir", "bir" * 3))
    assert len(spell_levels(long_text)) / 16_000 > 28
    folder = run(tmp_path, write_repository(tmp_path / "set", "default", {"test": rows}))
    assert [one.reference for one in read_predictions(folder)] == ["a", long_text, "bir"]
    assert read_json(folder / "scores.json")["data"]["dropped"] == {"empty text": 1}
    assert "left out: 1 empty text |" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_release_of_common_voice_is_evaluated_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "tr" / "clips").mkdir(parents=True)
    write_clip(tmp_path / "tr" / "clips" / "1.wav", "bir")
    write_tsv(tmp_path / "tr" / "test.tsv", [("client_id", "path", "sentence"), ("c1", "1.wav", "Bir.")])
    (one,) = read_predictions(run(tmp_path, tmp_path / "tr"))
    assert (one.reference, one.hypothesis, one.speaker) == ("Bir.", "bir", "c1")


def test_the_documented_command_asks_the_hub_for_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_repository(tmp_path / "set", "tr_tr", {"test": make_rows(FLEURS)})
    load_dataset, asked = datasets.load_dataset, []

    def load_local(name: str, config: str | None = None) -> Any:
        asked.append((name, config))
        return load_dataset(str(source), config)

    card = SimpleNamespace(card_data={"license": "cc-by-4.0"})
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_kwargs: card)
    monkeypatch.setattr(datasets, "load_dataset", load_local)
    model = write_level_bundle(tmp_path / "model").folder
    command = ["evaluate", "--dataset", "google/fleurs", "--config", "tr_tr", "--model", str(model), "--threads", "1"]
    assert main([*command, "--bootstrap_samples", "10", "--output_dir", str(tmp_path / "out")]) == 0
    assert asked == [("google/fleurs", "tr_tr")]
    assert "levels (onnx_int8): 3 clips" in capsys.readouterr().out


def test_a_hub_that_does_not_answer_says_what_to_do_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(HfApi, "dataset_info", fail)
    model = write_level_bundle(tmp_path / "model").folder
    command = ["evaluate", "--dataset", "google/fleurs", "--config", "tr_tr", "--model", str(model)]
    assert main([*command, "--output_dir", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(
        "dinle evaluate: the hub does not answer (TimeoutError: timed out), dataset 'google/fleurs'"
    )
    assert "check the network, or give a folder" in shown
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_dataset_that_is_a_script_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found common_voice_17_0.py")

    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_kwargs: SimpleNamespace(card_data=None))
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DatasetError, match=r"common_voice_17_0\.py; .*copy of it in Parquet, or give the folder of a release"
    ):
        run(tmp_path, "mozilla-foundation/common_voice_17_0", dataset_config="tr")


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delitem(sys.modules, "dinle.build.hub_source", raising=False)
    with pytest.raises(MissingExtraError, match=r"'datasets'.*pip install 'dinle\[train\]'"):
        run(tmp_path, "google/fleurs")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "missing --manifest .* or --dataset"),
        ({"manifest": "m.jsonl", "dataset": "a/b"}, r"both --manifest m\.jsonl and --dataset a/b.*exclude each other"),
        ({"manifest": "m.jsonl", "dataset_config": "tr"}, "--dataset_config without --dataset"),
        ({"manifest": "m.jsonl", "text_column": "x", "audio_column": "y"}, "--audio_column, --text_column without"),
    ],
)
def test_flags_that_do_not_fit_are_refused_at_once(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(EvaluateConfig(output_dir=tmp_path / "out", **fields))
