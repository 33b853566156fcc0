"""``predictions.jsonl``: what a system recognised, one clip a line. Scores are computed from such files alone.

::

    {"id": "audio/001.opus", "audio": "/data/audio/001.opus", "reference": "Bugün hava güzel.",
     "hypothesis": "bugün hava güzel", "duration_s": 2.31, "inference_s": 0.04, "speaker": "a", "error": null,
     "confidences": [0.981, 0.874, 0.993]}

``id``, ``reference`` and ``hypothesis`` are required, so that other systems' output can be scored too.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dinle.errors import ManifestError
from dinle.manifest import iterate_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

PREDICTIONS_FILE = "predictions.jsonl"
_DIGITS = 5  # 10 microseconds


@dataclass(frozen=True)
class Prediction:
    """One clip: what was said (as the source wrote it) and what was recognised.

    Attributes:
        id: the clip's name, the same in every evaluation of the same data.
        audio: the file, for people who want to listen.
        reference: the transcript of the data set.
        hypothesis: the system's; empty where ``error`` says why it failed.
        duration_s: length of the sound.
        inference_s: wall seconds of the system, from file to text.
        confidences: one from 0 to 1 for each word of the hypothesis, where the system gives them; words are parted by white
            space.
    """

    id: str
    reference: str
    hypothesis: str
    audio: str = ""
    duration_s: float = 0.0
    inference_s: float = 0.0
    speaker: str | None = None
    error: str | None = None
    confidences: tuple[float, ...] | None = None


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions as they come, line by line; the file has its name only when it is complete."""
    write_side_by_side([path], ((prediction,) for prediction in predictions))


def write_side_by_side(paths: Sequence[Path], rows: Iterable[Sequence[Prediction]]) -> None:
    """Write the predictions of several systems as they come, a file each; all files get their names when all are complete.

    Args:
        paths: one file for each system; their folders exist.
        rows: for each clip one prediction of each system.
    """
    partials = [path.with_name(f"{path.name}.partial") for path in paths]
    with ExitStack() as stack:
        files = [stack.enter_context(partial.open("w", encoding="utf-8", newline="\n")) for partial in partials]
        for row in rows:
            for file, prediction in zip(files, row, strict=True):
                file.write(_format_line(prediction))
    for partial, path in zip(partials, paths, strict=True):
        partial.replace(path)


def _format_line(prediction: Prediction) -> str:
    fields = {key: round(x, _DIGITS) if isinstance(x, float) else x for key, x in asdict(prediction).items()}
    if prediction.confidences is not None:
        fields["confidences"] = [round(one, _DIGITS) for one in prediction.confidences]
    return json.dumps(fields, ensure_ascii=False) + "\n"


def read_predictions(path: Path) -> list[Prediction]:
    """Read ``predictions.jsonl``, or the one in an evaluation's folder.

    Raises:
        ManifestError: no such file, no lines, a line that lacks a required key, or an id that occurs twice.
    """
    file = path / PREDICTIONS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ManifestError(f"there is no {file}; 'dinle evaluate' writes one, one JSON object a line")
    predictions = [_read_line(fields, f"{file}:{number}") for number, fields in iterate_lines(file)]
    if not predictions:
        raise ManifestError(f"{file} holds no predictions; expected one JSON object a line")
    seen: set[str] = set()
    for prediction in predictions:
        if prediction.id in seen:
            raise ManifestError(f"{file}: the id {prediction.id!r} occurs twice; expected one line for each clip")
        seen.add(prediction.id)
    return predictions


def _read_line(fields: Mapping[str, Any], where: str) -> Prediction:
    for key in ("id", "reference", "hypothesis"):
        if not isinstance(fields.get(key), str):
            raise ManifestError(f"{where}: {key} is {fields.get(key)!r}; expected a string")
    for key in ("duration_s", "inference_s"):
        if not isinstance(fields.get(key, 0.0), (int, float)):
            raise ManifestError(f"{where}: {key} is {fields[key]!r}; expected seconds")
    known = {key: value for key, value in fields.items() if key in Prediction.__dataclass_fields__}
    return Prediction(**{**known, "confidences": _read_confidences(fields, where)})


def _read_confidences(fields: Mapping[str, Any], where: str) -> tuple[float, ...] | None:
    values, words = fields.get("confidences"), len(fields["hypothesis"].split())
    if values is None:
        return None
    numbers = isinstance(values, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one <= 1 for one in values
    )
    if not numbers or len(values) != words:
        raise ManifestError(
            f"{where}: confidences is {values!r:.200}; expected {words} numbers from 0 to 1, one for each word of the "
            "hypothesis, or null"
        )
    return tuple(map(float, values))
