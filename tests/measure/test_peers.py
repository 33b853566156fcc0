from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dinle.cli import main
from dinle.config import read_json
from dinle.errors import BundleCorruptError, HubUnreachableError, MissingExtraError, UsageError
from dinle.measure.config import EvaluateConfig
from dinle.measure.evaluate import evaluate
from dinle.measure.peers import load_peer
from dinle.measure.predictions import read_predictions
from dinle.recognize.audio import decode_audio
from dinle.recognize.bundle import hash_file
from tests.graphs import write_level_bundle
from tests.measure.speech import write_speech

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {
    "a": ("ırmak geldi", "Irmak geldi."),
    "b": ("iki kuş uçtu", "İki kuş kaçtı"),
    "c": ("bir", "bir"),
    "d": ("beş", "beş"),
}


class FakeWhisper:
    """faster-whisper's model as the peer uses it: segments come from a generator, and do the work when they are asked for."""

    made: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    asked: tuple[dict[str, Any], ...] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        type(self).made = (args, options)
        if "damaged" in str(args[0]):
            raise RuntimeError("Unable to open file 'model.bin'")

    def transcribe(self, path: str, **options: Any) -> tuple[Any, Any]:
        type(self).asked += (options,)
        waveform = decode_audio(path)

        def listen() -> Any:
            if len(waveform) > 16_000 * 2.0:
                raise RuntimeError("out of memory")
            yield SimpleNamespace(text=" Irmak ")
            yield SimpleNamespace(text=" geldi.")

        return listen(), SimpleNamespace(duration=len(waveform) / 16_000)


def make_package(**parts: Any) -> SimpleNamespace:
    def download(_: str) -> str:
        raise ConnectionError("no route to host")

    standard = {
        "__version__": "9.9", "WhisperModel": FakeWhisper, "download_model": download,
        "available_models": lambda: ["tiny", "base"],
    }  # fmt: skip
    return SimpleNamespace(**{**standard, **parts})


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """faster-whisper without weights and without a network."""
    fake = make_package()
    FakeWhisper.asked = ()
    monkeypatch.setitem(sys.modules, "faster_whisper", fake)
    monkeypatch.setattr("dinle.measure.turns.SETTLE_S", 0.0)
    for name in ("plot_group_rates", "plot_clip_rates"):
        monkeypatch.setattr(f"dinle.measure.report.{name}", lambda *_, **__: None)
    return fake


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "base-ct2"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    return folder


def make_config(root: Path, weights: Path, **fields: Any) -> EvaluateConfig:
    manifest = write_speech(root / "data", TEXTS)
    model = write_level_bundle(root / "model").folder
    return EvaluateConfig(
        manifest, str(model), output_dir=root / "out", threads=1, bootstrap_samples=20, peer="faster-whisper",
        peer_model=str(weights), **fields,
    )  # fmt: skip


