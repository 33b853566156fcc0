"""Steps of a long recipe that is called again and again: what is made already is left alone, and each step says why it runs.

A step is made when its record is there (``run.json``, which every stage writes last) and its settings and the content of
its inputs are those it was made with. The ledger keeps a hash of both for each step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.config import read_json, to_plain
from dinle.errors import UsageError
from dinle.recognize.bundle import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dinle.demo import Stages

LEDGER_FILE = "steps.json"
INDIFFERENT = ("threads", "resume", "log_dir")  # settings that change no product
# What counts of a folder that is an input: a model, voices, a bundle, a data set.
CONTENT = ("*.safetensors", "config.json", "tokenizer.json", "vocab.json", "*.bin", "bundle.json", "manifest.jsonl")


@dataclass(frozen=True)
class Step:
    """One product of a recipe.

    ``make`` is told whether to go on from an interrupted run of the same settings and inputs; ``checkpoints`` is the folder
    where a training leaves ``checkpoint-*``.
    """

    title: str
    record: Path
    configs: tuple[object, ...]
    inputs: tuple[Path, ...]
    make: Callable[[bool], object]
    checkpoints: Path | None = None


class Ledger:
    """Which steps are made, in a folder's LEDGER_FILE."""

    def __init__(self, folder: Path, stages: Stages) -> None:
        self._path = folder / LEDGER_FILE
        self._stages = stages

    def run(self, step: Step) -> None:
        """Make a step, unless it is made; print one line with the reason either way.

        Raises:
            UsageError: an interrupted training of other settings or inputs is in the way.
            DinleError: the step failed.
        """
        known, digest = self._read().get(step.title, {}), hash_step(step)
        is_same, has_record = known.get("sha256") == digest, step.record.is_file()
        if is_same and has_record and known["finished"]:
            self._stages.console.print(
                f"{step.title}: skipped, {step.record} is there, made with the same settings and inputs",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            return
        if not is_same and not has_record:
            _refuse_strangers(step)
        with self._stages.step(f"{step.title} ({explain(known, is_same=is_same)})"):
            self._note(step.title, digest, finished=False)
            step.make(is_same and not has_record)
            self._note(step.title, digest, finished=True)

    def _read(self) -> dict[str, Any]:
        return read_json(self._path) if self._path.is_file() else {}

    def _note(self, title: str, digest: str, *, finished: bool) -> None:
        entries = {**self._read(), title: {"sha256": digest, "finished": finished}}
        partial = self._path.with_name(f"{self._path.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._path)


def explain(known: dict[str, Any], *, is_same: bool) -> str:
    """Why a step runs, from what the ledger knows of it."""
    if not known:
        return "not made yet"
    if not is_same:
        return "its settings or inputs have changed"
    return "its record is gone" if known["finished"] else "goes on where it was interrupted"


def hash_step(step: Step) -> str:
    """SHA-256 of the settings that change the product, and of the content of the inputs."""
    plain = [to_plain(config) for config in step.configs]
    settings = [{key: value for key, value in one.items() if key not in INDIFFERENT} for one in plain]
    files = [(str(path), hash_file(path)) for path in list_content(step.inputs)]
    return hashlib.sha256(json.dumps([settings, files]).encode()).hexdigest()


def list_content(inputs: tuple[Path, ...]) -> Iterator[Path]:
    """Files as they are, and of folders what counts."""
    for path in inputs:
        if path.is_dir():
            yield from sorted({file for pattern in CONTENT for file in path.glob(pattern)})
        elif path.is_file():
            yield path


def _refuse_strangers(step: Step) -> None:
    if step.checkpoints is not None and any(step.checkpoints.glob("checkpoint-*")):
        raise UsageError(
            f"{step.checkpoints} holds an interrupted training with other settings or inputs: delete the folder, "
            "or take the old settings back to go on with it"
        )
