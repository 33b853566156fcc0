from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from dinle.build.config import TrainConfig
from dinle.config import Arg, add_arguments, build_config, list_fields, read_toml, to_plain
from dinle.errors import UsageError


@dataclass(frozen=True)
class Example:
    """a config with a field of each kind."""

    files: Annotated[tuple[Path, ...], Arg("inputs", positional=True)]
    name: Annotated[str, "a name"] = "x"
    seconds: Annotated[float, "50 % of a length"] = 1.5
    count: Annotated[int | None, "how many"] = None
    fast: Annotated[bool, "hurry"] = False
    mode: Annotated[Literal["a", "b"], "a choice"] = "a"
    kinds: Annotated[tuple[Literal["p", "q"], ...], "several"] = ()


def parse(*arguments: str) -> Example:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser, Example)
    parser.format_help()  # a stray % in a help text would raise here
    return build_config(Example, vars(parser.parse_args(arguments)), where="test")


def test_defaults_and_every_kind_of_value() -> None:
    assert parse("a.wav") == Example(files=(Path("a.wav"),))
    line = ["a", "b", "--name", "n", "--seconds", "2", "--count", "3", "--fast", "--mode", "b", "--kinds", "p", "q"]
    assert parse(*line) == Example((Path("a"), Path("b")), "n", 2.0, 3, fast=True, mode="b", kinds=("p", "q"))


def test_underscores_and_dashes_are_the_same_flag() -> None:
    for flag in ("--output_dir", "--output-dir"):
        parser = argparse.ArgumentParser()
        add_arguments(parser, TrainConfig)
        options = vars(parser.parse_args([flag, "out"]))
        assert options == {"output_dir": Path("out")}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "missing --files"),
        ({"files": ["a"], "nmae": "x"}, "unknown setting nmae; known are: files, name"),
        ({"files": "a"}, "files takes a list, not 'a'"),
        ({"files": ["a"], "seconds": "long"}, "seconds takes float, not 'long'"),
        ({"files": ["a"], "count": True}, "count takes int, not True"),
        ({"files": ["a"], "mode": "c"}, "mode is 'c'; choose from a, b"),
        ({"files": ["a"], "kinds": ["z"]}, "kinds is 'z'; choose from p, q"),
    ],
)
def test_a_wrong_value_names_the_field_and_the_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"demo\.toml.*{message}"):
        build_config(Example, values, where="demo.toml")


def test_toml_tables_become_configs(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text('[example]\nfiles = ["a"]\nseconds = 3\ncount = 2\n', encoding="utf-8")
    config = build_config(Example, read_toml(path)["example"], where="e.toml")
    assert config == Example((Path("a"),), seconds=3.0, count=2)


@pytest.mark.parametrize(
    ("text", "message"), [("[a", "not valid TOML"), ("x = 1", "x stands outside"), (None, "no config file")]
)
def test_a_wrong_toml_file_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "e.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_toml(path)


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_toml(tmp_path)
    (tmp_path / "latin.toml").write_bytes("[a]\nb = 'ş'".encode("iso-8859-9"))
    with pytest.raises(UsageError, match=r"latin\.toml is not valid TOML"):
        read_toml(tmp_path / "latin.toml")


def test_plain_values_are_json_ready() -> None:
    plain = to_plain(Example((Path("a"),), kinds=("p",)))
    assert (plain["files"], plain["kinds"], plain["count"]) == (["a"], ["p"], None)


def test_every_field_of_every_stage_has_a_help_text() -> None:
    from dinle.cli import COMMANDS, load_name

    for command in COMMANDS:
        for name, (_, note, _) in list_fields(load_name(command.config)).items():
            assert note.help, f"{command.config}.{name}"