@pytest.mark.usefixtures("package")
def test_the_peer_is_measured_beside_ours(tmp_path: Path, weights: Path) -> None:
    folder = evaluate(make_config(tmp_path, weights, peer_name="Whisper base"))
    own, peer = read_predictions(folder), read_predictions(folder / "peer")
    assert [one.id for one in own] == [one.id for one in peer] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert {one.hypothesis for one in peer} == {"Irmak geldi."}
    assert all(one.inference_s > 0 and one.duration_s > 0 for one in [*own, *peer])
    scores, theirs = read_json(folder / "scores.json"), read_json(folder / "peer" / "scores.json")
    assert (scores["scores"]["tr"]["exact"]["rate"], theirs["scores"]["tr"]["exact"]["rate"]) == (0.75, 0.25)
    assert theirs["model"] == scores["peer"] == {
        "name": "Whisper base", "backend": "faster-whisper 9.9", "precision": "int8, beam size 5",
        "source": str(weights), "weights_sha256": hash_file(weights / "model.bin"),
    }  # fmt: skip
    assert [group["group"] for group in scores["speed"]] == ["all clips", "0-2 s"]
    assert scores["threads"] == theirs["threads"] == 1
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "## Speed against Whisper base" in report
    assert "| length | clips | levels, median |" in report
    assert "# Evaluation: Whisper base (faster-whisper 9.9)" in (folder / "peer" / "report.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.usefixtures("package")
def test_the_two_are_compared_and_run_json_is_last(tmp_path: Path, weights: Path) -> None:
    folder = evaluate(make_config(tmp_path, weights))
    comparison = read_json(folder / "comparison" / "comparison.json")
    assert comparison["baseline"] == "base-ct2 (faster-whisper 9.9)"
    assert comparison["candidate"] == "levels (onnx_int8)"
    assert comparison["differences"]["tr"]["exact"]["difference"] == 0.5
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert max(files, key=lambda path: path.stat().st_mtime_ns) == folder / "run.json"
    assert read_json(folder / "run.json")["results"]["exact_tr"] == 0.75
    assert read_json(folder / "peer" / "run.json")["results"]["exact_tr"] == 0.25


@pytest.mark.usefixtures("package")
def test_the_peer_gets_the_same_threads_int8_turkish_and_its_beam(tmp_path: Path, weights: Path) -> None:
    evaluate(make_config(tmp_path, weights, peer_beam_size=1))
    args, options = FakeWhisper.made
    assert args == (str(weights),)
    assert options == {"device": "cpu", "compute_type": "int8", "cpu_threads": 1}
    assert FakeWhisper.asked == ({"language": "tr", "beam_size": 1},) * (1 + len(TEXTS))  # one to warm up


@pytest.mark.usefixtures("package")
def test_work_that_is_done_in_the_generator_counts_as_the_clips_failure(tmp_path: Path, weights: Path) -> None:
    config = make_config(tmp_path, weights)
    write_speech(tmp_path / "data", {**TEXTS, "long": ("ırmak geldi" * 3, "ırmak")})
    folder = evaluate(config)
    assert read_predictions(folder / "peer")[-1].error == "RuntimeError: out of memory"
    scores = read_json(folder / "scores.json")
    assert (scores["failed"], scores["speed"][0]["clips"]) == (0, 4)


@pytest.mark.usefixtures("package")
def test_the_command_prints_both_systems_and_their_difference(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, weights)
    command = ["evaluate", "--manifest", str(config.manifest), "--model", str(config.model), "--threads", "1"]
    command += ["--peer", "faster-whisper", "--peer_model", str(weights), "--output_dir", str(config.output_dir)]
    assert main([*command, "--bootstrap_samples", "20"]) == 0
    shown = capsys.readouterr().out
    for text in ("levels (onnx_int8): 4 clips", "base-ct2 (faster-whisper 9.9): 4", "Seconds for each clip", "against"):
        assert text in shown


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingExtraError, match=r"'faster_whisper'.*pip install 'dinle\[peers\]'"):
        load_peer(str(weights), name=None, beam_size=5, threads=1)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("model", ["/no/such/folder", "./ct2", "enormous", "a/b/c"])
def test_a_model_that_is_nowhere(model: str) -> None:
    with pytest.raises(UsageError, match=rf"there is no folder {model}.*sizes are: tiny, base"):
        load_peer(model, name=None, beam_size=5, threads=1)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("model", ["base", "owner/whisper-ct2"])
def test_a_hub_that_does_not_answer_names_the_way_out(model: str) -> None:
    with pytest.raises(HubUnreachableError, match=r"ConnectionError: no route.*local CTranslate2 folder"):
        load_peer(model, name=None, beam_size=5, threads=1)


def test_a_size_is_downloaded_and_hashed(package: SimpleNamespace, weights: Path) -> None:
    package.download_model = lambda _: str(weights)
    candidate = load_peer("base", name=None, beam_size=2, threads=3)
    assert (candidate.model["name"], candidate.model["source"]) == ("base", "base")
    assert FakeWhisper.made[0] == (str(weights),)


@pytest.mark.usefixtures("package")
def test_a_folder_without_weights_and_damaged_weights(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    with pytest.raises(UsageError, match=r"holds no model\.bin; give a CTranslate2 folder"):
        load_peer(str(tmp_path / "damaged"), name=None, beam_size=5, threads=1)
    (tmp_path / "damaged" / "model.bin").write_bytes(b"")
    with pytest.raises(BundleCorruptError, match="faster-whisper cannot load .*damaged: Unable to open"):
        load_peer(str(tmp_path / "damaged"), name=None, beam_size=5, threads=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peer": "faster-whisper"}, "needs --peer_model: a CTranslate2 folder"),
        ({"peer_model": "base"}, "--peer_model without --peer"),
        ({"peer": "faster-whisper", "peer_model": "base", "peer_beam_size": 0}, "expected 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused_at_once(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(EvaluateConfig(tmp_path / "none.jsonl", output_dir=tmp_path / "out", **fields))


def test_scores_stay_plain_json(tmp_path: Path, package: SimpleNamespace, weights: Path) -> None:
    assert package.__version__ == "9.9"
    folder = evaluate(make_config(tmp_path, weights))
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
