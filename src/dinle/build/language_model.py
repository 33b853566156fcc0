"""``dinle lm``: text -> the language model of a bundle, its weights, and a bundle adapted to a field's texts."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dinle.build.ngram import build_levels, estimate_ngrams, measure_bytes, mix_orders, restore_orders
from dinle.build.provenance import read_provenance
from dinle.build.texts import count_words, find_text_files, part_texts, read_excluded, read_texts
from dinle.config import Arg
from dinle.errors import UsageError
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.hot_words import list_forms
from dinle.recognize.language_model import LanguageModel, read_language_model
from dinle.recognize.load import load
from dinle.recognize.ngram import Ngram, pack_levels
from dinle.run import write_run
from dinle.text import ALPHABET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dinle.build.ngram import Order
    from dinle.build.texts import WeightedText
    from dinle.recognize.bundle import Bundle
    from dinle.recognize.ngram import Level

SPACE = " "
LETTERS = ALPHABET + SPACE
BEGIN = len(LETTERS)
BITS = BEGIN.bit_length()
FILE = "lm/letters.safetensors"
PROVENANCE = "language model"  # ``what`` of its texts among a bundle's origins
LM_RUN_FILE = "run_lm.json"
# Weights where none were tuned yet, by the bundle's engine: those of the bundled models.
USUAL_WEIGHTS = {"ctc": (0.85, 1.2), "whisper": (0.25, 0.25)}
MIN_HOT_COUNT = 3
MIN_HOT_LETTERS = 4
FORMS_PER_STEM = 4  # so many times as many words are looked at: the stem among them stands for its forms
HOT_BITS_PER_LETTER = 1.0  # a word that the general model finds so much less likely than the field's is the field's own


@dataclass(frozen=True)
class LmConfig:
    """text -> language model: build one into a bundle, tune its weights, or adapt a bundle to a field's texts."""

    action: Annotated[
        Literal["build", "tune", "adapt"],
        Arg("build: into the bundle; tune: its weights on clips; adapt: a copy for a field", positional=True),
    ]
    texts: Annotated[
        tuple[Path, ...], Arg("text files (a sentence a line; .tsv: word and count), or folders", positional=True)
    ] = ()
    bundle_dir: Annotated[Path | None, Arg("the bundle (adapt: default: the bundled model)", flags=("--model",))] = None
    output_dir: Annotated[Path | None, "adapt: where the new bundle goes"] = None
    manifest: Annotated[tuple[Path, ...], "tune: clips to tune on; adapt: clips on which the gain is measured"] = ()
    split: Annotated[str | None, "only this split of the manifests"] = None
    exclude: Annotated[tuple[Path, ...], "manifests whose texts are left out of what is learnt"] = ()
    order: Annotated[int, "letters of the longest n-grams"] = 8
    max_mb: Annotated[float, "size that the n-gram is pruned to, in MB (1e6 bytes)"] = 6.0
    field_share: Annotated[float, "adapt: share of the field's texts in the mixture, 0 to 1"] = 0.5
    max_hot_words: Annotated[int, "adapt: most words of the field that become hot words"] = 200
    licence: Annotated[str, "licence of the texts, where their folder has no provenance.json"] = "not stated"
    threads: Annotated[int | None, "threads of the engine where clips are heard (default: all cores)"] = None

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 12:  # noqa: PLR2004 - 63 bits of five each
            raise UsageError(f"order is {self.order}; expected 1 to 12 letters")
        if not self.max_mb > 0:
            raise UsageError(f"max_mb is {self.max_mb:g}; expected more than 0")
        if not 0 < self.field_share < 1:
            raise UsageError(f"field_share is {self.field_share:g}; expected more than 0 and less than 1")
        if self.action == "adapt" and self.output_dir is None:
            raise UsageError("dinle lm adapt writes a new bundle: say where with --output_dir FOLDER")
        if self.action != "adapt" and self.bundle_dir is None:
            raise UsageError(f"dinle lm {self.action} changes a bundle: say which with --bundle_dir FOLDER")
        if self.action == "tune" and not self.manifest:
            raise UsageError(
                "dinle lm tune needs clips: add --manifest FILE.jsonl, other clips than those of the evaluation"
            )


