"""Kokoro-82M as an ONNX model: natural voices, an accent in Turkish.

The model was not trained on Turkish. espeak-ng spells the text in phonemes, and the few that Kokoro never learnt become
their neighbours; it knows y and ø from French and ɯ from Japanese.

Two kinds of release are in use; both are told by what the files hold::

    onnx/model_quantized.onnx (input_ids, style, speed)   tokenizer.json, vocabulary under model.vocab   voices/*.bin
    model.onnx                (tokens, style, speed)      vocab.json or config.json, under vocab         voices/*.bin
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import soxr

from dinle.build.speech import SpeechEngineError, UnspeakableTextError, find_voice
from dinle.build.speech_espeak import spell_phonemes
from dinle.errors import UsageError
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.bundle import hash_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from dinle.build.config import PrepareConfig
    from dinle.build.speech import Delivery, Voice
    from dinle.recognize.audio import Waveform

LICENCE = "Apache-2.0"  # https://huggingface.co/hexgrad/Kokoro-82M
KOKORO_RATE_HZ = 24_000
STYLE_SIZE = 256
MAX_PHONEMES = 510  # 512 positions, the first and last of them padding
TOKEN_INPUTS = ("input_ids", "tokens")
VOCABULARY_NAMES = ("tokenizer.json", "vocab.json", "config.json")
# Turkish phonemes of espeak-ng that Kokoro was not trained on -> the nearest that it was. ɣ, a soft g, is hardly heard.
PHONEME_MAP = {"ɫ": "l", "ɟ": "ɡ", "c": "k", "dʒ": "ʤ", "tʃ": "ʧ", "ɣ": ""}


class KokoroEngine:
    """A Kokoro model, its phonemes and its voices.

    Args:
        session: the model, with the inputs ``input_ids`` or ``tokens``, ``style`` and ``speed``.
        vocabulary: phoneme to token.
        styles: voice to styles (L, 256), one for each length of text.
        files: what the sound depends on, by name; hashed.
    """

    name = "kokoro"
    licence = LICENCE

    def __init__(
        self,
        session: ort.InferenceSession,
        vocabulary: Mapping[str, int],
        styles: Mapping[str, NDArray[np.float32]],
        files: dict[str, Path],
    ) -> None:
        self.voices = tuple(styles)
        self.files = files
        self._session = session
        self._token_input = next(node.name for node in session.get_inputs() if node.name in TOKEN_INPUTS)
        self._vocabulary = vocabulary
        self._styles = styles
        content = hashlib.sha256("".join(hash_file(path) for path in files.values()).encode())
        for name, style in styles.items():
            content.update(name.encode() + style.tobytes())
        self.version = content.hexdigest()

    def speak(self, text: str, delivery: Delivery) -> Waveform:
        """Say a text; the model has no pitch of its own to change. See :class:`dinle.build.speech.SpeechEngine`."""
        tokens = self._encode(text)
        feeds = {
            self._token_input: np.array([[0, *tokens, 0]], dtype=np.int64),
            "style": self._find_style(delivery.voice, len(tokens)),
            "speed": np.array([delivery.speed], dtype=np.float32),
        }
        try:
            sound = np.asarray(self._session.run(None, feeds)[0], dtype=np.float32).ravel()
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise UnspeakableTextError(f"Kokoro fails at {text!r}: {error}") from error
        if not len(sound):
            raise UnspeakableTextError(f"Kokoro gives no sound for {text!r}; reword the line")
        waveform: Waveform = soxr.resample(sound, KOKORO_RATE_HZ, SAMPLE_RATE_HZ)
        return waveform / max(1.0, float(np.abs(waveform).max(initial=0.0)))

    def _encode(self, text: str) -> list[int]:
        phonemes = map_phonemes(spell_phonemes(text))
        unknown = sorted(set(phonemes) - self._vocabulary.keys())
        if unknown:
            raise UnspeakableTextError(
                f"the vocabulary of Kokoro lacks the phonemes {' '.join(unknown)} of {text!r}; reword the line"
            )
        if not 0 < len(phonemes) <= MAX_PHONEMES:
            raise UnspeakableTextError(
                f"{len(phonemes)} phonemes, but Kokoro takes from 1 to {MAX_PHONEMES}; part the line into shorter ones"
            )
        return [self._vocabulary[phoneme] for phoneme in phonemes]

    def _find_style(self, voice: Voice, length: int) -> NDArray[np.float32]:
        """(1, 256): the row for this number of tokens, of one voice or mixed of two."""
        rows = [self._styles[name] for name in (voice.first, voice.second) if name is not None]
        picked = [row[min(length, len(row)) - 1] for row in rows]
        style = picked[0] if len(picked) == 1 else voice.share * picked[0] + (1 - voice.share) * picked[1]
        return np.asarray(style, dtype=np.float32).reshape(1, STYLE_SIZE)


def open_kokoro(config: PrepareConfig) -> KokoroEngine:
    """Load the model, its vocabulary and the voices that the config names.

    Raises:
        UsageError: no model or no folder of voices is given, or a voice is not in the folder.
        SpeechEngineError: one of the files is missing or is not what it should be, or espeak-ng is missing.
    """
    if config.voice_model is None or not config.voices:
        raise UsageError("kokoro needs --voice_model MODEL.onnx and --voices FOLDER of *.bin files, both local")
    spell_phonemes("a")  # a missing espeak-ng is said before the model is read
    session = open_model(config.voice_model)
    vocabulary_path = config.voice_vocab or find_vocabulary(config.voice_model)
    styles = read_voices(Path(config.voices[0]).expanduser(), (*config.voices[1:], *config.test_voices), config)
    files = {"voice_model": config.voice_model, "voice_vocab": vocabulary_path}
    return KokoroEngine(session, read_vocabulary(vocabulary_path), styles, files)


def open_model(path: Path) -> ort.InferenceSession:
    """A Kokoro graph on one thread: lines are said side by side.

    Raises:
        SpeechEngineError: no such file, not an ONNX model, or not a Kokoro model.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # warnings of the graph optimiser say nothing to a user
    if not path.is_file():
        raise SpeechEngineError(f"there is no voice model {path}; give the .onnx file of a Kokoro release")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise SpeechEngineError(f"onnxruntime cannot read {path}: {error}; download the model again") from error
    inputs = {node.name: node.type for node in session.get_inputs()}
    for tokens in TOKEN_INPUTS:
        if inputs == {tokens: "tensor(int64)", "style": "tensor(float)", "speed": "tensor(float)"}:
            return session
    raise SpeechEngineError(
        f"{path} has the inputs {inputs}; expected those of Kokoro: {' or '.join(TOKEN_INPUTS)} (int64), style and speed (float)"
    )


