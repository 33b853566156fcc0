"""A whole Whisper checkpoint -> ``encoder.onnx`` and ``decoder.onnx``, and what a bundle says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from dinle.build.onnx_writer import write_onnx
from dinle.build.whisper_graph import SpeechEncoder, TextDecoder
from dinle.recognize.audio import SAMPLE_RATE_HZ
from dinle.recognize.whisper_engine import SHARED_AXIS, Sound, Step, name_tensors
from dinle.recognize.whisper_vocabulary import WhisperVocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from dinle.build.whisper_model import WhisperSpeechModel
    from dinle.recognize.whisper_engine import WhisperEngine

ENCODER_FILE, DECODER_FILE = "encoder.onnx", "decoder.onnx"
# openai/whisper tokenizer.py, non_speech_tokens: what transcribers write of sounds that are no speech
SIGNS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}",
    "♪♪", "♪♪♪",
)  # fmt: skip
MUSIC = "♩♪♫♬♭♮♯"
HYPHENS = (" -", " '")  # a dialogue's dash and an opening quote: within words both are kept
EXAMPLE_TOKENS, EXAMPLE_PAST = 2, 3
PARITY_STEPS = 12


def make_vocabulary(model: WhisperSpeechModel) -> WhisperVocabulary:
    """The vocabulary of a bundle: a string for each of the model's logits, the prefix, and what is never written.

    Logits beyond the tokenizer's tokens (rows that fill an embedding up) have an empty string and are never written.
    """
    tokens, tokenizer = model.tokens, model.tokens.tokenizer
    names = [tokenizer.id_to_token(index) or "" for index in range(model.network.config.vocab_size)]
    unnamed = {index for index, name in enumerate(names) if not name}
    return WhisperVocabulary(
        tokens=tuple(names),
        prefix=tokens.prefix,
        end=tokens.end,
        suppressed=tuple(sorted({*tokens.banned, *find_signs(tokenizer), *unnamed})),
        suppressed_first=tuple(tokenizer.encode(" ", add_special_tokens=False).ids),
    )


def find_signs(tokenizer: Any) -> set[int]:
    """The tokens of signs that no speech holds, with and without a space before (openai/whisper, non_speech_tokens).

    A single byte is none of them: in a small vocabulary the notes' first byte begins quotation marks and dashes too.
    """
    found = {tokenizer.encode(sign, add_special_tokens=False).ids[0] for sign in HYPHENS}
    for sign in (*SIGNS, *MUSIC):
        for form in (sign, f" {sign}"):
            ids = tokenizer.encode(form, add_special_tokens=False).ids
            if len(ids) == 1 or (sign in MUSIC and len(tokenizer.id_to_token(ids[0])) > 1):
                found.add(ids[0])
    return found - set(tokenizer.encode(" ", add_special_tokens=False).ids)


def find_alignment_heads(model: WhisperSpeechModel) -> list[tuple[int, int]]:
    """The (layer, head) pairs that follow the sound: the checkpoint's own, or all heads of the upper half of the layers.

    Both are openai/whisper's (model.py, ``set_alignment_heads`` and its default).
    """
    config = model.network.config
    known = getattr(model.network.generation_config, "alignment_heads", None) or ()
    # a distilled model may carry the list of its teacher, which has more layers
    there = [(int(layer), int(head)) for layer, head in known if layer < config.decoder_layers]
    layers = range(config.decoder_layers // 2, config.decoder_layers)
    return there or [(layer, head) for layer in layers for head in range(config.decoder_attention_heads)]


def write_whisper_graphs(model: WhisperSpeechModel, folder: Path, *, opset: int) -> None:
    """Write both graphs, with dynamic batch, samples, tokens and cache.

    Raises:
        ExportError: torch cannot export the model.
    """
    encoder, decoder = SpeechEncoder(model).eval(), TextDecoder(model, find_alignment_heads(model)).eval()
    layers = model.network.config.decoder_layers
    cross = name_tensors("cross", layers)
    lengths = torch.tensor([SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * 3 // 4])
    waveform = torch.randn(2, SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(1)) * 0.1
    write_onnx(
        encoder,
        (waveform, lengths),
        folder / ENCODER_FILE,
        inputs={"waveform": {0: "batch", 1: "samples"}, "lengths": {0: "batch"}},
        outputs=["frames", *cross],
        opset=opset,
    )
    with torch.no_grad():
        frames, *memory = encoder(waveform, lengths)
    _, heads, _, width = memory[0].shape
    past = [torch.zeros(2, heads, EXAMPLE_PAST, width) for _ in memory]
    tokens = torch.zeros(2, EXAMPLE_TOKENS, dtype=torch.int64)
    axes: dict[str, Any] = {"tokens": {0: "batch", 1: "tokens"}, "frames": {0: "batch"}}
    axes |= {name: {0: "batch", 2: "past"} for name in name_tensors("past", layers)}
    axes |= {name: {0: "batch", 2: "time"} for name in cross}
    write_onnx(
        decoder,
        (tokens, frames, past, memory),
        folder / DECODER_FILE,
        inputs=axes,
        outputs=["logits", "attention", *name_tensors("present", layers)],
        opset=opset,
    )
    take_rows_from_tokens(folder / DECODER_FILE)


def take_rows_from_tokens(path: Path) -> int:
    """Let a decoder's graph count its rows by its tokens, so that the beams of one clip can share what was heard.

    torch.export knows one name for the batch axis of all inputs and asks any of them for its size. Afterwards the axis of
    ``frames`` and ``cross_*`` has the name SHARED_AXIS, by which the engine knows such a graph.

    Returns:
        How many places were changed.
    """
    model = onnx.load(path)
    changed = 0
    for node in model.graph.node:
        start = next((one.i for one in node.attribute if one.name == "start"), 0)
        if node.op_type == "Shape" and node.input[0].startswith(("cross_", "past_")) and start == 0:
            node.input[0] = "tokens"
            changed += 1
    for value in model.graph.input:
        if value.name == "frames" or value.name.startswith("cross_"):
            value.type.tensor_type.shape.dim[0].dim_param = SHARED_AXIS
    onnx.save(model, path)
    return changed


class TorchWhisperEngine:
    """A checkpoint in torch behind :class:`dinle.recognize.whisper_engine.WhisperEngine`.

    Args:
        model: the model, in eval mode.
    """

    def __init__(self, model: WhisperSpeechModel) -> None:
        self.encoder = SpeechEncoder(model).eval()
        self.decoder = TextDecoder(model, find_alignment_heads(model)).eval()

    @torch.inference_mode()
    def encode(self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]) -> Sound:
        """See :class:`~dinle.recognize.whisper_engine.WhisperEngine`."""
        frames, *memory = self.encoder(torch.from_numpy(waveforms), torch.from_numpy(lengths))
        return Sound(frames.numpy(), tuple(each.numpy() for each in memory))

    @torch.inference_mode()
    def decode(
        self, tokens: NDArray[np.int64], sound: Sound, cache: tuple[NDArray[np.float32], ...] | None = None
    ) -> Step:
        """See :class:`~dinle.recognize.whisper_engine.WhisperEngine`."""
        memory = [torch.from_numpy(each) for each in sound.memory]
        past = [each[:, :, :0] for each in memory] if cache is None else [torch.from_numpy(each) for each in cache]
        logits, attention, *present = self.decoder(
            torch.from_numpy(tokens), torch.from_numpy(sound.frames), past, memory
        )
        return Step(logits.numpy(), attention.numpy(), tuple(each.numpy() for each in present))


class WhisperParityEngine:
    """Makes parity checks of a :class:`WhisperEngine` look like those of CTC: log-probabilities at a fixed text.

    The prefix and :data:`PARITY_STEPS` tokens spread over the vocabulary are given one by one through the cache, so that
    what is compared hangs on every part of both graphs.

    Args:
        engine: the engine to be looked at.
        vocabulary: its tokens.
    """

    def __init__(self, engine: WhisperEngine, vocabulary: WhisperVocabulary) -> None:
        self._engine = engine
        self._prefix = vocabulary.prefix
        self._text = [int(index) for index in np.linspace(0, vocabulary.size - 1, PARITY_STEPS)]

    def run(
        self, waveforms: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """log_probs (B, N, V) and N for each row (B,)."""
        sound = self._engine.encode(waveforms, lengths)
        step = self._engine.decode(np.tile(np.array(self._prefix, dtype=np.int64), (len(lengths), 1)), sound)
        logits = [step.logits]
        for token in self._text:
            step = self._engine.decode(np.full((len(lengths), 1), token, dtype=np.int64), sound, step.cache)
            logits.append(step.logits)
        stacked = torch.from_numpy(np.stack(logits, axis=1)).log_softmax(dim=-1).numpy()
        return stacked, np.full(len(lengths), len(logits), dtype=np.int64)
