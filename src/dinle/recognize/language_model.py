"""What a bundle knows about Turkish text: its letter n-gram, how much that counts, and words to be expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dinle.errors import BundleCorruptError
from dinle.recognize.hot_words import DEFAULT_SHARE, HotWords
from dinle.recognize.ngram import Ngram, unpack_levels
from dinle.recognize.text_scorer import FusionWeights, LetterScorer

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.recognize.bundle import Bundle
    from dinle.recognize.text_scorer import TextScorer


@dataclass(frozen=True)
class LanguageModel:
    """A letter n-gram with its weights; without one, hot words alone.

    Attributes:
        letters: the n-gram's token of each letter.
        ngram: the n-gram (``None``: only hot words count).
        weights: how much it counts beside what was heard.
        share: probability of a hot word at the beginning of a word, before anything is heard.
        hot_words: words that are always expected.
    """

    letters: Mapping[str, int] = field(default_factory=dict)
    ngram: Ngram | None = None
    weights: FusionWeights = field(default_factory=lambda: FusionWeights(0.0, 0.0))
    share: float = DEFAULT_SHARE
    hot_words: tuple[str, ...] = ()

    @cached_property
    def scorer(self) -> TextScorer | None:
        """What texts are scored by; ``None`` where there is nothing to score by.

        Raises:
            UsageError: see :class:`dinle.recognize.hot_words.HotWords`.
        """
        if self.ngram is None and not self.hot_words:
            return None
        trie = HotWords(self.hot_words, self.share) if self.hot_words else None
        return LetterScorer(self.letters, self.ngram, self.weights, trie)


def read_language_model(bundle: Bundle) -> LanguageModel:
    """The language model of a bundle; one without an n-gram where it has none.

    Raises:
        BundleCorruptError: its description or its file cannot be understood.
    """
    description = bundle.language_model
    if description is None:
        return LanguageModel()
    try:
        letters = {letter: token for token, letter in enumerate(description["letters"])}
        return LanguageModel(
            letters=letters,
            ngram=read_ngram(bundle.folder / description["file"], begin=len(letters)),
            weights=FusionWeights(
                float(description["model_weight"]),
                float(description["letter_bonus"]),
                float(description.get("hot_word_weight", 1.0)),
            ),
            hot_words=tuple(description.get("hot_words", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleCorruptError(
            f"the language model of {bundle.folder} cannot be understood: {error!r}; build it again with dinle lm build"
        ) from error


def read_ngram(path: Path, *, begin: int) -> Ngram:
    """An n-gram from its file of arrays.

    Args:
        path: a safetensors file, as ``dinle lm build`` writes it.
        begin: the token before every text.

    Raises:
        BundleCorruptError: it is no such file.
        BundleError: its arrays do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, Any] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleCorruptError(
            f"{path} cannot be read as arrays: {error}; build it again with dinle lm build"
        ) from error
    return Ngram(unpack_levels(arrays), begin)
