from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCTC, AutoProcessor

from dinle.build.models import load_model
from dinle.build.torch_engine import TorchEngine, open_torch_engine
from dinle.errors import AudioLimitError, BundleCorruptError, BundleNotFoundError, UsageError, VocabularyError
from dinle.recognize.vocabulary import Vocabulary
from tests.build.tiny_models import (
    make_bare_encoder_folder,
    make_ctc_folder,
    make_whisper_ctc,
    make_whisper_ctc_folder,
    make_whisper_folder,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dinle.build.ctc_model import CtcModel

load_processor: Any = AutoProcessor.from_pretrained  # transformers gives it no types
MAKERS = {"ctc": make_ctc_folder, "whisper-ctc": make_whisper_ctc_folder}


def run(model: CtcModel, samples: int = 8000) -> torch.Tensor:
    waveform = torch.randn(1, samples, generator=torch.Generator().manual_seed(2)) * 0.1
    with torch.inference_mode():
        log_probs: torch.Tensor = model(waveform, torch.tensor([samples]))[0]
    return log_probs


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


@pytest.mark.parametrize("family", MAKERS)
def test_save_and_load_give_the_same_model(family: str, tmp_path: Path) -> None:
    model = load_model(MAKERS[family](tmp_path / "first"))
    model.save(tmp_path / "second")
    again = load_model(tmp_path / "second")
    assert (again.family, again.vocabulary) == (family, model.vocabulary) == (family, Vocabulary.turkish())
    assert torch.equal(run(model), run(again))


@pytest.mark.parametrize("family", MAKERS)
def test_half_precision_is_stored_as_fp16_and_read_as_fp32(family: str, tmp_path: Path) -> None:
    model = load_model(MAKERS[family](tmp_path / "first"))
    model.save(tmp_path / "half", half=True)
    with safe_open(tmp_path / "half" / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118  # no mapping
    again = load_model(tmp_path / "half")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    torch.testing.assert_close(run(again), run(model), atol=0.02, rtol=0)  # fp16 keeps 11 bits


def test_a_saved_ctc_model_is_transformers_own(tmp_path: Path) -> None:
    model = load_model(make_bare_encoder_folder(tmp_path / "bare"))
    model.save(tmp_path / "saved")
    reference, processor = (
        AutoModelForCTC.from_pretrained(tmp_path / "saved"),
        load_processor(tmp_path / "saved"),
    )
    sound = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    with torch.inference_mode():
        logits = reference.eval()(processor(sound, sampling_rate=16_000, return_tensors="pt").input_values).logits
        log_probs, _ = model(torch.from_numpy(sound)[None], torch.tensor([16_000]))
    torch.testing.assert_close(log_probs, logits.log_softmax(-1), atol=1e-4, rtol=0)
    spelled = [token for token in model.vocabulary.encode("ışık çağ") for _ in range(2)]
    assert processor.decode(spelled) == "ışık çağ"
    assert processor.tokenizer.pad_token_id == model.vocabulary.blank == reference.config.pad_token_id


def test_a_saved_wav2vec2_bert_is_transformers_own(tmp_path: Path) -> None:
    model = load_model(make_ctc_folder(tmp_path / "first", "bert"))
    model.save(tmp_path / "saved")
    processor = load_processor(tmp_path / "saved")
    sound = np.random.default_rng(1).normal(0, 0.1, 16_160).astype(np.float32)
    with torch.inference_mode():
        inputs = processor(sound, sampling_rate=16_000, return_tensors="pt")
        logits = AutoModelForCTC.from_pretrained(tmp_path / "saved").eval()(**inputs).logits
        log_probs, frames = load_model(tmp_path / "saved")(torch.from_numpy(sound)[None], torch.tensor([16_160]))
    # an odd last window is padded and masked by transformers, and left out by us
    torch.testing.assert_close(log_probs, logits.log_softmax(-1)[:, : frames.item()], atol=1e-4, rtol=0)


def test_bare_encoders_and_whisper_get_a_fresh_turkish_head(tmp_path: Path) -> None:
    bare, whisper = (
        load_model(make_bare_encoder_folder(tmp_path / "a")),
        load_model(str(make_whisper_folder(tmp_path / "b"))),
    )
    assert (bare.family, whisper.family) == ("ctc", "whisper-ctc")
    assert bare.vocabulary == whisper.vocabulary == Vocabulary.turkish()
    assert run(bare).shape == (1, 24, 34)
    assert run(whisper).shape == (1, 50, 34)


@pytest.mark.parametrize("family", MAKERS)
def test_another_vocabulary_keeps_the_rows_it_shares(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = MAKERS[family](tmp_path)
    own, vocabulary = load_model(folder), Vocabulary((" ", "ö", "-", "b", "<pad>"), blank=4)
    with caplog.at_level(logging.WARNING):
        other = load_model(folder, vocabulary=vocabulary)
    assert "differs from the checkpoint's" in caplog.text
    assert other.vocabulary == vocabulary
    for token in (" ", "ö", "b"):
        old, new = own.vocabulary.tokens.index(token), vocabulary.tokens.index(token)
        assert torch.equal(other.head.weight[new], own.head.weight[old])
    assert torch.equal(other.head.bias[4], own.head.bias[0])
    assert run(other).shape[2] == 5
    caplog.clear()
    assert load_model(folder, vocabulary=Vocabulary.turkish()).vocabulary == own.vocabulary
    assert not caplog.records


def test_a_hub_tokenizers_vocabulary_is_read(tmp_path: Path) -> None:
    """As in most Turkish models: <s> and </s> beside the vocabulary, [PAD] as blank, more outputs than names."""
    folder = make_ctc_folder(tmp_path, vocab_size=8)
    vocabulary = {"|": 0, "a": 1, "ı": 2, "[UNK]": 3, "[PAD]": 4}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({"<s>": 5, "</s>": 6, "<extra>": 99}), encoding="utf-8")
    edit_json(folder / "tokenizer_config.json", pad_token={"content": "[PAD]"}, unk_token="[UNK]")
    found = load_model(folder).vocabulary
    assert found == Vocabulary(
        (" ", "a", "ı", "[UNK]", "[PAD]", "<s>", "</s>", "<unused7>"), 4, frozenset({3, 5, 6, 7})
    )


def test_normalisation_follows_the_feature_extractor(tmp_path: Path) -> None:
    folder = make_ctc_folder(tmp_path)
    normalised = load_model(folder)
    edit_json(folder / "preprocessor_config.json", do_normalize=False)
    raw = load_model(folder)
    waveform, lengths = torch.randn(1, 8000) * 0.1, torch.tensor([8000])
    with torch.inference_mode():
        louder = (normalised(waveform * 5, lengths)[0] - normalised(waveform, lengths)[0]).abs().max()
        assert louder < 1e-3
        # the group norm after the first convolution hides the volume, but not a constant
        assert (raw(waveform + 1, lengths)[0] - normalised(waveform + 1, lengths)[0]).abs().max() > 1e-6
    raw.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "preprocessor_config.json").read_text())["do_normalize"] is False


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("./no/such/folder", BundleNotFoundError, "no folder"),
        ("/tmp", BundleNotFoundError, "config.json"),  # noqa: S108  # only looked at
        ("not a name!", BundleNotFoundError, "no folder"),
    ],
)
def test_wrong_places_are_told(name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load_model(name)


def test_wrong_models_are_told(tmp_path: Path) -> None:
    folder = make_ctc_folder(tmp_path)
    with pytest.raises(UsageError, match="family 'ctc', not 'whisper-ctc'"):
        load_model(folder, family="whisper-ctc")
    (folder / "vocab.json").rename(folder / "kept.json")
    with pytest.raises(UsageError, match="no vocab.json"):
        load_model(folder)
    (folder / "vocab.json").write_text('{"tur": {"a": 0}, "eng": {"a": 0}}', encoding="utf-8")
    with pytest.raises(VocabularyError, match="one vocabulary per language"):
        load_model(folder)
    edit_json(folder / "config.json", model_type="bert")
    with pytest.raises(UsageError, match=r"'bert'; supported are .*wav2vec2.*whisper"):
        load_model(folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleCorruptError, match="not readable JSON"):
        load_model(folder)


def test_an_unsupported_wav2vec2_bert_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'rotary'; only 'relative_key'"):
        load_model(make_ctc_folder(tmp_path, "bert", position_embeddings_type="rotary"))


@pytest.mark.parametrize("family", MAKERS)
def test_damaged_weights_are_told(family: str, tmp_path: Path) -> None:
    folder = MAKERS[family](tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes = config if family == "ctc" else config["encoder"]
    sizes["num_hidden_layers" if family == "ctc" else "encoder_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BundleCorruptError, match="weights of"):
        load_model(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BundleCorruptError, match=r"model\.safetensors is not readable"):
        load_model(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(BundleNotFoundError, match="never loaded"):
        load_model(folder)


def test_whisper_refuses_what_its_positions_cannot_hold() -> None:
    model = make_whisper_ctc()
    assert run(model, 472_000).shape == (1, 1500, 34)
    with pytest.raises(AudioLimitError, match=r"29\.51 s.*at most 29\.50 s"):
        run(model, 472_160)


def test_prepare_for_export_changes_no_output(tmp_path: Path) -> None:
    for kind in ("wav2vec2-layer", "wavlm"):
        model = load_model(make_ctc_folder(tmp_path / kind, kind))
        before = run(model)
        assert model.prepare_for_export() is model
        assert not any("parametrizations" in name for name, _ in model.named_parameters())
        torch.testing.assert_close(run(model), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", MAKERS)
def test_the_torch_engine_speaks_numpy(family: str, tmp_path: Path) -> None:
    engine = open_torch_engine(MAKERS[family](tmp_path), threads=1)
    assert isinstance(engine, TorchEngine)
    model = load_model(tmp_path)
    names = ("vocabulary", "frame_shift_s", "frame_offset_s", "max_seconds", "family")
    assert [getattr(engine, name) for name in names] == [getattr(model, name) for name in names]
    waveforms = np.random.default_rng(1).normal(0, 0.1, (2, 8000)).astype(np.float32)
    log_probs, frames = engine.run(waveforms, np.array([8000, 5000]))
    assert (log_probs.dtype, frames.dtype) == (np.float32, np.int64)
    assert frames.tolist() == model.count_frames(torch.tensor([8000, 5000])).tolist()
    with torch.inference_mode():
        expected = model(torch.from_numpy(waveforms), torch.tensor([8000, 5000]))[0]
    np.testing.assert_allclose(log_probs, expected.numpy(), atol=1e-6)
