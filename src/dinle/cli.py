"""The command line: one command for each stage, in pipeline order.

Heavy imports stay inside the command that needs them: ``dinle --help`` loads argparse and nothing else.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle import __version__
from dinle.config import add_arguments, build_config, list_fields, read_toml
from dinle.errors import DinleError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """A command: the function of the same name in :mod:`dinle.commands`, and its config class as ``module:name``."""

    name: str
    summary: str
    config: str
    extra: str | None = None


COMMANDS = (
    Command("prepare", "1  dataset -> manifest and data report", "dinle.build.config:PrepareConfig", "train"),
    Command("lint", "   labels or a vocabulary -> Turkish mistakes in them", "dinle.commands:LintConfig"),
    Command("train", "2  manifest -> checkpoint", "dinle.build.config:TrainConfig", "train"),
    Command("export", "3  checkpoint -> ONNX bundle, parity checked", "dinle.build.config:ExportConfig", "train"),
    Command("quantize", "4  bundle -> INT8, behind a quality gate", "dinle.build.config:QuantizeConfig", "train"),
    Command("evaluate", "5  bundle and manifest -> WER and CER", "dinle.measure.config:EvaluateConfig", "measure"),
    Command("compare", "   two evaluations, clip by clip", "dinle.measure.config:CompareConfig", "measure"),
    Command("benchmark", "6  backends side by side on a clip", "dinle.measure.config:BenchmarkConfig", "measure"),
    Command("transcribe", "   audio files -> text, json, srt or vtt", "dinle.transcribe:TranscribeConfig"),
    Command("serve", "7  the HTTP service", "dinle.serve.config:ServeConfig", "serve"),
    Command("demo", "   every step above on a small data set", "dinle.demo:DemoConfig", "train"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's own) and return its exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((c for c in COMMANDS if arguments and c.name == arguments[0]), None)
    options = vars(build_parser(command).parse_args(arguments))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    if command is None:
        build_parser(None).print_help()
        return EXIT_USAGE
    try:
        status = run_command(command, options)
        sys.stdout.flush()
    except DinleError as error:
        print(f"dinle {command.name}: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    except BrokenPipeError:  # the reader of our output went away, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:  # a full disk, no permission, a name that is too long
        print(f"dinle {command.name}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"dinle {command.name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return status


def build_parser(command: Command | None) -> argparse.ArgumentParser:
    """The parser of all commands, with the flags of ``command`` alone (the others' configs are not imported)."""
    parser = argparse.ArgumentParser(prog="dinle", description="Turkish speech recognition for ordinary CPUs.")
    parser.add_argument("--version", action="version", version=f"dinle {__version__}")
    commands = parser.add_subparsers(title="commands, in pipeline order", metavar="COMMAND", dest="command")
    for each in COMMANDS:
        known = commands.add_parser(each.name, help=each.summary, description=each.summary.lstrip(" 0123456789"))
        if each is command:
            known.add_argument(
                "--config", type=Path, metavar="FILE.toml", help=f"settings from the table [{each.name}]; flags win"
            )
            add_arguments(known, load_name(each.config))
    return parser


def run_command(command: Command, options: dict[str, Any]) -> int:
    """Build the command's config from a TOML table and flags, then run it."""
    config_class = load_name(command.config)
    values: dict[str, Any] = {}
    if options.get("config") is not None:
        values |= read_toml(options["config"]).get(command.name, {})
    values |= {name: options[name] for name in list_fields(config_class) if name in options}
    try:
        status = load_name(f"dinle.commands:{command.name}")(
            build_config(config_class, values, where=f"dinle {command.name}")
        )
    except ModuleNotFoundError as error:
        if command.extra is None or (error.name or "").startswith("dinle"):
            raise
        raise MissingExtraError(command.extra, error.name or "?") from error
    return int(status or 0)


def load_name(name: str) -> Any:
    """The object behind ``module:name``."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


if __name__ == "__main__":
    sys.exit(main())
