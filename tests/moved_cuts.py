"""Whether cuts cost words: the same recording cut at other places, and the same words near a cut and away from one.

``python -m tests.moved_cuts --model models/dinle-ctc-tr --minutes 45`` prints, for the words of stretches without pauses that one
way of cutting has near a cut and another has not, how many are others than alone, and how many are lost. That takes out of the
comparison where cuts fall: between clips, whose first and last words are harder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import dinle
from dinle.measure.wer import count_errors
from dinle.progress import open_console, progress
from dinle.recognize.recognizer import CtcRecognizer
from tests.long_recording import Maker, Stretch, Tokens, assign_words, find_cuts, read_alone, tokenize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.recognize.whisper import WhisperRecognizer

CTC_CUTS: tuple[dict[str, float], ...] = (
    {},
    {"max_s": 10.0, "cut_s": 2.0},
    {"max_s": 9.0, "cut_s": 1.5},
    {"max_s": 7.0, "cut_s": 1.5},
)
WHISPER_CUTS: tuple[dict[str, float], ...] = ({}, {"max_s": 22.0, "cut_s": 4.0}, {"max_s": 26.0, "cut_s": 4.0})
NEAR_S = (0.5, 1.0, 2.0)
AWAY_S = 2.0
RESAMPLES = 2000


@dataclass(frozen=True)
class Hearing:
    """What one way of cutting made of the words (N,) of the clips alone: others or none, none, and seconds to the next cut."""

    changed: NDArray[np.float64]
    lost: NDArray[np.float64]
    distance_s: NDArray[np.float64]


def hear(
    recognizer: CtcRecognizer | WhisperRecognizer, path: Path, stretches: Sequence[Stretch], alone: Sequence[Tokens]
) -> Hearing:
    """Recognise the recording by the recogniser's present rules."""
    cuts = np.array([-np.inf, *find_cuts(recognizer, path)])
    inside, _ = assign_words(recognizer.transcribe(path).words, stretches)
    counted = count_errors([one.text for one in alone], [tokenize(words).text for words in inside], normalizer="tr")
    pairs = [(wanted, got) for counts in counted for wanted, got in counts.alignment if wanted is not None]
    middles_s = np.array([middle_s for one in alone for middle_s in one.middles_s])
    return Hearing(
        np.array([wanted != got for wanted, got in pairs], dtype=float),
        np.array([got is None for _, got in pairs], dtype=float),
        np.abs(middles_s[:, np.newaxis] - cuts).min(axis=1),
    )


def compare(hearings: Sequence[Hearing], places: NDArray[np.int64], near_s: float) -> dict[str, object]:
    """Words that one hearing has near a cut and another away from one; the interval is a bootstrap over stretches."""
    rows = []
    for near, away in permutations(hearings, 2):
        chosen = (near.distance_s < near_s) & (away.distance_s > AWAY_S)
        columns = (places, near.changed, away.changed, near.lost, away.lost)
        rows.append(np.stack([column[chosen] for column in columns]))
    place, *figures = np.concatenate(rows, axis=1)
    sums = np.array(
        [[(column * (place == one)).sum() for column in (*figures, place >= 0)] for one in np.unique(place)]
    )
    drawn = sums[np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))].sum(axis=1)
    bounds = np.percentile((drawn[:, 0] - drawn[:, 1]) / drawn[:, 4], [2.5, 97.5])
    near_changed, away_changed, near_lost, away_lost = (float(column.mean()) for column in figures)
    return {
        "within_s": near_s,
        "words": len(place),
        "changed": [round(near_changed, 4), round(away_changed, 4)],
        "difference": round(near_changed - away_changed, 4),
        "interval": [round(float(bound), 4) for bound in bounds],
        "lost": [round(near_lost, 4), round(away_lost, 4)],
    }


def main() -> None:
    """Make a recording, hear it with cuts at other places, print."""
    parser = argparse.ArgumentParser(description="whether cuts cost words: the same words near a cut and away from one")
    parser.add_argument("--model", help="bundle folder (default: the bundled model)")
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=21)
    arguments = parser.parse_args()
    recognizer: CtcRecognizer | WhisperRecognizer = dinle.load(arguments.model, threads=1)  # type: ignore[assignment]
    usual = recognizer.long_segments
    with tempfile.TemporaryDirectory() as folder, progress("comparing"):
        path = Path(folder) / "long.wav"
        written = Maker(path, seed=arguments.seed).write(60 * arguments.minutes)
        stretches = [one for one in written if not one.pauses]
        alone = read_alone(recognizer, stretches)
        hearings = []
        for rules in CTC_CUTS if isinstance(recognizer, CtcRecognizer) else WHISPER_CUTS:
            recognizer.long_segments = replace(usual, **rules)
            hearings.append(hear(recognizer, path, stretches, alone))
    places = np.repeat(np.arange(len(alone)), [len(one.texts) for one in alone])
    for near_s in NEAR_S:
        open_console().print_json(json.dumps(compare(hearings, places, near_s)))


if __name__ == "__main__":
    main()
