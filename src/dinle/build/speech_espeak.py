"""espeak-ng: a program that says Turkish exactly and sounds like a robot. It also spells text in phonemes, for Kokoro."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from dinle.build.speech import SpeechEngineError, UnspeakableTextError, find_voice
from dinle.errors import AudioError, UsageError
from dinle.recognize.audio import decode_audio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dinle.build.config import PrepareConfig
    from dinle.build.speech import Delivery
    from dinle.recognize.audio import Waveform

PROGRAM = "espeak-ng"
LANGUAGE = "tr"
LICENCE = "output of a GPL program"
# The language's own voice and the variants that are people; others are robots, whispers and monsters.
USUAL_VARIANTS = (
    *(f"m{number}" for number in range(1, 8)),
    *(f"f{number}" for number in range(1, 6)),
    *("klatt", "klatt2", "klatt3", "klatt4"),
)
# espeak-ng's own settings: https://github.com/espeak-ng/espeak-ng/blob/master/src/espeak-ng.1.ronn
WORDS_PER_MINUTE, SLOWEST, FASTEST = 175, 80, 450
PITCH, HIGHEST = 50, 99
TIMEOUT_S = 120.0

_VARIANT = re.compile(r" !v/(\S(?:[^ ]| (?! ))*)")
_SWITCH = re.compile(r"\([a-z-]+\)")  # to another language and back: (en)wˈiːkɛnd(tr)
_CLAUSE_END = re.compile(r"[,.;:!?…]+(?=\s|$)")


class EspeakEngine:
    """espeak-ng's Turkish in voices such as ``tr`` and ``tr+f1``; a process for each line."""

    name = PROGRAM
    licence = LICENCE

    def __init__(self, voices: Sequence[str]) -> None:
        self.voices = tuple(voices)
        self.files: dict[str, Path] = {}
        self.version = run_espeak("--version").decode("utf-8", "replace").partition("Data at")[0].strip()

    def speak(self, text: str, delivery: Delivery) -> Waveform:
        """Say a text; see :class:`dinle.build.speech.SpeechEngine`."""
        speed = min(max(round(WORDS_PER_MINUTE * delivery.speed), SLOWEST), FASTEST)
        pitch = min(round(PITCH * delivery.pitch), HIGHEST)
        settings = ["-v", delivery.voice.first, "-s", str(speed), "-p", str(pitch)]
        sound = run_espeak(*settings, "--stdout", text=text)
        try:
            return decode_audio(sound)
        except AudioError as error:
            raise UnspeakableTextError(f"{PROGRAM} gives no sound for {text!r} ({error}); reword the line") from error


def open_espeak(config: PrepareConfig) -> EspeakEngine:
    """espeak-ng with the voices that the config names, or the usual ones.

    Raises:
        UsageError: an unknown voice (espeak-ng itself would speak in its default voice instead), or blends.
        SpeechEngineError: the program is missing or does not run.
    """
    if config.blend_voices:
        raise UsageError(f"--blend_voices is {config.blend_voices}, but {PROGRAM} cannot blend voices; leave it at 0")
    known = (LANGUAGE, *(f"{LANGUAGE}+{name}" for name in list_variants()))
    usual = (LANGUAGE, *(f"{LANGUAGE}+{name}" for name in USUAL_VARIANTS))
    wanted = config.voices or tuple(voice for voice in usual if voice in known)
    return EspeakEngine(list(dict.fromkeys(find_voice(name, known) for name in (*wanted, *config.test_voices))))


def list_variants() -> list[str]:
    """The voice variants that the installed espeak-ng has, such as ``f1``."""
    table = run_espeak("--voices=variant").decode("utf-8", "replace")
    return [match[1].strip() for match in map(_VARIANT.search, table.splitlines()) if match]


def spell_phonemes(text: str) -> str:
    """Turkish text in the international phonetic alphabet: words parted by spaces, the punctuation of clauses kept.

    espeak-ng writes a line for each clause and drops what ended it; where lines and marks cannot be paired, the last
    mark alone is put back.

    Raises:
        UnspeakableTextError: espeak-ng fails.
        SpeechEngineError: there is no espeak-ng.
    """
    said = _SWITCH.sub("", run_espeak("-v", LANGUAGE, "-q", "--ipa", text=text).decode("utf-8", "replace"))
    clauses = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    marks = ["…" if mark.startswith(("..", "…")) else mark[0] for mark in _CLAUSE_END.findall(text)]
    if len(clauses) - len(marks) not in (0, 1):
        return " ".join(clauses) + (marks[-1] if marks else "")
    marks += [""] * (len(clauses) - len(marks))
    return " ".join(clause + mark for clause, mark in zip(clauses, marks, strict=True))


def run_espeak(*arguments: str, text: str = "") -> bytes:
    """Run espeak-ng on a text, given on its standard input (one that starts with a dash is no flag), and return its output.

    Raises:
        SpeechEngineError: the program is not installed.
        UnspeakableTextError: it fails, or takes longer than ``TIMEOUT_S``.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise SpeechEngineError(
            f"the program {PROGRAM} is not on the PATH; install it: apt-get install {PROGRAM} (macOS: brew install {PROGRAM})"
        )
    command = [program, "-b", "1", *arguments, *(["--stdin"] if text else [])]  # -b 1: UTF-8 whatever the locale
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason = (error.stderr or b"").decode("utf-8", "replace").strip()
        raise UnspeakableTextError(f"{error}{': ' if reason else ''}{reason}") from error
    return done.stdout
