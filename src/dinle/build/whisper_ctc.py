"""A Whisper encoder with a CTC head: the clip's own length instead of 30 s, and a real attention mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from dinle.build.ctc_model import CtcModel, SpecAugmentSettings, draw_spans, run_layers
from dinle.build.front_end import HOP_SAMPLES, SAMPLE_RATE_HZ, WhisperLogMel, mask_attention, mask_from_lengths
from dinle.build.hf_files import read_json, write_json
from dinle.build.model_source import read_weights
from dinle.errors import AudioLimitError, BundleCorruptError
from dinle.recognize.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

MODEL_TYPE = "whisper-ctc"
SILENCE_S = 0.25
CONV_STRIDE = 2  # of the encoder's second convolution
ENCODER_FIELDS = (
    "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins", "max_source_positions",
    "activation_function", "dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "scale_embedding",
)  # fmt: skip
# 2 of 80 mel bands of up to 10 and about a tenth of the time, in spans of 0.2 s: mild, for small data sets
SPEC_AUGMENT = SpecAugmentSettings(
    mask_time_prob=0.1, mask_time_length=20, mask_feature_prob=0.25, mask_feature_length=10
)


class WhisperCtcModel(CtcModel):
    """Log-mel, the Whisper encoder with its positions sliced to the clip, and a linear head.

    Args:
        encoder_config: sizes and dropouts of the encoder (the decoder's fields are not used).
        vocabulary: tokens of the head.
        silence_s: silence put at both ends of each clip, at least 12.5 ms.
    """

    family: ClassVar[str] = MODEL_TYPE

    def __init__(
        self,
        encoder_config: WhisperConfig,
        vocabulary: Vocabulary,
        *,
        silence_s: float = SILENCE_S,
        spec_augment: SpecAugmentSettings = SPEC_AUGMENT,
    ) -> None:
        super().__init__(vocabulary)
        self.silence_s = silence_s
        self.spec_augment_settings = spec_augment
        self.log_mel = WhisperLogMel(encoder_config.num_mel_bins, silence_s)
        self.encoder = WhisperEncoder(encoder_config)
        self.ctc_head = nn.Linear(encoder_config.d_model, vocabulary.size)
        self.frame_shift_s = CONV_STRIDE * HOP_SAMPLES / SAMPLE_RATE_HZ
        # frame t is centred on mel frame 2t, which is centred on sample 160 * 2t of the clip with its silence
        self.frame_offset_s = -silence_s - self.frame_shift_s / 2
        self.max_seconds = encoder_config.max_source_positions * self.frame_shift_s - 2 * silence_s

    @property
    def network(self) -> PreTrainedModel:
        """See :class:`CtcModel`."""
        network: PreTrainedModel = self.encoder
        return network

    @property
    def head(self) -> nn.Linear:
        """See :class:`CtcModel`."""
        return self.ctc_head

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """See :class:`CtcModel`."""
        layers: nn.ModuleList = self.encoder.layers
        return layers

    def front_end_modules(self) -> Iterable[nn.Module]:
        """See :class:`CtcModel`."""
        return (self.encoder.conv1, self.encoder.conv2)

    def below_layers_modules(self) -> Iterable[nn.Module]:
        """See :class:`CtcModel`; the sinusoids are never trained, as in Whisper."""
        return (self.encoder.embed_positions,)

    def count_frames(self, lengths: Tensor) -> Tensor:
        """See :class:`CtcModel`; 16 000 samples with their silence are 150 mel frames and 75 frames."""
        return torch.div(self.log_mel.count_frames(lengths) + 1, CONV_STRIDE, rounding_mode="floor")

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`CtcModel`."""
        self._check_length(waveform)
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            mel, mel_frames = self.log_mel(waveform, lengths)
        if self.training and self.spec_augment:
            mel = mask_mel(mel, mel_frames, self.spec_augment_settings)
        hidden, frames = run_convolutions(self.encoder, mel, mel_frames), self.count_frames(lengths)
        positions = self.encoder.embed_positions.weight[: hidden.shape[1]]
        hidden = functional.dropout(hidden + positions, p=self.encoder.dropout, training=self.training)
        attention_mask = mask_attention(frames, hidden.shape[1])
        hidden = run_layers(self.encoder.layers, hidden, attention_mask, self.encoder.layerdrop)
        return self.encoder.layer_norm(hidden), frames

    def _check_length(self, waveform: Tensor) -> None:
        if torch.compiler.is_exporting():
            return  # a graph adds its positions or fails; its runner cuts at max_seconds
        limit = self.max_seconds or math.inf
        if waveform.shape[1] > round(limit * SAMPLE_RATE_HZ):
            raise AudioLimitError(
                f"the clip lasts {waveform.shape[1] / SAMPLE_RATE_HZ:.2f} s; this model takes at most {limit:.2f} s: "
                "cut it into pieces (dinle transcribe does), or leave it out of the training data"
            )

    def save(self, folder: Path, *, half: bool = False) -> None:
        """See :class:`CtcModel`."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "model_type": MODEL_TYPE,
            "encoder": {name: getattr(self.encoder.config, name) for name in ENCODER_FIELDS},
            "silence_s": self.silence_s,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "spec_augment": vars(self.spec_augment_settings),
            "vocabulary": self.vocabulary.to_dict(),
        }
        dtype = torch.float16 if half else torch.float32
        weights = {name: tensor.to(dtype).contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        tokens = {token: index for index, token in enumerate(self.vocabulary.tokens)}
        write_json(folder / "vocab.json", tokens)
        write_json(folder / "config.json", config)


def run_convolutions(encoder: Any, mel: Tensor, mel_frames: Tensor) -> Tensor:
    """(B, mel_bins, M) -> (B, T, C). Alone, both convolutions see zeros after a row's last frame; so here."""
    hidden = functional.gelu(encoder.conv1(mel))
    hidden = hidden * mask_from_lengths(mel_frames, hidden.shape[2])[:, None, :].to(hidden.dtype)
    return functional.gelu(encoder.conv2(hidden)).transpose(1, 2)


def mask_mel(mel: Tensor, frames: Tensor, settings: SpecAugmentSettings) -> Tensor:
    """SpecAugment over the first ``frames`` (B,) of (B, mel_bins, M)."""
    _, bins, size = mel.shape
    time = draw_spans(frames, size, settings.mask_time_prob, settings.mask_time_length)
    rows = torch.full_like(frames, bins)
    bands = draw_spans(rows, bins, settings.mask_feature_prob, settings.mask_feature_length)
    return mel.masked_fill(time[:, None, :] | bands[:, :, None], 0.0)


def load_whisper_ctc(folder: Path) -> WhisperCtcModel:
    """Read what :meth:`WhisperCtcModel.save` wrote.

    Raises:
        BundleCorruptError: config.json lacks a field, or the weights do not fit it.
    """
    config = read_json(folder / "config.json")
    try:
        model = WhisperCtcModel(
            WhisperConfig(**config["encoder"]),
            Vocabulary.from_dict(config["vocabulary"]),
            silence_s=config["silence_s"],
            spec_augment=SpecAugmentSettings(**config["spec_augment"]),
        )
    except (KeyError, TypeError) as error:
        raise BundleCorruptError(
            f"{folder / 'config.json'} is not a complete {MODEL_TYPE} config: {error!r}; save the model again"
        ) from error
    fill_weights(model, read_weights(folder), folder)
    return model


def fill_weights(module: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Give a module its weights.

    Raises:
        BundleCorruptError: tensors are missing, left over or of other shapes.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleCorruptError(f"the weights of {folder} do not fit its config.json: {error}") from error
