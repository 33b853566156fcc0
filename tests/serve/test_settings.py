from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from dinle.config import list_fields
from dinle.errors import UsageError
from dinle.serve.config import ServeConfig, list_flags
from dinle.serve.settings import Settings, read_settings
from tests.serve.servers import ROOT


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ASR_")]:
        monkeypatch.delenv(name)


def test_starts_with_nothing_set() -> None:
    settings = read_settings()
    assert (settings.backend, settings.model_dir) == ("auto", None)
    assert settings.engine_workers == (os.cpu_count() or 1)
    assert settings.engine_threads == 1


def test_variables_are_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_BACKEND", "onnx")
    monkeypatch.setenv("ASR_MODEL_DIR", "/models/x")
    monkeypatch.setenv("ASR_WORKERS", "3")
    monkeypatch.setenv("ASR_THREADS", "5")
    settings = read_settings(workers=4, threads=None)
    assert (settings.backend, settings.model_dir, settings.workers, settings.engine_threads) == (
        "onnx",
        "/models/x",
        4,
        5,
    )


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_THREADS", "")  # what docker compose makes of ${ASR_THREADS:-}
    assert read_settings().threads is None


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "ASR_BACKEND",
            "tpu",
            "ASR_BACKEND is 'tpu': input should be 'auto', 'onnx_int8', 'onnx_int4', 'onnx', 'openvino' or 'pytorch'",
        ),
        ("ASR_WORKERS", "0", "ASR_WORKERS is '0': input should be greater than or equal to 1"),
        ("ASR_MAX_BYTES", "25MB", "ASR_MAX_BYTES is '25MB': .*integer.*largest accepted upload in bytes"),
        ("ASR_MAX_SECONDS", "inf", "ASR_MAX_SECONDS is 'inf': .*finite"),
        ("ASR_MAX_QUEUE", "-1", "ASR_MAX_QUEUE is '-1'"),
        ("ASR_THREADS", "many", "ASR_THREADS is 'many'"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=expected):
        read_settings()


def test_a_bad_argument_is_named_like_its_variable() -> None:
    with pytest.raises(UsageError, match="ASR_MAX_SECONDS is -1"):
        read_settings(max_seconds=-1)


def test_a_misspelt_variable_is_reported(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ASR_BACKED", "onnx")
    read_settings()
    assert "ignored unknown variables ASR_BACKED" in caplog.text


def test_every_setting_has_a_flag_that_tells_its_variable() -> None:
    flags = list_fields(ServeConfig)
    assert {"model" if name == "model_dir" else name for name in Settings.model_fields} - set(flags) == {"api_keys"}
    for name, flag in list_flags().items():
        help_text = flags[flag][1].help
        assert f"[ASR_{name.upper()}" in help_text
        assert str(Settings.model_fields[name].description) in help_text


def test_the_readme_has_every_variable_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `ASR_{name.upper()}` \|([^|]*)\|([^|]*)\|", readme, re.MULTILINE)
        assert row, f"ASR_{name.upper()} is missing"
        if field.default not in (None, ""):
            assert row[2].strip() == f"`{field.default}`", name


def test_without_the_extra_the_flags_say_what_to_install() -> None:
    code = "import sys; sys.modules['pydantic'] = None; from dinle.cli import main; sys.exit(main(['serve', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "dinle serve: this needs the package 'pydantic', which is not installed: pip install 'dinle[serve]'\n",
    )
