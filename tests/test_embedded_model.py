"""The recipe of the bundled models: which texts are drawn, which steps run again, and the whole path on tiny models."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dinle import embedded
from dinle.build import data_report
from dinle.config import read_json
from dinle.demo import Stages
from dinle.embedded import EmbeddedConfig, make_embedded_models
from dinle.embedded_texts import (
    NATURAL_FILE,
    ROBOTIC_FILE,
    SENTENCE_LENGTHS,
    ChooseTextsConfig,
    choose_texts,
    list_sentences,
    list_words,
    read_held_out,
)
from dinle.errors import DatasetError, UsageError
from dinle.manifest import read_manifest
from dinle.recognize.bundle import read_bundle
from dinle.steps import Ledger, Step
from dinle.text import normalize_tr
from tests.build.corpora import write_wav
from tests.build.speakers import write_espeak, write_kokoro
from tests.build.tiny_models import make_ctc_folder, make_whisper_speech_folder

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = (
    "Masa kalmak ister.", "Ekle masal bana!", "Bugün hava güzel.", "Saat kaç oldu?", "Kalmak istemem artık.",
    "Yarın okul yok.", "Ada vapuru geldi.", "Kapı açık mı?", "Işık söndü yine.",
)  # fmt: skip
EXPERIMENT = """
[cut-vocabulary]
texts = {texts}
size = 266

[prepare]
test_voices = ["{test_voice}"]
max_chars_per_s = 60.0

[train]
max_steps = 2
eval_every_steps = 1
batch_seconds = 8.0
log_dir = "{runs}"
{training}

[export]
parity_audio = "{sound}"

[quantize]
manifest = "{manifest}"
max_wer_loss = 9.0
"""


@pytest.fixture(autouse=True)
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_histogram", "plot_characters"):
        monkeypatch.setattr(data_report, name, lambda *_args, **_fields: None)


def write_texts(folder: Path) -> Path:
    folder.mkdir()
    (folder / "common_voice_test.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    (folder / "test_wordfreq.tsv").write_text("masa 9\nkal\t5\nışık 3\nwx 2\nb 1\n", encoding="utf-8")
    return folder


def write_judged(folder: Path) -> Path:
    lines = []
    for number, text in enumerate(("Işık söndü yine.", "kal")):
        write_wav(folder / f"{number}.wav", seconds=1.0, seed=number)
        lines.append(json.dumps({"audio": f"{number}.wav", "text": text, "duration": 1.0}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


# --- texts ---


def test_drawn_texts_are_plain_and_not_held_out() -> None:
    held_out = [ROOT / "data" / name for name in ("synthetic-sentences", "synthetic-words", "mini")]
    taken = read_held_out(held_out)
    sentences, words = (choose(ROOT / "data" / "text", taken) for choose in (list_sentences, list_words))
    assert len(sentences) > 1500
    assert len(words) > 5000
    assert not {normalize_tr(text) for text in [*sentences, *words]} & taken
    assert all(len(text) in SENTENCE_LENGTHS and not set(text) & set('0123456789"%&qwxQWX') for text in sentences)


def test_the_lot_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    judged = write_judged(tmp_path / "judged")
    config = ChooseTextsConfig(
        write_texts(tmp_path / "text"), tmp_path / "a", (judged,), sentences=8, robotic=3, words=10
    )
    first = choose_texts(config).read_bytes()
    assert choose_texts(replace(config, output_dir=tmp_path / "b")).read_bytes() == first
    assert choose_texts(replace(config, output_dir=tmp_path / "c", seed=2)).read_bytes() != first
    rows = [
        line.split("\t")
        for name in (NATURAL_FILE, ROBOTIC_FILE)
        for line in (tmp_path / "a" / name).read_text(encoding="utf-8").splitlines()
    ]
    texts = [text for text, _ in rows]
    assert len(set(texts)) == len(texts)
    assert set(SENTENCES) - set(texts) == {"Işık söndü yine."}
    assert not {"kal", "wx", "b"} & {word for text in texts for word in text.split()}
    assert Counter(split for _, split in rows)["validation"] == 2  # at least one of each file


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"lacks common_voice_\*.txt or \*_wordfreq.tsv"):
        choose_texts(ChooseTextsConfig(tmp_path, tmp_path))


# --- steps ---


class Maker:
    """A step's work: writes its record, or fails first."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self.resumed: list[bool] = []
        self.fails = False

    def __call__(self, resume: bool) -> None:
        self.resumed.append(resume)
        if self.fails:
            raise KeyboardInterrupt
        self.record.parent.mkdir(exist_ok=True)
        self.record.write_text("{}", encoding="utf-8")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    experiment = tmp_path / "experiment.toml"
    experiment.write_text("", encoding="utf-8")
    return Ledger(tmp_path, Stages(experiment, Console(width=200)))