def find_vocabulary(model: Path) -> Path:
    """The vocabulary beside the model, or a folder above it (``onnx/model.onnx``).

    Raises:
        SpeechEngineError: there is none.
    """
    for folder in (model.absolute().parent, model.absolute().parent.parent):
        for name in VOCABULARY_NAMES:
            path = folder / name
            if path.is_file() and _find_tokens(_read_json(path)) is not None:
                return path
    raise SpeechEngineError(
        f"there is no vocabulary beside {model}: looked for {', '.join(VOCABULARY_NAMES)} there and one folder above; "
        "give it with --voice_vocab"
    )


def read_vocabulary(path: Path) -> dict[str, int]:
    """Phoneme to token, from a file that holds it under ``model.vocab``, under ``vocab``, or alone.

    Raises:
        SpeechEngineError: no such file, or none of these.
    """
    tokens = _find_tokens(_read_json(path)) if path.is_file() else None
    if tokens is None:
        raise SpeechEngineError(
            f"{path} holds no vocabulary; expected JSON with phoneme -> token under model.vocab or vocab"
        )
    return tokens


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise SpeechEngineError(f"{path} is not JSON ({error}); expected the vocabulary of a Kokoro release") from error


def _find_tokens(content: Any) -> dict[str, int] | None:
    for key in ("model", "vocab"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    is_vocabulary = isinstance(content, dict) and content and all(type(token) is int for token in content.values())
    return content if is_vocabulary else None


def read_voices(folder: Path, names: tuple[str, ...], config: PrepareConfig) -> dict[str, NDArray[np.float32]]:
    """Voices by name, each (L, 256): of ``*.bin`` files, float32, the named ones or all.

    Raises:
        UsageError: the folder is none, or lacks a voice.
        SpeechEngineError: a file is no voice.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.bin"))} if folder.is_dir() else {}
    if not paths:
        raise UsageError(f"--voices begins with {folder}, which is no folder of *.bin files; kokoro needs one first")
    for name in names:
        find_voice(name, tuple(paths))
    chosen = [name for name in paths if name in names] if len(config.voices) > 1 else list(paths)
    return {name: _read_voice(paths[name]) for name in chosen}


def _read_voice(path: Path) -> NDArray[np.float32]:
    values = np.fromfile(path, dtype=np.float32)
    if not len(values) or len(values) % STYLE_SIZE or not np.isfinite(values).all():
        raise SpeechEngineError(f"{path} is no voice: expected rows of {STYLE_SIZE} float32 numbers; download it again")
    return values.reshape(-1, STYLE_SIZE)


def map_phonemes(phonemes: str) -> str:
    """Turkish phonemes as espeak-ng writes them -> those that Kokoro was trained on."""
    for ours, theirs in PHONEME_MAP.items():
        phonemes = phonemes.replace(ours, theirs)
    return phonemes
