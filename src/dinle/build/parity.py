"""The proof that a graph may be shipped: it says what torch says, and a row does not depend on its neighbours."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dinle.errors import ParityError, UsageError
from dinle.manifest import MANIFEST_NAME, read_manifest
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.recognize.ctc import decode_greedy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from dinle.recognize.engine import Engine
    from dinle.recognize.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# Both sides compute in fp32 but add in another order and fuse other steps; 12 layers give about 1e-5 in log-probs, 24 a
# few times more. What goes wrong in an export (a mask, a norm, a baked-in length) gives 1e-2 and more.
TORCH_TOLERANCE = 1e-3
# The row law. The same kernels run on the same numbers, only blocked differently.
ROW_TOLERANCE = 1e-4
# Through an encoder, a decoder and its cache rounding adds up: 1.2e-4 for openai/whisper-base on a Zen 3.
TEXT_ROW_TOLERANCE = 5e-4
CUT_LENGTHS_S = (0.4, 1.1, 2.7)
WHOLE_S = 10.0  # longer clips are cut: a batch of three must fit into small machines
MAX_FILES = 3
ROWS_PER_BATCH = 3
SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".webm"})
SYNTHETIC_SECONDS = (6.3, 3.9)


class ParityClip(NamedTuple):
    """A clip to compare on: what to call it in a message, and its samples (S,)."""

    name: str
    waveform: Waveform

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.waveform) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class ParityReport:
    """What was compared, and the largest absolute differences of log-probabilities over valid frames."""

    clips: int
    batches: int
    max_torch_difference: float
    max_row_difference: float


def load_parity_clips(source: Path | None, *, max_seconds: float | None = None) -> list[ParityClip]:
    """Clips of several lengths: the first file cut at 0.4, 1.1 and 2.7 s, and up to three files whole.

    Args:
        source: a folder of sound files, a manifest, or one file. ``None``: the sample and the small data set of a source
            checkout, and without one (an installed package) a synthetic signal, which needs no file.
        max_seconds: the longest clip that the model takes.

    Raises:
        UsageError: the source holds no sound files.
        ManifestError, AudioError: from reading it.
    """
    files = find_sounds(source)[:MAX_FILES] if source is not None else _find_default_files()
    sounds = [ParityClip(path.name, decode_audio(path)) for path in files] or _make_synthetic_clips()
    limit_s = min(WHOLE_S, max_seconds or WHOLE_S)
    cuts = [_cut(sounds[0], seconds) for seconds in CUT_LENGTHS_S if seconds < min(sounds[0].seconds, limit_s)]
    return [*cuts, *(_cut(sound, limit_s) for sound in sounds)]


def _cut(clip: ParityClip, seconds: float) -> ParityClip:
    if clip.seconds <= seconds:
        return clip
    return ParityClip(f"{clip.name}[:{seconds:g} s]", clip.waveform[: round(seconds * SAMPLE_RATE_HZ)])


def find_sounds(source: Path) -> list[Path]:
    """The sound files of a manifest, of a folder and those below it, or the one file.

    Raises:
        UsageError: there are none.
        ManifestError: from reading the manifest.
    """
    if source.suffix == ".jsonl" or (source / MANIFEST_NAME).is_file():
        return [clip.audio for clip in read_manifest(source)]
    if source.is_file():
        return [source]
    files = sorted(path for path in source.rglob("*") if path.suffix.casefold() in SOUND_SUFFIXES)
    if not files:
        raise UsageError(f"{source} holds no sound files; give a folder of them, a manifest or one file")
    return files


def _find_default_files() -> list[Path]:
    root = Path(__file__).resolve().parents[3]
    sample = root / "samples" / "sample.wav"
    return (
        [sample, *sorted((root / "data" / "mini" / "audio").glob("*.opus"))[: MAX_FILES - 1]]
        if sample.is_file()
        else []
    )


def _make_synthetic_clips() -> list[ParityClip]:
    """Voice-like sound: harmonics of a wandering pitch in syllables, over a little noise. The same on every machine."""
    random = np.random.default_rng(1)
    clips = []
    for seconds in SYNTHETIC_SECONDS:
        time_s = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.7 * time_s)) / SAMPLE_RATE_HZ
        voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
        syllables = np.clip(np.sin(2 * np.pi * 2.1 * time_s), 0, None)
        sound = 0.15 * voice * syllables + 0.003 * random.standard_normal(len(time_s))
        clips.append(ParityClip(f"synthetic {seconds:g} s", sound.astype(np.float32)))
    return clips


def run_alone(engine: Engine, clips: Iterable[ParityClip]) -> list[NDArray[np.float32]]:
    """The valid log-probabilities (T, V) of each clip, run as a batch of one."""
    return [run_batch(engine, [clip])[0] for clip in clips]


def run_batch(engine: Engine, clips: Sequence[ParityClip]) -> list[NDArray[np.float32]]:
    """The valid log-probabilities (T, V) of each row of one zero-padded batch."""
    lengths = np.array([len(clip.waveform) for clip in clips], dtype=np.int64)
    waveforms = np.zeros((len(clips), lengths.max()), dtype=np.float32)
    for row, clip in zip(waveforms, clips, strict=True):
        row[: len(clip.waveform)] = clip.waveform
    log_probs, frames = engine.run(waveforms, lengths)
    return [row[:count] for row, count in zip(log_probs, frames, strict=True)]


def check_parity(
    engine: Engine,
    reference: Sequence[NDArray[np.float32]],
    clips: Sequence[ParityClip],
    read: Callable[[NDArray[np.float32]], str] | None,
    *,
    row_tolerance: float = ROW_TOLERANCE,
) -> ParityReport:
    """Compare a graph with torch clip by clip, and each clip alone with the same clip in padded batches.

    Args:
        engine: the fp32 graph.
        reference: torch's valid log-probabilities (T, V) of each clip alone.
        clips: as from :func:`load_parity_clips`.
        read: what log-probabilities (T, V) say (``None``: texts are not compared).
        row_tolerance: how far a row of a batch may be from the row alone.

    Raises:
        ParityError: names the clip, its length, the batch and the difference.
    """
    alone = run_alone(engine, clips)
    torch_differences = [_compare_with_torch(*rows, read) for rows in zip(clips, alone, reference, strict=True)]
    batches = list(_compose_batches(clips))
    row_differences = [_compare_rows(engine, clips, alone, batch, row_tolerance) for batch in batches]
    report = ParityReport(len(clips), len(batches), max(torch_differences), max(row_differences, default=0.0))
    logger.info("parity: %s", report)
    return report


def read_text(log_probs: NDArray[np.float32], vocabulary: Vocabulary) -> str:
    """The text of a CTC model's log-probabilities (T, V)."""
    return " ".join(word.text for word in decode_greedy(log_probs, vocabulary, frame_shift_s=1.0))


