from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from dinle import cli
from dinle.cli import COMMANDS, build_parser, main, run_command
from dinle.errors import AudioError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class GreetConfig:
    """a command made for the tests."""

    name: Annotated[str, "whom"]
    times: Annotated[int, "how often"] = 1


def call_with(monkeypatch: pytest.MonkeyPatch, action: Any) -> cli.Command:
    command = cli.Command("greet", "greets", "greet", "measure")
    monkeypatch.setattr(cli, "COMMANDS", (*COMMANDS, command))
    monkeypatch.setattr(cli, "load_name", lambda name: action if name == "dinle.commands:greet" else GreetConfig)
    return command


def test_flags_win_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[GreetConfig] = []
    call_with(monkeypatch, seen.append)
    path = tmp_path / "e.toml"
    path.write_text('[greet]\nname = "ada"\ntimes = 3\n[train]\nepochs = 1\n', encoding="utf-8")
    assert main(["greet", "--config", str(path), "--times", "5"]) == 0
    assert seen == [GreetConfig("ada", 5)]


@dataclass(frozen=True)
class ReadConfig:
    """a command that reads datasets, made for the tests."""

    dataset: Annotated[str, "which"] = ""
    dataset_config: Annotated[str | None, "its configuration"] = None


def read_with(monkeypatch: pytest.MonkeyPatch) -> list[ReadConfig]:
    seen: list[ReadConfig] = []
    call_with(monkeypatch, seen.append)
    monkeypatch.setattr(cli, "load_name", lambda name: seen.append if name == "dinle.commands:greet" else ReadConfig)
    return seen


def test_beside_a_dataset_config_names_its_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = read_with(monkeypatch)
    path = tmp_path / "e.toml"
    path.write_text('[greet]\ndataset_config = "az"\n', encoding="utf-8")
    assert main(["greet", "--dataset", "a/b", "--config", "tr_tr"]) == 0
    assert main(["greet", "--dataset", "a/b", "--dataset_config", "tr"]) == 0
    assert main(["greet", "--dataset", "a/b", "--config", str(path)]) == 0
    assert main(["greet", "--dataset", "a/b", "--config", str(path), "--dataset-config", "tr"]) == 0
    assert seen == [ReadConfig("a/b", name) for name in ("tr_tr", "tr", "az", "tr")]


def test_a_file_is_a_file_whatever_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = read_with(monkeypatch)
    (tmp_path / "settings").write_text('[greet]\ndataset_config = "az"\n', encoding="utf-8")
    assert main(["greet", "--dataset", "a/b", "--config", str(tmp_path / "settings")]) == 0
    assert seen == [ReadConfig("a/b", "az")]


def test_a_configuration_is_named_once_and_beside_a_dataset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read_with(monkeypatch)
    assert main(["greet", "--dataset", "a/b", "--config", "tr_tr", "--dataset_config", "tr"]) == 2
    assert "--config tr_tr and --dataset_config tr both name a configuration" in capsys.readouterr().err
    assert main(["greet", "--config", "tr_tr"]) == 2
    assert "there is no config file tr_tr" in capsys.readouterr().err
    assert main(["greet", "--dataset", "a/b", "--config", "missing.toml"]) == 2
    assert "there is no config file missing.toml" in capsys.readouterr().err


def test_other_commands_take_files_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call_with(monkeypatch, print)
    assert main(["greet", "--name", "x", "--config", "tr_tr"]) == 2
    assert "there is no config file tr_tr" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), [(AudioError, 1), (OSError, 1), (UsageError, 2)])
def test_an_error_is_one_line_and_a_status(
    error: type[Exception], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: GreetConfig) -> None:
        raise error(f"{config.name} is wrong")

    call_with(monkeypatch, fail)
    assert main(["greet", "--name", "x"]) == status
    assert capsys.readouterr().err == "dinle greet: x is wrong\n"


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: GreetConfig) -> None:
        raise KeyboardInterrupt

    call_with(monkeypatch, interrupt)
    assert main(["greet", "--name", "x"]) == 130


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: GreetConfig) -> None:
        raise ModuleNotFoundError(name="jiwer")

    command = call_with(monkeypatch, fail)
    with pytest.raises(MissingExtraError, match=r"'jiwer'.*pip install 'dinle\[measure\]'"):
        run_command(command, {"name": "x"})


def test_a_missing_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate"]) == 2
    assert "missing --manifest" in capsys.readouterr().err


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "pipeline order" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_command_explains_itself(command: cli.Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser(command).parse_args([command.name, "--help"])
    assert caught.value.code == 0
    assert "--config" in capsys.readouterr().out
    assert callable(cli.load_name(f"dinle.commands:{command.function}"))


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("IŞIK\n" * 10, encoding="utf-8")
    command = [sys.executable, "-m", "dinle.cli", "lint", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is written, as head does once it has its lines
        assert process.stderr.read() == ""
    assert process.returncode == 1
