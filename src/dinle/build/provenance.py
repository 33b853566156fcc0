"""``provenance.json`` beside a checkpoint: where its weights and their training data come from, and under which licence.

A list of objects with the keys ``what``, ``name``, ``source`` and ``licence``. Training adds its own data to what the starting
weights say; export copies it all into the bundle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dinle.errors import BundleCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dinle.manifest import Clip

PROVENANCE_FILE = "provenance.json"
PROVENANCE_KEYS = ("what", "name", "source", "licence")
UNKNOWN = "unknown"

Origin = dict[str, str]


def read_provenance(checkpoint: str | Path) -> list[Origin]:
    """What a checkpoint folder says of its origin; empty where it says nothing, or is a hub id.

    Raises:
        BundleCorruptError: ``provenance.json`` cannot be understood.
    """
    path = Path(checkpoint) / PROVENANCE_FILE
    if not path.is_file():
        return []
    try:
        return [{key: str(entry[key]) for key in PROVENANCE_KEYS} for entry in json.loads(path.read_text("utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleCorruptError(
            f"{path} cannot be understood: {error!r}; expected a list of objects with {', '.join(PROVENANCE_KEYS)}"
        ) from error


def write_provenance(checkpoint: Path, origins: Iterable[Origin]) -> None:
    """Write a checkpoint's origins."""
    text = json.dumps(list(origins), ensure_ascii=False, indent=1)
    (checkpoint / PROVENANCE_FILE).write_text(text + "\n", encoding="utf-8")


def describe_weights(name: str, *, source: str | None = None, licence: str | None = None) -> Origin:
    """The origin of weights that say nothing themselves."""
    return {"what": "weights", "name": Path(name).name, "source": source or name, "licence": licence or UNKNOWN}


def add_training(origins: Sequence[Origin], model_name: str, clips: Iterable[Clip]) -> list[Origin]:
    """The origins of fine-tuned weights: those of the starting weights, and each source of the training clips once."""
    sources = dict.fromkeys((clip.source or UNKNOWN, clip.licence or UNKNOWN) for clip in clips)
    data = [
        {"what": "fine-tuning data", "name": source, "source": source, "licence": licence}
        for source, licence in sources
    ]
    known = list(origins) or [describe_weights(model_name)]
    return [*known, *(entry for entry in data if entry not in known)]
