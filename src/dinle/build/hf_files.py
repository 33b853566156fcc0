"""The small JSON files beside a Hugging Face CTC model: its vocabulary and how its sound is normalised."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers.utils import logging as transformers_logging

from dinle.errors import BundleCorruptError, VocabularyError
from dinle.recognize.vocabulary import SPACE, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

WORD_DELIMITER = "|"  # transformers' Wav2Vec2CTCTokenizer writes the space so
SPECIAL_FORM = re.compile(r"<.+>|\[.+\]")  # <s>, </s>, <unk>, [PAD], ...


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BundleCorruptError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleCorruptError(f"{path} is not readable JSON ({error}); copy or save the model again") from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write readable UTF-8 JSON."""
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_vocabulary(folder: Path, size: int, pad_token_id: int | None) -> Vocabulary | None:
    """The vocabulary of a Hugging Face CTC folder, or None when it has none (a bare encoder).

    The tokenizer's padding token is the blank and its word delimiter the space. Indexes that the head has and the
    tokenizer does not name become specials.

    Args:
        folder: holds vocab.json, and usually tokenizer_config.json and added_tokens.json.
        size: outputs of the head.
        pad_token_id: the model config's, used when the tokenizer names no padding token.

    Raises:
        VocabularyError: the vocabulary is one of several languages, or names no blank.
    """
    if not (folder / "vocab.json").is_file():
        return None
    ids: dict[str, Any] = read_json(folder / "vocab.json")
    if any(isinstance(value, dict) for value in ids.values()):
        raise VocabularyError(
            f"{folder / 'vocab.json'} holds one vocabulary per language ({', '.join(sorted(ids)[:5])}, ...); expected a "
            "single one: save the model with its adapter and vocabulary for Turkish first"
        )
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    if (folder / "added_tokens.json").is_file():
        ids = {**read_json(folder / "added_tokens.json"), **ids}
    names = {index: token for token, index in ids.items() if 0 <= index < size}
    pad_token = token_text(settings.get("pad_token"))
    blank = ids.get(pad_token, pad_token_id) if pad_token else pad_token_id
    if blank is None or not 0 <= blank < size:
        raise VocabularyError(
            f"{folder} names no blank: neither tokenizer_config.json (pad_token {pad_token!r}) nor config.json "
            f"(pad_token_id {pad_token_id}) gives an index below {size}; set one of them"
        )
    return name_tokens(names, size, blank, token_text(settings.get("word_delimiter_token")) or WORD_DELIMITER)


def name_tokens(names: Mapping[int, str], size: int, blank: int, delimiter: str) -> Vocabulary:
    """A vocabulary of ``size`` tokens from a tokenizer's names by index."""
    tokens, specials = [], set()
    for index in range(size):
        name = names.get(index, f"<unused{index}>")
        if name == SPACE and delimiter in names.values():
            name = f"<space{index}>"  # a literal space beside the delimiter was never trained
        if SPECIAL_FORM.fullmatch(name) and index != blank:
            specials.add(index)
        tokens.append(SPACE if name == delimiter else name)
    return Vocabulary(tuple(tokens), blank, frozenset(specials))


def token_text(token: Any) -> str | None:
    """A tokenizer setting as text; tokenizers write tokens as strings or as objects with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def read_normalize(folder: Path) -> bool:
    """Whether the model's feature extractor normalises each clip (transformers' default: yes)."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            settings = read_json(folder / name)
            return bool(settings.get("feature_extractor", settings).get("do_normalize", True))
    return True


def write_processor(folder: Path, vocabulary: Vocabulary, extractor: Mapping[str, Any]) -> None:
    """Write vocab.json, tokenizer_config.json and preprocessor_config.json as transformers' AutoProcessor reads them."""
    tokens = [WORD_DELIMITER if token == SPACE else token for token in vocabulary.tokens]
    blank = vocabulary.tokens[vocabulary.blank]
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    named = {name: token if token in tokens else None for name, token in (("bos_token", "<s>"), ("eos_token", "</s>"))}
    unknown = next((token for token in ("<unk>", "[UNK]") if token in tokens), blank)
    tokenizer = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": blank,
        "unk_token": unknown,
        **named,
        "word_delimiter_token": WORD_DELIMITER,
        "do_lower_case": False,
    }
    write_json(folder / "tokenizer_config.json", {**tokenizer, "processor_class": extractor["processor_class"]})
    write_json(folder / "preprocessor_config.json", extractor)


def describe_wav2vec2_extractor(*, normalize: bool) -> dict[str, Any]:
    """preprocessor_config.json of the raw-waveform models."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "processor_class": "Wav2Vec2Processor",
        "do_normalize": normalize,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": 16_000,
    }


def describe_bert_extractor(mel_bins: int, stride: int) -> dict[str, Any]:
    """preprocessor_config.json of wav2vec2-BERT."""
    return {
        "feature_extractor_type": "SeamlessM4TFeatureExtractor",
        "processor_class": "Wav2Vec2BertProcessor",
        "feature_size": mel_bins,
        "num_mel_bins": mel_bins,
        "padding_side": "right",
        "padding_value": 1.0,  # as in facebook/w2v-bert-2.0; padding is masked
        "return_attention_mask": True,
        "sampling_rate": 16_000,
        "stride": stride,
    }


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide transformers' progress bars and its lists of unused and fresh weights, which we say in our own words."""
    settings: Any = transformers_logging  # which has no types
    verbosity, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    settings.set_verbosity_error()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(verbosity)
        if bars:
            settings.enable_progress_bar()
