from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from dinle.errors import DatasetError, ManifestError, UsageError
from dinle.manifest import Clip, write_manifest
from dinle.measure.config import EvaluateConfig
from dinle.measure.evaluate import evaluate, score_predictions
from dinle.measure.predictions import Prediction, read_predictions, write_predictions
from dinle.measure.report import render_scores
from dinle.measure.scores import name_bucket
from dinle.recognize.bundle import hash_file
from tests.graphs import write_level_bundle
from tests.measure.speech import write_clip, write_speech
from tests.serve.doubtful import HEARD, HOT_WORD, MEANT, doubtful_recognizer

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.recognize.recognizer import CtcRecognizer

TEXTS = {
    "right": ("ırmak geldi", "Irmak geldi."),
    "wrong": ("iki kuş uçtu", "İki kuş kaçtı"),
    "short": ("bir", "bir iki"),
}


def read_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    manifest = write_speech(root / "data", TEXTS)
    model = write_level_bundle(root / "model", name="levels").folder
    return evaluate(
        EvaluateConfig(manifest, model=str(model), output_dir=root / "out", threads=1, bootstrap_samples=50)
    )


@pytest.fixture(autouse=True)
def _skip_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared evaluation above is made before this, with its plots; the others are only slower for theirs."""
    for name in ("plot_group_rates", "plot_clip_rates", "plot_reliability"):
        monkeypatch.setattr(f"dinle.measure.report.{name}", lambda *_, **__: None)


def test_an_evaluation_leaves_everything_and_run_json_last(evaluated: Path) -> None:
    names = {path.name for path in evaluated.iterdir()}
    plots = {"wer_by_duration.png", "wer_by_speaker.png", "wer_by_clip.png", "reliability.png"}
    assert names == plots | {"predictions.jsonl", "scores.json", "report.md", "run.json"}
    newest = max(evaluated.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "run.json"
    assert read_json(newest)["results"]["wer_tr"] == pytest.approx(2 / 7, abs=1e-6)


def test_predictions_say_what_was_heard(evaluated: Path) -> None:
    predictions = {one.id: one for one in read_predictions(evaluated)}
    assert {name: one.hypothesis for name, one in predictions.items()} == {
        f"{name}.wav": heard for name, (heard, _) in TEXTS.items()
    }
    first = predictions["right.wav"]
    assert (first.reference, first.speaker, first.error) == ("Irmak geldi.", "a", None)
    assert first.duration_s == pytest.approx(2 * 4 * 0.02 * len("ırmak geldi"))
    assert first.inference_s > 0
    assert first.confidences is not None
    assert len(first.confidences) == 2
    assert all(0 < one <= 1 for one in first.confidences)


def test_the_report_says_what_confidence_means(evaluated: Path) -> None:
    calibration = read_json(evaluated / "scores.json")["calibration"]
    assert (calibration["words"], calibration["accuracy"]) == (6, pytest.approx(5 / 6, abs=1e-6))
    assert calibration["ece"]["rate"] == pytest.approx(abs(calibration["confidence"] - 5 / 6), abs=1e-5)  # one bin
    assert "![what confidence means](reliability.png)" in (evaluated / "report.md").read_text(encoding="utf-8")


def test_scores_are_those_of_the_predictions(evaluated: Path) -> None:
    scores = read_json(evaluated / "scores.json")
    tr, raw = scores["scores"]["tr"], scores["scores"]["raw"]
    assert tr["wer"] | {"interval": None} == {
        "rate": 0.285714, "interval": None, "reference": 7, "hits": 5, "substitutions": 1, "insertions": 0, "deletions": 1,
    }  # fmt: skip
    assert raw["wer"]["rate"] == pytest.approx(5 / 7, abs=1e-6)
    assert tr["exact"] == {"rate": 0.333333, "interval": tr["exact"]["interval"], "clips": 1}
    for measure in ("wer", "exact"):
        assert tr[measure]["interval"][0] < tr[measure]["rate"] < tr[measure]["interval"][1]
    assert raw["exact"]["clips"] == 0
    assert [group["group"] for group in tr["by_duration"]] == ["0-2 s"]
    assert tr["confusions"]["substitutions"] == [{"reference": "kaçtı", "hypothesis": "uçtu", "count": 1}]
    assert tr["confusions"]["deletions"] == [{"reference": "iki", "count": 1}]
    assert (scores["clips"], scores["failed"]) == (3, 0)
    assert scores["rtfx"] > 0
    assert 0 < scores["clip_latency"]["min_s"] <= scores["clip_latency"]["median_s"] <= scores["clip_latency"]["p95_s"]


def test_scores_name_what_was_measured(evaluated: Path) -> None:
    scores = read_json(evaluated / "scores.json")
    graph = evaluated.parent / "model" / "model_int8.onnx"
    assert scores["model"] == {
        "name": "levels", "backend": "onnx_int8", "precision": "int8", "source": str(graph.parent),
        "weights_sha256": hash_file(graph),
    }  # fmt: skip
    assert scores["threads"] == 1
    assert scores["machine"]["cores"] >= 1


def test_the_report_shows_figures_errors_and_plots(evaluated: Path) -> None:
    report = (evaluated / "report.md").read_text(encoding="utf-8")
    assert "# Evaluation: levels (onnx_int8)" in report
    assert "| tr | 28.6 % [" in report
    assert "| exact [95 %] |" in report
    assert "33.3 % [" in report
    assert "a clip took 0." in report
    assert "REF iki kuş kaçtı\nHYP iki kuş uçtu\n            S" in report
    for plot in ("wer_by_duration.png", "wer_by_speaker.png", "wer_by_clip.png"):
        assert f"({plot})" in report
        assert (evaluated / plot).read_bytes().startswith(b"\x89PNG")
        assert (evaluated / plot).stat().st_size < 100_000


def test_scoring_again_gives_the_same(evaluated: Path, tmp_path: Path) -> None:
    shutil.copy(evaluated / "predictions.jsonl", tmp_path)
    again = score_predictions(tmp_path, samples=50)
    first = read_json(evaluated / "scores.json")
    assert again == {key: first[key] for key in again}
    assert "# Evaluation: predictions" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_terminal_table_has_a_row_for_each_normalisation(evaluated: Path) -> None:
    table = render_scores(read_json(evaluated / "scores.json"))
    assert list(table.columns[0].cells) == ["raw", "whisper-basic", "tr"]
    assert str(list(table.columns[1].cells)[2]).startswith("28.6 % [")
    assert str(list(table.columns[3].cells)[2]).startswith("33.3 % [")


def test_a_broken_clip_counts_as_an_empty_hypothesis(tmp_path: Path) -> None:
    manifest = write_speech(tmp_path, {"good": ("bir", "bir"), "bad": ("iki", "iki üç")})
    (tmp_path / "bad.wav").write_bytes(b"not sound")
    model = write_level_bundle(tmp_path / "model").folder
    folder = evaluate(EvaluateConfig(manifest, str(model), output_dir=tmp_path / "out", bootstrap_samples=10))
    bad = read_predictions(folder)[1]
    assert bad.hypothesis == ""
    assert "AudioDecodeError" in str(bad.error)
    scores = read_json(folder / "scores.json")
    assert (scores["failed"], scores["scores"]["tr"]["wer"]["deletions"]) == (1, 2)
    assert scores["audio_s"] == pytest.approx(read_predictions(folder)[0].duration_s, abs=1e-3)
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "1 clips failed and count as empty" in report
    assert "| bad.wav | AudioDecodeError" in report


def test_an_old_run_json_does_not_survive_a_failed_evaluation(tmp_path: Path) -> None:
    manifest = write_speech(tmp_path, {"bad": ("bir", "bir")})
    (tmp_path / "bad.wav").write_bytes(b"not sound")
    model = write_level_bundle(tmp_path / "model").folder
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(DatasetError):
        evaluate(EvaluateConfig(manifest, str(model), output_dir=tmp_path / "out"))
    assert not (tmp_path / "out" / "run.json").exists()


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("")
    model = write_level_bundle(tmp_path / "model").folder
    with pytest.raises(ManifestError, match="holds no clips"):
        evaluate(EvaluateConfig(tmp_path / "manifest.jsonl", str(model), output_dir=tmp_path / "out"))


def test_only_the_split_is_evaluated(tmp_path: Path) -> None:
    clips = [
        Clip(tmp_path / f"{split}.wav", "bir", write_clip(tmp_path / f"{split}.wav", "bir"), split=split)
        for split in "ab"
    ]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    model = write_level_bundle(tmp_path / "model").folder
    config = EvaluateConfig(
        tmp_path / "manifest.jsonl", str(model), output_dir=tmp_path / "out", split="b", bootstrap_samples=10
    )
    assert [one.id for one in read_predictions(evaluate(config))] == ["b.wav"]


def test_references_without_words_are_reported_as_such(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.jsonl", [Prediction("a", "", "bir iki"), Prediction("b", "...", "")])
    scores = score_predictions(tmp_path, samples=10)
    assert (scores["scores"]["tr"]["wer"]["rate"], scores["rtfx"], scores["clip_latency"]) == (2.0, None, None)
    assert "No clip has a reference with words" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_one_perfect_clip_is_scored_without_a_fuss(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.jsonl", [Prediction("a", "Bir | iki", "bir iki", duration_s=99)])
    scores = score_predictions(tmp_path, samples=10)
    assert scores["scores"]["tr"]["wer"]["interval"] == [0.0, 0.0]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "One clip only" in report
    assert "Every clip is right." in report
    assert "| 20 s and more | 1 |" in report


@pytest.mark.parametrize(("text", "kind"), [("bir", "Every"), ("iki", "No")])
def test_an_exact_share_without_width_gets_the_rule_of_three(tmp_path: Path, text: str, kind: str) -> None:
    write_predictions(tmp_path / "predictions.jsonl", [Prediction(str(n), "bir", text) for n in range(10)])
    score_predictions(tmp_path, samples=10)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"{kind} clip is exact" in report
    assert "exceptions of other clips below 30.0 %" in report


def test_no_resamples_are_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.jsonl", [Prediction("a", "bir", "bir")])
    with pytest.raises(UsageError, match="0 bootstrap resamples"):
        score_predictions(tmp_path, samples=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "holds no predictions"),
        ('{"id": "a", "reference": "x"}', ":1: hypothesis is None"),
        ('{"id": "a", "reference": "x", "hypothesis": "x", "duration_s": "1"}', ":1: duration_s is '1'"),
        ('{"id": "a", "reference": "x", "hypothesis": "x"}\n' * 2, "'a' occurs twice"),
        ("[1]", "a JSON list"),
    ],
)
def test_predictions_that_are_none_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "predictions.jsonl").write_text(line)
    with pytest.raises(ManifestError, match=message):
        read_predictions(tmp_path)


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"there is no .*predictions\.jsonl"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    ("duration_s", "name"),
    [(0, "0-2 s"), (1.99, "0-2 s"), (2, "2-5 s"), (19.9, "10-20 s"), (20, "20 s and more"), (9e9, "20 s and more")],
)
def test_a_lower_edge_belongs_to_its_bucket(duration_s: float, name: str) -> None:
    assert name_bucket(duration_s) == name


def test_buckets_can_have_other_edges() -> None:
    edges_s = (0.0, 10.0, float("inf"))
    assert [name_bucket(duration_s, edges_s) for duration_s in (3, 30)] == ["0-10 s", "10 s and more"]


@pytest.mark.parametrize("language_model", [True, False])
def test_hot_words_and_the_language_model_are_as_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language_model: bool
) -> None:
    asked: list[dict[str, Any]] = []

    def load(_model: object, **given: Any) -> CtcRecognizer:
        asked.append(given)
        return doubtful_recognizer()

    monkeypatch.setattr("dinle.measure.systems.load", load)
    manifest = write_speech(tmp_path / "data", {"one": ("bugün iğdirda", "Bugün İğdir'da.")})
    model = write_level_bundle(tmp_path / "model", name="levels").folder
    words = tmp_path / "words.txt"
    words.write_text(f"{HOT_WORD}\n", encoding="utf-8")
    for path, text in ((None, HEARD), (words, MEANT)):
        config = EvaluateConfig(
            manifest, model=str(model), backend="onnx_int8", output_dir=tmp_path / "out", bootstrap_samples=5,
            language_model=language_model, hotwords_file=path,
        )  # fmt: skip
        assert [one.hypothesis for one in read_predictions(evaluate(config))] == [text]
    assert [given["language_model"] for given in asked] == [language_model] * 2
