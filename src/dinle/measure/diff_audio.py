"""The sound of the diff page: links to the clips where they lie, or copies beside the page that browsers play."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import av

from dinle.errors import AudioError
from dinle.measure.service_clips import encode_wav
from dinle.progress import track
from dinle.recognize.audio import decode_audio
from dinle.recognize.audio_decode import DEMUXERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.measure.config import PageAudio
    from dinle.measure.predictions import Prediction

AUDIO_FOLDER = "audio"
# What Chromium, Firefox and Safari all play: FFmpeg's name of the container -> suffix, codecs of sound. WebM is not among
# them: a browser's own recordings lack their length, so that nobody can seek in them.
PLAYABLE = {
    "wav": (".wav", {"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"}),
    "mp3": (".mp3", {"mp3"}),
    "flac": (".flac", {"flac"}),
    "ogg": (".ogg", {"opus", "vorbis"}),
    "mov,mp4,m4a,3gp,3g2,mj2": (".m4a", {"aac"}),
}


@dataclass(frozen=True)
class ClipAudio:
    """Where the page finds a clip's sound, relative to the page; without an ``href`` the ``problem`` says why."""

    href: str | None = None
    problem: str | None = None


def find_audio(predictions: Sequence[Prediction], folder: Path, audio: PageAudio) -> list[ClipAudio]:
    """The sound of every clip, in the same order.

    Args:
        predictions: their ``audio`` is relative to the working directory, or absolute.
        folder: the page's; it exists. Copies of an earlier page are removed from it.
        audio: ``link`` leaves the files where they are; ``copy`` copies what browsers play (:data:`PLAYABLE`) into
            ``folder/audio`` and converts the rest to wav, mono and 16 kHz: what the recogniser hears.
    """
    shutil.rmtree(folder / AUDIO_FOLDER, ignore_errors=True)
    if audio == "link":
        return [_link_clip(one, folder) for one in predictions]
    (folder / AUDIO_FOLDER).mkdir()
    return [
        _copy_clip(one, folder, f"{number:06d}")
        for number, one in enumerate(track(predictions, "copying the audio"), 1)
    ]


def link_file(path: Path, folder: Path) -> str:
    """A reference to a file for a page in ``folder``: relative, so that both can move together."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # Windows: another drive
        return path.absolute().as_uri()
    return quote(Path(relative).as_posix())


def find_suffix(encoded: bytes) -> str | None:
    """The suffix of sound that browsers play, or None for sound that they may not play (or that is none)."""
    # No decoder while FFmpeg looks into the file, and no demuxer that opens other files: see dinle.recognize.audio_decode.
    options = {"format_whitelist": DEMUXERS, "codec_whitelist": "none"}
    try:
        with av.open(io.BytesIO(encoded), "r", metadata_errors="ignore", options=options) as container:
            suffix, codecs = PLAYABLE.get(container.format.name, ("", set[str]()))
            named = [stream.codec_context.codec.canonical_name for stream in container.streams.audio]
            is_playable = len(container.streams) == 1 and len(named) == 1 and named[0] in codecs
    except (av.FFmpegError, ValueError):
        return None
    return suffix if is_playable else None


def _link_clip(prediction: Prediction, folder: Path) -> ClipAudio:
    problem = _find_problem(prediction)
    return ClipAudio(problem=problem) if problem else ClipAudio(link_file(Path(prediction.audio), folder))


def _copy_clip(prediction: Prediction, folder: Path, name: str) -> ClipAudio:
    problem = _find_problem(prediction)
    if problem:
        return ClipAudio(problem=problem)
    try:
        encoded = Path(prediction.audio).read_bytes()
        suffix = find_suffix(encoded)
        if suffix is None:
            suffix, encoded = ".wav", encode_wav(decode_audio(encoded))
    except (AudioError, OSError) as error:
        return ClipAudio(problem=f"the file {prediction.audio} cannot be played: {error}")
    (folder / AUDIO_FOLDER / f"{name}{suffix}").write_bytes(encoded)
    return ClipAudio(f"{AUDIO_FOLDER}/{name}{suffix}")


def _find_problem(prediction: Prediction) -> str | None:
    if not prediction.audio:
        return "the predictions name no audio file"
    try:
        is_there = Path(prediction.audio).is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_there = False
    return None if is_there else f"the file {prediction.audio} is gone"
