"""Systems take turns: each clip is heard by all of them before the next one, so that the machine's moods fall on all alike."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from dinle.errors import DatasetError
from dinle.measure.predictions import Prediction
from dinle.measure.timing import SETTLE_S
from dinle.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dinle.manifest import Clip
    from dinle.measure.systems import System

logger = logging.getLogger(__name__)


def transcribe_in_turns(
    systems: Sequence[System], clips: Sequence[Clip], root: Path
) -> Iterator[tuple[Prediction, ...]]:
    """Transcribe clip by clip, with a progress bar; which system hears a clip first changes from clip to clip.

    Args:
        systems: at least one; each is warmed up first, so that the first clip costs what the others do.
        clips: at least one.
        root: folder that clips are named relative to.

    Yields:
        For each clip one prediction of each system; a clip that failed carries its error and an empty hypothesis.

    Raises:
        DatasetError: at the end, when every clip of a system failed.
    """
    for system in systems:
        _warm_up(system, clips)
    failures: list[list[str]] = [[] for _ in systems]
    title = f"transcribing with {' and '.join(system.name for system in systems)}"
    named = zip(track(clips, title), name_clips(clips, root), strict=True)
    for number, (clip, name) in enumerate(named):
        heard: dict[int, Prediction] = {}
        for place in range(len(systems)):
            index = (number + place) % len(systems)
            if len(systems) > 1:
                time.sleep(SETTLE_S)
            heard[index] = _transcribe_clip(systems[index], clip, name)
            if heard[index].error is not None:
                failures[index].append(f"{name}: {heard[index].error}")
                logger.warning("not recognised by %s, counted as empty: %s", systems[index].name, failures[index][-1])
        yield tuple(heard[index] for index in range(len(systems)))
    for system, errors in zip(systems, failures, strict=True):
        if len(errors) == len(clips):
            raise DatasetError(
                f"all {len(clips)} clips failed with {system.name}; the first: {errors[0]}; there is nothing to score"
            )


def name_clips(clips: Sequence[Clip], root: Path) -> list[str]:
    """Names of the clips, the same in every evaluation of the same data: paths relative to ``root`` where they can be."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for clip in clips:
        name = clip.audio.relative_to(root).as_posix() if clip.audio.is_relative_to(root) else clip.audio.as_posix()
        seen[name] = seen.get(name, 0) + 1
        # The same recording twice, perhaps with two references.
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def _warm_up(system: System, clips: Sequence[Clip]) -> None:
    """Transcribe the first clip that can be: speech, since a system may pass over noise and silence."""
    for clip in clips:
        with suppress(Exception):
            system.transcribe(clip.audio)
            return


def _transcribe_clip(system: System, clip: Clip, name: str) -> Prediction:
    duration_s, inference_s, hypothesis, failure = clip.duration_s, 0.0, "", None
    confidences = None
    try:
        heard = system.transcribe(clip.audio)
    except Exception as error:  # noqa: BLE001 - one clip, whatever is wrong with it, must not end the evaluation
        failure = f"{type(error).__name__}: {error}"
    else:
        duration_s, inference_s, hypothesis = heard.duration_s, heard.seconds, heard.text
        confidences = heard.confidences
    return Prediction(
        name, clip.text, hypothesis, str(clip.audio), duration_s, inference_s, clip.speaker, failure, confidences
    )
