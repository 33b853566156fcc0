"""Encoder-decoder engines without weights: one writes what a script says, one what the sound itself says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dinle.recognize.vad import CHUNK_SAMPLES
from dinle.recognize.whisper import WhisperRecognizer, WindowRules
from dinle.recognize.whisper_engine import Sound, Step
from dinle.recognize.whisper_vocabulary import BYTES, WhisperVocabulary

FRAME_SAMPLES = 320
CHARACTERS = {byte: character for character, byte in BYTES.items()}
Script = Callable[[int, tuple[int, ...]], NDArray[np.float32]]


def spell_bytes(text: str) -> str:
    """A token's text as tokenizer.json writes it, a space as Ġ."""
    return "".join(CHARACTERS[byte] for byte in text.encode())


WORDS = (" bir", " iki", " üç", "üncü", " dört", " beş", ".")
SPECIALS = ("<|start|>", "<|tr|>", "<|end|>", "<|music|>")
VOCABULARY = WhisperVocabulary(
    tokens=(*SPECIALS, *map(spell_bytes, WORDS)), prefix=(0, 1), end=2, suppressed=(0, 1, 3), suppressed_first=(10,)
)


@dataclass
class ScriptedWriter:
    """Writes by a script: (clip, tokens written so far) -> logits (V,).

    The clip's number travels in the memory and the tokens in the cache, so that a search which mixes up rows is found out.
    The attention of the n-th token is on frame n. ``calls`` keeps the shape of each call of the decoder.
    """

    script: Script
    prefix: int = 2
    frames: int = 8
    calls: list[tuple[int, ...]] = field(default_factory=list)

    def hear(self, clips: list[int]) -> Sound:
        memory = np.array(clips, dtype=np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
        return Sound(np.full(len(clips), self.frames), (memory, memory))

    def encode(self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]) -> Sound:
        return self.hear([0] * len(lengths))

    def decode(
        self, tokens: NDArray[np.int64], sound: Sound, cache: tuple[NDArray[np.float32], ...] | None = None
    ) -> Step:
        self.calls.append(tokens.shape)
        new = tokens.astype(np.float32)[:, np.newaxis, :, np.newaxis]
        history = new if cache is None else np.concatenate([cache[0], new], axis=2)
        written = [tuple(row[self.prefix :]) for row in history[:, 0, :, 0].astype(int).tolist()]
        clips = share_memory(sound, len(tokens))[:, 0, 0, 0].astype(int).tolist()
        logits = np.stack([self.script(clip, text) for clip, text in zip(clips, written, strict=True)])
        attention = np.zeros((*tokens.shape, self.frames), dtype=np.float32)
        for row, text in enumerate(written):
            attention[row, -1, min(len(text), self.frames - 1)] = 1
        return Step(logits.astype(np.float32), attention, (history, history))


@dataclass
class LevelWriter:
    """Writes token ``k`` for each stretch of sound at the level ``k / 100``, and looks where it is; see :func:`say`.

    ``heard`` keeps the lengths of each call of the encoder; ``certainty`` is by how much the logit of what it writes is
    above the others.
    """

    certainty: float = 12.0
    heard: list[list[int]] = field(default_factory=list)

    def encode(self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]) -> Sound:
        self.heard.append([int(n) for n in lengths])
        whole = waveforms.shape[1] // FRAME_SAMPLES * FRAME_SAMPLES
        levels = waveforms[:, :whole].reshape(len(waveforms), -1, FRAME_SAMPLES).max(axis=2)
        memory = levels[:, np.newaxis, :, np.newaxis]
        return Sound(lengths // FRAME_SAMPLES, (memory, memory))

    def decode(
        self, tokens: NDArray[np.int64], sound: Sound, cache: tuple[NDArray[np.float32], ...] | None = None
    ) -> Step:
        new = tokens.astype(np.float32)[:, np.newaxis, :, np.newaxis]
        history = new if cache is None else np.concatenate([cache[0], new], axis=2)
        written = history.shape[2] - len(VOCABULARY.prefix)
        frames = sound.memory[0].shape[2]
        logits = np.zeros((len(tokens), VOCABULARY.size), dtype=np.float32)
        attention = np.zeros((*tokens.shape, frames), dtype=np.float32)
        for row, levels in enumerate(share_memory(sound, len(tokens))[:, 0, :, 0]):
            token, first, end = [*find_runs(levels), *[(VOCABULARY.end, frames - 1, frames)] * (written + 1)][written]
            logits[row, token] = self.certainty
            attention[row, -1, first:end] = 1
        return Step(logits, attention, (history, history))


def share_memory(sound: Sound, rows: int) -> NDArray[np.float32]:
    """What each row hears: its own clip, or the one clip that all share, as the decoder's graph does it."""
    return np.broadcast_to(sound.memory[0], (rows, *sound.memory[0].shape[1:]))


def find_runs(levels: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    """(token, first frame, end frame) of each stretch of frames (T,) at one level above 0."""
    runs, at = [], 0
    for token, same in groupby(np.rint(levels * 100).astype(int).tolist()):
        size = len(list(same))
        runs += [(token, at, at + size)] if token else []
        at += size
    return runs


def say(*tokens: int, frames: int = 20, gap: int = 5) -> NDArray[np.float32]:
    """Sound (S,) that :class:`LevelWriter` reads as these tokens, each followed by ``gap`` frames of silence."""
    parts = [np.repeat([token / 100, 0.0], [frames * FRAME_SAMPLES, gap * FRAME_SAMPLES]) for token in tokens]
    return np.concatenate(parts).astype(np.float32)


def rest(seconds: float) -> NDArray[np.float32]:
    """Silence (S,)."""
    return np.zeros(round(seconds * 16_000), dtype=np.float32)


class LevelDetector:
    """Calls each chunk speech in which there is anything but silence: stands in for the speech detector."""

    def __init__(self) -> None:
        self.left = rest(0)

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        sound = np.concatenate([self.left, samples])
        whole = len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES
        self.left = sound[whole:]
        loudest = sound[:whole].reshape(-1, CHUNK_SAMPLES).max(axis=1)
        return np.where(loudest > 0, 1.0, 0.0).astype(np.float32)

    def finish(self) -> NDArray[np.float32]:
        left, self.left = self.left, rest(0)
        return np.array([float(left.max() > 0)] if len(left) else [], dtype=np.float32)


def make_reader(
    engine: LevelWriter, *, min_s: float = 4.0, tail_s: float = 0.5, max_s: float = 30.0, batch_size: int = 1
) -> WhisperRecognizer:
    """A recogniser around a :class:`LevelWriter`."""
    window = WindowRules(min_s=min_s, tail_s=tail_s, max_s=max_s, frame_shift_s=FRAME_SAMPLES / 16_000)
    return WhisperRecognizer(engine, VOCABULARY, name="levels", window=window, batch_size=batch_size)
