"""Greedy writing with a Whisper decoder, for the evaluations of a training run.

Shapes: B batch, T encoder frames, C channels, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from dinle.recognize.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from dinle.build.whisper_model import WhisperSpeechModel

TOKENS_PER_S = 12  # fast Turkish is about five tokens a second; what writes more is repeating itself
TOKENS_MORE = 8


def count_limits(lengths: Tensor, most: int) -> Tensor:
    """Tokens that clips of ``lengths`` (B,) samples may have at most: 12 a second and 8 more, never above ``most``."""
    return (lengths * TOKENS_PER_S // SAMPLE_RATE_HZ + TOKENS_MORE).clamp(max=most)


@torch.no_grad()
def generate_greedy(model: WhisperSpeechModel, hidden: Tensor, frames: Tensor, lengths: Tensor) -> list[list[int]]:
    """The likeliest next token, again and again, until each row's end token or its limit.

    Args:
        model: the model, in eval mode.
        hidden: (B, T, C), what the encoder gives.
        frames: (B,), valid frames of each row.
        lengths: (B,), samples of each row, which limit its tokens.

    Returns:
        The tokens of each row, without prefix and end.
    """
    limits = count_limits(lengths, model.max_label - 1)
    rows: list[list[int]] = [[] for _ in limits]
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    tokens = torch.tensor([model.tokens.prefix], device=hidden.device).expand(len(rows), -1)
    banned = torch.tensor(model.tokens.banned, device=hidden.device)
    is_open = torch.ones(len(rows), dtype=torch.bool, device=hidden.device)
    for step in range(int(limits.max())):
        logits = model.decode(tokens, hidden, frames, cache)[:, -1]
        best = logits.index_fill(1, banned, -torch.inf).argmax(dim=1)
        is_open &= (best != model.tokens.end) & (step < limits)
        if not bool(is_open.any()):
            break
        for row in is_open.nonzero()[:, 0].tolist():
            rows[row].append(int(best[row]))
        tokens = best[:, None]
    return rows
