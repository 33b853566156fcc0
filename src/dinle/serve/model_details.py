"""``GET /models/{model}``: what a model is made of, where it comes from, and how good it was found to be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from pydantic.config import JsonDict  # noqa: TC002 - pydantic evaluates it

from dinle.errors import BundleCorruptError
from dinle.recognize.bundle import BUNDLE_FILE, read_bundle
from dinle.serve.answers import TRANSCRIBE_ERRORS
from dinle.serve.errors import ErrorBody
from dinle.serve.model_card import read_card
from dinle.serve.service import Service, get_service

if TYPE_CHECKING:
    from pathlib import Path as Folder

    from dinle.recognize.bundle import Bundle
    from dinle.recognize.recognizer import Recognizer

router = APIRouter(tags=["status"])


class ModelFile(BaseModel):
    """A graph of a model."""

    precision: str = Field(description="`fp32`, `int8`, `int8_qdq` or `int4`")
    file: str
    bytes: int | None = Field(description="its size; null where the file is gone")
    sha256: str = Field(description="as `bundle.json` states it; compared when the model is loaded")


class Provenance(BaseModel):
    """Data or weights that a model was made from."""

    what: str
    name: str
    source: str
    licence: str


class LanguageModelFacts(BaseModel):
    """The letter n-gram that has a say in which texts are written."""

    file: str
    bytes: int | None = Field(description="its size; null where the file is gone")
    sha256: str = Field(description="as `bundle.json` states it; compared when the model is loaded")
    model_weight: float = Field(description="factor of its log-probabilities beside what is heard")
    letter_bonus: float = Field(description="nats for every letter and space")
    hot_word_weight: float = Field(description="factor of what hot words earn")
    hot_words: list[str] = Field(description="words that the bundle always expects")
    tuned_on: dict[str, Any] | None = Field(
        description="clips that the weights were chosen on; null: the usual weights"
    )


EXAMPLE: JsonDict = {
    "name": "dinle-base-tr",
    "default": True,
    "loaded": True,
    "backend": "onnx_int8",
    "family": "whisper",
    "engine": "whisper",
    "files": [
        {
            "precision": "int8",
            "file": "encoder_int8.onnx",
            "bytes": 25_600_000,
            "sha256": "9704cc80d7d7e4fa3eeddfc5fad1c4c7c055dd723e6629d4a2c38e6b371dba0b",
        }
    ],
    "max_seconds": 30.0,
    "vocabulary": 10_000,
    "text_rules": "written",
    "provenance": [
        {
            "what": "weights",
            "name": "whisper-base",
            "source": "https://huggingface.co/openai/whisper-base",
            "licence": "MIT",
        }
    ],
    "language_model": {
        "file": "lm/letters.safetensors",
        "bytes": 5_601_928,
        "sha256": "fbf0241d5b667ca0896e2341a39ec5acc2edef3dddd5177a1a2c5483df5fdb71",
        "model_weight": 0.25,
        "letter_bonus": 0.25,
        "hot_word_weight": 1.0,
        "hot_words": [],
        "tuned_on": {"manifests": ["data/tuning/manifest.jsonl"], "clips": 100},
    },
    "scores": {},
    "gate": {"int8": {"status": "passed", "wer_loss": 0.019563}},
    "card_html": "<h3>dinle-base-tr</h3>\n<p>The default model of dinle ...</p>\n",
}


class ModelDetails(BaseModel):
    """A model. What only a bundle tells is null where the model is none."""

    name: str
    default: bool = Field(description="taken where a request names none")
    loaded: bool = Field(description="in memory; others are loaded on first use")
    backend: str | None = Field(description="the engine that runs it; null until it is loaded")
    family: str | None = Field(default=None, description="`ctc`, `whisper-ctc` or `whisper`")
    engine: str | None = Field(default=None, description="what runs its graphs: `ctc` or `whisper`")
    files: list[ModelFile] | None = None
    max_seconds: float | None = Field(default=None, description="the longest clip that its graph takes; null: any")
    vocabulary: int | None = Field(default=None, description="number of tokens")
    text_rules: str | None = Field(default=None, description="the normaliser that its labels went through")
    provenance: list[Provenance] | None = None
    language_model: LanguageModelFacts | None = Field(
        default=None, description="null where the bundle has none; `ASR_LANGUAGE_MODEL` says whether it is used"
    )
    scores: dict[str, Any] | None = Field(default=None, description="measured quality, by data set")
    gate: dict[str, Any] | None = Field(
        default=None, description="the quality gate's verdicts and figures, by precision"
    )
    card_html: str | None = Field(
        default=None,
        description="its README as HTML to insert: HTML in it is escaped, links lead to http and https alone, no images, "
        "headings from h3; null where there is none",
    )

    model_config = {"json_schema_extra": {"examples": [EXAMPLE]}}


ERRORS: dict[int | str, dict[str, Any]] = {status: TRANSCRIBE_ERRORS[status] for status in (401, 404, 500)}
# A default keeps FastAPI from describing a refusal that cannot happen.
ERRORS["default"] = {"model": ErrorBody, "description": "Any other error"}


@router.get("/models/{model}", summary="What a model is and where it comes from", responses=ERRORS)
async def describe_model(
    model: Annotated[str, Path(description="one of the names in `/v1/models`", examples=["dinle-base-tr"])],
    service: Annotated[Service, Depends(get_service)],
) -> ModelDetails:
    """Files with their hashes, origins and licences, the quality gate's verdict, and the model card. Loads nothing."""
    models = service.models
    folder, recognizer = models.find_folder(model), models.loaded.get(model)
    known = await asyncio.to_thread(read_facts, recognizer, folder)
    return ModelDetails(
        name=model,
        default=model == models.default,
        loaded=recognizer is not None,
        backend=recognizer.backend if recognizer is not None else None,
        **known,
    )