def _compare_with_torch(
    clip: ParityClip,
    graph: NDArray[np.float32],
    torch: NDArray[np.float32],
    read: Callable[[NDArray[np.float32]], str] | None,
) -> float:
    where = f"{clip.name} ({clip.seconds:.2f} s) alone"
    difference = _measure_difference(graph, torch, f"{where}: ONNX against torch")
    if difference > TORCH_TOLERANCE:
        raise ParityError(
            f"{where}: ONNX and torch differ by {difference:.2g} in log-probabilities; at most {TORCH_TOLERANCE:g} is "
            "rounding: the graph is not the model"
        )
    texts = [read(rows) if read is not None else "" for rows in (graph, torch)]
    if texts[0] != texts[1]:
        raise ParityError(f"{where}: ONNX reads {texts[0]!r}, torch reads {texts[1]!r}: the graph is not the model")
    return difference


def _compose_batches(clips: Sequence[ParityClip]) -> Iterable[tuple[int, ...]]:
    """Batches of up to three in which every clip stands beside the longest one, which is first and last in turn."""
    if len(clips) < 2:  # noqa: PLR2004 - one clip has no neighbour
        return
    *others, longest = sorted(range(len(clips)), key=lambda index: len(clips[index].waveform))
    size = ROWS_PER_BATCH - 1
    # strided, so that a batch mixes short and long rows
    count = -(-len(others) // size)
    for start in range(count):
        rest = others[start::count]
        yield (longest, *rest) if start % 2 else (*rest, longest)


def _compare_rows(
    engine: Engine,
    clips: Sequence[ParityClip],
    alone: Sequence[NDArray[np.float32]],
    batch: tuple[int, ...],
    tolerance: float,
) -> float:
    together = run_batch(engine, [clips[index] for index in batch])
    worst = 0.0
    for index, rows in zip(batch, together, strict=True):
        clip = clips[index]
        lengths = ", ".join(f"{clips[other].seconds:.2f} s" for other in batch)
        where = f"{clip.name} ({clip.seconds:.2f} s) in a batch of {lengths}"
        difference = _measure_difference(rows, alone[index], f"{where}, against the clip alone")
        if difference > tolerance:
            raise ParityError(
                f"{where}: log-probabilities differ by {difference:.2g} from the clip alone; at most {tolerance:g} "
                "is rounding: padding or a neighbour reaches this row, through a norm or a mask"
            )
        worst = max(worst, difference)
    return worst


def _measure_difference(rows: NDArray[np.float32], expected: NDArray[np.float32], where: str) -> float:
    if rows.shape != expected.shape:
        raise ParityError(f"{where}: {len(rows)} frames instead of {len(expected)}")
    difference = float(np.abs(rows - expected).max(initial=0.0))
    return difference if np.isfinite(difference) else float("inf")
