"""A Whisper model as the two graphs of a bundle: an encoder that hears a clip, a decoder that writes the next token.

Shapes: B batch, S samples, T frames of 20 ms, N tokens given, P tokens already in the cache, H heads, D width of a head,
L decoder layers, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dinle.build.front_end import HOP_SAMPLES, SAMPLE_RATE_HZ, WhisperLogMel, mask_attention, mask_from_lengths
from dinle.build.whisper_ctc import CONV_STRIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import WhisperForConditionalGeneration

FRAME_SHIFT_S = CONV_STRIDE * HOP_SAMPLES / SAMPLE_RATE_HZ
MASKED_SCORE = -1e4


class SpeechEncoder(nn.Module):
    """Log-mel and encoder over the clip's own length, and what each decoder layer attends to.

    Args:
        model: a Whisper model.
        tail_s: silence put after each clip: without it the decoder does not learn that nothing follows.
    """

    def __init__(self, model: WhisperForConditionalGeneration, tail_s: float) -> None:
        super().__init__()
        self.encoder: Any = model.model.encoder
        self.attentions = nn.ModuleList(layer.encoder_attn for layer in model.model.decoder.layers)
        self.log_mel = WhisperLogMel(model.config.num_mel_bins, 0.0, tail_s=tail_s)

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) 16 kHz in [-1, 1] and lengths (B,) -> hidden (B, T, C) and frames (B,); padding is masked out."""
        with torch.autocast(waveform.device.type, enabled=False):
            mel, mel_frames = self.log_mel(waveform, lengths)
        hidden = functional.gelu(self.encoder.conv1(mel))
        hidden = hidden * mask_from_lengths(mel_frames, hidden.shape[2])[:, None, :].to(hidden.dtype)
        hidden = functional.gelu(self.encoder.conv2(hidden)).transpose(1, 2)
        frames = torch.div(mel_frames + 1, CONV_STRIDE, rounding_mode="floor")
        hidden = hidden + self.encoder.embed_positions.weight[: hidden.shape[1]]
        mask = mask_attention(frames, hidden.shape[1]).to(hidden.dtype)
        for layer in self.encoder.layers:
            hidden = _first(layer(hidden, mask))
        return self.encoder.layer_norm(hidden), frames

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """frames (B,), then keys and values (B, H, T, D) of each decoder layer's attention to the sound, in turn."""
        hidden, frames = self.encode(waveform, lengths)
        keys_values = []
        for attention in self.attentions:
            for projection in (attention.k_proj, attention.v_proj):
                keys_values.append(split_heads(projection(hidden), attention.num_heads))
        return frames, *keys_values


class TextDecoder(nn.Module):
    """The next token's logits from tokens, the cache of earlier ones, and what the encoder gave.

    Args:
        model: a Whisper model.
        alignment_heads: (layer, head) pairs whose attention follows the sound; averaged for word times.
    """

    def __init__(self, model: WhisperForConditionalGeneration, alignment_heads: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.decoder: Any = model.model.decoder
        self.alignment_heads = [
            [head for layer, head in alignment_heads if layer == index] for index in range(len(self.decoder.layers))
        ]
        self.heads_counted = len(alignment_heads)

    def forward(self, tokens: Tensor, frames: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One step for all rows.

        Args:
            tokens: (B, N) int64.
            frames: (B,) valid frames of each row.
            past: keys and values (B, H, P, D) of each layer, in turn; P is 0 at the start.
            cross: keys and values (B, H, T, D) of each layer, as :class:`SpeechEncoder` gives them.

        Returns:
            logits (B, V) after the last token, attention (B, N, T) over the frames, then the cache with these tokens.
        """
        size, known = tokens.shape[1], past[0].shape[2]
        positions = self.decoder.embed_positions.weight[known : known + size]
        hidden = functional.embedding(tokens, self.decoder.embed_tokens.weight) + positions
        order = torch.arange(known + size, device=tokens.device)
        causal = (order[None, :] > order[known:][:, None]).to(hidden.dtype)[None, None] * MASKED_SCORE
        heard = mask_attention(frames, cross[0].shape[2]).to(hidden.dtype)
        cache: list[Tensor] = []
        followed = []
        for index, layer in enumerate(self.decoder.layers):
            key, value, hidden = self._attend_to_text(layer, hidden, past[2 * index : 2 * index + 2], causal)
            cache += [key, value]
            hidden, weights = self._attend_to_sound(layer, hidden, cross[2 * index : 2 * index + 2], heard)
            if self.alignment_heads[index]:
                followed.append(weights[:, self.alignment_heads[index]].sum(dim=1))
            inner = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))
            hidden = hidden + layer.fc2(inner)
        last = self.decoder.layer_norm(hidden[:, -1])
        logits = functional.linear(last, self.decoder.embed_tokens.weight)
        attention = torch.stack(followed).sum(dim=0) / self.heads_counted
        return logits, attention, *cache

    def _attend_to_text(
        self, layer: Any, hidden: Tensor, past: Sequence[Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        attention, normed = layer.self_attn, layer.self_attn_layer_norm(hidden)
        heads = attention.num_heads
        key = torch.cat([past[0], split_heads(attention.k_proj(normed), heads)], dim=2)
        value = torch.cat([past[1], split_heads(attention.v_proj(normed), heads)], dim=2)
        mixed, _ = attend(attention, normed, key, value, mask)
        return key, value, hidden + mixed

    def _attend_to_sound(
        self, layer: Any, hidden: Tensor, cross: Sequence[Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        normed = layer.encoder_attn_layer_norm(hidden)
        mixed, weights = attend(layer.encoder_attn, normed, cross[0], cross[1], mask)
        return hidden + mixed, weights


def split_heads(hidden: Tensor, heads: int) -> Tensor:
    """(B, N, H * D) -> (B, H, N, D)."""
    batch, size, width = hidden.shape
    return hidden.view(batch, size, heads, width // heads).transpose(1, 2)


def attend(attention: Any, queries: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention (Vaswani et al., 2017, section 3.2.1) with a layer's own projections.

    Args:
        attention: transformers' WhisperAttention.
        queries: (B, N, C).
        key: (B, H, T, D).
        value: (B, H, T, D).
        mask: added to the scores, broadcast to (B, H, N, T).

    Returns:
        What was gathered, (B, N, C), and the weights (B, H, N, T).
    """
    asked = split_heads(attention.q_proj(queries) * attention.scaling, attention.num_heads)
    weights = torch.softmax(asked @ key.transpose(2, 3) + mask, dim=-1)
    gathered = (weights @ value).transpose(1, 2).flatten(2)
    return attention.out_proj(gathered), weights


def _first(output: Any) -> Tensor:
    """A layer's hidden states; some versions of transformers give them in a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
