"""Speech engines without weights: one in memory, a program in the place of espeak-ng, a graph in the place of Kokoro."""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dinle.build.speech import UnspeakableTextError
from tests.fakes import make_tone

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dinle.build.speech import Delivery
    from dinle.recognize.audio import Waveform

LETTERS = "abcçdefgğhıijklmnoöprsştuüvyz"
PUNCTUATION = ' ,.;:!?…"'
TOKEN_SAMPLES = 1200  # of the graph's sound at 24 kHz: 50 ms a token


@dataclass
class FakeSpeech:
    """Says a tone of 60 ms a letter, of a pitch that the voice has; ``said`` keeps what it was asked for.

    ``stop_after`` interrupts the run, as a user would; a text with ``dilsiz`` in it cannot be said, ``sessiz`` is silence.
    """

    voices: tuple[str, ...] = ("ada", "can", "ece", "gül")
    version: str = "1"
    stop_after: int | None = None
    name: str = "fake"
    licence: str = "CC0-1.0"
    files: dict[str, Path] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)

    def speak(self, text: str, delivery: Delivery) -> Waveform:
        if len(self.said) == self.stop_after:
            raise KeyboardInterrupt
        if "dilsiz" in text:
            raise UnspeakableTextError(f"no tongue for {text!r}")
        self.said.append((text, delivery.voice.label))
        hz = 200 + zlib.crc32(delivery.voice.label.encode()) % 400
        level = 0.0 if "sessiz" in text else 0.5
        return make_tone((0.3 + 0.06 * len(text)) / delivery.speed, hz=hz * delivery.pitch, level=level)


# Says 60 ms a letter at 22 050 Hz into a WAV with the header of a stream, as espeak-ng does; spells letters as phonemes.
ESPEAK = """#!{python} -IS
import json, math, re, struct, sys
from pathlib import Path
arguments = sys.argv[1:]
text = sys.stdin.buffer.read().decode("utf-8") if "--stdin" in arguments else ""
with Path(__file__).with_name("calls.jsonl").open("a", encoding="utf-8") as calls:
    calls.write(json.dumps([arguments, text]) + "\\n")
if "--version" in arguments:
    print("eSpeak NG text-to-speech: 9.9  Data at: /nowhere")
elif "--voices=variant" in arguments:
    print("Pty Language       Age/Gender VoiceName          File                 Other Languages")
    for name in ("f1", "m3", "klatt2", "Mr serious"):
        print(f" 5  variant         --/M      {{name.replace(' ', '_'):18}} !v/{{name:20}} ")
elif "bozuk" in text:
    sys.exit("espeak-ng: out of breath")
elif "--ipa" in arguments:
    clauses = [clause for clause in re.split(r"[,.;:!?…]+(?:\\s+|$)", text) if clause]
    said = "\\n".join(" " + clause.replace("hafta", "(en)hafta(tr)") for clause in clauses)
    sys.stdout.buffer.write((said + "\\n").encode("utf-8"))
else:
    number = 0 if "sessiz" in text else round(0.06 * 22050 * len(text))
    samples = [round(9000 * math.sin(0.07 * n)) for n in range(number)]
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 22050, 44100, 2, 16)
    header = struct.pack("<4sI4s", b"RIFF", 0x7FFFF024, b"WAVE") + form + struct.pack("<4sI", b"data", 0x7FFFF000)
    sys.stdout.buffer.write(header + struct.pack(f"<{{number}}h", *samples))
"""


def write_espeak(folder: Path) -> Path:
    """A program named espeak-ng; ``calls.jsonl`` beside it keeps arguments and text of each call."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "espeak-ng"
    path.write_text(ESPEAK.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return path


def read_calls(program: Path) -> list[tuple[list[str], str]]:
    lines = program.with_name("calls.jsonl").read_text(encoding="utf-8").splitlines()
    return [(arguments, text) for arguments, text in map(json.loads, lines)]


def save_kokoro_graph(path: Path, tokens: str = "input_ids", speed_type: int = TensorProto.FLOAT) -> None:
    """A graph that holds the level ``style[0] * speed`` for TOKEN_SAMPLES a token, padding included."""
    constants: dict[str, NDArray[Any]] = {
        "zero": np.array(0, dtype=np.float32),
        "first": np.array([0], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "shape": np.array([1, 1, TOKEN_SAMPLES], dtype=np.int64),
        "flat": np.array([1, -1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", [tokens], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "zero"], ["zeros"]),
        helper.make_node("Gather", ["style", "first"], ["mark"], axis=1),
        helper.make_node("Cast", ["speed"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["mark", "factor"], ["level"]),
        helper.make_node("Add", ["zeros", "level"], ["levels"]),
        helper.make_node("Unsqueeze", ["levels", "last"], ["columns"]),
        helper.make_node("Expand", ["columns", "shape"], ["blocks"]),
        helper.make_node("Reshape", ["blocks", "flat"], ["waveform"]),
    ]
    inputs = [
        helper.make_tensor_value_info(tokens, TensorProto.INT64, [1, "L"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", speed_type, [1]),
    ]
    outputs = [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, "S"])]
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "kokoro", inputs, outputs, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def write_kokoro(folder: Path) -> Path:
    """A release of Kokoro's shape: onnx/model.onnx, tokenizer.json and voices/*.bin. Voice ``ada`` has level 0.1, and so on.

    Every style row says its own length, a thousandth a token, so that the row taken can be heard.
    """
    (folder / "onnx").mkdir(parents=True)
    (folder / "voices").mkdir()
    save_kokoro_graph(folder / "onnx" / "model.onnx")
    vocabulary = {letter: number for number, letter in enumerate(LETTERS + PUNCTUATION + "ɡʧʤ", start=1)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "style_text_to_speech_2"}', encoding="utf-8")
    for number, name in enumerate(("ada", "can", "ece"), start=1):
        rows = number / 10 + np.arange(40, dtype=np.float32)[:, np.newaxis] / 1000
        np.repeat(rows, 256, axis=1).astype(np.float32).tofile(folder / "voices" / f"{name}.bin")
    return folder
