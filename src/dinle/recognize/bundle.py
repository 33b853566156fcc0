"""The model folder: graphs, vocabulary, provenance and scores, with a hash for each file.

``bundle.json`` is written last and holds the SHA-256 of every file that it names, so that a bundle which reads without an
error is complete and unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dinle.errors import BundleCorruptError, BundleNotFoundError, PrecisionUnavailableError, VocabularyError
from dinle.recognize.vocabulary import Vocabulary
from dinle.recognize.whisper_vocabulary import WhisperVocabulary

BUNDLE_FILE = "bundle.json"
FORMAT = 2
READABLE_FORMATS = (1, 2)  # 1 knows CTC models only, one file for each precision
DEFAULT_BUNDLE = "dinle-base-tr"
HOW_TO_MAKE = "make one with dinle export, or leave the model out to use the bundled one"


@dataclass(frozen=True)
class Bundle:
    """A model folder, as ``bundle.json`` describes it.

    Attributes:
        folder: where the files are.
        name: how the model is called in answers and reports.
        family: ``ctc``, ``whisper-ctc`` or ``whisper``.
        files: precision (``fp32``, ``int8``, ``int8_qdq``, ``int4``) to the names of its graphs: one, or encoder and decoder.
        vocabulary: the tokens behind the V axis.
        engine: what runs the graphs: ``ctc`` or ``whisper``.
        frame_shift_s: seconds from one output frame to the next.
        frame_offset_s: start of the first frame relative to the first sample; negative where the graph puts silence in front.
        sample_rate_hz: what the graph expects.
        max_seconds: the longest clip that the graph takes (``None``: any).
        text_rules: the normaliser that its labels went through.
        provenance: data and weights with ``what``, ``name``, ``source`` and ``licence``.
        scores: measured quality, by data set.
        gate: precision to the quality gate's verdict: ``status`` passed, refused or unmeasured, with figures.
        choices: kind of processor (see :mod:`dinle.recognize.cpu`) to what was measured on it: ``backends``, the best first,
            and the figures.
        min_window_s: what an encoder-decoder model hears at least: the clip, then silence.
        tail_s: silence after each clip for an encoder-decoder model.
        sentence_window_s, sentence_tail_s: the same for clips of two seconds and more; 0: as for shorter ones.
        speech_only: a CTC model is given the parts of a recording in which somebody speaks, not all of it.
        word_start_offset_s, word_end_offset_s: what is added to the times at which the model says that a word starts and ends.
        confidence_map: ``slope`` and ``intercept`` from a word's confidence to a calibrated one, and what they were fitted on
            (see :mod:`dinle.recognize.corrections`; ``None``: as it is).
        language_model: what is known about texts (``None``: nothing): ``file`` (an n-gram), ``letters``, ``model_weight``,
            ``letter_bonus``, ``tuned_on``, ``hot_words``, ``hot_word_weight`` (see :mod:`dinle.recognize.language_model`).
        checkpoint: the torch weights to fine-tune from, relative to the folder (``None``: not included).
        sha256: file name to hash.
    """

    folder: Path
    name: str
    family: str
    files: Mapping[str, tuple[str, ...]]
    vocabulary: Vocabulary | WhisperVocabulary
    frame_shift_s: float
    engine: str = "ctc"
    frame_offset_s: float = 0.0
    sample_rate_hz: int = 16_000
    max_seconds: float | None = None
    text_rules: str = "tr"
    provenance: tuple[Mapping[str, str], ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    min_window_s: float = 0.0
    tail_s: float = 0.0
    sentence_window_s: float = 0.0
    sentence_tail_s: float = 0.0
    speech_only: bool = True
    word_start_offset_s: float = 0.0
    word_end_offset_s: float = 0.0
    confidence_map: Mapping[str, Any] | None = None
    language_model: Mapping[str, Any] | None = None
    checkpoint: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    def paths(self, precision: str) -> tuple[Path, ...]:
        """The graphs of one precision: one, or encoder and decoder.

        Raises:
            PrecisionUnavailableError: the bundle has none of that precision, or its quality gate refused it.
        """
        if precision not in self.files:
            raise PrecisionUnavailableError(
                f"the bundle {self.name} at {self.folder} has no {precision} graph, only {', '.join(self.files) or 'none'}: "
                "choose another backend, or make the graph with dinle export and dinle quantize"
            )
        verdict = self.gate.get(precision, {})
        if verdict.get("status") == "refused":
            raise PrecisionUnavailableError(
                f"the quality gate refused the {precision} graph of {self.name}: {verdict.get('reason', 'no reason kept')}; "
                "use another precision, or quantise again with other settings"
            )
        return tuple(self.folder / name for name in self.files[precision])

    def has(self, precision: str) -> bool:
        """Whether the bundle has a graph of this precision that its quality gate did not refuse."""
        return precision in self.files and self.gate.get(precision, {}).get("status") != "refused"

    @property
    def file_names(self) -> list[str]:
        """All graphs of all precisions, each once, and the n-gram."""
        graphs = list(dict.fromkeys(name for names in self.files.values() for name in names))
        return graphs if self.language_model is None else [*graphs, str(self.language_model["file"])]

    @property
    def checkpoint_dir(self) -> Path | None:
        """The folder of the torch weights, where it is really there."""
        if self.checkpoint is None or not (self.folder / self.checkpoint).is_dir():
            return None
        return self.folder / self.checkpoint


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bundle(folder: str | Path, *, verify: bool = True) -> Bundle:
    """Read a model folder and check that its files are those that were written.

    Args:
        folder: the folder with ``bundle.json``.
        verify: compare every file's hash (a tenth of a second for 25 MB).

    Raises:
        BundleNotFoundError: no folder, or no ``bundle.json`` in it.
        BundleCorruptError: ``bundle.json`` cannot be understood, or a file is missing or changed: the message names it.
    """
    folder = Path(folder)
    path = folder / BUNDLE_FILE
    if not path.is_file():
        missing = f"{folder} has no {BUNDLE_FILE}" if folder.is_dir() else f"there is no folder {folder}"
        raise BundleNotFoundError(f"{missing}; expected a model bundle: {HOW_TO_MAKE}")
    bundle = _parse_bundle(folder, path)
    for name in dict.fromkeys([*bundle.file_names, *bundle.sha256]):
        if not (folder / name).is_file():
            raise BundleCorruptError(
                f"{folder} lacks {name}, which its {BUNDLE_FILE} names; copy or export the bundle again"
            )
        if name not in bundle.sha256:
            raise BundleCorruptError(f"{path} has no hash for {name}; export the bundle again")
        if verify and hash_file(folder / name) != bundle.sha256[name]:
            raise BundleCorruptError(
                f"{folder / name} is not the file that {BUNDLE_FILE} describes; copy or export it again"
            )
    return bundle


def _parse_bundle(folder: Path, path: Path) -> Bundle:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] not in READABLE_FORMATS:
            known = " and ".join(map(str, READABLE_FORMATS))
            raise BundleCorruptError(f"{path} has format {data['format']}; this version of dinle reads format {known}")
        data = OPTIONAL_FIELDS | data  # what older ones do not say
        if data["engine"] not in VOCABULARIES:
            known = " and ".join(VOCABULARIES)
            raise BundleCorruptError(f"{path} names the engine {data['engine']!r}; this version of dinle has {known}")
        files = {key: (one,) if isinstance(one, str) else tuple(one) for key, one in data["files"].items()}
        for name in (*(name for names in files.values() for name in names), *data["sha256"]):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise BundleCorruptError(f"{path} names {name!r}, which lies outside the bundle")
        bundle = Bundle(
            folder=folder,
            files=files,
            vocabulary=VOCABULARIES[data["engine"]].from_dict(data["vocabulary"]),
            provenance=tuple(data["provenance"]),
            **{name: data[name] for name in _PLAIN_FIELDS},
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, VocabularyError) as error:
        raise BundleCorruptError(f"{path} cannot be understood: {error!r}; export the bundle again") from error
    return bundle


_PLAIN_FIELDS = (
    "name", "family", "engine", "frame_shift_s", "frame_offset_s", "sample_rate_hz", "max_seconds", "min_window_s", "tail_s",
    "sentence_window_s", "sentence_tail_s", "text_rules", "scores", "gate", "choices", "speech_only", "word_start_offset_s",
    "word_end_offset_s", "confidence_map", "language_model", "checkpoint", "sha256",
)  # fmt: skip
# Older code reads bundles that have the offsets and the map, and gives uncorrected times and confidences.
OPTIONAL_FIELDS: dict[str, Any] = {
    "engine": "ctc", "min_window_s": 0.0, "tail_s": 0.0, "sentence_window_s": 0.0, "sentence_tail_s": 0.0, "choices": {},
    "speech_only": True,
    "word_start_offset_s": 0.0, "word_end_offset_s": 0.0,
    "confidence_map": None, "language_model": None,
}  # fmt: skip
VOCABULARIES: Mapping[str, type[Vocabulary | WhisperVocabulary]] = {"ctc": Vocabulary, "whisper": WhisperVocabulary}


def write_bundle(bundle: Bundle) -> Bundle:
    """Write ``bundle.json`` with fresh hashes, in one step, after the files that it names.

    Returns:
        The bundle with its hashes.

    Raises:
        BundleCorruptError: a named file is not there.
    """
    for name in bundle.file_names:
        if not (bundle.folder / name).is_file():
            raise BundleCorruptError(f"{bundle.folder} lacks {name}; write the graph before its {BUNDLE_FILE}")
    bundle = replace(bundle, sha256={name: hash_file(bundle.folder / name) for name in sorted(bundle.file_names)})
    data = {
        "format": FORMAT,
        **{name: getattr(bundle, name) for name in _PLAIN_FIELDS},
        "files": {precision: list(names) for precision, names in bundle.files.items()},
        "vocabulary": bundle.vocabulary.to_dict(),
        "provenance": list(bundle.provenance),
    }
    partial = bundle.folder / f"{BUNDLE_FILE}.partial"
    partial.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(bundle.folder / BUNDLE_FILE)
    return bundle


def find_default_bundle() -> Path:
    """The folder of the bundled model: inside the installed package, or in the source checkout.

    Raises:
        BundleNotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "models" / DEFAULT_BUNDLE, package.parents[1] / "models" / DEFAULT_BUNDLE)
    for place in places:
        if (place / BUNDLE_FILE).is_file():
            return place
    raise BundleNotFoundError(f"the bundled model is in neither of {', '.join(map(str, places))}; install dinle again")
