"""LoRA for Whisper: small matrices beside frozen ones (Hu et al. 2021), by peft; merged into plain weights to save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from dinle.build.model_source import open_weights
from dinle.errors import BundleNotFoundError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
SIDES = {"decoder": "decoder", "all": "(?:encoder|decoder)"}
ADAPTER = "default"  # peft's own name for a model's first adapter
ADAPTER_FOLDER = (
    "adapter"  # of its own: beside model.safetensors transformers would load it on top of the merged weights
)
ADAPTER_FILE = "adapter_model.safetensors"
_BASE = ".base_layer."


def add_lora(network: nn.Module, *, rank: int, alpha: float, target: str) -> None:
    """Put LoRA matrices beside the projections of a Whisper model's layers, and freeze all else. In place.

    Args:
        network: transformers' WhisperForConditionalGeneration.
        rank: of the matrices.
        alpha: their product counts ``alpha / rank`` times.
        target: ``decoder`` or ``all``.

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("train", "peft") from error
    modules = rf"model\.{SIDES[target]}\.layers\.\d+\.(?:\w+\.)?(?:{'|'.join(PROJECTIONS)})"
    factor: Any = alpha  # typed as int, used as a number
    settings = LoraConfig(r=rank, lora_alpha=factor, target_modules=modules)
    inject_adapter_in_model(settings, network, adapter_name=ADAPTER)


def has_lora(network: nn.Module) -> bool:
    """Whether :func:`add_lora` was there."""
    return any(_BASE in name for name, _ in network.named_parameters())


def merge_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a model under their plain names, LoRA's products added; the model stays as it is."""
    merged = {}
    for name, tensor in network.state_dict().items():
        owner, found, leaf = name.rpartition(_BASE)
        if ".lora_" in name:
            continue
        if found and leaf == "weight":
            layer: Any = network.get_submodule(owner)
            merged[f"{owner}.{leaf}"] = tensor + layer.get_delta_weight(ADAPTER).detach()
        else:
            merged[name.replace(_BASE, ".")] = tensor
    return merged


def save_adapter(network: nn.Module, folder: Path) -> None:
    """Write the LoRA matrices alone, in peft's form, into ``folder/adapter``."""
    from peft import get_peft_model_state_dict

    model: Any = network
    (folder / ADAPTER_FOLDER).mkdir(parents=True, exist_ok=True)
    matrices = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    weights = {name: tensor.contiguous() for name, tensor in matrices.items()}
    save_file(weights, folder / ADAPTER_FOLDER / ADAPTER_FILE, metadata={"format": "pt"})
    model.peft_config[ADAPTER].save_pretrained(str(folder / ADAPTER_FOLDER))


def load_adapter(network: nn.Module, folder: Path) -> None:
    """Read what :func:`save_adapter` wrote into a model that has LoRA of the same shapes.

    Raises:
        BundleNotFoundError: the checkpoint holds no adapter.
        BundleCorruptError: its file cannot be read.
    """
    from peft import set_peft_model_state_dict

    path = folder / ADAPTER_FOLDER / ADAPTER_FILE
    if not path.is_file():
        raise BundleNotFoundError(f"{folder} has no {ADAPTER_FOLDER}/{ADAPTER_FILE}; it is no checkpoint of a LoRA run")
    with open_weights(path):
        weights = load_file(path)
    set_peft_model_state_dict(network, weights, adapter_name=ADAPTER)
