"""A Whisper checkpoint with the vocabulary of one language: most of a small model's weights are words it never writes.

The tokens that a text corpus needs are kept, with all 256 bytes (so that any text stays writable), every merge on the way to
a kept token, and the special and timestamp tokens, all in their old order. A kept token keeps its row of the embedding,
so that the cut model's logits are those of the whole model, without the dropped entries.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from tokenizers import Tokenizer

from dinle.build.hf_files import read_json, write_json
from dinle.build.model_source import find_model_folder, read_weights
from dinle.build.provenance import describe_weights, read_provenance, write_provenance
from dinle.errors import UsageError, VocabularyError
from dinle.progress import track
from dinle.run import write_run
from dinle.text import lower_tr, upper_tr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dinle.build.config import CutVocabularyConfig

EMBEDDING = "model.decoder.embed_tokens.weight"
TIED_HEAD = "proj_out.weight"  # the embedding again; transformers ties it when it loads
CHUNK_LINES = 1000
# Fields of config.json and generation_config.json that hold one token, by the token they mean: files are known that say
# otherwise (transformers' defaults are those of the English models, one less).
END = "<|endoftext|>"
ONE_TOKEN = {
    "bos_token_id": END,
    "eos_token_id": END,
    "pad_token_id": END,
    "decoder_start_token_id": "<|startoftranscript|>",
    "no_timestamps_token_id": "<|notimestamps|>",
    "prev_sot_token_id": "<|startofprev|>",
}
SEVERAL_TOKENS = ("suppress_tokens", "begin_suppress_tokens")
TOKEN_MAPS = ("lang_to_id", "task_to_id")


@dataclass(frozen=True)
class Cut:
    """Which tokens of a tokenizer are kept: their old ids, ascending; a token's new id is its place here."""

    kept: tuple[int, ...]

    @property
    def new_ids(self) -> dict[int, int]:
        """Old id to new id."""
        return {old: new for new, old in enumerate(self.kept)}


def cut_vocabulary(config: CutVocabularyConfig) -> Path:
    """Write a Whisper checkpoint whose vocabulary holds what a corpus of texts needs.

    Returns:
        ``output_dir``: a Hugging Face folder, with ``run.json``.

    Raises:
        UsageError: a text file is missing, or the size leaves no room for the specials and the bytes.
        VocabularyError: the tokenizer is no byte-level BPE, as Whisper's is.
        BundleNotFoundError, HubUnreachableError: the model cannot be found.
    """
    started = time.monotonic()
    folder = find_model_folder(config.model_name)
    tokenizer = read_tokenizer(folder)
    missing = [path for path in config.texts if not path.is_file()]
    if missing:
        raise UsageError(f"there is no text file {missing[0]}; give plain text files, one sentence a line")
    usage = count_tokens(folder / "tokenizer.json", config.texts)
    cut = choose_tokens(tokenizer, usage, config.size)
    write_cut_model(folder, tokenizer, cut, config.output_dir)
    origins = read_provenance(config.model_name) or [describe_weights(config.model_name)]
    write_provenance(config.output_dir, origins)
    covered = sum(count for token, count in usage.items() if token in set(cut.kept))
    write_run(
        config.output_dir,
        stage="cut_vocabulary",
        config=config,
        seconds=time.monotonic() - started,
        inputs={path.name: path for path in config.texts},
        results={"tokens": len(cut.kept), "coverage": round(covered / max(1, usage.total()), 6)},
    )
    return config.output_dir


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The tokenizer.json of a checkpoint.

    Raises:
        VocabularyError: it is missing or is not a byte-level BPE.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise VocabularyError(f"{folder} has no tokenizer.json; save the model with its fast tokenizer")
    tokenizer: dict[str, Any] = read_json(path)
    model = tokenizer.get("model", {})
    if model.get("type") != "BPE" or (tokenizer.get("pre_tokenizer") or {}).get("type") != "ByteLevel":
        raise VocabularyError(
            f"{path} is a {model.get('type')} tokenizer; only byte-level BPE, as Whisper's, can be cut"
        )
    return tokenizer


