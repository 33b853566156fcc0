"""The manifest: one JSON object a line, one line a clip. Every stage between a dataset and a score reads and writes it.

::

    {"audio": "audio/001.opus", "text": "Bugün hava güzel.", "duration": 2.31, "speaker": "a", "split": "train",
     "source": "common_voice", "licence": "CC0-1.0"}

``audio`` is relative to the manifest's folder, or absolute; ``duration`` is in seconds. ``audio``, ``text`` and
``duration`` are required, the rest may be missing or null. Other keys are allowed and ignored.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MANIFEST_NAME = "manifest.jsonl"
_SHOWN = 3  # how many offenders an error names before it counts the rest


@dataclass(frozen=True)
class Clip:
    """One utterance: where its sound is and what was said (``text`` as the source wrote it, not normalised)."""

    audio: Path
    text: str
    duration_s: float
    speaker: str | None = None
    split: str | None = None
    source: str | None = None
    licence: str | None = None


def find_manifest(path: Path) -> Path:
    """The manifest that ``path`` means: the file itself, or ``manifest.jsonl`` in the folder.

    Raises:
        ManifestError: there is no such file.
    """
    found = path / MANIFEST_NAME if path.is_dir() else path
    if not found.is_file():
        raise ManifestError(f"there is no manifest {found}; 'dinle prepare' writes one, one JSON object a line")
    return found


def read_manifest(path: Path | str, *, split: str | None = None, check_files: bool = True) -> list[Clip]:
    """Read the clips of a manifest, in its order.

    Args:
        path: the JSONL file, or a folder that holds ``manifest.jsonl``.
        split: only the clips of this split (None: all).
        check_files: also look whether every audio file of the result exists.

    Returns:
        At least one clip; ``audio`` is ready to open (joined to the manifest's folder).

    Raises:
        ManifestError: no such manifest, a line that is not a clip (named by number), no clips, or missing audio files.
    """
    manifest = find_manifest(Path(path))
    clips = [_read_clip(fields, manifest, number) for number, fields in iterate_lines(manifest)]
    if not clips:
        raise ManifestError(f"{manifest} holds no clips; expected one JSON object a line")
    if split is not None:
        clips = _select_split(clips, split, manifest)
    if check_files:
        _check_files(clips, manifest)
    return clips


def write_manifest(path: Path | str, clips: Iterable[Clip]) -> None:
    """Write clips one a line; audio inside the manifest's folder is named relative to it, so that the folder can move.

    The file appears complete or not at all.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for clip in clips:
                file.write(json.dumps(_to_fields(clip, path.parent), ensure_ascii=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def iterate_lines(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number (from 1) and JSON object of each line of a JSONL file; blank lines are passed over.

    Raises:
        ManifestError: a line is not a JSON object, or the file is not UTF-8.
    """
    with manifest.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parse_line(line, f"{manifest}:{number}")
        except UnicodeDecodeError as error:
            raise ManifestError(f"{manifest} is not UTF-8 text ({error}); expected one JSON object a line") from error


def _parse_line(line: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ManifestError(f"{where}: not JSON ({error}); expected one object a line") from error
    if not isinstance(fields, dict):
        raise ManifestError(f"{where}: a JSON {type(fields).__name__}; expected an object with audio, text, duration")
    return fields


def _read_clip(fields: Mapping[str, Any], manifest: Path, number: int) -> Clip:
    where = f"{manifest}:{number}"
    missing = [key for key in ("audio", "text", "duration") if key not in fields]
    if missing:
        raise ManifestError(f"{where}: missing {', '.join(missing)}; the line has {', '.join(fields) or 'no keys'}")
    audio, text, duration_s = fields["audio"], fields["text"], fields["duration"]
    if not isinstance(audio, str) or not audio:
        raise ManifestError(f"{where}: audio is {audio!r}; expected the path of a file")
    if not isinstance(text, str):
        raise ManifestError(f"{where}: text is {text!r}; expected a string")
    is_number = isinstance(duration_s, (int, float)) and not isinstance(duration_s, bool)
    if not is_number or not math.isfinite(duration_s) or duration_s < 0:
        raise ManifestError(f"{where}: duration is {duration_s!r}; expected seconds, zero or more")
    notes = {key: _read_note(fields, key, where) for key in ("speaker", "split", "source", "licence")}
    return Clip(manifest.parent / audio, text, float(duration_s), **notes)


def _read_note(fields: Mapping[str, Any], key: str, where: str) -> str | None:
    note = fields.get(key)
    if note is not None and not isinstance(note, str):
        raise ManifestError(f"{where}: {key} is {note!r}; expected a string or null")
    return note


def _select_split(clips: list[Clip], split: str, manifest: Path) -> list[Clip]:
    chosen = [clip for clip in clips if clip.split == split]
    if not chosen:
        known = ", ".join(sorted({clip.split or "(none)" for clip in clips}))
        raise ManifestError(f"{manifest} has no clips of split {split!r}; its splits are: {known}")
    return chosen


def _check_files(clips: list[Clip], manifest: Path) -> None:
    missing = [str(clip.audio) for clip in clips if not clip.audio.is_file()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ManifestError(
            f"{manifest}: {len(missing)} of {len(clips)} audio files are missing: {', '.join(missing[:_SHOWN])}{more}; "
            "paths are relative to the manifest's folder"
        )


def _to_fields(clip: Clip, folder: Path) -> dict[str, Any]:
    # Symbolic links are left as they are: abspath, not resolve.
    audio, base = Path(os.path.abspath(clip.audio)), Path(os.path.abspath(folder))  # noqa: PTH100
    if audio.is_relative_to(base):
        audio = audio.relative_to(base)
    return {
        "audio": audio.as_posix(),
        "text": clip.text,
        "duration": round(clip.duration_s, 4),
        "speaker": clip.speaker,
        "split": clip.split,
        "source": clip.source,
        "licence": clip.licence,
    }
