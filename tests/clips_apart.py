"""Hours of whole clips, a second or more apart, and how many of them have other words there than alone.

``python -m tests.clips_apart --model models/dinle-ctc-tr --hours 2`` prints the figures of docs/long-recordings.md.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import numpy as np

import dinle
from dinle.manifest import read_manifest
from dinle.progress import open_console, progress
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from tests.long_recording import ROOT, SETS, make_room

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.recognize.recognizer import Recognizer

APART_S = (1.0, 2.0)
SLACK_S = 0.5  # a word belongs to the last clip that began by its middle and so much more


def join_apart(gaps: Sequence[Waveform], sounds: Sequence[Waveform]) -> tuple[Waveform, list[int]]:
    """Each sound after a gap of its own, and the sample with which each sound begins."""
    parts = [part for pair in zip(gaps, sounds, strict=True) for part in pair]
    return np.concatenate(parts), np.cumsum([len(part) for part in parts])[::2].tolist()


def draw_clips(count: int) -> Iterator[tuple[int, int]]:
    """Numbers of clips, all of them before any comes again, and samples of silence before each, without end."""
    rng = np.random.default_rng(0)
    while True:
        for number in rng.permutation(count).tolist():
            yield number, round(rng.uniform(*APART_S) * SAMPLE_RATE_HZ)


def compare(recognizer: Recognizer, clips: list[Waveform], hours: float, *, room: bool) -> dict[str, object]:
    """Hear each clip alone and all of them in one recording; between them is digital silence, or a quiet room."""
    gaps, order, size = list[Waveform](), list[int](), 0
    for number, gap in draw_clips(len(clips)):
        if size >= hours * 3600 * SAMPLE_RATE_HZ:
            break
        quiet = make_room(gap / SAMPLE_RATE_HZ, seed=len(order)) if room else np.zeros(gap, dtype=np.float32)
        gaps.append(quiet)
        size, order = size + len(quiet) + len(clips[number]), [*order, number]
    alone = {number: [word.text for word in recognizer.transcribe(clips[number]).words] for number in set(order)}
    sound, starts = join_apart(gaps, [clips[number] for number in order])
    inside: list[list[str]] = [[] for _ in order]
    begins = np.array(starts) / SAMPLE_RATE_HZ - SLACK_S
    for word in recognizer.transcribe(sound).words:
        place = np.searchsorted(begins, (word.start_s + word.end_s) / 2, "right") - 1
        inside[max(0, int(place))].append(word.text)
    other = [(alone[number], words) for number, words in zip(order, inside, strict=True) if words != alone[number]]
    return {
        "between": "room" if room else "silence",
        "hours": round(size / SAMPLE_RATE_HZ / 3600, 2),
        "clips": len(order),
        "words": sum(len(alone[number]) for number in order),
        "clips_with_other_words": len(other),
        "of_different_texts": len({" ".join(words) for words, _ in other}),
    }


def main() -> None:
    """Compare both, print."""
    parser = argparse.ArgumentParser(description="how many clips have other words in a recording than alone")
    parser.add_argument("--model", help="bundle folder (default: the bundled model)")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    recognizer = dinle.load(arguments.model, threads=arguments.threads)
    clips = [decode_audio(clip.audio) for name in SETS for clip in read_manifest(ROOT / "data" / name)]
    with progress("comparing"):
        figures = [compare(recognizer, clips, arguments.hours, room=room) for room in (False, True)]
    open_console().print_json(json.dumps({"model": recognizer.name, "figures": figures}))


if __name__ == "__main__":
    main()
