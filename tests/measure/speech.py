"""Clips that the level bundle of :mod:`tests.graphs` reads as their own text, and a manifest of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinle.manifest import Clip, write_manifest
from tests.graphs import spell_levels
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_clip(path: Path, text: str) -> float:
    """Write a clip that spells ``text``; returns its seconds."""
    samples = spell_levels(text)
    path.write_bytes(encode_wav(samples, subtype="FLOAT"))
    return len(samples) / 16_000


def write_speech(folder: Path, texts: Mapping[str, tuple[str, str]], speaker: str | None = "a") -> Path:
    """A manifest of clips: name to (what is heard, reference)."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for name, (heard, reference) in texts.items():
        duration_s = write_clip(folder / f"{name}.wav", heard)
        clips.append(Clip(folder / f"{name}.wav", reference, duration_s, speaker, "test"))
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"
