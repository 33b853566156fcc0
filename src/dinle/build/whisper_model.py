"""A whole Whisper model that hears the clip instead of 30 s: raw sound and tokens in, logits out.

Shapes: B batch, S samples, M mel frames, T encoder frames, C channels, L tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig, WhisperForConditionalGeneration

from dinle.build.ctc_model import run_layers
from dinle.build.front_end import (
    HOP_SAMPLES,
    MASKED_SCORE,
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    WhisperLogMel,
    mask_attention,
    mask_from_lengths,
)
from dinle.build.hf_files import quiet_transformers, read_json, write_json
from dinle.build.model_source import find_model_folder
from dinle.build.whisper_ctc import CONV_STRIDE, SPEC_AUGMENT, mask_mel, run_convolutions
from dinle.build.whisper_data import read_tokens
from dinle.build.whisper_lora import merge_weights
from dinle.errors import AudioLimitError, BundleCorruptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import EncoderDecoderCache

    from dinle.build.whisper_data import WhisperTokens

MODEL_TYPE = "whisper"
TAIL_SILENCE_S = 0.5
# Untouched, Whisper repeats itself on shorter windows: of 128 recorded words it wrote 9 % right with the clip and 0.5 s of
# silence, 25 % with 5 s, 44 % with 8 s, 49 % with 12 s (greedy, CTranslate2 int8), and 45 % padded to 30 s (beam of 5).
MIN_WINDOW_S = 8.0
FEATURES_FILE = "preprocessor_config.json"
TIED_HEAD = "proj_out.weight"  # the embedding again; transformers ties it when it loads


class WhisperSpeechModel(nn.Module):
    """Log-mel, encoder and decoder of a Whisper model, with masks for rows of different lengths.

    The row law holds: a row of a padded batch gives what it gives alone (fp32, 1e-4). transformers' own encoder insists
    on 30 s and its decoder takes no mask over the encoder's frames, so their layers are run here.

    Args:
        network: the transformers model.
        tokens: its tokenizer.
        min_window_s: what the encoder sees at least: a shorter clip is filled up with silence. 30 is Whisper's own padding.
        tail_silence_s: the silence after each clip, however long it is.
    """

    family: ClassVar[str] = MODEL_TYPE

    def __init__(
        self,
        network: Any,
        tokens: WhisperTokens,
        *,
        min_window_s: float = MIN_WINDOW_S,
        tail_silence_s: float = TAIL_SILENCE_S,
    ) -> None:
        super().__init__()
        self.network = network
        self.tokens = tokens
        self.min_window_s = min_window_s
        self.tail_silence_s = tail_silence_s
        self.spec_augment = True
        self.log_mel = WhisperLogMel(network.config.num_mel_bins, 0.0)
        frame_s = CONV_STRIDE * HOP_SAMPLES / SAMPLE_RATE_HZ
        window_s = network.config.max_source_positions * frame_s
        self.frame_shift_s = frame_s
        self.max_seconds = window_s - tail_silence_s
        self.tail_samples = round(tail_silence_s * SAMPLE_RATE_HZ)
        self.min_samples = round(min(min_window_s, window_s) * SAMPLE_RATE_HZ)
        # the decoder reads the prefix and the label without its last token
        self.max_label: int = network.config.max_target_positions - len(tokens.prefix) + 1

    @property
    def encoder(self) -> Any:
        """The WhisperEncoder inside."""
        return self.network.model.encoder

    @property
    def decoder(self) -> Any:
        """The WhisperDecoder inside."""
        return self.network.model.decoder

    def forward(self, waveform: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """From sound and the tokens so far to the logits of each next token.

        Args:
            waveform: (B, S) float32, mono at 16 kHz in [-1, 1]; what lies beyond a row's length is ignored.
            lengths: (B,) int64, samples of each row.
            tokens: (B, L) int64, the prefix first.

        Returns:
            logits (B, L, V).

        Raises:
            AudioLimitError: the batch is longer than ``max_seconds``.
        """
        hidden, frames = self.encode(waveform, lengths)
        return self.decode(tokens, hidden, frames)

    def count_frames(self, lengths: Tensor) -> Tensor:
        """Encoder frames of clips of ``lengths`` samples, the silence that fills the window up included."""
        mel_frames = self.log_mel.count_frames(self.fill_window(lengths))
        return torch.div(mel_frames + 1, CONV_STRIDE, rounding_mode="floor")

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) samples and lengths (B,) -> hidden states (B, T, C) and frames (B,).

        Raises:
            AudioLimitError: the batch is longer than ``max_seconds``.
        """
        if waveform.shape[1] > round(self.max_seconds * SAMPLE_RATE_HZ):
            raise AudioLimitError(
                f"the clip lasts {waveform.shape[1] / SAMPLE_RATE_HZ:.2f} s; this model takes at most "
                f"{self.max_seconds:.2f} s: cut it into pieces, or leave it out of the training data"
            )
        spoken = self.log_mel.count_frames(lengths)
        waveform = waveform * mask_from_lengths(lengths, waveform.shape[1]).to(waveform.dtype)
        filled = self.fill_window(lengths)
        waveform = functional.pad(waveform, (0, max(0, int(filled.max()) - waveform.shape[1])))
        return self.hear(waveform, filled, spoken)

    def fill_window(self, lengths: Tensor) -> Tensor:
        """Samples (B,) of the windows of clips of ``lengths`` samples: the clip and its tail, at least the shortest."""
        return (lengths + self.tail_samples).clamp(min=self.min_samples)

    def hear(self, waveform: Tensor, lengths: Tensor, spoken: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`encode` of whole windows, their silence included; SpecAugment may mask ``spoken`` (B,) mel frames."""
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            mel, mel_frames = self.log_mel(waveform, lengths)
        if self.training and self.spec_augment and spoken is not None:
            mel = mask_mel(mel, spoken, SPEC_AUGMENT)
        frames = torch.div(mel_frames + 1, CONV_STRIDE, rounding_mode="floor")
        hidden = run_convolutions(self.encoder, mel, mel_frames)
        hidden = hidden + self.encoder.embed_positions.weight[: hidden.shape[1]]
        hidden = functional.dropout(hidden, p=self.encoder.dropout, training=self.training)
        mask = mask_attention(frames, hidden.shape[1])
        hidden = run_layers(self.encoder.layers, hidden, mask, self.encoder.layerdrop)
        return self.encoder.layer_norm(hidden), frames

    def decode(
        self, tokens: Tensor, hidden: Tensor, frames: Tensor, cache: EncoderDecoderCache | None = None
    ) -> Tensor:
        """Tokens (B, L) over hidden states (B, T, C), of which ``frames`` (B,) count -> logits (B, L, V).

        With a ``cache`` the tokens go on where those before them ended.
        """
        decoder, past = self.decoder, cache.get_seq_length() if cache is not None else 0
        size = past + tokens.shape[1]
        state = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[past:size]
        state = functional.dropout(state, p=decoder.dropout, training=self.training)
        causal = mask_future(tokens.shape[1], size, state.device)
        cross = mask_attention(frames, hidden.shape[1])
        for layer in decoder.layers:
            state = layer(
                state, causal, hidden, encoder_attention_mask=cross, past_key_values=cache, use_cache=cache is not None
            )
        logits: Tensor = self.network.proj_out(decoder.layer_norm(state))
        return logits

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters, frozen ones too."""
        return self.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """None: the output layer is the decoder's embedding."""
        return iter(())

    def freeze(self, *, front_end: bool = True, layers: int = 0, encoder: bool = False) -> None:
        """Keep the encoder's convolutions, its lowest N layers (with what is beneath them), or all of it as they are.

        Raises:
            ValueError: the encoder has fewer layers.
        """
        count = len(self.encoder.layers)
        if not 0 <= layers <= count:
            raise ValueError(
                f"cannot freeze {layers} layers of an encoder with {count}; give a number from 0 to {count}"
            )
        frozen = [self.encoder] if encoder else [self.encoder.embed_positions, *self.encoder.layers[:layers]]
        if front_end or layers:
            frozen += [self.encoder.conv1, self.encoder.conv2]
        for module in frozen:
            module.requires_grad_(requires_grad=False)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations."""
        network = self.network
        # the second name is gone in transformers 6, the first is missing before 5.2x
        enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write a plain Hugging Face folder, LoRA merged; ``half`` stores fp16 weights."""
        folder.mkdir(parents=True, exist_ok=True)
        dtype = torch.float16 if half else torch.float32
        weights = {name: tensor.to(dtype).contiguous() for name, tensor in merge_weights(self.network).items()}
        if self.network.config.tie_word_embeddings:
            weights.pop(TIED_HEAD)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.network.config.save_pretrained(folder)
        self.network.generation_config.save_pretrained(folder)
        self.tokens.tokenizer.save(str(folder / "tokenizer.json"))
        write_json(folder / FEATURES_FILE, self._describe_features())

    def _describe_features(self) -> dict[str, Any]:
        """preprocessor_config.json as transformers writes it, and the window that the encoder is used to."""
        frames = CONV_STRIDE * self.encoder.config.max_source_positions
        return {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": self.encoder.config.num_mel_bins,
            "sampling_rate": SAMPLE_RATE_HZ,
            "hop_length": HOP_SAMPLES,
            "n_fft": WINDOW_SAMPLES,
            "chunk_length": frames * HOP_SAMPLES // SAMPLE_RATE_HZ,
            "n_samples": frames * HOP_SAMPLES,
            "nb_max_frames": frames,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "min_window_s": self.min_window_s,
            "tail_silence_s": self.tail_silence_s,
        }


def mask_future(count: int, size: int, device: torch.device) -> Tensor:
    """Additive mask (1, 1, count, size): each of the last ``count`` of ``size`` tokens sees itself and those before."""
    return torch.full((1, 1, count, size), MASKED_SCORE, device=device).triu(size - count + 1)


def load_whisper(
    name_or_folder: str | Path, *, min_window_s: float | None = None, tail_silence_s: float | None = None
) -> WhisperSpeechModel:
    """Load a Whisper encoder and decoder in fp32, in eval mode.

    Args:
        name_or_folder: a folder in Hugging Face's form, or a hub id.
        min_window_s: see the class (default: what the checkpoint was trained with, else :data:`MIN_WINDOW_S`).
        tail_silence_s: see the class (default: what the checkpoint was trained with, else :data:`TAIL_SILENCE_S`).

    Raises:
        BundleNotFoundError: no such folder or hub id, or it has no safetensors weights.
        BundleCorruptError: files are unreadable or do not fit each other.
        HubUnreachableError: the hub does not answer.
        UsageError: the model is no Whisper model.
        VocabularyError: the tokenizer is missing or cannot write Turkish.
    """
    folder = find_model_folder(str(name_or_folder))
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type != MODEL_TYPE:
        raise UsageError(f"{name_or_folder} is a model of type {model_type!r}; expected {MODEL_TYPE!r}")
    tokens = read_tokens(folder)
    with quiet_transformers():
        network = _read_network(folder, tokens)
    features = read_json(folder / FEATURES_FILE) if (folder / FEATURES_FILE).is_file() else {}
    model = WhisperSpeechModel(
        network,
        tokens,
        min_window_s=features.get("min_window_s", MIN_WINDOW_S) if min_window_s is None else min_window_s,
        tail_silence_s=features.get("tail_silence_s", TAIL_SILENCE_S) if tail_silence_s is None else tail_silence_s,
    )
    return model.eval()


def _read_network(folder: Path, tokens: WhisperTokens) -> Any:
    # config files are known that give the special tokens the numbers of the English models, one less
    special: dict[str, Any] = {
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokens.end),
        "decoder_start_token_id": tokens.prefix[0],
    }
    config = WhisperConfig.from_pretrained(folder, **special)
    if config.vocab_size <= max(*tokens.banned, tokens.end):
        raise BundleCorruptError(
            f"{folder}: tokenizer.json numbers tokens up to {max(*tokens.banned, tokens.end)}, config.json has "
            f"vocab_size {config.vocab_size}: they do not belong together; save the model with its own tokenizer"
        )
    read: Any = WhisperForConditionalGeneration.from_pretrained
    try:
        network, report = read(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (RuntimeError, OSError) as error:
        raise BundleCorruptError(f"the weights of {folder} cannot be read or do not fit: {error}") from error
    missing = set(report["missing_keys"]) - {TIED_HEAD}
    if missing:
        raise BundleCorruptError(
            f"the weights of {folder} lack {len(missing)} tensors of its config.json, such as {min(missing)}; copy or "
            "save the model again"
        )
    network.generation_config.update(**special)
    path = folder / "generation_config.json"
    # transformers passes over a file that says it was made from config.json, and the heads that follow the sound with it
    heads = read_json(path).get("alignment_heads") if path.is_file() else None
    if heads:
        network.generation_config.alignment_heads = heads
        network.generation_config._from_model_config = False  # noqa: SLF001 - or a saved copy is passed over again
    return network
