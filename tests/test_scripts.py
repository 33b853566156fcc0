"""The classic entry points, as a person types them, on small local models and data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.build.corpora import write_csv, write_wav
from tests.build.tiny_models import make_bare_encoder_folder

ROOT = Path(__file__).resolve().parents[1]
HUB_MODEL = "facebook/wav2vec2-base"
HUB_DATASET = "ysdede/khanacademy-turkish"


def run_script(
    name: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments],
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audiofolder with a train and a test split."""
    folder = tmp_path_factory.mktemp("dataset")
    for split, count in (("train", 8), ("test", 4)):
        rows = [["file_name", "transcription"]]
        for i in range(count):
            write_wav(folder / split / f"{i}.wav", seconds=1.0, seed=100 * len(split) + i)
            rows.append([f"{i}.wav", ["bir", "iki", "üç", "dört"][i % 4]])
        write_csv(folder / split / "metadata.csv", rows)
    return folder


@pytest.mark.slow
def test_train_export_benchmark_as_the_readme_writes_them(dataset: Path, tmp_path: Path) -> None:
    model = make_bare_encoder_folder(tmp_path / "tiny-wav2vec2")
    trained = run_script(
        "train", "--model_name", str(model), "--dataset_name", str(dataset), "--train_percent", "0.5",
        "--eval_percent", "1.0", "--epochs", "1", "--output_dir", "checkpoints", cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    checkpoint = Path(tmp_path, trained.stdout.splitlines()[-1].removeprefix("checkpoint: "))
    assert (checkpoint / "model.safetensors").is_file()

    exported = run_script("export", "--checkpoint_dir", str(checkpoint), "--onnx_dir", "onnx", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert {"bundle.json", "model.onnx", "model_int8.onnx"} <= {path.name for path in (tmp_path / "onnx").iterdir()}

    measured = run_script(
        "benchmark", "--checkpoint_dir", str(checkpoint), "--onnx_path", "onnx/model.onnx",
        "--onnx_int8_path", "onnx/model_int8.onnx", "--audio_path", str(dataset / "test" / "0.wav"), "--runs", "2",
        cwd=tmp_path,
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    report = (tmp_path / "artifacts" / "benchmark_report.md").read_text(encoding="utf-8")
    assert all(backend in report for backend in ("PyTorch", "ONNX", "INT8"))


HUB_COMMAND = (
    "train", "--model_name", HUB_MODEL, "--dataset_name", HUB_DATASET, "--train_percent", "0.001",
    "--eval_percent", "0.001", "--epochs", "1", "--max_steps", "1", "--output_dir", "checkpoints",
)  # fmt: skip


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_explained_at_once(tmp_path: Path) -> None:
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}  # port 9 refuses
    done = run_script(*HUB_COMMAND, cwd=tmp_path, env=unreachable, timeout_s=120)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("dinle train: the hub does not answer")
    assert HUB_DATASET in message
    assert "give a folder" in message
    assert "Traceback" not in done.stderr


@pytest.mark.hub
def test_the_hub_names_of_the_readme_train_for_a_step(tmp_path: Path) -> None:
    done = run_script(*HUB_COMMAND, cwd=tmp_path, timeout_s=4 * 3600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / "best" / "model.safetensors").is_file()
