"""A whole Whisper model on the clip's own length: rows, windows, tokens, LoRA."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from dinle.build.front_end import mask_from_lengths
from dinle.build.whisper_data import END, PREFIX, label_transcripts, read_tokens
from dinle.build.whisper_generate import count_limits, generate_greedy
from dinle.build.whisper_lora import add_lora, load_adapter, merge_weights, save_adapter
from dinle.build.whisper_model import load_whisper
from dinle.errors import (
    AudioLimitError,
    BundleCorruptError,
    BundleNotFoundError,
    LabelTooLongError,
    TrainingError,
    UnknownCharacterError,
    UsageError,
    VocabularyError,
)
from dinle.manifest import Clip
from tests.build.tiny_models import make_whisper_ctc_folder, make_whisper_speech_folder

if TYPE_CHECKING:
    from torch import Tensor

    from dinle.build.whisper_model import WhisperSpeechModel

TOLERANCE = 1e-4  # fp32 sums in another order
LENGTHS = (5_000, 16_000, 9_123, 700)
LEADING_SILENCE = (
    400  # Whisper mirrors the first 12.5 ms, we hear silence before a clip: the same where it begins with it
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper_speech_folder(tmp_path_factory.mktemp("whisper"))


def make_batch(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    waveform = torch.randn(len(lengths), max(lengths), generator=generator) * 0.1
    sizes = torch.tensor(lengths)
    # a constant in the padding: the law must not rest on the caller's zeros
    return torch.where(mask_from_lengths(sizes, max(lengths)), waveform, 0.3), sizes


def make_tokens(model: WhisperSpeechModel, rows: int) -> Tensor:
    return torch.tensor([[*model.tokens.prefix, *model.tokens.encode("kal masa")]] * rows)


@pytest.mark.parametrize("min_window_s", [0.0, 8.0, 30.0])
def test_a_row_alone_equals_the_row_in_a_batch(folder: Path, min_window_s: float) -> None:
    model = load_whisper(folder, min_window_s=min_window_s)
    waveform, lengths = make_batch()
    tokens = make_tokens(model, len(lengths))
    with torch.inference_mode():
        together = model(waveform, lengths, tokens)
        hidden, frames = model.encode(waveform, lengths)
        written = generate_greedy(model, hidden, frames, lengths)
        for row, length in enumerate(LENGTHS):
            alone = model(waveform[row : row + 1, :length], lengths[row : row + 1], tokens[row : row + 1])
            torch.testing.assert_close(together[row], alone[0], atol=TOLERANCE, rtol=0)
            state = model.encode(waveform[row : row + 1, :length], lengths[row : row + 1])
            assert generate_greedy(model, *state, lengths[row : row + 1]) == [written[row]]
    assert frames.tolist() == model.count_frames(lengths).tolist()
    assert len({tuple(row) for row in written}) > 1  # the decoder listens


def test_the_30_s_window_gives_what_transformers_gives(folder: Path) -> None:
    model, reference = load_whisper(folder, min_window_s=30.0), WhisperForConditionalGeneration.from_pretrained(folder)
    reference.train(mode=False)
    extract: Any = WhisperFeatureExtractor
    waveform, lengths = make_batch()
    waveform[:, :LEADING_SILENCE] = 0
    clips = [row[:length].numpy() for row, length in zip(waveform, LENGTHS, strict=True)]
    features = extract()(clips, sampling_rate=16_000, return_tensors="pt").input_features
    tokens = make_tokens(model, len(lengths))
    with torch.inference_mode():
        expected = reference(input_features=features, decoder_input_ids=tokens).logits
        torch.testing.assert_close(model(waveform, lengths, tokens), expected, atol=TOLERANCE, rtol=0)


def test_silence_after_the_clip_is_part_of_the_window(folder: Path) -> None:
    model = load_whisper(folder, min_window_s=0.0, tail_silence_s=0.5)
    assert model.count_frames(torch.tensor([16_000])).tolist() == [75]
    waveform, lengths = make_batch((16_000,))
    padded = torch.nn.functional.pad(waveform, (0, 8_000))
    tokens = make_tokens(model, 1)
    with torch.inference_mode():
        theirs = load_whisper(folder, min_window_s=0.0, tail_silence_s=0.0)(padded, lengths + 8_000, tokens)
        torch.testing.assert_close(model(waveform, lengths, tokens), theirs, atol=1e-5, rtol=0)
    with pytest.raises(AudioLimitError, match=r"lasts 29\.60 s.*at most 29\.50 s"):
        model(torch.zeros(1, 473_600), torch.tensor([473_600]), tokens)


def test_writing_with_the_cache_equals_reading_everything_again(folder: Path) -> None:
    model = load_whisper(folder)
    waveform, lengths = make_batch((16_000,))
    with torch.inference_mode():
        hidden, frames = model.encode(waveform, lengths)
        (written,) = generate_greedy(model, hidden, frames, lengths)
        again: list[int] = []
        while len(again) < len(written):
            logits = model.decode(torch.tensor([[*model.tokens.prefix, *again]]), hidden, frames)[0, -1]
            logits[list(model.tokens.banned)] = -torch.inf
            again.append(int(logits.argmax()))
    assert again == written
    assert 0 < len(written) <= int(count_limits(lengths, 400)[0]) == 20


def test_limits_follow_the_sound_and_the_decoder() -> None:
    assert count_limits(torch.tensor([0, 16_000, 320_000]), 200).tolist() == [8, 20, 200]


def test_special_tokens_are_found_by_name(folder: Path) -> None:
    tokens, tokenizer = read_tokens(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokens.prefix == tuple(tokenizer.token_to_id(name) for name in PREFIX)
    assert tokens.end == tokenizer.token_to_id(END)
    assert tokens.end not in tokens.banned
    assert {tokenizer.token_to_id("<|0.00|>"), tokenizer.token_to_id("<|en|>"), tokens.prefix[0]} <= set(tokens.banned)
    # the config's numbers are those of another vocabulary
    model = load_whisper(folder)
    assert model.network.config.eos_token_id == model.network.generation_config.eos_token_id == tokens.end
    assert model.network.config.decoder_start_token_id == tokens.prefix[0]


def test_texts_are_learned_as_they_are_written(folder: Path) -> None:
    tokens = read_tokens(folder)
    decomposed = unicodedata.normalize("NFD", "Işık, İzmir'de söndü!")
    label = tokens.encode(decomposed)
    assert label[-1] == tokens.end
    assert tokens.tokenizer.decode(list(label[:-1])) == " Işık, İzmir'de söndü!"
    assert tokens.decode(label) == "Işık, İzmir'de söndü!"
    assert tokens.encode("  ") == (tokens.end,)
    with pytest.raises(UnknownCharacterError, match="special token"):
        tokens.encode("kal <|tr|> masa")


def test_labels_that_cannot_be_learned_name_their_clip(folder: Path) -> None:
    model = load_whisper(folder)
    clips = [Clip(Path("a.wav"), "Kal.", 1.0), Clip(Path("b.wav"), "x" * 443, 1.0)]
    assert [one.text for one in label_transcripts(clips, model)] == ["Kal.", "x" * 443]
    with pytest.raises(LabelTooLongError, match=r"b\.wav: the label has 446 tokens.*at most 445"):
        label_transcripts([Clip(Path("b.wav"), "x" * 444, 1.0)], model)
    with pytest.raises(TrainingError, match=r"c\.wav lasts 29\.80 s.*at most 29\.5 s"):
        label_transcripts([Clip(Path("c.wav"), "kal", 29.8)], model)
    with pytest.raises(UnknownCharacterError, match=r"d\.wav: .*remove the clip's line"):
        label_transcripts([Clip(Path("d.wav"), "<|en|>", 1.0)], model)


def test_the_longest_label_fits_the_decoder(folder: Path) -> None:
    model = load_whisper(folder)
    tokens = torch.tensor([[*model.tokens.prefix, *[1] * (model.max_label - 1)]])
    assert tokens.shape[1] == model.network.config.max_target_positions
    waveform, lengths = make_batch((8_000,))
    with torch.inference_mode():
        assert torch.isfinite(model(waveform, lengths, tokens)).all()


def test_folders_that_are_no_turkish_whisper_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="type 'whisper-ctc'; expected 'whisper'"):
        load_whisper(make_whisper_ctc_folder(tmp_path / "ctc"))
    english = make_whisper_speech_folder(tmp_path / "english")
    text = (english / "tokenizer.json").read_text(encoding="utf-8").replace("<|tr|>", "<|xx|>")
    (english / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(VocabularyError, match=r"lacks <\|tr\|>"):
        load_whisper(english)
    (english / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(VocabularyError, match="is not a tokenizer"):
        load_whisper(english)
    (english / "tokenizer.json").unlink()
    with pytest.raises(VocabularyError, match=r"has no tokenizer\.json"):
        load_whisper(english)
    small = make_whisper_speech_folder(tmp_path / "small", vocab_size=100)
    with pytest.raises(BundleCorruptError, match="vocab_size 100"):
        load_whisper(small)


def test_a_saved_folder_is_transformers_own(folder: Path, tmp_path: Path) -> None:
    model = load_whisper(folder, min_window_s=6.0, tail_silence_s=0.4)
    model.save(tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json",
    }  # fmt: skip
    copy = WhisperForConditionalGeneration.from_pretrained(tmp_path / "copy")
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(copy.state_dict()[name], tensor, rtol=0, atol=0)
    assert copy.generation_config.decoder_start_token_id == model.tokens.prefix[0]
    extractor: Any = WhisperFeatureExtractor.from_pretrained(tmp_path / "copy")
    assert (extractor.nb_max_frames, extractor.tail_silence_s, extractor.min_window_s) == (3000, 0.4, 6.0)
    again = load_whisper(tmp_path / "copy")
    assert (again.min_window_s, again.tail_silence_s) == (6.0, 0.4), "it hears what it was trained with"
    model.save(tmp_path / "half", half=True)
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size < 0.6 * (tmp_path / "copy" / "model.safetensors").stat().st_size


def scatter_adapter(model: WhisperSpeechModel) -> None:
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)


@pytest.mark.parametrize("target", ["decoder", "all"])
def test_merged_lora_gives_what_lora_gives(folder: Path, tmp_path: Path, target: str) -> None:
    model, before = load_whisper(folder), load_whisper(folder)
    add_lora(model.network, rank=4, alpha=6.0, target=target)
    scatter_adapter(model)
    trained = [name for name, parameter in model.network.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert any(".encoder." in name for name in trained) == (target == "all")
    model.eval().save(tmp_path)
    waveform, lengths = make_batch()
    tokens = make_tokens(model, len(lengths))
    with torch.inference_mode():
        logits = model(waveform, lengths, tokens)
        torch.testing.assert_close(load_whisper(tmp_path)(waveform, lengths, tokens), logits, atol=TOLERANCE, rtol=0)
        assert not torch.allclose(before(waveform, lengths, tokens), logits, atol=1e-2)


def test_an_adapter_comes_back_exactly(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rank": 4, "alpha": 8.0, "target": "all"}
    model, other = load_whisper(folder), load_whisper(folder)
    for one in (model, other):
        add_lora(one.network, **settings)
    scatter_adapter(model)
    save_adapter(model.network, tmp_path)
    load_adapter(other.network, tmp_path)
    ours, theirs = merge_weights(model.network), merge_weights(other.network)
    assert ours.keys() == theirs.keys() == load_whisper(folder).network.state_dict().keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    with pytest.raises(BundleNotFoundError, match="no checkpoint of a LoRA run"):
        load_adapter(other.network, tmp_path / "nowhere")
