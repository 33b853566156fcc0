"""Hugging Face's wav2vec2-like CTC models, driven part by part so that padding never reaches a valid frame.

The modules and weights are transformers' own; only the path through them is ours, for three reasons: the group norm of
wav2vec2-base must know each row's length, the attention mask must survive export, and no step may branch on values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dinle.build.ctc_model import CtcModel, SpecAugmentSettings, draw_spans, run_layers
from dinle.build.front_end import (
    SAMPLE_RATE_HZ,
    convolve_and_normalize,
    count_conv_frames,
    mask_attention,
    mask_from_lengths,
    masked_group_norm,
    normalize_waveform,
    receptive_field,
)
from dinle.build.hf_files import describe_wav2vec2_extractor, quiet_transformers, write_processor
from dinle.build.hf_parts import count_adapter_frames, embed_positions, run_wavlm_layers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from transformers import PreTrainedModel

    from dinle.recognize.vocabulary import Vocabulary

SUPPORTED_TYPES = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio")


class HfCtcModel(CtcModel):
    """A transformers ``...ForCTC`` model of one of :data:`SUPPORTED_TYPES`.

    Clips shorter than the receptive field of the convolutions (400 samples for all published models) are padded with
    zeros to it after the normalisation and give one frame.

    Args:
        model: the transformers model, its head as large as the vocabulary.
        vocabulary: tokens of the head.
        normalize: zero mean and unit variance for each clip (``do_normalize`` of its feature extractor).
    """

    family: ClassVar[str] = "ctc"

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, *, normalize: bool) -> None:
        super().__init__(vocabulary)
        config = model.config
        self.model = model
        self.normalize = normalize
        self.kernels, self.strides = self._list_convolutions()
        self.shortest_samples = receptive_field(self.kernels, self.strides)
        self.spec_augment = bool(getattr(config, "apply_spec_augment", True))
        self.spec_augment_settings = SpecAugmentSettings(
            config.mask_time_prob, config.mask_time_length, config.mask_feature_prob, config.mask_feature_length
        )
        shift, centre = self._measure_geometry()
        self.frame_shift_s = shift / SAMPLE_RATE_HZ
        self.frame_offset_s = (centre - shift / 2) / SAMPLE_RATE_HZ

    def _list_convolutions(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Kernels and strides from samples to frames."""
        return tuple(self.model.config.conv_kernel), tuple(self.model.config.conv_stride)

    def _measure_geometry(self) -> tuple[int, float]:
        """Samples from one frame to the next, and the centre of the first frame in samples."""
        shift, centre = 1, 0.5
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            centre += (kernel - 1) / 2 * shift
            shift *= stride
        for conv in self._adapter_convolutions():
            centre += ((conv.kernel_size[0] - 1) / 2 - int(conv.padding[0])) * shift
            shift *= conv.stride[0]
        return shift, centre

    @property
    def network(self) -> PreTrainedModel:
        """See :class:`CtcModel`."""
        return self.model

    @property
    def backbone(self) -> Any:
        """The transformers model without its head."""
        return self.model.base_model

    @property
    def head(self) -> nn.Linear:
        """See :class:`CtcModel`."""
        head: nn.Linear = self.model.lm_head
        return head

    @property
    def encoder_layers(self) -> nn.ModuleList:
        """See :class:`CtcModel`."""
        layers: nn.ModuleList = self.backbone.encoder.layers
        return layers

    def front_end_modules(self) -> Iterable[nn.Module]:
        """See :class:`CtcModel`."""
        return (self.backbone.feature_extractor,)

    def below_layers_modules(self) -> Iterable[nn.Module]:
        """See :class:`CtcModel`."""
        return (self.backbone.feature_projection, self.backbone.encoder.pos_conv_embed)

    def _adapter_convolutions(self) -> list[nn.Conv1d]:
        """The strided convolutions after the encoder (``config.add_adapter``); usually none."""
        adapter = getattr(self.backbone, "adapter", None)
        return [] if adapter is None else [layer.conv for layer in adapter.layers]

    def count_frames(self, lengths: Tensor) -> Tensor:
        """See :class:`CtcModel`; 16 000 samples are 49 frames."""
        frames = count_conv_frames(lengths.clamp(min=self.shortest_samples), self.kernels, self.strides)
        for conv in self._adapter_convolutions():
            frames = count_adapter_frames(frames, conv)
        return frames

    def train(self, mode: bool = True) -> HfCtcModel:
        """As in torch, but a batch norm (mHuBERT's positional convolution) keeps its pretrained statistics.

        Statistics of a padded batch would mix rows and padding.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`CtcModel`."""
        hidden, frames = self._run_front_end(waveform, lengths)
        projected = self.backbone.feature_projection(hidden)
        hidden = projected[0] if isinstance(projected, tuple) else projected  # HuBERT gives no tuple
        if self.training and self.spec_augment:
            hidden = self._mask_hidden(hidden, frames)
        hidden = self._run_encoder(hidden, frames)
        hidden, frames = self._run_adapter(hidden, frames)
        return self.model.get_submodule("dropout")(hidden), frames

    def _pad_to_one_frame(self, waveform: Tensor) -> Tensor:
        """(B, S) with zeros at the end up to the receptive field of one frame."""
        shortage = torch.sym_max(self.shortest_samples - waveform.shape[1], 0)  # type: ignore[no-untyped-call]  # no types
        return functional.pad(waveform, (0, shortage))

    def _run_front_end(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) -> (B, T, C). No convolution pads, so a valid frame never sees what follows its row's end."""
        if self.normalize:
            waveform = normalize_waveform(waveform, lengths)
        else:
            waveform = waveform * mask_from_lengths(lengths, waveform.shape[1]).to(waveform.dtype)
        hidden = self._pad_to_one_frame(waveform)[:, None, :]
        frames = lengths.clamp(min=self.shortest_samples)
        for layer, kernel, stride in zip(
            self.backbone.feature_extractor.conv_layers, self.kernels, self.strides, strict=True
        ):
            frames = count_conv_frames(frames, (kernel,), (stride,))
            if isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
                hidden = layer.activation(self._convolve_and_normalize(layer, hidden, frames))
            else:
                hidden = layer(hidden)
        return hidden.transpose(1, 2), frames

    def _convolve_and_normalize(self, layer: Any, hidden: Tensor, frames: Tensor) -> Tensor:
        """(B, 1, S) -> (B, C, T) by wav2vec2-base's first convolution and its group norm."""
        if self.training or hidden.shape[1] != 1:  # gradients in double precision would be slow
            return masked_group_norm(layer.conv(hidden), frames, layer.layer_norm)
        return convolve_and_normalize(hidden[:, 0], frames, layer.conv, layer.layer_norm)

    def _run_encoder(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Positions and transformer layers on (B, T, C); the two orders of transformers' two encoder classes."""
        encoder, config = self.backbone.encoder, self.model.config
        mask = mask_from_lengths(frames, hidden.shape[1])[:, :, None].to(hidden.dtype)
        hidden = hidden * mask
        hidden = hidden + embed_positions(encoder.pos_conv_embed, hidden, mask)
        stable = getattr(config, "do_stable_layer_norm", False)
        hidden = encoder.dropout(hidden if stable else encoder.layer_norm(hidden))
        run = run_wavlm_layers if config.model_type == "wavlm" else run_layers
        hidden = run(encoder.layers, hidden, mask_attention(frames, hidden.shape[1]), config.layerdrop)
        return encoder.layer_norm(hidden) if stable else hidden

    def _run_adapter(self, hidden: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The adapter's strided convolutions, each on zeroed padding."""
        adapter = getattr(self.backbone, "adapter", None)
        if adapter is None:
            return hidden, frames
        if adapter.proj is not None:
            hidden = adapter.proj_layer_norm(adapter.proj(hidden))
        for layer in adapter.layers:
            mask = mask_from_lengths(frames, hidden.shape[1])[:, :, None].to(hidden.dtype)
            hidden = layer((hidden * mask).transpose(1, 2)).transpose(1, 2)
            frames = count_adapter_frames(frames, layer.conv)
        return hidden, frames

    def _mask_hidden(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """SpecAugment on projected features, as transformers does it, but never on or because of padding."""
        settings, (_, size, channels) = self.spec_augment_settings, hidden.shape
        if settings.mask_time_prob > 0:
            time = draw_spans(frames, size, settings.mask_time_prob, settings.mask_time_length)
            hidden = torch.where(time[:, :, None], self.backbone.masked_spec_embed.to(hidden.dtype), hidden)
        if settings.mask_feature_prob > 0:
            rows = torch.full_like(frames, channels)
            drawn = draw_spans(rows, channels, settings.mask_feature_prob, settings.mask_feature_length)
            hidden = hidden.masked_fill(drawn[:, None, :], 0.0)
        return hidden

    def save(self, folder: Path, *, half: bool = False) -> None:
        """See :class:`CtcModel`; transformers' AutoModelForCTC and AutoProcessor read the folder too."""
        self.model.config.vocab_size = self.vocabulary.size
        self.model.config.pad_token_id = self.vocabulary.blank
        dtype = torch.float16 if half else torch.float32
        state = self.model.state_dict()
        # a batch norm counts its batches in an integer
        weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        with quiet_transformers():
            self.model.save_pretrained(folder, state_dict=weights)
        write_processor(folder, self.vocabulary, self._describe_extractor())

    def _describe_extractor(self) -> dict[str, Any]:
        """The preprocessor_config.json of the front end."""
        return describe_wav2vec2_extractor(normalize=self.normalize)
