"""wav2vec2-BERT: a conformer on Kaldi's filter bank, two frames stacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dinle.build.ctc_model import run_layers
from dinle.build.front_end import (
    HOP_SAMPLES,
    WINDOW_SAMPLES,
    KaldiFbank,
    count_conv_frames,
    mask_attention,
    mask_from_lengths,
    normalize_bins,
)
from dinle.build.hf_ctc import HfCtcModel
from dinle.build.hf_files import describe_bert_extractor
from dinle.build.hf_parts import count_adapter_frames
from dinle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedModel

    from dinle.recognize.vocabulary import Vocabulary

BERT_TYPE = "wav2vec2-bert"
STACKED = 2  # SeamlessM4TFeatureExtractor's stride


class BertCtcModel(HfCtcModel):
    """A transformers ``Wav2Vec2BertForCTC``; its features are made and normalised inside.

    Clips shorter than two windows (560 samples) are padded with zeros to them and give one frame.

    Raises:
        UsageError: the position embeddings are not the published models' ``relative_key``.
    """

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, *, normalize: bool) -> None:
        config = model.config
        if config.position_embeddings_type != "relative_key":
            raise UsageError(
                f"this wav2vec2-BERT has position embeddings {config.position_embeddings_type!r}; only 'relative_key', "
                "those of facebook/w2v-bert-2.0 and its fine-tuned models, are supported"
            )
        super().__init__(model, vocabulary, normalize=normalize)
        self.fbank = KaldiFbank(config.feature_projection_input_dim // STACKED)
        # its scores take a bias besides the mask, which only the eager attention adds in the same order everywhere
        model.set_attn_implementation("eager")

    def _describe_extractor(self) -> dict[str, Any]:
        return describe_bert_extractor(self.model.config.feature_projection_input_dim // STACKED, STACKED)

    def _list_convolutions(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The window of the filter bank and the stacking, seen as convolutions."""
        return (WINDOW_SAMPLES, STACKED), (HOP_SAMPLES, STACKED)

    def _adapter_convolutions(self) -> list[nn.Conv1d]:
        adapter = self.backbone.adapter
        return [] if adapter is None else [layer.self_attn_conv for layer in adapter.layers]

    def front_end_modules(self) -> Iterable[nn.Module]:
        """See :class:`CtcModel`: the filter bank has no weights."""
        return ()

    def below_layers_modules(self) -> Iterable[nn.Module]:
        """See :class:`CtcModel`."""
        return (self.backbone.feature_projection,)

    def _run_front_end(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) -> stacked features (B, T, C) and frames (B,); an odd last frame only counts for the normalisation."""
        waveform = waveform * mask_from_lengths(lengths, waveform.shape[1]).to(waveform.dtype)
        frames = count_conv_frames(lengths.clamp(min=self.shortest_samples), (WINDOW_SAMPLES,), (HOP_SAMPLES,))
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            features = self.fbank(self._pad_to_one_frame(waveform))
            features = normalize_bins(features, frames).transpose(1, 2)
        size = features.shape[1] // STACKED
        stacked = features[:, : size * STACKED].reshape(features.shape[0], size, -1)
        return stacked, count_conv_frames(frames, (STACKED,), (STACKED,))

    def _run_encoder(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Conformer layers on (B, T, C); their causal convolutions see zeros in front of a row, never its padding."""
        encoder, size = self.backbone.encoder, hidden.shape[1]
        valid = mask_from_lengths(frames, size)
        hidden = encoder.dropout(hidden * valid[:, :, None].to(hidden.dtype))
        attention_mask = mask_attention(frames, size)
        hidden = run_layers(
            encoder.layers, hidden, attention_mask, self.model.config.layerdrop, conv_attention_mask=valid
        )
        if self.backbone.intermediate_ffn is not None:
            hidden = hidden + 0.5 * self.backbone.intermediate_ffn(hidden)
        return hidden

    def _run_adapter(self, hidden: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        adapter = self.backbone.adapter
        if adapter is None:
            return hidden, frames
        if adapter.proj is not None:
            hidden = adapter.proj_layer_norm(adapter.proj(hidden))
        for layer in adapter.layers:
            hidden, frames = run_adapter_layer(layer, hidden, frames)
        return hidden, frames


def run_adapter_layer(layer: Any, hidden: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Run a Wav2Vec2BertAdapterLayer on (B, T, C), its two convolutions on zeroed padding."""
    mask = mask_from_lengths(frames, hidden.shape[1])[:, :, None].to(hidden.dtype)

    def shorten(conv: nn.Conv1d, normed: Tensor) -> Tensor:
        return functional.glu(conv((normed * mask).transpose(1, 2)), dim=1).transpose(1, 2)

    residual = shorten(layer.residual_conv, layer.residual_layer_norm(hidden))
    hidden = shorten(layer.self_attn_conv, layer.self_attn_layer_norm(hidden))
    frames = count_adapter_frames(frames, layer.self_attn_conv)
    attended, _ = layer.self_attn(hidden, attention_mask=mask_attention(frames, hidden.shape[1]))
    hidden = layer.self_attn_dropout(attended) + residual
    return hidden + layer.ffn(layer.ffn_layer_norm(hidden)), frames
