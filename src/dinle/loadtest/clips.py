"""What is sent: clips of 2 to 60 s joined from a manifest, and scripts of sentences with pauses for live users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dinle.errors import UsageError
from dinle.loadtest.stages import PAUSE_S, LiveScript
from dinle.manifest import read_manifest
from dinle.measure.service_clips import MINI, SILENCE_S, encode_clip, join_waveforms
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.recognize.segments import SegmentRules, cut_segments
from dinle.recognize.spans import CHUNK_S
from dinle.recognize.stream import StreamRules
from dinle.recognize.vad import SpeechDetector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dinle.manifest import Clip
    from dinle.measure.load_client import LoadClip
    from dinle.recognize.recognizer import Recognizer

SHORTEST_S, LONGEST_S = 2.0, 60.0
CLIPS_OF_A_LENGTH = 4
SCRIPTS = 4
SENTENCE_S = (2.5, 8.0)  # of live speech: what people say in one breath
LOUD = 0.01  # a sample above this belongs to the speech; the clips' own noise is far below
LINGERS_S = 0.25  # a detector's end of speech after the last loud sample, at most
NOISE = 0.001  # of the pauses, -60 dB: no microphone is silent
_INT16 = 2**15


def read_sources(manifest: str) -> list[Clip]:
    """The clips of a manifest, or of ``data/mini``.

    Raises:
        ManifestError: no such manifest, or its files are missing.
        UsageError: there are no clips in it.
    """
    path: str | Path = MINI if manifest == "mini" else manifest
    sources = read_manifest(path)
    if not sources:
        raise UsageError(f"the manifest {path} holds no clips; expected at least one")
    return sources


def make_mix(sources: Sequence[Clip], count: int, seed: int, first: int = 0) -> list[LoadClip]:
    """Clips whose lengths are spread over 2 to 60 s, each longer than the one before by the same factor.

    Args:
        sources: what is joined.
        count: how many clips.
        seed: of where in the sources each begins.
        first: number of the first clip, in its name.

    Raises:
        UsageError: fewer than one clip is asked for.
        AudioError: a source cannot be read.
    """
    if count < 1:
        raise UsageError(f"{count} clips; expected at least 1")
    return make_clips(sources, np.geomspace(SHORTEST_S, LONGEST_S, count).tolist(), seed, first)


def make_clips(sources: Sequence[Clip], lengths_s: Sequence[float], seed: int, first: int = 0) -> list[LoadClip]:
    """Clips of about these lengths, joined from neighbours with 0.3 s of silence; every third is opus, the others wav."""
    runs = choose_runs([source.duration_s for source in sources], lengths_s, seed)
    return [
        encode_clip(first + number, join_waveforms([decode_audio(source.audio) for source in sources[run]]))
        for number, run in enumerate(runs)
    ]


def choose_runs(durations_s: Sequence[float], lengths_s: Sequence[float], seed: int) -> list[slice]:
    """For each length the run of neighbours that comes closest to it; no two runs begin alike while there are enough.

    Args:
        durations_s: seconds of each source.
        lengths_s: what is wanted.
        seed: of the order in which runs are tried, which decides among those that are equally close.

    Returns:
        As many runs as there are lengths, in their order.
    """
    starts = np.random.default_rng(seed).permutation(len(durations_s)).tolist()
    free: list[int] = []
    chosen = []
    for length_s in lengths_s:
        free = free or list(starts)
        runs = [_find_end(durations_s, start, length_s) for start in free]
        nearest = min(range(len(runs)), key=lambda number: abs(runs[number][1] - length_s))
        chosen.append(runs[nearest][0])
        free.pop(nearest)
    return chosen


def _find_end(durations_s: Sequence[float], start: int, length_s: float) -> tuple[slice, float]:
    """The run from a source on whose joined length is closest, and that length."""
    seconds = np.cumsum(np.asarray(durations_s[start:])) + SILENCE_S * np.arange(len(durations_s) - start)
    last = int(np.abs(seconds - length_s).argmin())
    return slice(start, start + last + 1), float(seconds[last])


def make_scripts(sources: Sequence[Clip], seconds: float, seed: int, count: int = SCRIPTS) -> list[LiveScript]:
    """Scripts of at least so many seconds: sentences with a second of quiet noise after each.

    Sentences whose end is in doubt are left out (:func:`ends_clearly`): their finals are late however few streams there are.

    Raises:
        UsageError: no source is between 2.5 and 8 s long and ends clearly.
        AudioError: a source cannot be read.
    """
    low, high = SENTENCE_S
    sentences = [source for source in sources if low <= source.duration_s <= high]
    generator = np.random.default_rng(seed)
    scripts, order = [], list[int]()
    for number in range(count):
        parts: list[Waveform] = []
        refused = 0
        while sum(map(len, parts)) < seconds * SAMPLE_RATE_HZ:
            if refused == len(sentences):
                raise UsageError(
                    f"none of {len(sources)} clips is {low:g} to {high:g} s long and ends clearly, as live speech needs; "
                    "give a manifest of single sentences"
                )
            order = order or generator.permutation(len(sentences)).tolist()
            added = [decode_audio(sentences[order.pop()].audio), make_pause(generator)]
            clear = ends_clearly([*parts, *added])
            parts, refused = ([*parts, *added], 0) if clear else (parts, refused + 1)
        scripts.append(LiveScript(f"live-{number}", encode_pcm(np.concatenate(parts)), find_places(parts)))
    return scripts


def make_pause(generator: np.random.Generator) -> Waveform:
    """A second (S,) of quiet noise."""
    return (NOISE * generator.standard_normal(round(PAUSE_S * SAMPLE_RATE_HZ))).astype(np.float32)


def ends_clearly(parts: Sequence[Waveform]) -> bool:
    """Whether the speech detector hears the end of the last sentence at its last loud sample, or soon after it.

    Args:
        parts: sentence, pause, sentence, pause.
    """
    places = find_places(parts)
    speech = np.flatnonzero(SpeechDetector().push(np.concatenate(parts)) >= SegmentRules().end_probability)
    return bool(places) and bool(speech.size) and (speech[-1] + 1) * CHUNK_S - places[-1][1] <= LINGERS_S


def find_places(parts: Sequence[Waveform]) -> tuple[tuple[float, float], ...]:
    """First and last loud sample of each sentence in seconds from the start; parts are sentence, pause, sentence, pause.

    A sentence that is nowhere loud has no place.
    """
    places, at = [], 0
    for part in parts:
        loud = np.flatnonzero(np.abs(part) > LOUD)
        if loud.size:
            places.append((float(at + loud[0]) / SAMPLE_RATE_HZ, float(at + loud[-1]) / SAMPLE_RATE_HZ))
        at += len(part)
    return tuple(places)


def encode_pcm(sound: Waveform) -> bytes:
    """A waveform (S,) in [-1, 1] as 16-bit little-endian samples."""
    return np.round(sound * _INT16).clip(-_INT16, _INT16 - 1).astype("<i2").tobytes()


def decode_pcm(data: bytes) -> Waveform:
    """16-bit little-endian samples as a waveform (S,)."""
    return (np.frombuffer(data, "<i2") / _INT16).astype(np.float32)


def write_finals(script: LiveScript, recognizer: Recognizer, silence_s: float) -> tuple[str, ...]:
    """The text of each segment of a script, cut and recognised offline: what the finals of its stream must say.

    Args:
        script: what is said.
        recognizer: the same model as the service's.
        silence_s: the service's silence that ends a segment.
    """
    rules = StreamRules(silence_s=silence_s).adapt(recognizer.segments)
    segments = cut_segments([decode_pcm(script.sound)], rules)
    return tuple(" ".join(word.text for word in recognizer.recognize_segment(segment)) for segment in segments)
