"""What training asks of a model: frozen parts, parameter groups, checkpointing, SpecAugment, mixed precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from dinle.build.ctc_model import draw_spans
from dinle.build.models import load_model
from tests.build.tiny_models import make_ctc_folder, make_whisper_ctc_folder, turn_off_dropout

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.build.ctc_model import CtcModel

MAKERS = {"ctc": make_ctc_folder, "whisper-ctc": make_whisper_ctc_folder}


def run(model: CtcModel, samples: int = 8000) -> torch.Tensor:
    waveform = torch.randn(1, samples, generator=torch.Generator().manual_seed(2)) * 0.1
    with torch.inference_mode():
        log_probs: torch.Tensor = model(waveform, torch.tensor([samples]))[0]
    return log_probs


@pytest.mark.parametrize("family", MAKERS)
def test_freezing_and_parameter_groups(family: str, tmp_path: Path) -> None:
    model = load_model(MAKERS[family](tmp_path))
    head, body = list(model.head_parameters()), list(model.body_parameters())
    assert {id(p) for p in head} & {id(p) for p in body} == set()
    assert len(head) + len(body) == len(list(model.parameters()))
    model.freeze(front_end=True, layers=1)
    assert not any(p.requires_grad for module in model.front_end_modules() for p in module.parameters())
    assert not any(p.requires_grad for p in model.encoder_layers[0].parameters())
    assert all(p.requires_grad for p in (*model.encoder_layers[1].parameters(), *head))
    with pytest.raises(ValueError, match="with 2; give a number from 0 to 2"):
        model.freeze(layers=3)


@pytest.mark.parametrize("family", MAKERS)
def test_gradient_checkpointing_changes_no_gradient(family: str, tmp_path: Path) -> None:
    model = load_model(MAKERS[family](tmp_path)).train()
    turn_off_dropout(model)
    model.spec_augment = False
    model.freeze(front_end=True)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(torch.ones(2, 6000).cumsum(1).sin() * 0.1, torch.tensor([6000, 4000]))[0][0].square().mean().backward()
        return [p.grad.clone() for p in model.encoder_layers.parameters() if p.grad is not None]

    plain = gradients()
    model.enable_gradient_checkpointing()
    checkpointed = gradients()
    assert len(plain) == len(checkpointed) > 0
    for one, other in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", MAKERS)
def test_spec_augment_masks_in_training_only(family: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = load_model(MAKERS[family](tmp_path))
    plain = run(model, 32_000)
    model.train()
    turn_off_dropout(model)
    assert any(not torch.allclose(run(model, 32_000), plain, atol=1e-3) for _ in range(5))
    model.spec_augment = False
    torch.testing.assert_close(run(model, 32_000), plain, atol=1e-4, rtol=0)


def test_spans_stay_within_their_rows() -> None:
    torch.manual_seed(7)
    lengths = torch.tensor([400, 100, 10, 9, 0])
    drawn = torch.stack([draw_spans(lengths, 400, 0.3, 10) for _ in range(50)])
    assert drawn.shape == (50, 5, 400)
    for row, length in enumerate(lengths.tolist()):
        assert not drawn[:, row, length:].any()
    shares = drawn.float().sum(-1).mean(0) / lengths.clamp(min=1)
    assert 0.2 < shares[0] < 0.3  # overlaps make it less than 0.3
    assert drawn[:, 2].any()
    assert not drawn[:, 3:].any()


def test_bfloat16_autocast_gives_close_log_probs(tmp_path: Path) -> None:
    """As under --precision bf16: the front end stays fp32, the rest may lose bits but nothing else."""
    for family, maker in MAKERS.items():
        model = load_model(maker(tmp_path / family))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = run(model)
        assert mixed.dtype == torch.float32
        assert (mixed - run(model)).abs().mean() < 0.05
