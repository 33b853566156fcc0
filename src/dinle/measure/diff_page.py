"""The diff page: every clip's reference and hypothesis side by side, with its sound, in one HTML file that opens from the disk.

Styles, script and data are inside the file: browsers load no modules and no data from ``file://``. A content security policy
with the hashes of the two lets nothing else run; whatever comes from data sets and recognisers is shown as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from itertools import groupby
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError
from dinle.measure.diff_audio import find_audio
from dinle.measure.report import HEADLINE, MAIN, list_headline, name_system
from dinle.measure.scores import count_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dinle.measure.config import EvaluateConfig, PageAudio
    from dinle.measure.diff_audio import ClipAudio
    from dinle.measure.predictions import Prediction
    from dinle.measure.wer import AlignedPair, ErrorCounts

DIFF_FOLDER = "diff"
DIFF_FILE = "index.html"
TEMPLATE_DIR = Path(__file__).resolve().parent / "diff"


def check_page(config: EvaluateConfig) -> None:
    """See that the config asks for a page where it says how.

    Raises:
        UsageError: audio is to be copied for a page that nobody asked for.
    """
    if config.html_audio != "link" and not config.html:
        raise UsageError(f"--html_audio {config.html_audio} without --html; add --html, or leave both out")


def remove_diff_page(folder: Path) -> None:
    """Remove the page of an earlier evaluation from an evaluation's folder, so that it does not stand beside new scores."""
    (folder / DIFF_FOLDER / DIFF_FILE).unlink(missing_ok=True)


def write_diff_page(
    folder: Path, scores: Mapping[str, Any], predictions: Sequence[Prediction], *, audio: PageAudio = "link"
) -> Path:
    """Write ``diff/index.html`` into an evaluation's folder.

    Args:
        folder: where to.
        scores: what ``scores.json`` holds; the page shows the normalisations that it has.
        predictions: what it was computed from.
        audio: whether the sound is linked where it lies or copied beside the page; see
            :func:`dinle.measure.diff_audio.find_audio`.

    Returns:
        The page.
    """
    page = folder / DIFF_FOLDER / DIFF_FILE
    page.parent.mkdir(parents=True, exist_ok=True)
    sounds = find_audio(predictions, page.parent, audio)
    page.write_text(format_page(describe_page(scores, predictions, sounds)), encoding="utf-8", newline="\n")
    return page


def describe_page(
    scores: Mapping[str, Any], predictions: Sequence[Prediction], sounds: Sequence[ClipAudio]
) -> dict[str, Any]:
    """What the page shows, as its script reads it.

    Args:
        scores: what ``scores.json`` holds.
        predictions: at least one.
        sounds: where each clip's sound is, in the same order.

    Returns:
        ``title, facts, forms, main``, the headline ``scores`` as cells, and ``clips``: each has for every normalisation in
        ``texts`` the counts of ``words`` (substitutions, insertions, deletions, reference), of ``characters`` (errors,
        reference) and its ``pairs``: runs of right words as one string, errors as [reference, hypothesis], null for no word.
    """
    forms = list(scores["scores"])
    counts = {form: count_predictions(predictions, form) for form in forms}
    clips = [
        {
            "id": one.id,
            "speaker": one.speaker,
            "duration_s": round(one.duration_s, 2),
            "error": one.error,
            "audio": sound.href,
            "problem": sound.problem,
            "texts": {form: _describe_counts(counts[form][place]) for form in forms},
        }
        for place, (one, sound) in enumerate(zip(predictions, sounds, strict=True))
    ]
    return {
        "title": f"Evaluation: {name_system(scores)}",
        "facts": f"{scores['clips']} clips, {scores['audio_s'] / 60:.1f} minutes, {scores['failed']} failed",
        "main": MAIN,
        "forms": forms,
        "scores": {"header": HEADLINE, "rows": list_headline(scores)},
        "clips": clips,
    }


def _describe_counts(counts: ErrorCounts) -> dict[str, Any]:
    words = counts.words
    return {
        "words": [words.substitutions, words.insertions, words.deletions, words.reference],
        "characters": [counts.characters.errors, counts.characters.reference],
        "pairs": join_hits(counts.alignment),
    }


def join_hits(pairs: Sequence[AlignedPair]) -> list[str | AlignedPair]:
    """Runs of right words as one string each (words hold no spaces), errors as they are: half the size for thousands of clips."""
    joined: list[str | AlignedPair] = []
    for is_hit, run in groupby(pairs, key=lambda pair: pair[0] == pair[1]):
        words = list(run)
        joined += [" ".join(str(wanted) for wanted, _ in words)] if is_hit else words
    return joined


def format_page(data: Mapping[str, Any]) -> str:
    """The whole page: template, styles, script and data in one."""
    page, style, script = (
        (TEMPLATE_DIR / name).read_text(encoding="utf-8") for name in (DIFF_FILE, "style.css", "page.js")
    )
    # With no "<" in the data, nothing in it can end its element.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Template(page).substitute(
        title=html.escape(data["title"]),
        style=style,
        style_hash=_hash_inline(style),
        script=script,
        script_hash=_hash_inline(script),
        data=text,
    )


def _hash_inline(text: str) -> str:
    """The hash of an inline element, as a content security policy writes it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