def read_facts(recognizer: Recognizer | None, folder: Folder | None) -> dict[str, Any]:
    """What a model's bundle and its README tell, as fields of :class:`ModelDetails`; nothing where it is no bundle.

    Args:
        recognizer: the model, where it is loaded; its bundle is the one that answers now.
        folder: where its bundle may be.

    Raises:
        BundleError: the bundle cannot be understood, or a graph is missing.
    """
    bundle = recognizer.bundle if recognizer is not None else None
    if bundle is None:
        if folder is None or not (folder / BUNDLE_FILE).is_file():
            return {}
        bundle = read_bundle(folder, verify=False)
    return {
        "family": bundle.family,
        "engine": bundle.engine,
        "files": list_files(bundle),
        "max_seconds": bundle.max_seconds,
        "vocabulary": bundle.vocabulary.size,
        "text_rules": bundle.text_rules,
        "provenance": [
            Provenance(**{name: str(entry.get(name, "")) for name in Provenance.model_fields})
            for entry in bundle.provenance
        ],
        "language_model": describe_language_model(bundle),
        "scores": dict(bundle.scores),
        "gate": dict(bundle.gate),
        "card_html": read_card(bundle.folder),
    }


def list_files(bundle: Bundle) -> list[ModelFile]:
    """The graphs of a bundle by precision, with their sizes and the hashes that were stated."""
    return [
        ModelFile(precision=precision, file=name, bytes=measure_size(bundle.folder / name), sha256=bundle.sha256[name])
        for precision, names in bundle.files.items()
        for name in names
    ]


def describe_language_model(bundle: Bundle) -> LanguageModelFacts | None:
    """What ``bundle.json`` says of its language model, with the file's size; ``None`` where it has none.

    Raises:
        BundleCorruptError: a field is missing, or is no number.
    """
    stated = bundle.language_model
    if stated is None:
        return None
    try:
        return LanguageModelFacts(
            file=stated["file"],
            bytes=measure_size(bundle.folder / stated["file"]),
            sha256=bundle.sha256[stated["file"]],
            model_weight=stated["model_weight"],
            letter_bonus=stated["letter_bonus"],
            hot_word_weight=stated.get("hot_word_weight", 1.0),
            hot_words=list(stated.get("hot_words", ())),
            tuned_on=stated.get("tuned_on"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleCorruptError(f"the language model of {bundle.folder} cannot be understood: {error!r}") from error


def measure_size(path: Folder) -> int | None:
    """Bytes of a file, ``None`` where it is gone: while a new bundle is written, say."""
    try:
        return path.stat().st_size
    except OSError:
        return None
