"""Every CTC family behind one interface: a hub id or a folder in, a :class:`CtcModel` out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCTC, WhisperConfig

from dinle.build.ctc_model import CtcModel
from dinle.build.hf_ctc import SUPPORTED_TYPES, HfCtcModel
from dinle.build.hf_files import quiet_transformers, read_json, read_normalize, read_vocabulary
from dinle.build.model_source import find_model_folder, list_weight_files, read_weights
from dinle.build.w2v_bert import BERT_TYPE, BertCtcModel
from dinle.build.whisper_ctc import MODEL_TYPE, WhisperCtcModel, fill_weights, load_whisper_ctc
from dinle.errors import BundleCorruptError, UsageError
from dinle.recognize.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedConfig

__all__ = ["CtcModel", "Family", "load_model"]

logger = logging.getLogger(__name__)

Family = Literal["auto", "ctc", "whisper-ctc"]


def load_model(
    name_or_folder: str | Path, *, vocabulary: Vocabulary | None = None, family: Family = "auto"
) -> CtcModel:
    """Load any supported model as a CTC model in fp32, in eval mode.

    A bare encoder and a Whisper model get a fresh head for ``vocabulary`` (default: the Turkish one). A CTC model keeps
    its own vocabulary; when another is given, the head is made again, the rows of tokens that both know are kept, and a
    warning says so.

    Args:
        name_or_folder: a folder written by ``CtcModel.save`` or ``save_pretrained``, or a hub id.
        vocabulary: tokens of the head.
        family: ``ctc`` or ``whisper-ctc`` to insist on a family; ``auto`` takes what the checkpoint is.

    Raises:
        BundleNotFoundError: no such folder or hub id, or it has no safetensors weights.
        BundleCorruptError: a JSON file of the checkpoint is unreadable.
        HubUnreachableError: the hub does not answer.
        UsageError: the model type is not supported, or is of another family than asked for.
        VocabularyError: the checkpoint's vocabulary cannot be used.
    """
    folder = find_model_folder(str(name_or_folder))
    model_type = str(read_json(folder / "config.json").get("model_type"))
    loader = LOADERS.get(model_type)
    if loader is None:
        raise UsageError(
            f"{name_or_folder} is a model of type {model_type!r}; supported are {', '.join(sorted(LOADERS))}: "
            "choose such a model"
        )
    if family not in ("auto", loader.family):
        raise UsageError(
            f"{name_or_folder} is of the family {loader.family!r}, not {family!r}; leave the family to auto or choose "
            "another model"
        )
    with quiet_transformers():
        model = loader.load(folder, vocabulary)
    model.eval()
    return model


def load_hf_ctc(folder: Path, vocabulary: Vocabulary | None) -> HfCtcModel:
    """Load a wav2vec2-like model; see :func:`load_model`."""
    has_head = "lm_head.weight" in list_weight_files(folder)
    config = AutoConfig.from_pretrained(folder)
    own = read_vocabulary(folder, config.vocab_size, config.pad_token_id) if has_head else None
    if has_head and own is None and vocabulary is None:
        raise UsageError(
            f"{folder} has a CTC head of {config.vocab_size} tokens but no vocab.json that names them; add the "
            "tokenizer's files or give a vocabulary"
        )
    chosen = vocabulary or own or Vocabulary.turkish()
    if not has_head:
        logger.info("%s has no CTC head: a fresh one with %d tokens is made", folder, chosen.size)
        config.vocab_size, config.pad_token_id = chosen.size, chosen.blank
    network = read_network(folder, config)
    if has_head and own != chosen:
        network.lm_head = make_head(network.lm_head, own, chosen)
        network.config.vocab_size, network.config.pad_token_id = chosen.size, chosen.blank
    model_class = BertCtcModel if config.model_type == BERT_TYPE else HfCtcModel
    return model_class(network, chosen, normalize=read_normalize(folder))


def read_network(folder: Path, config: PreTrainedConfig) -> Any:
    """A transformers CTC model in fp32 with the folder's weights.

    Raises:
        BundleCorruptError: weights are missing (beside a head and a SpecAugment vector) or have other shapes.
    """
    try:
        network, report = AutoModelForCTC.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except RuntimeError as error:
        raise BundleCorruptError(f"the weights of {folder} do not fit its config.json: {error}") from error
    missing = [name for name in report["missing_keys"] if not name.startswith("lm_head.") and "masked_spec" not in name]
    if missing:
        raise BundleCorruptError(
            f"the weights of {folder} lack {len(missing)} tensors of its config.json, such as {min(missing)}; "
            "copy or save the model again"
        )
    return network


def load_own_whisper_ctc(folder: Path, vocabulary: Vocabulary | None) -> WhisperCtcModel:
    """Load what ``WhisperCtcModel.save`` wrote; see :func:`load_model`."""
    model = load_whisper_ctc(folder)
    if vocabulary is not None and vocabulary != model.vocabulary:
        model.ctc_head = make_head(model.ctc_head, model.vocabulary, vocabulary)
        model.vocabulary = vocabulary
    return model


def load_whisper_encoder(folder: Path, vocabulary: Vocabulary | None) -> WhisperCtcModel:
    """Take the encoder of a whole Whisper model and put a fresh CTC head on it."""
    model = WhisperCtcModel(WhisperConfig.from_pretrained(folder), vocabulary or Vocabulary.turkish())
    fill_weights(model.encoder, read_weights(folder, ("model.encoder.", "encoder.")), folder)
    logger.info("%s: the Whisper encoder gets a fresh CTC head with %d tokens", folder, model.vocabulary.size)
    return model


def make_head(head: nn.Linear, own: Vocabulary | None, vocabulary: Vocabulary) -> nn.Linear:
    """A head for ``vocabulary`` in which the tokens that ``own`` knows too, and the blank, keep their rows."""
    fresh = nn.Linear(head.in_features, vocabulary.size)
    rows = {own.blank: vocabulary.blank} if own else {}
    if own is not None:
        places = {token: index for index, token in enumerate(vocabulary.tokens) if index not in vocabulary.hidden}
        written = ((index, token) for index, token in enumerate(own.tokens) if index not in own.hidden)
        rows |= {index: places[token] for index, token in written if token in places}
    with torch.no_grad():
        for old, new in rows.items():
            fresh.weight[new], fresh.bias[new] = head.weight[old], head.bias[old]
    logger.warning(
        "the vocabulary given differs from the checkpoint's: of the head's %d tokens %d keep their weights, the others "
        "start at random and need training",
        vocabulary.size,
        len(rows),
    )
    return fresh


class Loader(NamedTuple):
    """How one ``model_type`` of a config.json is read, and the family that it becomes."""

    family: str
    load: Callable[[Path, Vocabulary | None], CtcModel]


LOADERS: dict[str, Loader] = {
    MODEL_TYPE: Loader(WhisperCtcModel.family, load_own_whisper_ctc),
    "whisper": Loader(WhisperCtcModel.family, load_whisper_encoder),
    **dict.fromkeys((*SUPPORTED_TYPES, BERT_TYPE), Loader(HfCtcModel.family, load_hf_ctc)),
}
