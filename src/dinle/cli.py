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
    from collections.abc import Container, Sequence

# numpy's OpenBLAS wakes a thread for every core for products as small as the speech detector's, and they go on spinning:
# 7.7 s of speech took 291 ms on two cores with them, 225 ms without. Read when numpy is loaded, which is later.
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
DATASET_CONFIG = "dataset_config"  # the field that names a configuration of a dataset
DATASET_FLAGS = ("dataset", "dataset_name")


@dataclass(frozen=True)
class Command:
    """A command: the function of the same name in :mod:`dinle.commands`, and its config class as ``module:name``."""

    name: str
    summary: str
    config: str
    extra: str | None = None

    @property
    def function(self) -> str:
        """Name of the command's function: dashes are not allowed in it."""
        return self.name.replace("-", "_")


COMMANDS = (
    Command(
        "prepare",
        "1  dataset, or text to speak -> manifest and data report",
        "dinle.build.config:PrepareConfig",
        "train",
    ),
    Command("lint", "   labels or a vocabulary -> Turkish mistakes in them", "dinle.commands:LintConfig"),
    Command(
        "cut-vocabulary",
        "   Whisper model -> the tokens of one language",
        "dinle.build.config:CutVocabularyConfig",
        "train",
    ),
    Command("train", "2  manifest -> checkpoint", "dinle.build.config:TrainConfig", "train"),
    Command("export", "3  checkpoint -> ONNX bundle, parity checked", "dinle.build.config:ExportConfig", "train"),
    Command("quantize", "4  bundle -> INT8, behind a quality gate", "dinle.build.config:QuantizeConfig", "train"),
    Command("evaluate", "5  bundle and manifest -> WER and CER", "dinle.measure.config:EvaluateConfig", "measure"),
    Command(
        "lm",
        "   text -> language model: build, tune, adapt",
        "dinle.build.language_model:LmConfig",
    ),
    Command("compare", "   two evaluations, clip by clip", "dinle.measure.config:CompareConfig", "measure"),
    Command(
        "word-times",
        "   how far word times are from the truth",
        "dinle.measure.config:WordTimesConfig",
        "measure",
    ),
    Command(
        "calibrate",
        "   confidences that mean what they say, into the bundle",
        "dinle.measure.config:CalibrateConfig",
        "measure",
    ),
    Command("benchmark", "6  backends side by side on a clip", "dinle.measure.config:BenchmarkConfig", "measure"),
    Command("transcribe", "   audio files -> text, json, srt or vtt", "dinle.transcribe:TranscribeConfig"),
    Command("serve", "7  the HTTP service", "dinle.serve.config:ServeConfig", "serve"),
    Command(
        "benchmark-service",
        "8  the HTTP service under load: requests/s, latency, overload, soak",
        "dinle.measure.service_config:ServiceBenchConfig",
        "measure",
    ),
    Command(
        "loadtest",
        "   the HTTP service under rising load: users and live streams per core",
        "dinle.loadtest.config:LoadTestConfig",
        "loadtest",
    ),
    Command(
        "plan",
        "   a measured service -> pods, nodes, network and cost for so much audio",
        "dinle.measure.deployment_config:PlanConfig",
    ),
    Command("demo", "   every step above on a small data set", "dinle.demo:DemoConfig", "train"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's own) and return its exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in ONE_BLAS_THREAD.items():
        os.environ.setdefault(name, value)
    command = next((c for c in COMMANDS if arguments and c.name == arguments[0]), None)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    if command is None:
        build_parser(None).parse_args(arguments)
        build_parser(None).print_help()
        return EXIT_USAGE
    try:
        status = run_command(command, vars(build_parser(command).parse_args(arguments)))
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
            config_class = load_name(each.config)
            known.add_argument("--config", **describe_config_flag(each, config_class))
            add_arguments(known, config_class)
    return parser


def describe_config_flag(command: Command, config_class: type) -> dict[str, Any]:
    """What ``--config`` takes: a settings file, and where the command reads datasets also the name of a configuration."""
    text = f"settings from the table [{command.name}]; flags win"
    if DATASET_CONFIG not in list_fields(config_class):
        return {"metavar": "FILE.toml", "help": text}
    also = "beside a dataset's flag, what is neither *.toml nor a file is the same as --dataset_config"
    return {"metavar": "FILE.toml|NAME", "help": f"{text}; {also}"}


def read_settings(command: Command, options: dict[str, Any], fields: Container[str]) -> dict[str, Any]:
    """What ``--config`` stands for: the command's table of a TOML file, or the dataset's configuration.

    Data sets of the hub call their parts configurations, so ``--dataset google/fleurs --config tr_tr`` means what it says.

    Raises:
        UsageError: no such file, or a configuration that is named twice.
    """
    given = options.get("config")
    if given is None:
        return {}
    is_name = DATASET_CONFIG in fields and any(flag in options for flag in DATASET_FLAGS)
    if not is_name or given.endswith(".toml") or Path(given).is_file():
        return read_toml(Path(given)).get(command.name, {})
    if DATASET_CONFIG in options:
        raise UsageError(f"--config {given} and --{DATASET_CONFIG} {options[DATASET_CONFIG]} both name a configuration")
    return {DATASET_CONFIG: given}


def run_command(command: Command, options: dict[str, Any]) -> int:
    """Build the command's config from a TOML table and flags, then run it."""
    config_class = load_name(command.config)
    fields = list_fields(config_class)
    values = read_settings(command, options, fields)
    values |= {name: options[name] for name in fields if name in options}
    try:
        status = load_name(f"dinle.commands:{command.function}")(
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
