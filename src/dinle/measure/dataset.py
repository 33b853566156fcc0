"""The clips of an evaluation: a manifest that is there, or a dataset that the prepare stage reads into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinle.config import read_json
from dinle.errors import MissingExtraError, UsageError
from dinle.manifest import MANIFEST_NAME, find_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.measure.config import EvaluateConfig

DATA_FOLDER = "data"
DATASET_SPLIT = "test"
_DAY_S = 86_400.0
_ANY_DENSITY = 1e6  # characters a second


def check_data(config: EvaluateConfig) -> None:
    """See that the config names a manifest or a dataset.

    Raises:
        UsageError: neither or both, or settings of a dataset without one.
    """
    if config.manifest is None and config.dataset is None:
        raise UsageError("missing --manifest (a JSONL manifest) or --dataset (a hub id or a folder); give one of them")
    if config.manifest is not None and config.dataset is not None:
        raise UsageError(
            f"both --manifest {config.manifest} and --dataset {config.dataset} are given; they exclude each other"
        )
    names = ("dataset_config", "audio_column", "text_column")
    given = [f"--{name}" for name in names if getattr(config, name) is not None]
    if config.dataset is None and given:
        raise UsageError(f"{', '.join(given)} without --dataset; a manifest has no configurations and no other columns")


def find_data(config: EvaluateConfig) -> tuple[Path, dict[str, Any]]:
    """The manifest to evaluate, and what reports say of it: ``manifest, split``, of a dataset also its name and losses.

    Raises:
        ManifestError: there is no such manifest.
        MissingExtraError: a dataset, without the extra ``train``.
        HubUnreachableError, DatasetError: see :func:`dinle.build.prepare.prepare`.
    """
    if config.manifest is not None:
        manifest = find_manifest(config.manifest)
        return manifest, {"manifest": str(manifest), "split": config.split}
    folder = prepare_dataset(config)
    return folder / MANIFEST_NAME, {
        "manifest": str(folder / MANIFEST_NAME),
        "split": config.split or DATASET_SPLIT,
        "dataset": config.dataset,
        "dataset_config": config.dataset_config,
        "text_column": config.text_column,
        "dropped": read_json(folder / "data.json")["dropped"],
    }


def prepare_dataset(config: EvaluateConfig) -> Path:
    """Read one split of ``config.dataset`` into a folder under the output's: a manifest, and the audio where it must be kept.

    No clip is judged by its length or its text, as for training: only empty references and damaged sound are left out.
    """
    folder = config.output_dir / DATA_FOLDER
    try:
        from dinle.build.config import PrepareConfig
        from dinle.build.prepare import prepare

        return prepare(
            PrepareConfig(
                dataset_name=config.dataset or "",
                output_dir=folder,
                dataset_config=config.dataset_config,
                split=config.split or DATASET_SPLIT,
                audio_column=config.audio_column,
                text_column=config.text_column,
                min_duration_s=0.0,
                max_duration_s=_DAY_S,
                min_chars_per_s=0.0,
                max_chars_per_s=_ANY_DENSITY,
                threads=config.threads,
            )
        )
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dinle"):
            raise
        raise MissingExtraError("train", error.name or "datasets") from error
