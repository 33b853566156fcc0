"""Runs :mod:`dinle.measure.boundaries` on a model: single words of manifests, joined, recognised, compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from dinle.errors import ManifestError
from dinle.manifest import read_manifest
from dinle.measure.boundaries import (
    BoundaryError,
    JoinRules,
    SpokenWord,
    make_recordings,
    measure_boundaries,
    summarize_errors,
)
from dinle.progress import track
from dinle.recognize.audio import decode_audio
from dinle.recognize.load import load
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dinle.measure.boundaries import JoinedSpeech
    from dinle.measure.config import WordTimesConfig
    from dinle.recognize.recognizer import Recognizer


def measure_word_times(config: WordTimesConfig) -> dict[str, Any]:
    """Measure a model's word times; ``model, said, words`` (recognised right), ``starts, ends, both`` in ms, ``conditions``.

    Raises:
        ManifestError: a manifest is wrong, or none has a clip of a single word.
        UsageError: gaps or counts that make no recording, or no word was recognised right.
        AudioError, BundleError: a clip or the model cannot be read.
    """
    rules = JoinRules(config.min_gap_s, config.max_gap_s, config.noise_db)
    words = read_single_words(config.manifest)
    recordings = list(
        make_recordings(words, rules, recordings=config.recordings, length=config.words_per_recording, seed=config.seed)
    )
    recognizer = load(config.model, backend=config.backend, threads=config.threads)
    errors = hear_recordings(recognizer, track(recordings, f"transcribing with {recognizer.name}"))
    names = ("recordings", "words_per_recording", "min_gap_s", "max_gap_s", "noise_db", "seed")
    return {
        "model": recognizer.name,
        "backend": recognizer.backend,
        "said": config.recordings * config.words_per_recording,
        **summarize_errors(errors),
        "conditions": {name: getattr(config, name) for name in names},
    }


def read_single_words(manifests: Sequence[Path]) -> list[SpokenWord]:
    """The clips of one word, decoded.

    Raises:
        ManifestError: a manifest is wrong, or there is no such clip.
        AudioError: a clip cannot be read.
    """
    clips = [clip for manifest in manifests for clip in read_manifest(manifest)]
    single = [clip for clip in clips if len(normalize_tr(clip.text).split()) == 1]
    if not single:
        where = ", ".join(map(str, manifests)) or "no manifest"
        raise ManifestError(f"none of {len(clips)} clips of {where} holds a single word; give one such as "
                            "data/synthetic-words")  # fmt: skip
    return [SpokenWord(clip.text, decode_audio(clip.audio)) for clip in single]


def hear_recordings(recognizer: Recognizer, recordings: Iterable[JoinedSpeech]) -> list[BoundaryError]:
    """The boundary errors of all words that a recogniser has right."""
    return [
        error
        for one in recordings
        for error in measure_boundaries(one.words, recognizer.transcribe(one.waveform).words)
    ]


def render_word_times(report: Mapping[str, Any]) -> Table:
    """The figures as a table for the terminal."""
    title = f"{report['model']}: word times of {report['words']} words recognised right of {report['said']}"
    table = Table(title=title, title_justify="left")
    for name in ("", "median error, ms", "90 %, ms", "bias (median), ms"):
        table.add_column(name, justify="right" if name else "left")
    for side in ("starts", "ends", "both"):
        table.add_row(side, *(f"{report[side][key]:.0f}" for key in ("median_ms", "p90_ms", "bias_ms")))
    return table
