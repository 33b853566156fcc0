"""Hot words on the bundled models: names come right with their suffixes, others are left alone, and it costs little."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dinle.manifest import read_manifest
from dinle.measure.wer import count_errors, pool
from dinle.recognize.audio import decode_audio
from dinle.recognize.load import load
from dinle.recognize.whisper import WhisperRecognizer
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from dinle.manifest import Clip
    from dinle.recognize.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
NAMES = ROOT / "data" / "synthetic-names"
HOT_WORDS = [line for line in (NAMES / "hot_words.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
FREQUENCIES = ROOT / "data" / "text" / "opensubtitles_2018_tr_50k_wordfreq.tsv"
THOUSAND = 1000


def count_names(recognizer: Recognizer, clips: list[Clip]) -> int:
    """How many names of the clips stand in their texts, suffixes and all."""
    right = 0
    for clip in clips:
        text = f" {normalize_tr(recognizer.transcribe(clip.audio).text)} "
        spoken = normalize_tr(clip.text)
        for name in HOT_WORDS:
            found = re.search(rf"\b{normalize_tr(name)}\w*", spoken)
            right += found is not None and f" {found[0]} " in text
    return right


def read_rare_words(clips: list[Clip]) -> list[str]:
    """A thousand words that nobody says in the clips, and that many of their words resemble."""
    said = {word for clip in clips for word in normalize_tr(clip.text).split()}
    words = [line.split()[0] for line in FREQUENCIES.read_text("utf-8").splitlines()[30_000:]]
    rare = [word for word in words if len(word) >= 5 and word.isalpha() and word not in said]
    return [str(word) for word in np.random.default_rng(0).choice(rare, THOUSAND, replace=False)]


@pytest.mark.slow
# The default has 6 to 9 more with 0.15 to 0.35 s of silence around a segment.
@pytest.mark.parametrize(("model", "gain"), [("dinle-ctc-tr", 10), ("dinle-base-tr", 5)])
def test_rare_names_come_right(model: str, gain: int) -> None:
    clips = read_manifest(NAMES)
    recognizer = load(ROOT / "models" / model)
    before = count_names(recognizer, clips)
    after = count_names(recognizer.with_hot_words(HOT_WORDS), clips)
    assert after >= before + gain


def test_a_short_list_is_the_whisper_models_prompt_and_a_long_one_is_not() -> None:
    recognizer = load(ROOT / "models" / "dinle-base-tr")
    assert isinstance(recognizer, WhisperRecognizer)
    expecting = recognizer.with_hot_words(["Trendyol"]).with_hot_words(["Iğdır"])
    vocabulary = expecting.prompted
    first = vocabulary.prefix.index(recognizer.vocabulary.prefix[0])
    assert vocabulary.decode(vocabulary.prefix[1:first]) == "Trendyol, Iğdır."
    assert vocabulary.prefix[first:] == recognizer.vocabulary.prefix == expecting.vocabulary.prefix
    assert recognizer.prompted is recognizer.vocabulary
    rare = read_rare_words(read_manifest(NAMES))
    assert expecting.with_hot_words(rare).prompted is recognizer.vocabulary


@pytest.mark.slow
def test_a_thousand_words_harm_no_others_and_cost_little() -> None:
    clips = read_manifest(ROOT / "data" / "synthetic-sentences")
    sounds = [decode_audio(clip.audio) for clip in clips]
    plain = load(ROOT / "models" / "dinle-ctc-tr")
    expecting = plain.with_hot_words(read_rare_words(clips))
    texts: dict[bool, list[str]] = {False: [], True: []}
    seconds = {False: 0.0, True: 0.0}
    for sound in [sounds[0], *sounds]:  # the first one warms up
        for hot, recognizer in ((False, plain), (True, expecting)):
            started = time.thread_time()
            texts[hot].append(recognizer.transcribe(sound).text)
            seconds[hot] += time.thread_time() - started
    references = [clip.text for clip in clips]
    wer = {hot: pool(count_errors(references, found[1:], normalizer="tr")).wer for hot, found in texts.items()}
    assert wer[True] < wer[False] + 0.002
    assert seconds[True] < 1.2 * seconds[False]
