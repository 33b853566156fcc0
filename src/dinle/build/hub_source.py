"""Datasets of the Hugging Face hub, and folders that its ``datasets`` library wrote, as a :class:`Source`.

Audio columns are read as stored bytes: decoding is ours, so that torchcodec is not needed and a damaged clip is one
clip's trouble. Rows are memory-mapped, never held.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from dinle.build.sources import (
    AUDIO_COLUMNS,
    SPEAKER_COLUMNS,
    TEXT_COLUMNS,
    Record,
    Source,
    find_column,
    find_licence,
    find_speaker,
    name_split,
)
from dinle.errors import DatasetError, HubUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dinle.build.config import PrepareConfig

logger = logging.getLogger(__name__)

NOTE_COLUMNS = (*SPEAKER_COLUMNS, "source", "licence", "license")
PROBE_TIMEOUT_S = 10.0  # datasets itself retries for half a minute before it gives up


class HubSource:
    """The splits of a ``datasets`` dataset, their audio left encoded."""

    def __init__(self, name: str, splits: dict[str, Any], config: PrepareConfig, licence: str | None) -> None:
        self.name = name
        self.files: dict[str, Path] = {}
        self._licence = licence
        self._splits: list[tuple[str, Any, str, str]] = []
        for split, rows in splits.items():
            where = f"{name} ({split})"
            audio = _find_audio_column(rows, config.audio_column, where)
            text = find_column(rows.column_names, TEXT_COLUMNS, config.text_column, "text", where)
            # Only what is read: another audio column would be decoded, too.
            kept = rows.select_columns([name for name in rows.column_names if name in {audio, text, *NOTE_COLUMNS}])
            if isinstance(rows.features[audio], datasets.Audio):
                kept = kept.cast_column(audio, datasets.Audio(decode=False))
            self._splits.append((name_split(split), kept, audio, text))

    def count(self) -> dict[str, int]:
        """Records of each split."""
        sizes: dict[str, int] = {}
        for split, rows, _, _ in self._splits:
            sizes[split] = sizes.get(split, 0) + len(rows)
        return sizes

    def read(self, wanted: Callable[[str, int], bool]) -> Iterator[Record]:
        """Yield the wanted records; the bytes of the others are never touched."""
        first: dict[str, int] = {}
        for split, rows, audio, text in self._splits:
            offset = first.get(split, 0)
            first[split] = offset + len(rows)
            for number in range(len(rows)):
                if wanted(split, offset + number):
                    yield self._make_record(rows[number], split, offset + number, audio, text)

    def _make_record(self, row: dict[str, Any], split: str, number: int, audio: str, text: str) -> Record:
        sound, path = _find_sound(row[audio])
        name = f"{split}[{number}]"
        return Record(
            name=f"{name} {Path(path).name}" if path else name,
            audio=sound,
            text="" if row[text] is None else str(row[text]),
            split=split,
            speaker=find_speaker(row),
            source=str(row.get("source") or self.name),
            licence=find_licence(row) or self._licence,
        )


def open_hub(config: PrepareConfig) -> Source:
    """Open a dataset of the hub; it is downloaded once, into the cache of ``datasets``.

    Raises:
        HubUnreachableError: the hub does not answer and the cache does not hold the dataset.
        DatasetError: the hub knows no such dataset, or does not let us read it.
    """
    name = config.dataset_name
    try:
        info = HfApi().dataset_info(name, timeout=PROBE_TIMEOUT_S)
    except HfHubHTTPError as error:
        raise DatasetError(
            f"the hub does not give out the dataset {name!r} ({error}); look at its page, log in with 'hf auth login' "
            "where it is gated, or give a local folder"
        ) from error
    except Exception as error:  # noqa: BLE001 - whatever the transport of this version of the hub's client raises
        return _open_cached(config, error)
    loaded = _load(name, config)
    return HubSource(name, _name_splits(loaded, config), config, _find_licence(info))


def open_local(folder: Path, config: PrepareConfig) -> Source:
    """Open a folder written by ``save_to_disk``, or a folder of Parquet files.

    Raises:
        DatasetError: ``datasets`` cannot read it.
    """
    saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    try:
        loaded = datasets.load_from_disk(str(folder)) if saved else _load(str(folder), config)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{folder} looks like a folder of the datasets library, but cannot be read: {error}"
        ) from error
    return HubSource(folder.resolve().name, _name_splits(loaded, config), config, None)


def _load(name: str, config: PrepareConfig) -> Any:
    try:
        return datasets.load_dataset(name, config.dataset_config)
    except (ValueError, RuntimeError, datasets.exceptions.DatasetGenerationError) as error:
        raise DatasetError(f"the dataset {name!r} cannot be loaded: {error}; {_advise(error)}") from error
    except ConnectionError as error:
        raise HubUnreachableError(
            f"the hub stopped answering while {name!r} was loaded ({error}); run again: what was downloaded is kept"
        ) from error


def _advise(error: Exception) -> str:
    if "scripts are no longer supported" in str(error):  # as mozilla-foundation's copies of Common Voice are
        return (
            "the library does not run a data set's own code any more: name a copy of it in Parquet, or give the folder of "
            "a release, as Common Voice has them at https://datacollective.mozillafoundation.org"
        )
    return "where it has configurations, name one with --dataset_config"


def _open_cached(config: PrepareConfig, reason: Exception) -> Source:
    name = config.dataset_name
    try:
        with _offline():
            loaded = datasets.load_dataset(name, config.dataset_config)
    except (OSError, ValueError) as error:
        raise HubUnreachableError(
            f"the hub does not answer ({type(reason).__name__}: {reason}), dataset {name!r} is not in the cache and "
            "there is no local folder of that name; check the network, or give a folder (Parquet, save_to_disk, "
            "audiofolder, Common Voice) or a JSONL manifest"
        ) from error
    logger.warning("the hub does not answer: using the cached copy of %s", name)
    return HubSource(name, _name_splits(loaded, config), config, None)


@contextmanager
def _offline() -> Iterator[None]:
    """Let ``datasets`` look into its cache at once instead of retrying the hub."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _name_splits(loaded: Any, config: PrepareConfig) -> dict[str, Any]:
    if not isinstance(loaded, datasets.DatasetDict):
        return {str(loaded.split or config.split or "train"): loaded}
    return dict(loaded)


def _find_audio_column(rows: Any, given: str | None, where: str) -> str:
    typed = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Audio)]
    return find_column(rows.column_names, [*typed, *AUDIO_COLUMNS], given, "audio", where)


def _find_sound(value: Any) -> tuple[bytes | Path, str | None]:
    """Encoded bytes, or a path, and the name of the file; nothing at all becomes no bytes, which fail to decode."""
    path: str | None = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    stored = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(stored, bytes):
        return stored, path
    return (Path(path) if path else b""), path


def _find_licence(info: Any) -> str | None:
    card = info.card_data
    licence = card.get("license") if card is not None else None
    return ", ".join(licence) if isinstance(licence, list) else licence
