"""Parts of Hugging Face's wav2vec2-like models, run so that padding stays padding.

Shapes: B batch, T frames, C channels.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from dinle.build.front_end import count_conv_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


def count_adapter_frames(frames: Tensor, conv: nn.Conv1d) -> Tensor:
    """Frames left after a padded convolution, by torch's Conv1d formula."""
    return count_conv_frames(frames + 2 * int(conv.padding[0]), conv.kernel_size, conv.stride)


def embed_positions(embedding: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    """Positional convolution(s) of (B, T, C) whose padding is zero, as it is zero around a row that is alone.

    Args:
        embedding: transformers' positional convolution: one layer, or data2vec's chain of layers.
        hidden: (B, T, C), zero on padding.
        mask: (B, T, 1), 1 on valid frames.
    """
    channels_first, mask = hidden.transpose(1, 2), mask.transpose(1, 2)
    if hasattr(embedding, "layers"):
        for layer in embedding.layers:
            channels_first = layer(channels_first * mask)
        return channels_first.transpose(1, 2)
    if getattr(embedding, "batch_norm", None) is not None:
        channels_first = embedding.batch_norm(channels_first) * mask
    convolved = embedding.padding(embedding.conv(channels_first))
    positions: Tensor = embedding.activation(convolved)
    return positions.transpose(1, 2)


def run_wavlm_layers(layers: Iterable[Any], hidden: Tensor, mask: Tensor, layerdrop: float = 0.0) -> Tensor:
    """As :func:`run_layers`; the first layer makes the relative position bias that the others share."""
    position_bias = None
    for index, layer in enumerate(layers):
        layer.attention.torch_multi_head_self_attention = partial(attend_wavlm, layer.attention)
        if index and layer.training and layerdrop > 0 and torch.rand(()) < layerdrop:
            continue
        hidden, position_bias = layer(hidden, attention_mask=mask, position_bias=position_bias, index=index)
    return hidden


def attend_wavlm(attention: Any, hidden: Tensor, mask: Tensor, position_bias: Tensor) -> tuple[Tensor, None]:
    """WavLM's attention with an additive mask, in place of ``F.multi_head_attention_forward``.

    That function takes the mask as booleans beside a float bias, which torch has deprecated, and returns the attention
    weights, which costs time and memory.

    Args:
        attention: transformers' WavLMAttention.
        hidden: (B, T, C).
        mask: additive (B, 1, 1, T).
        position_bias: gated, (B * heads, T, T).
    """
    batch, size, channels = hidden.shape
    heads = (batch, size, attention.num_heads, attention.head_dim)
    query, key, value = (
        projection(hidden).view(heads).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    bias = position_bias.view(batch, attention.num_heads, size, size) + mask
    scores = torch.matmul(query, key.transpose(2, 3)) * attention.scaling + bias
    weights = functional.dropout(scores.softmax(dim=-1), p=attention.dropout, training=attention.training)
    mixed = torch.matmul(weights, value).transpose(1, 2).reshape(batch, size, channels)
    return attention.out_proj(mixed), None