def count_tokens(tokenizer_file: Path, texts: Sequence[Path]) -> Counter[int]:
    """How often each token is used by the lines of text files, as written, lower-cased and upper-cased.

    A line ``word<TAB>count`` or ``word count`` counts that often (the form of frequency lists). Every line is also taken
    with a space in front, as Whisper writes the words of a sentence.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    usage: Counter[int] = Counter()
    for path in texts:
        lines = path.read_text(encoding="utf-8").splitlines()
        chunks = [lines[start : start + CHUNK_LINES] for start in range(0, len(lines), CHUNK_LINES)]
        for chunk in track(chunks, f"counting the tokens of {path.name}"):
            for text, count in map(parse_line, chunk):
                for form in spell_forms(text):
                    for token in tokenizer.encode(form, add_special_tokens=False).ids:
                        usage[token] += count
    return usage


def parse_line(line: str) -> tuple[str, int]:
    """The text of a line and how often it counts: (``word``, 12) for ``word 12``, else the line and 1."""
    text, _, count = line.strip().replace("\t", " ").rpartition(" ")
    if text and " " not in text and count.isdecimal():
        return text, int(count)
    return line.strip(), 1


def spell_forms(text: str) -> tuple[str, ...]:
    """The forms in which a model may write a text: in a sentence, as a sentence, lower-cased and with a capital."""
    lowered = lower_tr(text)
    capital = upper_tr(lowered[:1]) + lowered[1:]
    return tuple(dict.fromkeys(form for one in (text, lowered, capital) for form in (one, f" {one}")))


def choose_tokens(tokenizer: dict[str, Any], usage: Counter[int], size: int) -> Cut:
    """The most used tokens and what they need: ``size`` entries in all, or fewer when the usage has no more.

    Raises:
        UsageError: ``size`` leaves no room beside the specials and the bytes.
    """
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    specials = {entry["id"] for entry in tokenizer["added_tokens"]}
    parts = find_parts(tokenizer)
    kept = specials | {index for token, index in vocabulary.items() if len(token) == 1}
    if size <= len(kept):
        raise UsageError(f"--size is {size}; {len(kept)} entries are specials and bytes: expected more")
    for index, _ in sorted(usage.items(), key=lambda item: (-item[1], item[0])):
        wanted = _with_parts(index, parts) - kept
        if len(kept) + len(wanted) <= size:
            kept |= wanted
    return Cut(tuple(sorted(kept)))


def find_parts(tokenizer: dict[str, Any]) -> dict[int, tuple[int, int]]:
    """The two tokens that each merged token is made of, by the tokenizer's first rule for it."""
    vocabulary = tokenizer["model"]["vocab"]
    parts: dict[int, tuple[int, int]] = {}
    for left, right in map(split_merge, tokenizer["model"]["merges"]):
        parts.setdefault(vocabulary[left + right], (vocabulary[left], vocabulary[right]))
    return parts


def split_merge(merge: str | Sequence[str]) -> tuple[str, str]:
    """A merge rule's two sides; files hold ``"a b"`` or ``["a", "b"]``."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _with_parts(index: int, parts: dict[int, tuple[int, int]]) -> set[int]:
    found, open_ends = set(), [index]
    while open_ends:
        token = open_ends.pop()
        if token not in found:
            found.add(token)
            open_ends += parts.get(token, ())
    return found


def cut_tokenizer(tokenizer: dict[str, Any], cut: Cut) -> dict[str, Any]:
    """The tokenizer with the kept tokens alone, and the merges among them."""
    new_ids, result = cut.new_ids, copy.deepcopy(tokenizer)
    vocabulary = {token: new_ids[index] for token, index in tokenizer["model"]["vocab"].items() if index in new_ids}
    merges = [list(split_merge(merge)) for merge in tokenizer["model"]["merges"]]
    result["model"]["vocab"] = vocabulary
    result["model"]["merges"] = [
        [left, right] for left, right in merges if {left, right, left + right} <= vocabulary.keys()
    ]
    for entry in result["added_tokens"]:
        entry["id"] = new_ids[entry["id"]]
    processor = result.get("post_processor") or {}
    for one in (processor, *processor.get("processors", ())):
        for special in one.get("special_tokens", {}).values():
            special["ids"] = [new_ids[index] for index in special["ids"]]
    return result


def cut_token_ids(settings: dict[str, Any], tokenizer: dict[str, Any], cut: Cut) -> dict[str, Any]:
    """config.json or generation_config.json with its tokens renumbered; dropped tokens need no suppressing."""
    new_ids, result = cut.new_ids, dict(settings)
    specials = {entry["content"]: new_ids[entry["id"]] for entry in tokenizer["added_tokens"]}
    result |= {name: specials[token] for name, token in ONE_TOKEN.items() if name in result and token in specials}
    for name in SEVERAL_TOKENS:
        if result.get(name):
            result[name] = [new_ids[index] for index in result[name] if index in new_ids]
    for name in TOKEN_MAPS:
        if name in result:
            result[name] = {key: new_ids[index] for key, index in result[name].items() if index in new_ids}
    result.pop("forced_decoder_ids", None)  # the prefix is given with each call
    result.pop("_from_model_config", None)  # transformers passes over a file with it, alignment_heads included
    if "vocab_size" in result:
        result["vocab_size"] = len(cut.kept)
    return result


def write_cut_model(folder: Path, tokenizer: dict[str, Any], cut: Cut, target: Path) -> None:
    """Write the checkpoint of ``folder`` with the kept tokens alone.

    Raises:
        VocabularyError: the embedding has fewer rows than the tokenizer has tokens.
    """
    weights = read_weights(folder)
    rows = weights[EMBEDDING]
    if cut.kept[-1] >= len(rows):
        raise VocabularyError(
            f"the embedding of {folder} has {len(rows)} rows, its tokenizer reaches to {cut.kept[-1]}; they do not belong "
            "together"
        )
    if read_json(folder / "config.json").get("tie_word_embeddings", True):
        weights.pop(TIED_HEAD, None)
    for name in weights.keys() & {EMBEDDING, TIED_HEAD}:
        weights[name] = weights[name][list(cut.kept)].contiguous()
    target.mkdir(parents=True, exist_ok=True)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps(cut_tokenizer(tokenizer, cut), ensure_ascii=False)
    (target / "tokenizer.json").write_text(text, encoding="utf-8")
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            write_json(target / name, cut_token_ids(read_json(folder / name), tokenizer, cut))
    if (folder / "preprocessor_config.json").is_file():
        shutil.copyfile(folder / "preprocessor_config.json", target / "preprocessor_config.json")
