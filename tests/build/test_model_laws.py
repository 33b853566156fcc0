"""The row law and the oracles: every variant against itself alone, and against transformers' own forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForCTC, WhisperModel

from dinle.build.front_end import mask_from_lengths
from dinle.build.models import load_model
from tests.build.tiny_models import (
    CTC_MAKERS,
    make_bare_encoder_folder,
    make_ctc_folder,
    make_whisper_folder,
    turn_off_dropout,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dinle.build.ctc_model import CtcModel

KINDS = [*CTC_MAKERS, "whisper"]
LENGTHS = (20_000, 15_001, 9000, 400, 100, 1)
TOLERANCE = 1e-4  # of the row law; fp32 sums in another order give about 3e-6 here


@pytest.fixture(scope="module")
def get_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CtcModel]:
    """Load each tiny model once; the folder is in the model's `origin`."""
    models: dict[str, CtcModel] = {}

    def get(kind: str) -> CtcModel:
        if kind not in models:
            folder = tmp_path_factory.mktemp(kind)
            models[kind] = load_model(
                make_whisper_folder(folder) if kind == "whisper" else make_ctc_folder(folder, kind)
            )
        return models[kind].eval()

    return get


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.tensor(LENGTHS)
    waveform = torch.randn(len(LENGTHS), max(LENGTHS), generator=generator) * 0.1 + 0.02
    # a constant in the padding: the law must not rest on the caller's zeros
    return torch.where(mask_from_lengths(lengths, max(LENGTHS)), waveform, 0.3), lengths


def assert_row_law(model: CtcModel) -> None:
    waveform, lengths = make_batch()
    with torch.inference_mode():
        log_probs, frames = model(waveform, lengths)
        assert frames.tolist() == model.count_frames(lengths).tolist()
        for row, (length, count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
            alone, alone_frames = model(waveform[row : row + 1, :length], lengths[row : row + 1])
            assert alone.shape[1] == alone_frames.item() == count >= 1
            torch.testing.assert_close(log_probs[row, :count], alone[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_padded_batch_gives_what_it_gives_alone(kind: str, get_model: Callable[[str], CtcModel]) -> None:
    assert_row_law(get_model(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_row_law_holds_while_training(kind: str, get_model: Callable[[str], CtcModel]) -> None:
    model = get_model(kind).train()
    turn_off_dropout(model)
    model.spec_augment = False
    assert_row_law(model)


def test_the_tiny_models_answer_to_their_input(get_model: Callable[[str], CtcModel]) -> None:
    """The laws would hold of a model that always says the same."""
    waveform, lengths = make_batch()
    for kind in KINDS:
        with torch.inference_mode():
            log_probs, frames = get_model(kind)(waveform, lengths)
        assert log_probs[0, : frames[0]].std(dim=0).mean() > 0.05, kind
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))


@pytest.mark.parametrize("kind", list(CTC_MAKERS))
def test_alone_it_is_transformers_own_forward(kind: str, tmp_path: Path) -> None:
    folder = make_ctc_folder(tmp_path, kind)
    waveform = make_batch()[0][:1, :19_840]  # an even number of windows: transformers pads wav2vec2-BERT's odd ones
    load_extractor: Any = AutoFeatureExtractor.from_pretrained  # transformers gives it no types
    extractor = load_extractor(folder)
    inputs = extractor(waveform[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    values = inputs["input_features" if kind.startswith("bert") else "input_values"]
    reference = AutoModelForCTC.from_pretrained(folder).eval()
    with torch.inference_mode():
        log_probs, frames = load_model(folder)(waveform, torch.tensor([waveform.shape[1]]))
        expected = reference(values).logits.log_softmax(-1)
    assert frames.item() == expected.shape[1]
    torch.testing.assert_close(log_probs, expected, atol=TOLERANCE, rtol=0)


def test_the_whisper_encoder_is_transformers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On 29.5 s both see 3000 mel frames; on less, theirs runs with as many positions as the clip needs."""
    model = load_model(make_whisper_folder(tmp_path))
    reference: Any = WhisperModel.from_pretrained(tmp_path).encoder
    reference.eval()
    for seconds, positions in ((29.5, 1500), (1.0, 75)):
        waveform = torch.randn(1, round(seconds * 16_000)) * 0.1
        lengths = torch.tensor([waveform.shape[1]])
        monkeypatch.setattr(reference.config, "max_source_positions", positions)
        sinusoids = reference.embed_positions.weight[:positions]
        reference.embed_positions = torch.nn.Embedding(positions, 32, _weight=sinusoids)
        with torch.inference_mode():
            hidden, frames = model.encode(waveform, lengths)
            mel, _ = model.get_submodule("log_mel")(waveform, lengths)
            expected = reference(mel).last_hidden_state
        assert frames.item() == positions
        torch.testing.assert_close(hidden, expected, atol=TOLERANCE, rtol=0)


def test_geometry(get_model: Callable[[str], CtcModel]) -> None:
    second = torch.tensor([16_000])
    wav2vec2, whisper = get_model("wav2vec2-group"), get_model("whisper")
    assert (wav2vec2.frame_shift_s, wav2vec2.max_seconds) == (0.02, None)
    assert wav2vec2.frame_offset_s == pytest.approx(0.0025)  # (400 - 320) / 2 samples
    assert wav2vec2.count_frames(second).item() == 49
    assert (whisper.frame_shift_s, whisper.max_seconds) == (0.02, 29.5)
    assert whisper.frame_offset_s == pytest.approx(-0.26)
    assert whisper.count_frames(second).item() == 75


@pytest.mark.parametrize("kind", ["wav2vec2-group", "wav2vec2-layer", "whisper"])
def test_frames_lie_where_their_sound_is(kind: str, get_model: Callable[[str], CtcModel]) -> None:
    """A click changes the front end's frames around its own time, symmetrically."""
    model = get_model(kind)
    quiet = torch.randn(1, 32_000, generator=torch.Generator().manual_seed(1)) * 1e-3
    click = quiet.clone()
    click[0, 16_000] = 1e-2
    lengths = torch.tensor([32_000])
    seen: list[torch.Tensor] = []
    hook = model.encoder_layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    if kind != "whisper":  # leave the positional convolution out: it spreads far
        hook.remove()
        module = next(iter(model.below_layers_modules()))
        hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(quiet, lengths)
        model(click, lengths)
    hook.remove()
    change = (seen[1] - seen[0]).abs().sum(-1)[0]
    centre_s = (torch.arange(len(change)) * change).sum() / change.sum() * model.frame_shift_s
    at_s = model.frame_offset_s + model.frame_shift_s / 2 + centre_s.item()
    assert at_s == pytest.approx(1.0, abs=0.02)


def test_a_bare_encoder_obeys_the_row_law(tmp_path: Path) -> None:
    assert_row_law(load_model(make_bare_encoder_folder(tmp_path)))
