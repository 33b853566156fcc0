"""Frozen dataclasses as command lines and TOML sections.

A stage's config is a frozen dataclass whose fields are ``name: Annotated[type, "help"] = default``. From that one place
come the flags (``--field_name`` and ``--field-name``), the help text, the TOML keys and the values' checks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dinle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Config = TypeVar("Config")
Backend = Literal["auto", "onnx_int8", "onnx_int4", "onnx", "openvino", "pytorch"]


@dataclass(frozen=True)
class Arg:
    """How a field looks on the command line, where its help text alone does not say."""

    help: str
    flags: tuple[str, ...] = ()
    positional: bool = False


@dataclass(frozen=True)
class FieldShape:
    """A field's type, taken apart: what one value is, whether it repeats, which values are allowed."""

    value_type: type
    repeats: bool = False
    optional: bool = False
    choices: tuple[Any, ...] | None = None


def read_shape(hint: Any) -> FieldShape:
    """Take the type of a config field apart (``Annotated`` already removed).

    Raises:
        TypeError: the type is none of str, int, float, bool, Path, Literal, their tuples and optionals.
    """
    if get_origin(hint) in (Union, types.UnionType):
        inner = [part for part in get_args(hint) if part is not types.NoneType]
        if len(inner) == 1:
            return dataclasses.replace(read_shape(inner[0]), optional=True)
    if get_origin(hint) is tuple:
        return dataclasses.replace(read_shape(get_args(hint)[0]), repeats=True)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return FieldShape(type(choices[0]), choices=choices)
    if hint in (str, int, float, bool, Path):
        return FieldShape(hint)
    raise TypeError(f"a config field cannot be of type {hint}")


def list_fields(config_class: type) -> dict[str, tuple[FieldShape, Arg, Any]]:
    """The fields of a config class by name: shape, command-line form, default (``dataclasses.MISSING``: required)."""
    hints = get_type_hints(config_class, include_extras=True)
    fields: dict[str, tuple[FieldShape, Arg, Any]] = {}
    for field in dataclasses.fields(config_class):
        hint, note = hints[field.name], Arg("")
        if get_origin(hint) is Annotated:
            hint, extra = get_args(hint)[:2]
            note = extra if isinstance(extra, Arg) else Arg(str(extra))
        fields[field.name] = (read_shape(hint), note, field.default)
    return fields


def add_arguments(parser: argparse.ArgumentParser, config_class: type) -> None:
    """Add one argument for each field of ``config_class``; what is not given on the command line stays unset."""
    for name, (shape, note, default) in list_fields(config_class).items():
        needed = note.positional and default is dataclasses.MISSING
        repeat: dict[str, Any] = {"nargs": "+" if needed else "*"} if shape.repeats else {}
        text = note.help if default in (dataclasses.MISSING, None, (), "") else f"{note.help} (default: {default})"
        options: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if shape.choices is not None:
            options["choices"] = shape.choices
        if note.positional:
            parser.add_argument(name, type=shape.value_type, **repeat, **options)
            continue
        flags = dict.fromkeys([*note.flags, f"--{name}", f"--{name.replace('_', '-')}"])
        if shape.value_type is bool:
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **options)
        else:
            parser.add_argument(*flags, type=shape.value_type, dest=name, metavar=name.upper(), **repeat, **options)


def build_config(config_class: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """Make a config from plain values (TOML or command line).

    Args:
        config_class: a frozen dataclass of annotated fields.
        values: field name to value; strings become paths and lists become tuples where the field asks for it.
        where: named in error messages, such as ``demo.toml [train]``.

    Raises:
        UsageError: an unknown field, a missing one, or a value of the wrong type.
    """
    fields = list_fields(config_class)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UsageError(f"{where}: unknown setting {', '.join(unknown)}; known are: {', '.join(fields)}")
    missing = [
        name for name, (_, _, default) in fields.items() if default is dataclasses.MISSING and name not in values
    ]
    if missing:
        raise UsageError(f"{where}: missing {', '.join('--' + name for name in missing)}")
    return config_class(
        **{name: _convert(value, fields[name][0], f"{where}: {name}") for name, value in values.items()}
    )


def _convert(value: Any, shape: FieldShape, where: str) -> Any:
    if value is None and shape.optional:
        return None
    if shape.repeats:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} takes a list, not {value!r}")
        return tuple(_convert(item, dataclasses.replace(shape, repeats=False), where) for item in value)
    if shape.choices is not None and value not in shape.choices:
        raise UsageError(f"{where} is {value!r}; choose from {', '.join(map(str, shape.choices))}")
    if shape.value_type is Path and isinstance(value, str):
        return Path(value)
    if shape.value_type is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, shape.value_type) or (isinstance(value, bool) and shape.value_type is not bool):
        raise UsageError(f"{where} takes {shape.value_type.__name__}, not {value!r}")
    return value


def read_toml(path: Path) -> dict[str, dict[str, Any]]:
    """Read an experiment file: one table for each stage.

    Raises:
        UsageError: the file is missing, is not TOML, or holds something besides tables.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError:
        raise UsageError(f"there is no config file {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    stray = [key for key, value in tables.items() if not isinstance(value, dict)]
    if stray:
        raise UsageError(f"{path}: {', '.join(stray)} stands outside a stage's table such as [train]")
    return tables


def read_json(path: Path) -> dict[str, Any]:
    """A stage's figures, as it wrote them."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def to_plain(config: Any) -> dict[str, Any]:
    """A config as JSON-ready values (paths as strings)."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
