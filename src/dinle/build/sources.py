"""Where speech comes from: each kind of dataset becomes a :class:`Source` of raw records, read one at a time.

=====================  ==============================================================================================
kind                   looks like
=====================  ==============================================================================================
JSONL manifest         a ``*.jsonl`` file, or a folder with ``manifest.jsonl`` (keys: dinle.manifest; usual aliases)
Common Voice release   a folder with ``clips/`` and ``train.tsv dev.tsv test.tsv``, or only ``validated.tsv``
audiofolder            a folder with ``metadata.csv`` or ``metadata.jsonl``, at its root or in each split's folder
``datasets`` folder    written by ``save_to_disk`` (``state.json``, ``dataset_dict.json``), or Parquet files
hub dataset            anything else: an id such as ``ysdede/khanacademy-turkish``
text                   a file given by ``--from_text``: its lines are spoken (:mod:`dinle.build.text_source`)
=====================  ==============================================================================================
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dinle.errors import DatasetError, ManifestError, UsageError
from dinle.manifest import MANIFEST_NAME, iterate_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.build.config import PrepareConfig

AUDIO_COLUMNS = ("audio", "audio_filepath", "file_name", "path", "file", "wav", "speech", "sound")
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_transcription")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "speaker_name")
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
# Sources name their splits in many ways; three names remain. Another name (such as "other") is kept. So is "validated": in
# Common Voice it holds the clips of train, dev and test once more.
SPLIT_NAMES = {
    "training": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "testing": "test",
}


@dataclass(frozen=True)
class Record:
    """One clip as the source has it: encoded, of any rate and length, its text untouched."""

    name: str  # what reports call it
    audio: Path | bytes | Callable[[], Path]  # a function makes the file first: speech from text
    text: str
    split: str
    speaker: str | None = None
    source: str | None = None
    licence: str | None = None
    stated_s: float | None = None  # the duration that a manifest states


class Source(Protocol):
    """A dataset that can be counted before it is read, so that a fraction of it can be drawn by lot."""

    name: str
    files: dict[str, Path]  # the source's own index files, for the run's record

    def count(self) -> dict[str, int]:
        """Records of each split."""

    def read(self, wanted: Callable[[str, int], bool]) -> Iterator[Record]:
        """Yield the records for which ``wanted(split, number)`` holds, numbered from 0 in each split, in order."""


def open_source(config: PrepareConfig) -> Source:
    """Find out what ``config.dataset_name`` is and open it, or the text ``config.from_text``.

    Raises:
        UsageError: both are given or neither is, or a setting of the speech engine does not fit.
        DatasetError: a folder or file of no known kind, columns that cannot be found, or no speech engine.
        HubUnreachableError: not a local path, and the hub does not answer.
    """
    if bool(config.dataset_name) == (config.from_text is not None):
        given = (
            "both --dataset_name and --from_text are"
            if config.dataset_name
            else "neither --dataset_name nor --from_text is"
        )
        raise UsageError(f"{given} given; expected one: a dataset to read, or a text file to be spoken")
    if config.from_text is not None:
        from dinle.build.text_source import open_text  # late: only text needs a speech engine

        return open_text(config.from_text.expanduser(), config)
    path = Path(config.dataset_name).expanduser()
    if path.is_file():
        if path.suffix != ".jsonl":
            raise DatasetError(
                f"{path} is a file, but no JSONL manifest (*.jsonl); give a manifest, a folder or a hub id"
            )
        name = path.resolve().parent.name if path.name == MANIFEST_NAME else path.stem
        return TableSource(name, [_index_manifest(path)], config)
    if path.is_dir():
        return _open_folder(path, config)
    if path.is_absolute() or config.dataset_name.startswith((".", "~")) or config.dataset_name.count("/") > 1:
        raise DatasetError(
            f"there is no file or folder {path}; give a manifest, a folder or a hub id such as owner/name"
        )
    from dinle.build.hub_source import open_hub  # datasets takes seconds to import, and tables do not need it

    return open_hub(config)


def name_split(name: str | None) -> str:
    """``train``, ``validation`` or ``test`` for the names in use (``dev``, ``train-clean-100``); others as they are."""
    if not name:
        return "train"
    first = name.replace("-", ".").replace("_", ".").split(".")[0].casefold()
    known = SPLIT_NAMES.get(first, first)
    return known if known in ("train", "validation", "test") else name


def find_column(columns: Sequence[str], known: Sequence[str], given: str | None, what: str, where: str) -> str:
    """The column to read ``what`` from: the one given, or the first of the known names that is there.

    Raises:
        DatasetError: there is none; the message lists the columns and the flag that names one.
    """
    candidates = [given] if given else known
    for name in candidates:
        if name in columns:
            return name
    raise DatasetError(
        f"{where} has no {what} column: looked for {', '.join(candidates)} among {', '.join(columns) or 'no columns'}; "
        f"name it with --{what}_column"
    )


@dataclass(frozen=True)
class Table:
    """One index file: where it is, what split its rows are of, where the paths in it start."""

    path: Path
    split: str | None  # None: each row says
    audio_folder: Path
    audio_columns: tuple[str, ...] = AUDIO_COLUMNS
    licence: str | None = None
    missing_suffix: str = ""  # of audio files that are named without one


class TableSource:
    """Clips listed in text tables (TSV, CSV, JSONL) beside their audio files. Tables are read line by line, twice."""

    def __init__(self, name: str, tables: list[Table], config: PrepareConfig) -> None:
        self.name = name
        self.files = {table.path.name if len(tables) == 1 else str(table.path): table.path for table in tables}
        self._tables = tables
        self._config = config

    def count(self) -> dict[str, int]:
        """Records of each split; also checks the tables' columns."""
        return dict(Counter(self._find_split(table, row) for table in self._tables for _, row in self._rows(table)))

    def read(self, wanted: Callable[[str, int], bool]) -> Iterator[Record]:
        """Yield the wanted records in the order of the tables."""
        numbers: Counter[str] = Counter()
        for table in self._tables:
            for line, row in self._rows(table):
                split = self._find_split(table, row)
                if wanted(split, numbers[split]):
                    yield self._make_record(table, line, row, split)
                numbers[split] += 1

    def _rows(self, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
        if table.path.suffix == ".jsonl":
            yield from iterate_lines(table.path)
            return
        try:
            yield from self._read_rows(table)
        except UnicodeDecodeError as error:
            raise ManifestError(f"{table.path} is not UTF-8 text ({error}); save it as UTF-8") from error
        except csv.Error as error:
            raise ManifestError(f"{table.path} cannot be read ({error}); is a quotation mark left open?") from error

    def _read_rows(self, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
        # Common Voice writes quotation marks as they are; CSV quotes fields that hold a comma.
        is_tsv = table.path.suffix == ".tsv"
        with table.path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if is_tsv else csv.DictReader(file)
            columns = list(rows.fieldnames or ())
            find_column(columns, table.audio_columns, self._config.audio_column, "audio", str(table.path))
            find_column(columns, TEXT_COLUMNS, self._config.text_column, "text", str(table.path))
            for row in rows:
                yield rows.line_num, row

    def _find_split(self, table: Table, row: dict[str, Any]) -> str:
        if table.split is not None:
            return table.split
        given = row.get("split")
        if given is None and "file_name" in row:  # audiofolder: train/001.wav, data/train/001.wav
            folders = Path(str(row["file_name"])).parts[:-1]
            given = next((name for name in folders if name_split(name) in ("train", "validation", "test")), None)
        return name_split(str(given) if given else None)

    def _make_record(self, table: Table, line: int, row: dict[str, Any], split: str) -> Record:
        where = f"{table.path}:{line}"
        columns = list(row)
        audio = row[find_column(columns, table.audio_columns, self._config.audio_column, "audio", where)]
        text = row[find_column(columns, TEXT_COLUMNS, self._config.text_column, "text", where)]
        if not isinstance(audio, str) or not audio:
            raise ManifestError(f"{where}: the audio column holds {audio!r}; expected the path of a file")
        if text is not None and not isinstance(text, str):
            raise ManifestError(f"{where}: the text column holds {text!r}; expected a string")
        return Record(
            name=audio,
            audio=table.audio_folder / (audio if Path(audio).suffix else audio + table.missing_suffix),
            text=text or "",
            split=split,
            speaker=find_speaker(row),
            source=str(row.get("source") or self.name),
            licence=find_licence(row) or table.licence,
            stated_s=_find_duration(row) if table.path.suffix == ".jsonl" else None,
        )


def find_speaker(row: dict[str, Any]) -> str | None:
    """The speaker that a row names, under any of the usual columns."""
    for column in SPEAKER_COLUMNS:
        if row.get(column) not in (None, ""):
            return str(row[column])
    return None


def find_licence(row: dict[str, Any]) -> str | None:
    """The licence that a row states; several, as hub cards list them, are joined by commas."""
    licence = row.get("licence") or row.get("license")
    if isinstance(licence, list):
        return ", ".join(map(str, licence))
    return str(licence) if licence else None


def _find_duration(row: dict[str, Any]) -> float | None:
    """Seconds under the manifest's own key; tables of other origin use other units."""
    stated = row.get("duration")
    return float(stated) if isinstance(stated, (int, float)) and not isinstance(stated, bool) else None


def _open_folder(folder: Path, config: PrepareConfig) -> Source:
    if (folder / MANIFEST_NAME).is_file():
        return TableSource(folder.resolve().name, [_index_manifest(folder / MANIFEST_NAME)], config)
    if _is_datasets_folder(folder):
        from dinle.build.hub_source import open_local  # late: see open_source

        return open_local(folder, config)
    tables = _index_common_voice(folder) or _index_audiofolder(folder)
    if not tables:
        raise DatasetError(
            f"{folder} is no dataset of a known kind; looked for {MANIFEST_NAME}, clips/ with train.tsv, dev.tsv, "
            f"test.tsv or validated.tsv (Common Voice), {' or '.join(METADATA_NAMES)} at the root or in train/, test/ "
            "(audiofolder), state.json or dataset_dict.json (save_to_disk), and *.parquet"
        )
    return TableSource(folder.resolve().name, tables, config)


def _is_datasets_folder(folder: Path) -> bool:
    saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    return saved or any(next(folder.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet"))


def _index_manifest(path: Path) -> Table:
    return Table(path, None, path.parent)


def _index_common_voice(folder: Path) -> list[Table]:
    clips = folder / "clips"
    if not clips.is_dir():
        return []
    names = [name for name in ("train", "dev", "test") if (folder / f"{name}.tsv").is_file()]
    if not names and (folder / "validated.tsv").is_file():
        names = ["validated"]
    splits = {"train": "train", "dev": "validation", "test": "test", "validated": "train"}
    # Every Common Voice release is CC0-1.0: https://commonvoice.mozilla.org/en/datasets. Early ones leave .mp3 out.
    return [Table(folder / f"{name}.tsv", splits[name], clips, ("path",), "CC0-1.0", ".mp3") for name in names]


def _index_audiofolder(folder: Path) -> list[Table]:
    """file_name is relative to the metadata's folder: https://huggingface.co/docs/datasets/audio_dataset#audiofolder."""
    at_root = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if at_root:
        return [Table(at_root[0], None, folder, ("file_name",))]
    parents = [folder, folder / "data"]
    inside = sorted(path for parent in parents for name in METADATA_NAMES for path in parent.glob(f"*/{name}"))
    return [Table(path, name_split(path.parent.name), path.parent, ("file_name",)) for path in inside]
