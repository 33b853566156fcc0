"""A Whisper model as the two graphs of a bundle: an encoder that hears a clip, a decoder that writes the next token.

Shapes: B batch, S samples, T frames of 20 ms, N tokens given, P tokens already in the cache, H heads, D width of a head,
L decoder layers, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dinle.build.front_end import MASKED_SCORE, mask_attention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.build.whisper_model import WhisperSpeechModel


class SpeechEncoder(nn.Module):
    """The encoder over a whole window, and what each decoder layer attends to.

    The window's silence is part of the waveform: whoever runs the graph puts it there.
    """

    def __init__(self, model: WhisperSpeechModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """(B, S) and lengths (B,) -> frames (B,), then keys and values (B, H, T, D) of each decoder layer, in turn."""
        hidden, frames = self.model.hear(waveform, lengths)
        keys_values: list[Tensor] = []
        for layer in self.model.decoder.layers:
            attention: Any = layer.encoder_attn
            projected = (attention.k_proj(hidden), attention.v_proj(hidden))
            keys_values += [split_heads(each, attention.num_heads) for each in projected]
        return frames, *keys_values


class TextDecoder(nn.Module):
    """The next token's logits from tokens, the cache of earlier ones, and what the encoder gave.

    Args:
        model: a whole Whisper model.
        alignment_heads: (layer, head) pairs whose attention follows the sound; averaged for word times.
    """

    def __init__(self, model: WhisperSpeechModel, alignment_heads: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.decoder: Any = model.decoder
        # a second name for the embedding would put it into the graph twice
        self.output: Any = None if model.network.config.tie_word_embeddings else model.network.proj_out
        self.alignment_heads = [
            [head for layer, head in alignment_heads if layer == index] for index in range(len(self.decoder.layers))
        ]
        self.heads_counted = len(alignment_heads)

    def forward(
        self, tokens: Tensor, frames: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
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
        output = self.decoder.embed_tokens if self.output is None else self.output
        logits = functional.linear(last, output.weight)
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
