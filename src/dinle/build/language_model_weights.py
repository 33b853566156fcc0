"""How much a bundle's language model should count: the weights with the fewest wrong words on clips kept for that."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError
from dinle.manifest import find_manifest, read_manifest
from dinle.measure.wer import count_errors, pool
from dinle.progress import track
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.load import load
from dinle.recognize.text_scorer import FusionWeights
from dinle.run import shorten_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.build.language_model import LmConfig
    from dinle.manifest import Clip
    from dinle.recognize.recognizer import Recognizer

# Factors of the n-gram, and nats for a letter in shares of them, by the bundle's engine.
FACTORS = {"ctc": (0.5, 0.7, 0.85, 1.0, 1.2), "whisper": (0.15, 0.2, 0.25, 0.3)}
SHARES = {"ctc": (1.0, 1.4, 1.8), "whisper": (0.5, 1.0)}


@dataclass(frozen=True)
class Trial:
    """What one pair of weights gave: word and letter error rates, and seconds of work."""

    model_weight: float
    letter_bonus: float
    wer: float
    cer: float
    seconds: float


def read_clips(config: LmConfig) -> list[Clip]:
    """The clips of all manifests of a configuration.

    Raises:
        ManifestError: see :func:`dinle.manifest.read_manifest`.
    """
    return [clip for path in config.manifest for clip in read_manifest(path, split=config.split)]


def tune_weights(config: LmConfig) -> list[Trial]:
    """Try pairs of weights on clips and write the best into the bundle; the first trial is without a language model.

    Raises:
        UsageError: the bundle has no language model.
    """
    assert config.bundle_dir is not None  # noqa: S101 - checked by the config
    bundle = read_bundle(config.bundle_dir)
    recognizer = load(bundle.folder, threads=config.threads)
    if bundle.language_model is None or recognizer.language_model.ngram is None:
        raise UsageError(
            f"{bundle.folder} has no language model; make one with dinle lm build TEXT... --bundle_dir {bundle.folder}"
        )
    clips = read_clips(config)
    pairs = [
        (factor, round(factor * share, 3)) for factor, share in product(FACTORS[bundle.engine], SHARES[bundle.engine])
    ]
    trials = [try_weights(recognizer, clips, FusionWeights(*pair)) for pair in track(pairs, "tuning")]
    best = choose_best(trials)
    found = {"model_weight": best.model_weight, "letter_bonus": best.letter_bonus}
    tuned_on = {"manifests": [shorten_path(find_manifest(path)) for path in config.manifest], "clips": len(clips)}
    if config.split is not None:
        tuned_on["split"] = config.split
    write_bundle(replace(bundle, language_model=dict(bundle.language_model) | found | {"tuned_on": tuned_on}))
    recognizer.language_model = replace(recognizer.language_model, ngram=None)
    return [try_weights(recognizer, clips, FusionWeights(0.0, 0.0)), *trials]


def choose_best(trials: Sequence[Trial]) -> Trial:
    """The trial with the fewest wrong words; of equals, the one with the fewest wrong letters."""
    return min(trials, key=lambda trial: (trial.wer, trial.cer))


def try_weights(recognizer: Recognizer, clips: Sequence[Clip], weights: FusionWeights) -> Trial:
    """The errors of a recogniser on clips with these weights."""
    recognizer.language_model = replace(recognizer.language_model, weights=weights)
    started = time.perf_counter()
    texts = [recognizer.transcribe(clip.audio).text for clip in clips]
    seconds = time.perf_counter() - started
    errors = pool(count_errors([clip.text for clip in clips], texts, normalizer="tr"))
    return Trial(weights.model, weights.letter, errors.words.rate, errors.characters.rate, seconds)


def measure_gain(before: Recognizer, after: Recognizer, clips: Sequence[Clip]) -> dict[str, Any]:
    """Word and letter error rates of two recognisers on the same clips."""
    found: dict[str, Any] = {"clips": len(clips)}
    for name, recognizer in (("before", before), ("after", after)):
        trial = try_weights(recognizer, clips, recognizer.language_model.weights)
        found |= {f"{key}_{name}": value for key, value in asdict(trial).items() if key in ("wer", "cer")}
    return found
