"""Which words of a hypothesis are right, word by word: what times and confidences are judged on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinle.measure.wer import count_errors
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Sequence


def mark_words(reference: str, words: Sequence[str]) -> list[int | None]:
    """For each recognised word the place of the reference word that it stands for, or ``None`` where it is wrong.

    Both sides are compared in the form ``tr``. A word that is several in this form, such as ``1923``, is right when all of
    them are and has the place of the first; one without letters is ``None``.

    Args:
        reference: what was said, in any form.
        words: what was recognised, in order.
    """
    parts = [normalize_tr(word).split() for word in words]
    hypothesis = " ".join(part for each in parts for part in each)
    (clip,) = count_errors([normalize_tr(reference)], [hypothesis], normalizer="raw")
    places: list[int | None] = []
    at = 0
    for wanted, got in clip.alignment:
        if got is not None:
            places.append(at if wanted == got else None)
        at += wanted is not None
    marks, first = [], 0
    for each in parts:
        found = places[first : first + len(each)]
        first += len(each)
        marks.append(found[0] if found and None not in found else None)
    return marks
