"""Model names to local folders: a folder as it is, a hub id downloaded without pickles."""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from dinle.errors import BundleCorruptError, BundleNotFoundError, HubUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

logger = logging.getLogger(__name__)

WANTED_FILES = ("*.json", "*.safetensors")  # never *.bin, *.pt, *.ckpt: those are pickles
HUB_TIMEOUT_S = 10.0
CONVERSION_BOT = "SFconvertbot"  # Hugging Face's own: opens a pull request with a .bin model's weights as safetensors
HUB_ERRORS: tuple[Any, ...] = (
    HfHubHTTPError.__bases__
)  # the HTTP client's base error, whichever client it is, and OSError
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_model_folder(name_or_folder: str) -> Path:
    """The folder that holds a model: a local one, or the hub's files in its cache.

    Raises:
        BundleNotFoundError: no such folder, no such hub id, or no safetensors among its files.
        HubUnreachableError: the hub does not answer and its cache does not hold the model.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BundleNotFoundError(f"{folder} has no config.json; give a folder that holds a model's checkpoint")
        return folder
    if looks_like_path(name_or_folder):
        raise BundleNotFoundError(
            f"there is no folder {folder}; give an existing checkpoint folder or a hub id such as openai/whisper-base"
        )
    return download_model(name_or_folder)


def looks_like_path(name: str) -> bool:
    """Whether ``name`` can only be meant as a local folder (hub ids are ``name`` or ``owner/name``)."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.endswith("/") or not HUB_ID.fullmatch(name)


def download_model(hub_id: str) -> Path:
    """Download the JSON and safetensors files of a hub model, or find them in the cache.

    Raises:
        BundleNotFoundError: the hub has no such model, does not let us read it, or it has pickled weights only.
        HubUnreachableError: the hub does not answer and the cache does not hold the model.
    """
    api = HfApi()
    try:
        info = api.model_info(hub_id, timeout=HUB_TIMEOUT_S)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        revision = info.sha if has_safetensors(files) else find_converted_revision(api, hub_id)
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(WANTED_FILES)))
    except BundleNotFoundError:  # also an OSError, which below means that the hub does not answer
        raise
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise BundleNotFoundError(
            f"{hub_id!r} is neither a local folder nor a model on the Hugging Face hub that can be read (private and "
            "gated models need a login: hf auth login)"
        ) from error
    except HUB_ERRORS as error:
        return find_cached(hub_id, error)


def find_cached(hub_id: str, error: Exception) -> Path:
    """The hub's cached copy of a model when the hub itself does not answer.

    Raises:
        HubUnreachableError: there is none.
    """
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=list(WANTED_FILES)))
    except LocalEntryNotFoundError:
        folder = None
    if folder is None or not has_safetensors(path.name for path in folder.iterdir()):
        raise HubUnreachableError(
            f"cannot fetch {hub_id!r}: the Hugging Face hub does not answer ({type(error).__name__}: {error}); "
            "give a local folder with config.json and model.safetensors instead"
        ) from error
    logger.warning("the Hugging Face hub does not answer; using the cached copy of %s", hub_id)
    return folder


def find_converted_revision(api: HfApi, hub_id: str) -> str:
    """The pull request with which the hub's own bot offers a pickled model as safetensors.

    Raises:
        BundleNotFoundError: there is none.
    """
    offers = api.get_repo_discussions(
        hub_id, author=CONVERSION_BOT, discussion_type="pull_request", discussion_status="open"
    )
    for offer in offers:
        revision = offer.git_reference
        if revision and has_safetensors(api.list_repo_files(hub_id, revision=revision)):
            return revision
    raise BundleNotFoundError(
        f"{hub_id!r} offers no safetensors weights, and pickled weights (.bin) are never loaded because they can run "
        "code; convert it (https://huggingface.co/spaces/safetensors/convert) or give a folder with model.safetensors"
    )


def has_safetensors(names: Iterable[str]) -> bool:
    """Whether a model's own weights are among the files (adapters of other languages do not count)."""
    return any(name.startswith("model") and name.endswith(".safetensors") for name in names)


def list_weight_files(folder: Path) -> dict[str, Path]:
    """The safetensors file of each tensor, from the shards' index or the single file.

    Raises:
        BundleNotFoundError: the folder holds no safetensors weights.
        BundleCorruptError: the index or the file is unreadable, or the index names a file that is not there.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return _read_shards(index)
    if single.is_file():
        with open_weights(single) as weights:
            return dict.fromkeys(weights.keys(), single)
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    found = f"only the pickled {', '.join(pickled)}, which are never loaded" if pickled else "no weights"
    raise BundleNotFoundError(
        f"{folder} holds {found}; expected model.safetensors: save the model with save_pretrained"
    )


def _read_shards(index: Path) -> dict[str, Path]:
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: index.parent / file for name, file in shards.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleCorruptError(f"{index} is not readable ({error!r}); copy or save the model again") from error
    missing = sorted({file.name for file in files.values() if not file.is_file()})
    if missing:
        raise BundleCorruptError(f"{index} names {', '.join(missing)}, which is not there; copy the model again")
    return files


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Open a safetensors file.

    Raises:
        BundleCorruptError: it is cut or is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as weights:
            yield weights
    except (SafetensorError, FileNotFoundError) as error:
        raise BundleCorruptError(f"{path} is not readable ({error}); copy or save the model again") from error


def read_weights(folder: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """The tensors whose names begin with one of ``prefixes``, in fp32 and without the prefix.

    Raises:
        BundleNotFoundError: the folder holds no safetensors weights.
        BundleCorruptError: a file cannot be read.
    """
    tensors = {}
    for name, file in list_weight_files(folder).items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is not None:
            with open_weights(file) as weights:
                tensors[name.removeprefix(prefix)] = weights.get_tensor(name).float()
    return tensors
