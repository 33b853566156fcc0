"""Speech that a tiny model can learn in seconds: one tone for each letter, a pause for the space."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING

import numpy as np

from dinle.manifest import Clip, write_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dinle.recognize.audio import Waveform

RATE_HZ = 16_000
LETTERS = "abcdeklmst"
TONE_S, PAUSE_S = 0.12, 0.06


def speak_tones(text: str, seed: int = 0) -> Waveform:
    """A tone of 0.12 s for each letter of LETTERS, 0.06 s of silence between them, a little noise."""
    generator = np.random.default_rng(seed)
    pause = np.zeros(round(PAUSE_S * RATE_HZ))
    times_s = np.arange(round(TONE_S * RATE_HZ)) / RATE_HZ
    parts = [pause]
    for letter in text:
        hz = 300 * 1.25 ** LETTERS.find(letter)
        parts += [np.zeros(len(times_s)) if letter == " " else 0.4 * np.sin(2 * np.pi * hz * times_s), pause]
    sound = np.concatenate(parts)
    return (sound + 0.002 * generator.standard_normal(len(sound))).astype(np.float32)


def write_wave(path: Path, waveform: Waveform) -> None:
    """16-bit mono wav at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((np.clip(waveform, -1, 1) * 32_767).astype("<i2").tobytes())


def make_tone_clips(folder: Path, texts: Sequence[str], split: str | None) -> list[Clip]:
    """One wav file a text."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, text in enumerate(texts):
        waveform = speak_tones(text, number)
        path = folder / f"{split or 'clip'}-{number}.wav"
        write_wave(path, waveform)
        clips.append(Clip(path, text, len(waveform) / RATE_HZ, split=split))
    return clips


def make_tone_dataset(folder: Path, splits: Mapping[str | None, Sequence[str]]) -> Path:
    """A prepared folder: manifest.jsonl and wav files, the texts of each split."""
    clips = [clip for split, texts in splits.items() for clip in make_tone_clips(folder, texts, split)]
    write_manifest(folder / "manifest.jsonl", clips)
    return folder
