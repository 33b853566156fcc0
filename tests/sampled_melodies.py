"""Melodies drawn by chance and played by sampled instruments, and what a model writes of them.

``python -m tests.sampled_melodies --model models/dinle-ctc-tr`` prints the figures of docs/long-recordings.md. It needs
``fluidsynth`` and a General MIDI sound font (Debian's fluidsynth and fluid-soundfont-gm).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import dinle
from dinle.progress import open_console, track
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio
from dinle.recognize.segments import cut_segments
from tests.sounds import MAJOR, scale_to

if TYPE_CHECKING:
    from collections.abc import Iterator

FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")  # MIT, by Frank Wen
INSTRUMENTS = 128
SECONDS = 12.0
TICKS = 960  # a second, at MIDI's own tempo: 480 a quarter note, 120 of them a minute
CHORD_SHARE, REST_SHARE, REST_S = 0.15, 0.1, 0.6


def draw_notes(instrument: int, seed: int) -> Iterator[tuple[float, float, list[int], int]]:
    """Start and end in seconds, pitches and velocity of notes of one scale; some are chords, after some is a rest."""
    rng = np.random.default_rng((instrument, seed))
    root, length_s, now_s = int(rng.choice([45, 52, 57, 62, 67])), float(rng.choice([0.15, 0.25, 0.4, 0.8])), 0.0
    while now_s < SECONDS:
        pitch = root + int(rng.choice(MAJOR))
        pitches = [pitch, pitch + 4, pitch + 7] if rng.random() < CHORD_SHARE else [pitch]
        yield now_s, now_s + length_s * rng.uniform(0.6, 1.0), pitches, int(rng.integers(60, 110))
        now_s += length_s + (REST_S if rng.random() < REST_SHARE else 0.0)


def make_midi(instrument: int, seed: int) -> bytes:
    """The notes as a MIDI file of one track."""
    events: list[tuple[int, bytes]] = [(0, bytes([0xC0, instrument]))]
    for start_s, end_s, pitches, velocity in draw_notes(instrument, seed):
        for pitch in pitches:
            events.append((round(start_s * TICKS), bytes([0x90, pitch, velocity])))
            events.append((round(end_s * TICKS), bytes([0x80, pitch, 0])))
    events.sort(key=lambda event: event[0])
    ticks = np.diff([0, *(tick for tick, _ in events)]).tolist()
    track_ = b"".join(encode_length(wait) + message for wait, (_, message) in zip(ticks, events, strict=True))
    track_ += b"\x00\xff\x2f\x00"  # the end
    header = b"MThd" + (6).to_bytes(4) + (0).to_bytes(2) + (1).to_bytes(2) + (TICKS // 2).to_bytes(2)
    return header + b"MTrk" + len(track_).to_bytes(4) + track_


def encode_length(value: int) -> bytes:
    """A number in MIDI's seven bits a byte, the highest first."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def play(midi: bytes, font: Path) -> Waveform:
    """The sound of a MIDI file, dry, at -20 dBFS."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder) / "score.mid", Path(folder) / "sound.wav"
        score.write_bytes(midi)
        options = ["-ni", "-q", "-F", str(sound), "-r", str(SAMPLE_RATE_HZ), "-R", "0", "-C", "0"]
        subprocess.run(["fluidsynth", *options, str(font), str(score)], check=True, capture_output=True)
        return scale_to(decode_audio(sound)[: round(SECONDS * SAMPLE_RATE_HZ)], -20)


def main() -> None:
    """Play, recognise, count."""
    parser = argparse.ArgumentParser(description="what a model writes of melodies by sampled instruments")
    parser.add_argument("--model", help="bundle folder (default: the bundled model)")
    parser.add_argument("--seeds", type=int, default=2, help="melodies for each instrument")
    parser.add_argument("--font", type=Path, default=FONT)
    arguments = parser.parse_args()
    recognizer = dinle.load(arguments.model, threads=2)
    found, notes, written = 0, 0, dict[str, str]()
    pairs = [(instrument, seed) for instrument in range(INSTRUMENTS) for seed in range(arguments.seeds)]
    for instrument, seed in track(pairs, "melodies"):
        sound = play(make_midi(instrument, seed), arguments.font)
        segments = list(cut_segments([sound], recognizer.long_segments))  # type: ignore[attr-defined]  # both families have them
        found, notes = found + len(segments), notes + sum(segment.is_note() for segment in segments)
        if text := recognizer.transcribe(sound).text:
            written[f"{instrument}-{seed}"] = text
    figures = {
        "melodies": len(pairs),
        "minutes": round(len(pairs) * SECONDS / 60, 1),
        "segments": found,
        "notes": notes,
    }
    open_console().print_json(json.dumps({**figures, "written": written}, ensure_ascii=False))


if __name__ == "__main__":
    main()