def test_a_step_runs_again_only_for_a_reason(
    tmp_path: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.txt"
    source.write_text("bir", encoding="utf-8")
    maker = Maker(tmp_path / "product" / "run.json")
    config = EmbeddedConfig()
    step = Step("speak", maker.record, (config,), (source,), maker)

    def run(step: Step = step) -> str:
        ledger.run(step)
        return capsys.readouterr().out

    assert "not made yet" in run()
    assert f"speak: skipped, {maker.record} is there" in run()
    assert "skipped" in run(replace(step, configs=(replace(config, threads=3),)))
    assert "settings or inputs have changed" in run(replace(step, configs=(replace(config, seed=3),)))
    assert "settings or inputs have changed" in run()
    source.write_text("iki", encoding="utf-8")
    assert "settings or inputs have changed" in run()
    maker.record.unlink()
    assert "its record is gone" in run()
    assert maker.resumed == [False, False, False, False, True]


def test_a_training_goes_on_with_its_own_settings_only(tmp_path: Path, ledger: Ledger) -> None:
    maker = Maker(tmp_path / "out" / "run.json")
    config = EmbeddedConfig()
    step = Step("train", maker.record, (config,), (), maker, checkpoints=tmp_path / "out")
    maker.fails = True
    with pytest.raises(KeyboardInterrupt):
        ledger.run(step)
    (tmp_path / "out" / "checkpoint-5").mkdir(parents=True)
    other = replace(step, configs=(replace(config, seed=9),))
    for _ in range(2):
        with pytest.raises(UsageError, match="interrupted training with other settings or inputs: delete the folder"):
            ledger.run(other)
    maker.fails = False
    ledger.run(step)
    assert maker.resumed == [False, True]


# --- the recipe ---


def test_the_experiments_take_every_text() -> None:
    tables = tomllib.loads((ROOT / "configs" / "embedded-whisper.toml").read_text(encoding="utf-8"))
    texts = {
        str(path.relative_to(ROOT)) for path in (ROOT / "data" / "text").iterdir() if path.suffix in (".txt", ".tsv")
    }
    assert set(tables["cut-vocabulary"]["texts"]) == texts


def test_both_experiments_say_where_the_recipe_puts_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = EmbeddedConfig(kokoro=Path("model.onnx"), kokoro_voices=Path("voices"))
    whisper, ctc = (Stages(path, Console(quiet=True)) for path in (config.whisper_experiment, config.ctc_experiment))
    steps = list(embedded.list_steps(config, whisper, ctc))
    assert len(steps) == len({step.title for step in steps}) == 15
    for stages, number in ((whisper, 5), (ctc, 7)):
        (settings,) = steps[number].configs
        table = stages.tables["train"]
        assert {name: str(getattr(settings, name)) for name in ("model_name", "dataset_name", "output_dir")} == {
            name: table[name] for name in ("model_name", "dataset_name", "output_dir")
        }


def test_without_kokoro_it_says_what_to_download(tmp_path: Path) -> None:
    config = EmbeddedConfig(
        whisper_experiment=ROOT / "configs" / "embedded-whisper.toml",
        ctc_experiment=ROOT / "configs" / "embedded-ctc.toml", output_dir=tmp_path / "out",
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"onnx-community/Kokoro-82M-v1.0-ONNX .* KOKORO=\S+ KOKORO_VOICES=\S+"):
        make_embedded_models(config)
    with pytest.raises(UsageError, match="there is no file"):
        make_embedded_models(replace(config, kokoro=tmp_path / "no.onnx", kokoro_voices=tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedConfig:
    """Tiny models, texts, voices and experiments, and a program in the place of espeak-ng."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write_espeak(tmp_path / "bin")
    release = write_kokoro(tmp_path / "kokoro")
    texts, judged = write_texts(tmp_path / "text"), write_judged(tmp_path / "judged")
    common = {
        "texts": json.dumps([str(path) for path in sorted(texts.iterdir())]), "runs": tmp_path / "runs",
        "sound": judged / "0.wav", "manifest": judged / "manifest.jsonl",
    }  # fmt: skip
    lora = 'method = "lora"\nlora_target = "decoder"\nlora_rank = 2'
    ctc_model = make_ctc_folder(tmp_path / "ctc-start")
    for name, test_voice, training in (("whisper", "ece", lora), ("ctc", "f1", f'model_name = "{ctc_model}"')):
        text = EXPERIMENT.format(test_voice=test_voice, training=training, **common)
        if name == "ctc":
            text = text.replace("[prepare]", '[prepare]\nvoices = ["m3", "klatt2"]')
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    return EmbeddedConfig(
        whisper=str(make_whisper_speech_folder(tmp_path / "whisper-start")),
        kokoro=release / "onnx" / "model.onnx", kokoro_voices=release / "voices",
        whisper_experiment=tmp_path / "whisper.toml", ctc_experiment=tmp_path / "ctc.toml",
        texts=texts, judge_on=(judged,), held_out=(), output_dir=tmp_path / "out",
        sentences=8, robotic=3, words=4, threads=1,
    )  # fmt: skip


def read_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def break_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from dinle.build import train

    def stop(_config: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", stop)


def check_speech(folder: Path) -> None:
    clips = read_manifest(folder / "speech")
    lines = (folder / "speech" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["audio"].startswith("../speech-") for line in lines)
    assert Counter(str(clip.speaker).partition(":")[0] for clip in clips)["espeak-ng"] == 3
    assert not {"ece", "tr+f1"} & {str(clip.speaker).partition(":")[2] for clip in clips}
    assert {clip.split for clip in clips} == {"train", "validation"}


def check_bundles(bundles: tuple[Path, Path]) -> None:
    whisper, ctc = map(read_bundle, bundles)
    assert (whisper.name, ctc.name, ctc.checkpoint) == ("dinle-base-tr", "dinle-ctc-tr", "checkpoint")
    assert set(whisper.files) == set(ctc.files) == {"int8"}
    assert not list(bundles[0].glob("*coder.onnx")) + list(bundles[1].glob("model.onnx"))
    assert (bundles[1] / "checkpoint" / "provenance.json").is_file()
    assert dict(whisper.provenance[0]) == {
        "what": "weights", "name": "whisper-start", "source": "whisper-start", "licence": "MIT"
    }  # fmt: skip
    speech = [entry for entry in whisper.provenance[1:] if entry["what"] != "language model"]
    assert {entry["name"].partition(" ")[0] for entry in speech} == {"Kokoro-82M", "espeak-ng"}
    for bundle in bundles:
        assert (bundle / "run_lm.json").is_file()
    assert whisper.language_model is not None
    assert ctc.language_model is not None
    for name in ("dinle-base-tr_judged", "dinle-ctc-tr_judged"):
        assert read_json(bundles[0].parent / "evaluation" / name / "scores.json")["scores"]["tr"]


@pytest.mark.slow
def test_the_whole_path_goes_on_after_an_interruption_and_then_does_nothing_again(
    tiny: EmbeddedConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        break_training(patch)
        with pytest.raises(KeyboardInterrupt):
            make_embedded_models(tiny)
    check_speech(tiny.output_dir)
    spoken = read_times(tiny.output_dir / "speech") | read_times(tiny.output_dir / "cut")
    capsys.readouterr()

    bundles = make_embedded_models(tiny)
    shown = capsys.readouterr().out
    assert shown.count("skipped") == 5  # vocabulary, texts, two engines, the merge
    assert "train whisper (goes on where it was interrupted)" in shown
    assert shown.splitlines()[-1] == f"to bundle them: cp -r {bundles[0]} {bundles[1]} models/"
    check_bundles(bundles)
    assert read_times(tiny.output_dir / "speech") | read_times(tiny.output_dir / "cut") == spoken

    before = read_times(tiny.output_dir)
    make_embedded_models(tiny)
    assert capsys.readouterr().out.count("skipped") == 13
    assert read_times(tiny.output_dir) == before
