"""The flags of ``dinle serve``: those of :class:`dinle.serve.settings.Settings`, and where to listen.

What is left out comes from the environment. Keys have no flag: everybody on a machine can read its processes' flags.
"""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Union

from dinle.config import Arg
from dinle.errors import MissingExtraError

try:
    from dinle.serve.settings import PREFIX, Settings
except ModuleNotFoundError as error:  # pydantic comes with the extra
    raise MissingExtraError("serve", error.name or "pydantic") from error

NO_FLAG = frozenset({"api_keys"})
# Fields whose flags have names of their own.
FLAGS = {"model_dir": ("model", ("-m",))}


@dataclass(frozen=True)
class Address:
    """model -> HTTP service, until interrupted."""

    host: Annotated[str, "address to listen on; 0.0.0.0 for every interface"] = "127.0.0.1"
    port: Annotated[int, Arg("port to listen on", flags=("-p",))] = 8000


def list_flags() -> dict[str, str]:
    """Names of the settings that have a flag, and of the flag's field."""
    return {name: FLAGS.get(name, (name, ()))[0] for name in Settings.model_fields if name not in NO_FLAG}


def _make_field(name: str, flag: str) -> tuple[str, Any, Any]:
    field = Settings.model_fields[name]
    default = "" if field.default is None or field.default == "" else f"; default: {field.default}"
    short = FLAGS.get(name, (name, ()))[1]
    note = Arg(f"{field.description} [{PREFIX}{name.upper()}{default}]", flags=short)
    return flag, Annotated[Union[field.annotation, None], note], None  # noqa: UP007 - the annotation is a value here


ServeConfig: Any = make_dataclass(
    "ServeConfig",
    [_make_field(name, flag) for name, flag in list_flags().items()],
    bases=(Address,),
    frozen=True,
)
