"""A bundle learns from texts: what it expects it writes, what was tuned stays, and an adapted copy knows its field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from dinle.build.language_model import (
    LETTERS,
    LmConfig,
    adapt_bundle,
    build_into_bundle,
    estimate_letters,
    find_field_words,
    measure_bits,
)
from dinle.build.language_model_weights import tune_weights
from dinle.build.ngram import make_levels, mix_orders, restore_orders
from dinle.build.texts import WeightedText
from dinle.cli import main
from dinle.errors import BundleCorruptError, UsageError
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.language_model import LanguageModel, read_language_model
from dinle.recognize.load import load
from dinle.recognize.ngram import Ngram
from tests.graphs import spell_levels, write_level_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.recognize.bundle import Bundle

GENERAL = ["bugün hava çok güzel", "yarın okula gideceğim", "hava yarın güzel olacak", "okula bugün gittim"] * 3
FIELD = [
    "trendyolda sipariş verdim",
    "siparişim trendyoldan geldi",
    "trendyol siparişi hızlı",
    "trendyol iade aldı",
] * 5


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_level_bundle(tmp_path / "levels")


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_clips(folder: Path, texts: list[str]) -> Path:
    """A manifest of clips that the bundle reads as these texts."""
    lines = []
    for number, text in enumerate(texts):
        soundfile.write(folder / f"{number}.wav", spell_levels(text), 16_000, subtype="FLOAT")
        lines.append(json.dumps({"audio": f"{number}.wav", "text": text, "duration": 1.0}))
    return write_lines(folder / "manifest.jsonl", lines)


def make_config(bundle: Bundle, action: str, *texts: Path, **more: Any) -> LmConfig:
    return LmConfig(action=action, texts=texts, bundle_dir=bundle.folder, **{"order": 5} | more)  # type: ignore[arg-type]


def make_model(lines: list[str], order: int = 4) -> LanguageModel:
    levels = make_levels(estimate_letters([WeightedText(one) for one in lines], order), 6)
    letters = {letter: token for token, letter in enumerate(LETTERS)}
    return LanguageModel(letters=letters, ngram=Ngram(levels, len(LETTERS)))


def test_what_is_built_is_read_back_and_knows_its_texts(bundle: Bundle, tmp_path: Path) -> None:
    found = build_into_bundle(make_config(bundle, "build", write_lines(tmp_path / "a.txt", GENERAL), licence="CC0-1.0"))
    assert found["texts"] == len(GENERAL)
    again = read_bundle(bundle.folder)
    assert again.language_model is not None
    assert again.language_model["file"] in again.sha256
    assert again.provenance[-1] == {"what": "language model", "name": "a.txt", "source": "a.txt", "licence": "CC0-1.0"}
    model = read_language_model(again)
    assert measure_bits(model, [WeightedText("hava güzel")]) < measure_bits(model, [WeightedText("jrtk pzw")]) / 2


def test_weights_that_were_tuned_stay_when_texts_are_learnt_anew(bundle: Bundle, tmp_path: Path) -> None:
    config = make_config(bundle, "build", write_lines(tmp_path / "a.txt", GENERAL))
    build_into_bundle(config)
    known = read_bundle(bundle.folder)
    write_bundle(replace(known, language_model=dict(known.language_model or {}) | {"model_weight": 0.123}))
    build_into_bundle(config)
    after = read_bundle(bundle.folder)
    assert (after.language_model or {})["model_weight"] == 0.123
    assert sum(one["what"] == "language model" for one in after.provenance) == 1


def test_a_file_that_was_changed_is_named(bundle: Bundle, tmp_path: Path) -> None:
    build_into_bundle(make_config(bundle, "build", write_lines(tmp_path / "a.txt", GENERAL)))
    (bundle.folder / "lm" / "letters.safetensors").write_bytes(b"garbage")
    with pytest.raises(BundleCorruptError, match="letters.safetensors"):
        load(bundle.folder)


def test_an_unclear_letter_is_written_as_the_texts_expect_it(bundle: Bundle, tmp_path: Path) -> None:
    sound = spell_levels("bugün hava çok güzel")
    letter = bundle.vocabulary.encode("v")[0]
    blurred = np.where(np.isclose(sound, letter / 100), np.float32((letter - 0.55) / 100), sound)
    assert load(bundle.folder).transcribe(blurred).text == "bugün haüa çok güzel"
    build_into_bundle(make_config(bundle, "build", write_lines(tmp_path / "a.txt", GENERAL)))
    assert load(bundle.folder).transcribe(sound).text == "bugün hava çok güzel"
    assert load(bundle.folder).transcribe(blurred).text == "bugün hava çok güzel"
    assert load(bundle.folder, language_model=False).language_model.ngram is None


def test_hot_words_of_a_request_are_expected_and_share_the_engine(bundle: Bundle) -> None:
    recognizer = load(bundle.folder)
    expecting = recognizer.with_hot_words(["Iğdır Belediyesi"])
    assert expecting.engine is recognizer.engine  # type: ignore[attr-defined]
    assert expecting.language_model.hot_words == ("Iğdır Belediyesi",)
    assert recognizer.language_model.hot_words == ()
    assert expecting.transcribe(spell_levels("ığdır belediyesi")).text == "ığdır belediyesi"
    with pytest.raises(UsageError, match="no letter"):
        recognizer.with_hot_words(["?!"])


def test_tuning_writes_the_weights_with_the_fewest_errors(bundle: Bundle, tmp_path: Path) -> None:
    build_into_bundle(make_config(bundle, "build", write_lines(tmp_path / "a.txt", GENERAL)))
    manifest = write_clips(tmp_path, GENERAL[:4])
    trials = tune_weights(make_config(bundle, "tune", manifest=(manifest,)))
    assert trials[0].model_weight == 0
    best = min(trials[1:], key=lambda trial: (trial.wer, trial.cer))
    written = read_bundle(bundle.folder).language_model or {}
    assert (written["model_weight"], written["letter_bonus"]) == (best.model_weight, best.letter_bonus)
    assert written["tuned_on"]["clips"] == 4
    with pytest.raises(UsageError, match="no language model"):
        tune_weights(make_config(write_level_bundle(tmp_path / "bare"), "tune", manifest=(manifest,)))


def test_an_adapted_bundle_knows_its_field_and_the_first_one_is_untouched(bundle: Bundle, tmp_path: Path) -> None:
    build_into_bundle(make_config(bundle, "build", write_lines(tmp_path / "a.txt", GENERAL)))
    before = (bundle.folder / "bundle.json").read_bytes()
    field = write_lines(tmp_path / "field.txt", FIELD)
    found = adapt_bundle(make_config(bundle, "adapt", field, output_dir=tmp_path / "shop"))
    assert found["bits_after"] < 0.8 * found["bits_before"]
    assert "trendyol" in found["hot_words"]
    assert not any(word.startswith("trendyol") and word != "trendyol" for word in found["hot_words"])
    assert (bundle.folder / "bundle.json").read_bytes() == before
    adapted = load(tmp_path / "shop")
    assert adapted.language_model.hot_words == tuple(found["hot_words"])
    general = read_language_model(bundle := read_bundle(bundle.folder))
    for line in (*GENERAL, *FIELD):  # mixed: neither is lost
        assert measure_bits(adapted.language_model, [WeightedText(line)]) < 2.5
    assert measure_bits(general, [WeightedText(FIELD[0])]) > 3
    with pytest.raises(UsageError, match="not empty"):
        adapt_bundle(make_config(bundle, "adapt", field, output_dir=tmp_path / "shop"))
    with pytest.raises(UsageError, match="bundle itself"):
        adapt_bundle(make_config(bundle, "adapt", field, output_dir=bundle.folder))


def test_the_gain_is_measured_on_clips_where_there_are_some(bundle: Bundle, tmp_path: Path) -> None:
    build_into_bundle(make_config(bundle, "build", write_lines(tmp_path / "a.txt", GENERAL)))
    field, manifest = write_lines(tmp_path / "field.txt", FIELD), write_clips(tmp_path, FIELD[:2])
    found = adapt_bundle(make_config(bundle, "adapt", field, output_dir=tmp_path / "shop", manifest=(manifest,)))
    assert found["clips"] == 2
    assert found["wer_after"] == 0 <= found["wer_before"]
    assert found["cer_after"] == 0 <= found["cer_before"]


def test_a_mixture_lies_between_its_parts() -> None:
    orders = [estimate_letters([WeightedText(one) for one in lines], 4) for lines in (GENERAL, FIELD)]
    letters = {letter: token for token, letter in enumerate(LETTERS)}
    models = [LanguageModel(letters=letters, ngram=Ngram(make_levels(each, 6), len(LETTERS))) for each in orders]
    mixed = mix_orders(orders[0], orders[1], 6, 0.5)
    mixture = LanguageModel(letters=letters, ngram=Ngram(make_levels(mixed, 6), len(LETTERS)))
    for lines, own, other in ((GENERAL, 0, 1), (FIELD, 1, 0)):
        texts = [WeightedText(one) for one in lines]
        bits = [measure_bits(each, texts) for each in models]
        assert bits[own] < measure_bits(mixture, texts) < bits[own] + 1.01 < bits[other]
    assert mixture.ngram is not None
    for state in (0, mixture.ngram.start):
        total = sum(np.exp(mixture.ngram.advance(state, token)[0]) for token in range(len(LETTERS)))
        assert total == pytest.approx(1, abs=0.02)


def test_a_model_is_restored_from_its_stored_form() -> None:
    orders = estimate_letters([WeightedText(one) for one in GENERAL], 4)
    levels = make_levels(orders, 6)
    again = restore_orders(Ngram(levels, len(LETTERS)), 6)
    assert len(again) == len(orders)
    for first, second in zip(orders, again, strict=True):
        np.testing.assert_array_equal(first.keys, second.keys)
        np.testing.assert_allclose(first.log_probs, second.log_probs, atol=0.1)


def test_words_of_a_field_are_those_that_surprise() -> None:
    general, field = make_model(GENERAL), make_model(GENERAL + FIELD)
    words = find_field_words([WeightedText(one) for one in GENERAL + FIELD], general, field, 10)
    assert words[0] == "trendyol"
    assert "hava" not in words
    assert find_field_words([WeightedText(one) for one in FIELD], LanguageModel(), field, 10) == []


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"action": "adapt"}, "--output_dir"),
        ({"action": "build"}, "--bundle_dir"),
        ({"action": "tune", "bundle_dir": "b"}, "--manifest"),
        ({"action": "build", "bundle_dir": "b", "order": 13}, "1 to 12"),
        ({"action": "build", "bundle_dir": "b", "max_mb": 0}, "more than 0"),
        ({"action": "adapt", "output_dir": "o", "field_share": 1.0}, "field_share"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        LmConfig(**values)


def test_the_command_says_what_it_made(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = write_lines(tmp_path / "a.txt", GENERAL)
    assert main(["lm", "build", str(text), "--bundle_dir", str(bundle.folder), "--order", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == len(GENERAL)
    assert main(["lm", "build", str(tmp_path / "none.txt"), "--bundle_dir", str(bundle.folder)]) == 2
    assert "none.txt" in capsys.readouterr().err