def estimate_letters(texts: Iterable[WeightedText], order: int) -> tuple[Order, ...]:
    """A letter n-gram of texts in the form ``tr``, unpruned; a space stands after each text."""
    place = {letter: token for token, letter in enumerate(LETTERS)}
    known = list(texts)
    encoded = ([place[letter] for letter in one.text + SPACE] for one in known)
    return estimate_ngrams(encoded, [one.weight for one in known], BEGIN + 1, order)


def build_into_bundle(config: LmConfig) -> dict[str, Any]:
    """Learn a letter n-gram from texts and write it into a bundle.

    Returns:
        Texts, n-grams of each order, and bytes.
    """
    assert config.bundle_dir is not None  # noqa: S101 - checked by the config
    started = time.perf_counter()
    bundle = read_bundle(config.bundle_dir)
    texts = read_texts(config.texts, read_excluded(config.exclude))
    levels = build_levels(estimate_letters(texts, config.order), BITS, round(config.max_mb * 1e6))
    write_model(bundle, levels, _list_origins(config))
    found = {"texts": len(texts), **describe_levels(levels)}
    files = {path.name: path for path in find_text_files(config.texts)}
    seconds = time.perf_counter() - started
    write_run(bundle.folder, stage="lm", config=config, seconds=seconds, inputs=files, results=found, name=LM_RUN_FILE)
    return found


def write_model(
    bundle: Bundle, levels: tuple[Level, ...], origins: Sequence[dict[str, str]], **description: Any
) -> Bundle:
    """Write an n-gram and its description into a bundle, keeping weights that were tuned before.

    Args:
        bundle: what it becomes a part of.
        levels: the n-gram.
        origins: where its texts are from.
        description: further fields of ``language_model``.
    """
    from safetensors.numpy import save

    path = bundle.folder / FILE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(save(pack_levels(levels)))
    weight, bonus = USUAL_WEIGHTS[bundle.engine]
    known = {"model_weight": weight, "letter_bonus": bonus} | dict(bundle.language_model or {})
    language_model = known | {"file": FILE, "letters": LETTERS} | description
    others = [one for one in bundle.provenance if one.get("what") != PROVENANCE]
    return write_bundle(replace(bundle, language_model=language_model, provenance=(*others, *origins)))


def describe_levels(levels: Sequence[Level]) -> dict[str, Any]:
    """N-grams of each order, and bytes."""
    return {"ngrams": [len(level.tokens) for level in levels], "bytes": measure_bytes(levels)}


def _list_origins(config: LmConfig) -> list[dict[str, str]]:
    """What the folders of texts say of their origin (``provenance.json``); else the names of the files and the licence given."""
    origins = [origin | {"what": PROVENANCE} for path in config.texts for origin in read_provenance(path)]
    silent = sorted({path.name for path in config.texts if not read_provenance(path)})
    if silent:
        names = ", ".join(silent)
        origins.append({"what": PROVENANCE, "name": names, "source": names, "licence": config.licence})
    return origins


def measure_bits(model: LanguageModel, texts: Sequence[WeightedText]) -> float:
    """Bits that a letter of texts costs a language model: its cross-entropy, lower is better.

    Raises:
        UsageError: no texts, or a model without an n-gram.
    """
    if model.ngram is None or not texts:
        raise UsageError("bits for a letter need a language model and at least one text")
    nats, letters = 0.0, 0
    for one in texts:
        state = model.ngram.start
        for letter in one.text + SPACE:
            log_prob, state = model.ngram.advance(state, model.letters[letter])
            nats -= one.weight * log_prob
            letters += one.weight
    return nats / letters / math.log(2)


