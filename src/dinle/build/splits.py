"""Which clips a run trains on and which it is judged by."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dinle.build.config import PrepareConfig
from dinle.build.sources import name_split
from dinle.config import to_plain
from dinle.errors import DatasetError, UsageError
from dinle.manifest import MANIFEST_NAME, read_manifest
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.build.config import TrainConfig
    from dinle.manifest import Clip

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

TRAIN_SPLIT = "train"
EVAL_SPLITS = ("validation", "test")  # the first one that the dataset has, under any of its usual names
HELD_OUT_SHARE = 0.05
PREPARED_FOLDER = "data"  # inside output_dir


def find_or_prepare(config: TrainConfig, dataset_name: str, folder: Path) -> Path:
    """The manifest that ``dataset_name`` means; what is not prepared yet is prepared into ``folder`` first.

    A folder that an earlier run prepared with the same settings is used as it is.
    """
    path = Path(dataset_name)
    if path.is_file() and path.suffix == ".jsonl":
        return path
    if (path / MANIFEST_NAME).is_file():
        return path / MANIFEST_NAME
    from dinle.build.prepare import prepare  # brings in datasets, which a prepared folder does not need

    settings = PrepareConfig(
        dataset_name=dataset_name,
        dataset_config=config.dataset_config,
        output_dir=folder,
        train_percent=config.train_percent,
        eval_percent=config.eval_percent,
        seed=config.seed,
    )
    if _read_finished(folder) != to_plain(settings):
        logger.info("preparing %s into %s", dataset_name, folder)
        prepare(settings)
    return folder / MANIFEST_NAME


def _read_finished(folder: Path) -> object:
    record = folder / "run.json"
    return json.loads(record.read_text(encoding="utf-8")).get("config") if record.is_file() else None


def read_splits(config: TrainConfig) -> tuple[list[Clip], list[Clip], dict[str, Path]]:
    """Read the training and the evaluation clips; needed sources are prepared into ``output_dir``.

    Training takes the split ``train``, or where there is none every clip that is in no evaluation split. Evaluation
    takes the first of validation and test that there is, or else a seeded 5 % of the training texts, which
    training then does not see.

    Returns:
        training clips, evaluation clips, and the manifests read, by what they were read for.

    Raises:
        UsageError: a share outside (0, 1].
        DatasetError: no clip is left to train on or to evaluate on.
        ManifestError: a manifest is unusable.
    """
    manifest = find_or_prepare(config, config.dataset_name, config.output_dir / PREPARED_FOLDER)
    clips = read_manifest(manifest)
    manifests = {"dataset": manifest}
    train, evaluation = choose_train_split(clips), choose_eval_split(clips)
    if config.eval_dataset_name is not None:
        folder = config.output_dir / f"{PREPARED_FOLDER}-eval"
        manifests["eval_dataset"] = find_or_prepare(config, config.eval_dataset_name, folder)
        eval_clips = read_manifest(manifests["eval_dataset"])
        evaluation = choose_eval_split(eval_clips) or eval_clips
    elif not evaluation:
        train, evaluation = hold_out_texts(train, HELD_OUT_SHARE, config.seed)
        logger.warning(
            "the dataset has no split %s: %d clips (%.0f %% of the texts) are held out of training for evaluation",
            "/".join(EVAL_SPLITS), len(evaluation), 100 * HELD_OUT_SHARE,
        )  # fmt: skip
    # What a run prepares for itself has been cut to its share already.
    if _is_manifest(config.dataset_name, manifest):
        train = take_share(train, config.train_percent, config.seed, "train_percent")
    if _is_manifest(config.eval_dataset_name or config.dataset_name, manifests.get("eval_dataset", manifest)):
        evaluation = take_share(evaluation, config.eval_percent, config.seed, "eval_percent")
    if not train or not evaluation:
        raise DatasetError(
            f"{manifest}: {len(train)} clips to train on, {len(evaluation)} to evaluate on; at least one of each is needed"
        )
    return train, evaluation, manifests


def _is_manifest(dataset_name: str, manifest: Path) -> bool:
    """Whether the dataset given is this manifest, or its folder, and not what it was prepared from."""
    return Path(dataset_name) in (manifest, manifest.parent)


def choose_train_split(clips: Sequence[Clip]) -> list[Clip]:
    """The split ``train``; where there is none, the clips of no evaluation split."""
    train = [clip for clip in clips if clip.split and name_split(clip.split) == TRAIN_SPLIT]
    return train or [clip for clip in clips if name_split(clip.split) not in EVAL_SPLITS]


def choose_eval_split(clips: Sequence[Clip]) -> list[Clip]:
    """The first of validation and test that has clips; empty where none has."""
    for split in EVAL_SPLITS:
        chosen = [clip for clip in clips if name_split(clip.split) == split]
        if chosen:
            return chosen
    return []


def hold_out_texts(clips: Sequence[Clip], share: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Part clips by text, so that no sentence is on both sides: (kept, held out)."""
    texts = sorted({normalize_tr(clip.text) for clip in clips})
    held_out = set(take_share(texts, share, seed, "share")) if len(texts) > 1 else set()
    sides = [normalize_tr(clip.text) in held_out for clip in clips]
    kept = [clip for clip, out in zip(clips, sides, strict=True) if not out]
    return kept, [clip for clip, out in zip(clips, sides, strict=True) if out]


def take_share(items: Sequence[Item], share: float, seed: int, name: str) -> list[Item]:
    """A seeded random ``share`` of ``items``, at least one, in their order.

    Raises:
        UsageError: the share is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"--{name} is {share}; expected a fraction above 0 and up to 1, such as 0.1 for a tenth")
    if share == 1 or not items:
        return list(items)
    chosen = np.random.default_rng(seed).permutation(len(items))[: max(1, round(share * len(items)))]
    return [items[index] for index in sorted(chosen)]
