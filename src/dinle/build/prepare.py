"""dataset, or text that is spoken -> manifest.jsonl, decoded audio and a data report.

Audio ends as 16 kHz mono FLAC (lossless, half of WAV, decoded in a millisecond). A file that is 16-bit 16 kHz mono WAV or
FLAC already is referred to where it stands instead of being copied.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import soundfile

from dinle.build.data_report import write_report
from dinle.build.data_summary import DataSummary
from dinle.build.sources import Record, open_source
from dinle.build.speech import UnspeakableTextError
from dinle.build.text_source import SPOKEN_PATTERN
from dinle.errors import AudioError, AudioLimitError, DatasetError, TooManyBadClipsError, UsageError
from dinle.manifest import MANIFEST_NAME, Clip, write_manifest
from dinle.progress import track
from dinle.recognize.audio import SAMPLE_RATE_HZ, AudioLimits, decode_audio
from dinle.run import write_run
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from dinle.build.config import PrepareConfig
    from dinle.build.sources import Source

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

EVAL_SPLITS = ("validation", "test")
READ_AHEAD = 4  # clips per thread that wait decoded or encoded; bounds memory
# A file cut off in the middle still decodes. Codecs pad and trim by tens of milliseconds, never by a tenth of a clip.
MAX_MISSING_SHARE = 0.1
DROPPED_NAME = "dropped.jsonl"
# What this stage writes: decoded clips, spoken clips (dinle.build.text_source), and what a stopped run left unfinished.
AUDIO_PATTERNS = ("*-[0-9][0-9][0-9][0-9][0-9][0-9].flac", SPOKEN_PATTERN, f"{SPOKEN_PATTERN}.partial")


@dataclass(frozen=True)
class Outcome:
    """What became of a record: a clip with what the report counts, or the reason for dropping it."""

    record: Record
    clip: Clip | None = None
    text: str = ""  # normalised
    sha256: str = ""  # of the decoded samples
    reason: str = ""
    detail: str = ""


def prepare(config: PrepareConfig) -> Path:
    """Read a dataset of any known kind, or speak a text, and write what training and evaluation read.

    A text that is spoken goes on from the clips that an earlier run with the same settings left.

    Returns:
        ``config.output_dir`` with ``manifest.jsonl``, ``audio/*.flac``, ``dropped.jsonl`` (each dropped clip and why),
        ``report.md``, ``data.json``, plots, and last ``run.json``.

    Raises:
        UsageError: a fraction outside (0, 1], less than one thread, the output folder is the source, or settings of
            the source that do not fit.
        DatasetError: the source cannot be read or spoken, or no clip is left.
        ManifestError: a line of a table that is no clip.
        HubUnreachableError: a hub id, and the hub does not answer.
        TooManyBadClipsError: more than ``max_bad_share`` of the clips taken is missing, damaged or without samples.
    """
    started = time.monotonic()
    folder = config.output_dir
    source = open_source(config)
    _check_config(config, source)
    chosen = choose_records(source.count(), config, source.name)
    total = sum(int(mask.sum()) for mask in chosen.values())
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").unlink(missing_ok=True)  # its presence means finished

    summary = DataSummary(source.name, total)
    records = source.read(lambda split, number: split in chosen and bool(chosen[split][number]))
    outcomes = _process_all(records, config)
    write_manifest(folder / MANIFEST_NAME, _keep_clips(track(outcomes, "preparing clips", total), summary, config))
    if not summary.clips:
        raise DatasetError(
            f"no clip of {source.name} is left: of {total}, {summary.describe_dropped()}; see {folder / DROPPED_NAME}"
        )
    _remove_stale_audio(folder)
    results = write_report(folder, summary)
    write_run(
        folder, stage="prepare", config=config, seconds=time.monotonic() - started, inputs=source.files, results=results
    )
    return folder


def choose_records(sizes: dict[str, int], config: PrepareConfig, name: str) -> dict[str, NDArray[np.bool_]]:
    """Draw the share of each split that the config asks for, by lot: the same seed draws the same records.

    Args:
        sizes: records of each split.
        config: ``split``, ``train_percent``, ``eval_percent`` (of validation and test) and ``seed``.
        name: of the dataset, for the error.

    Returns:
        For each split taken a mask over its records; at least one is set.

    Raises:
        DatasetError: no such split, or no records at all.
    """
    splits = {split: size for split, size in sizes.items() if size and config.split in (None, split)}
    if not splits:
        wanted = f" of split {config.split!r}" if config.split else ""
        raise DatasetError(f"{name} has no clips{wanted}; its splits are: {', '.join(sizes) or 'none'}")
    chosen = {}
    for split, size in splits.items():
        share = config.eval_percent if split in EVAL_SPLITS else config.train_percent
        # A generator for each split: taking less of one does not change the lot of another.
        generator = np.random.default_rng([config.seed, zlib.crc32(split.encode())])
        mask = np.zeros(size, dtype=np.bool_)
        mask[generator.permutation(size)[: max(1, round(share * size))]] = True
        chosen[split] = mask
    return chosen


def _check_config(config: PrepareConfig, source: Source) -> None:
    for name in ("train_percent", "eval_percent"):
        share = getattr(config, name)
        if not 0 < share <= 1:
            raise UsageError(f"--{name} is {share}; expected a fraction above 0 and up to 1, such as 0.1 for a tenth")
    if config.threads is not None and config.threads < 1:
        raise UsageError(f"--threads is {config.threads}; expected 1 or more")
    if config.from_text is not None:
        return  # a text file is none of the products, wherever it lies
    products = {config.output_dir.resolve(), (config.output_dir / "audio").resolve()}
    given = Path(config.dataset_name).expanduser()
    sources = [path.parent for path in source.files.values()] + ([given] if given.is_dir() else [])
    # its manifest and the clips in its audio/ would be overwritten or removed
    if any(folder.resolve() in products for folder in sources):
        raise UsageError(
            f"--output_dir {config.output_dir} would overwrite the dataset it reads; choose another folder"
        )


def _process_all(records: Iterable[Record], config: PrepareConfig) -> Iterator[Outcome]:
    def process(numbered: tuple[int, Record]) -> Outcome:
        return process_record(numbered[1], numbered[0], config)

    # Decoding, resampling and encoding happen in C and release the interpreter, so threads are enough.
    yield from map_in_order(process, enumerate(records), config.threads or os.cpu_count() or 1)


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """``map`` on several threads: results in the order of the items, which are read only a little ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= READ_AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def process_record(record: Record, number: int, config: PrepareConfig) -> Outcome:
    """Decode (or speak) one record, judge it, and write its audio where it is kept.

    The reasons for dropping are ``empty text``, ``unspeakable``, ``corrupt``, ``too short``, ``too long``, ``too many
    characters`` and ``too few characters`` (of the normalised text, per second).
    """
    text = normalize_tr(record.text)
    if not text:
        return Outcome(record, reason="empty text", detail=f"nothing to say in {record.text!r}")
    try:
        audio = record.audio() if callable(record.audio) else record.audio
        waveform = decode_audio(audio, AudioLimits(max_seconds=config.max_duration_s))
    except (UnspeakableTextError, AudioError, OSError) as error:
        reason, detail = _name_failure(error, config)
        return Outcome(record, reason=reason, detail=detail)
    duration_s = len(waveform) / SAMPLE_RATE_HZ
    if record.stated_s is not None and duration_s < (1 - MAX_MISSING_SHARE) * record.stated_s:
        detail = f"holds {duration_s:.2f} s of the {record.stated_s:.2f} s that the manifest states: cut off?"
        return Outcome(record, reason="corrupt", detail=detail)
    reason, detail = judge_clip(duration_s, len(text), config)
    if reason:
        return Outcome(record, reason=reason, detail=detail)
    # The scale of the decoder, so that what was 16-bit sound keeps its samples.
    samples = np.clip(np.round(waveform * 32768), -32768, 32767).astype(np.int16)
    kept = _find_reusable(audio) or _write_audio(config.output_dir / "audio", record, number, samples)
    clip = Clip(
        kept, record.text, duration_s, record.speaker, record.split, record.source, record.licence or config.licence
    )
    return Outcome(record, clip, text, hashlib.sha256(samples.tobytes()).hexdigest())


def _name_failure(error: Exception, config: PrepareConfig) -> tuple[str, str]:
    """The reason for dropping a clip that could not be read or made, with the detail."""
    if isinstance(error, UnspeakableTextError):
        return "unspeakable", str(error)
    if isinstance(error, AudioLimitError):
        return "too long", f"over {config.max_duration_s:g} s"
    return "corrupt", str(error)


def judge_clip(duration_s: float, characters: int, config: PrepareConfig) -> tuple[str, str]:
    """The reason for dropping a clip of this length and text, with the figure; two empty strings for a good one."""
    chars_per_s = characters / duration_s
    if duration_s < config.min_duration_s:
        return "too short", f"{duration_s:.2f} s"
    if duration_s > config.max_duration_s:
        return "too long", f"{duration_s:.2f} s"
    if chars_per_s > config.max_chars_per_s:
        return "too many characters", f"{chars_per_s:.1f} a second"
    if chars_per_s < config.min_chars_per_s:
        return "too few characters", f"{chars_per_s:.1f} a second"
    return "", ""


def _find_reusable(audio: Path | bytes) -> Path | None:
    """The record's own file where it already is what would be written."""
    if not isinstance(audio, Path) or audio.suffix.casefold() not in (".wav", ".flac"):
        return None
    try:
        info = soundfile.info(str(audio))
    except soundfile.LibsndfileError:  # FFmpeg reads kinds of WAV that libsndfile does not
        return None
    is_ready = (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE_HZ, 1, "PCM_16")
    return audio.absolute() if is_ready else None


def _write_audio(folder: Path, record: Record, number: int, samples: NDArray[np.int16]) -> Path:
    path = folder / f"{record.split.replace('/', '-')}-{number:06d}.flac"
    soundfile.write(str(path), samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    return path


def _keep_clips(outcomes: Iterable[Outcome], summary: DataSummary, config: PrepareConfig) -> Iterator[Clip]:
    """Yield the clips that are kept; count everything; write down what is dropped."""
    with (config.output_dir / DROPPED_NAME).open("w", encoding="utf-8") as dropped:
        for outcome in outcomes:
            if outcome.clip is not None:
                summary.add_clip(outcome.record.name, outcome.clip, outcome.text, outcome.sha256)
                yield outcome.clip
                continue
            record, reason, detail = outcome.record, outcome.reason, outcome.detail
            line = {"name": record.name, "split": record.split, "reason": reason, "detail": detail, "text": record.text}
            dropped.write(json.dumps(line, ensure_ascii=False) + "\n")
            summary.add_dropped(record.name, record.split, reason, detail)
            if reason == "corrupt":
                logger.warning("%s: skipped, %s", record.name, detail)
                _check_bad_share(summary, config)


def _check_bad_share(summary: DataSummary, config: PrepareConfig) -> None:
    """Stop as soon as the allowed share is exceeded, not after hours of decoding the rest."""
    bad = summary.dropped["corrupt"]
    if bad <= config.max_bad_share * summary.total:
        return
    names = "; ".join(f"{name}: {detail}" for name, detail in summary.examples["corrupt"])
    raise TooManyBadClipsError(
        f"{bad} of {summary.total} clips of {summary.name} cannot be decoded, more than the {config.max_bad_share:.1%} "
        f"that --max_bad_share allows; mend the source or allow a larger share. The first: {names}"
    )


def _remove_stale_audio(folder: Path) -> None:
    """Delete what an earlier run into the same folder left and this manifest does not name."""
    with (folder / MANIFEST_NAME).open(encoding="utf-8") as manifest:
        named = {Path(json.loads(line)["audio"]).name for line in manifest}
    for pattern in AUDIO_PATTERNS:
        for path in (folder / "audio").glob(pattern):
            if path.name not in named:
                path.unlink()