def adapt_bundle(config: LmConfig) -> dict[str, Any]:
    """Copy a bundle, its language model mixed with one of a field's texts, and the field's own words as hot words.

    Returns:
        Texts and words, and the gain: bits for a letter of texts that were kept back, before and after; where there are
        clips, the error rates on them too.
    """
    from dinle.recognize.bundle import find_default_bundle

    assert config.output_dir is not None  # noqa: S101 - checked by the config
    source = read_bundle(config.bundle_dir or find_default_bundle())
    general = read_language_model(source)
    texts = read_texts(config.texts, read_excluded(config.exclude))
    most, kept_back = part_texts(texts)
    trial = _mix(general, most or texts, config)
    gain: dict[str, Any] = {
        "bits_before": measure_bits(general, kept_back) if general.ngram is not None else None,
        "bits_after": measure_bits(_wrap(general, trial), kept_back),
    }
    levels = _mix(general, texts, config)
    hot_words = find_field_words(texts, general, _wrap(general, levels), config.max_hot_words)
    bundle = copy_bundle(source, config.output_dir)
    write_model(bundle, levels, [*_model_origins(source), *_list_origins(config)], hot_words=hot_words)
    if config.manifest:
        from dinle.build.language_model_weights import measure_gain, read_clips

        before, after = (load(one.folder, threads=config.threads) for one in (source, bundle))
        gain |= measure_gain(before, after, read_clips(config))
    return {"texts": len(texts), "hot_words": hot_words, **gain, **describe_levels(levels)}


def _mix(general: LanguageModel, texts: Sequence[WeightedText], config: LmConfig) -> tuple[Level, ...]:
    field = estimate_letters(texts, config.order)
    if general.ngram is not None:
        field = mix_orders(field, restore_orders(general.ngram, BITS), BITS, config.field_share)
    return build_levels(field, BITS, round(config.max_mb * 1e6))


def _wrap(general: LanguageModel, levels: tuple[Level, ...]) -> LanguageModel:
    letters = {letter: token for token, letter in enumerate(LETTERS)}
    return replace(general, letters=letters, ngram=Ngram(levels, BEGIN))


def _model_origins(bundle: Bundle) -> list[dict[str, str]]:
    return [dict(one) for one in bundle.provenance if one.get("what") == PROVENANCE]


def copy_bundle(source: Bundle, folder: Path) -> Bundle:
    """The same bundle in a new folder, without its checkpoint.

    Raises:
        UsageError: the folder is the bundle's own, or holds another bundle's files.
    """
    if folder.resolve() == source.folder.resolve():
        raise UsageError(f"{folder} is the bundle itself; adapt writes a new one: choose another --output_dir")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose a new folder for the adapted bundle")
    for name in source.file_names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / name, target)
    return replace(source, folder=folder, name=f"{source.name}-{folder.name}", checkpoint=None)


def find_field_words(
    texts: Sequence[WeightedText], general: LanguageModel, field: LanguageModel, most: int
) -> list[str]:
    """Words of a field that a general model does not expect, those first whose surprise costs the most.

    Args:
        texts: of the field.
        general: the model before; without an n-gram nothing is known to be surprising.
        field: the model after.
        most: so many at most.
    """
    if general.ngram is None:
        return []
    worth: dict[str, float] = {}
    for word, count in count_words(texts).items():
        if count < MIN_HOT_COUNT or len(word) < MIN_HOT_LETTERS:
            continue
        surprise = (_cost(general, word) - _cost(field, word)) / (len(word) + 1) / math.log(2)
        if surprise >= HOT_BITS_PER_LETTER:
            worth[word] = count * surprise
    ranked = sorted(worth, key=lambda word: (-worth[word], word))[: FORMS_PER_STEM * most]
    stems = {form for word in ranked for form in list_forms(word)}
    return [word for word in ranked if not any(word[:size] in stems for size in range(1, len(word)))][:most]


def _cost(model: LanguageModel, word: str) -> float:
    """Nats of a word on its own."""
    assert model.ngram is not None  # noqa: S101 - checked by the caller
    state, nats = model.ngram.start, 0.0
    for letter in word + SPACE:
        log_prob, state = model.ngram.advance(state, model.letters[letter])
        nats -= log_prob
    return nats
