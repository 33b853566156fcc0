"""A Whisper vocabulary cut to what a corpus needs: the tokens, the tokenizer, the weights, the configs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import WhisperForConditionalGeneration

from dinle.build.config import CutVocabularyConfig
from dinle.build.cut_vocabulary import (
    EMBEDDING,
    TIED_HEAD,
    Cut,
    choose_tokens,
    count_tokens,
    cut_token_ids,
    cut_tokenizer,
    cut_vocabulary,
    find_parts,
    parse_line,
    read_tokenizer,
    spell_forms,
)
from dinle.build.whisper_model import load_whisper
from dinle.errors import BundleNotFoundError, UsageError, VocabularyError
from tests.build.tiny_models import WHISPER_SPECIALS, WHISPER_TIMES, make_whisper_speech_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SPECIALS = [*WHISPER_SPECIALS, *WHISPER_TIMES]
BYTES = 256
LEAST = BYTES + len(SPECIALS)
ALPHABET = "abcçdefgğhıijklmnoöprsştuüvyzABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZâîûÂÎÛ0123456789 .,!?'’“”…-–%\n"
TURKISH = st.text(ALPHABET, max_size=60) | st.lists(
    st.sampled_from(["masa", "kal", "kalmak", "ekle", "ışık", "masal", "İzmir", "söndü!"])
).map(" ".join)


class Room(NamedTuple):
    """A whole model, texts, and the model cut to them."""

    whole: Path
    texts: Path
    cut: Path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    folder = tmp_path_factory.mktemp("cut")
    whole = make_whisper_speech_folder(folder / "whole")
    (folder / "texts.txt").write_text("masa\t9\nMasa kal!\nışık 3\n", encoding="utf-8")
    config = CutVocabularyConfig(str(whole), (folder / "texts.txt",), folder / "out", size=LEAST + 4)
    return Room(whole, folder / "texts.txt", cut_vocabulary(config))


@pytest.fixture(scope="module")
def tokenizer(room: Room) -> dict[str, Any]:
    return read_tokenizer(room.whole)


def match_ids(room: Room) -> list[int]:
    """For each new token the old one, found by its string."""
    old: Any = Tokenizer.from_file(str(room.whole / "tokenizer.json"))
    new: Any = Tokenizer.from_file(str(room.cut / "tokenizer.json"))
    return [old.token_to_id(new.id_to_token(index)) for index in range(new.get_vocab_size())]


def assert_is_a_cut(tokenizer: dict[str, Any], cut: Cut) -> None:
    vocabulary, parts = tokenizer["model"]["vocab"], find_parts(tokenizer)
    kept = set(cut.kept)
    assert list(cut.kept) == sorted(kept)
    assert {index for token, index in vocabulary.items() if len(token) == 1} <= kept
    assert {entry["id"] for entry in tokenizer["added_tokens"]} <= kept
    assert all(set(parts.get(index, ())) <= kept for index in kept), "what a kept token is merged from is kept too"
    assert cut.new_ids == {old: new for new, old in enumerate(sorted(kept))}


# --- which tokens


@given(st.dictionaries(st.integers(0, 265), st.integers(1, 100)), st.integers(LEAST + 1, 280))
def test_any_choice_is_closed_and_no_larger_than_asked_for(
    tokenizer: dict[str, Any], usage: dict[int, int], size: int
) -> None:
    cut = choose_tokens(tokenizer, Counter(usage), size)
    assert_is_a_cut(tokenizer, cut)
    assert LEAST <= len(cut.kept) <= size


def test_the_most_used_tokens_are_kept_with_their_parts(tokenizer: dict[str, Any]) -> None:
    merged = [index for index in tokenizer["model"]["vocab"].values() if index >= BYTES]
    needs = {index: count_needs(index, find_parts(tokenizer)) for index in merged}
    deep = max(merged, key=lambda index: len(needs[index]))
    assert len(needs[deep]) > 1
    cut = choose_tokens(tokenizer, Counter({deep: 5}), LEAST + len(needs[deep]))
    assert set(cut.kept) & set(merged) == needs[deep]
    assert len(choose_tokens(tokenizer, Counter({deep: 5}), LEAST + len(needs[deep]) - 1).kept) == LEAST, (
        "all or nothing"
    )
    both = choose_tokens(tokenizer, Counter({deep: 1, merged[0]: 2}), LEAST + 1)
    assert set(both.kept) & set(merged) == {merged[0]}


def count_needs(index: int, parts: dict[int, tuple[int, int]]) -> set[int]:
    """A token and all merged tokens in it."""
    return {index}.union(*(count_needs(part, parts) for part in parts[index])) if index in parts else set()


@pytest.mark.parametrize("size", [0, LEAST - 1, LEAST])
def test_a_size_without_room_is_refused(tokenizer: dict[str, Any], size: int) -> None:
    with pytest.raises(UsageError, match=f"--size is {size}; {LEAST} entries are specials and bytes"):
        choose_tokens(tokenizer, Counter(), size)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("masa 12", ("masa", 12)),
        ("masa\t12\n", ("masa", 12)),
        ("bir masa 12", ("bir masa 12", 1)),
        ("12", ("12", 1)),
        ("masa", ("masa", 1)),
        ("masa ²", ("masa ²", 1)),
        ("", ("", 1)),
    ],
)
def test_lines_are_texts_or_words_with_counts(line: str, expected: tuple[str, int]) -> None:
    assert parse_line(line) == expected


def test_a_text_is_counted_in_the_forms_in_which_it_may_be_written(room: Room, tmp_path: Path) -> None:
    assert spell_forms("IŞIK") == ("IŞIK", " IŞIK", "ışık", " ışık", "Işık", " Işık")
    assert spell_forms("izmir") == ("izmir", " izmir", "İzmir", " İzmir")
    (tmp_path / "one.txt").write_text("masa 3\n", encoding="utf-8")
    whole = Tokenizer.from_file(str(room.whole / "tokenizer.json"))
    usage = count_tokens(room.whole / "tokenizer.json", [tmp_path / "one.txt"])
    assert all(usage[index] >= 3 for index in whole.encode(" masa").ids)
    assert all(usage[index] % 3 == 0 for index in usage)


# --- the tokenizer


def test_special_tokens_keep_their_order_and_come_last(room: Room) -> None:
    new: Any = Tokenizer.from_file(str(room.cut / "tokenizer.json"))
    ids = [new.token_to_id(name) for name in SPECIALS]
    assert ids == list(range(new.get_vocab_size() - len(SPECIALS), new.get_vocab_size()))
    assert [new.id_to_token(index) for index in ids] == SPECIALS
    old = match_ids(room)
    assert old == sorted(old)
    assert LEAST < len(old) <= LEAST + 4


@settings(max_examples=300)
@given(TURKISH)
def test_the_cut_tokenizer_reads_back_what_it_writes(room: Room, text: str) -> None:
    old, new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (room.whole, room.cut))
    matches = match_ids(room)
    ours, theirs = (one.encode(text, add_special_tokens=False).ids for one in (new, old))
    assert new.decode(ours) == text
    if set(theirs) <= set(matches):
        assert [matches[index] for index in ours] == theirs, "a text of kept tokens is written as before"


@given(st.text(max_size=30))
def test_any_text_stays_writable(room: Room, text: str) -> None:
    new = Tokenizer.from_file(str(room.cut / "tokenizer.json"))
    assert new.decode(new.encode(text, add_special_tokens=False).ids) == text


@pytest.mark.parametrize("nested", [False, True])
def test_the_post_processor_names_the_new_ids(tokenizer: dict[str, Any], nested: bool) -> None:
    end = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}["<|endoftext|>"]
    template = {"type": "TemplateProcessing", "special_tokens": {"<|endoftext|>": {"ids": [end]}}}
    processor = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]} if nested else template
    result = cut_tokenizer({**tokenizer, "post_processor": processor}, choose_tokens(tokenizer, Counter(), LEAST + 1))
    made = result["post_processor"]
    made = made["processors"][1] if nested else made
    assert made["special_tokens"]["<|endoftext|>"]["ids"] == [BYTES]
    assert template["special_tokens"] == {"<|endoftext|>": {"ids": [end]}}, "the original is left alone"


# --- the weights and the configs


def compute_logits(folder: Path, tokens: list[int]) -> Tensor:
    waveform = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.inference_mode():
        logits: Tensor = load_whisper(folder)(waveform, torch.tensor([16_000]), torch.tensor([tokens]))
    return logits


def test_the_logits_of_kept_tokens_are_those_of_the_whole_model(room: Room) -> None:
    matches, count = match_ids(room), len(load_whisper(room.cut).tokens.banned)
    text = [*load_whisper(room.cut).tokens.encode("masa ışık’a …")]
    tokens = [*load_whisper(room.cut).tokens.prefix, *text]
    ours = compute_logits(room.cut, tokens)
    theirs = compute_logits(room.whole, [matches[index] for index in tokens])
    assert ours.shape[-1] == len(matches) < theirs.shape[-1]
    torch.testing.assert_close(ours, theirs[..., matches], atol=1e-5, rtol=0)
    assert count == len(SPECIALS) - 1


def test_the_cut_model_is_transformers_own(room: Room) -> None:
    matches = match_ids(room)
    whole, cut = (WhisperForConditionalGeneration.from_pretrained(folder) for folder in (room.whole, room.cut))
    rows = whole.state_dict()[EMBEDDING][matches]
    torch.testing.assert_close(cut.state_dict()[EMBEDDING], rows, atol=0, rtol=0)
    torch.testing.assert_close(cut.state_dict()[TIED_HEAD], rows, atol=0, rtol=0)
    assert TIED_HEAD not in load_file(room.cut / "model.safetensors")
    assert cut.config.vocab_size == len(matches)


def test_a_model_with_an_output_layer_of_its_own_keeps_it(room: Room, tmp_path: Path) -> None:
    whole = make_whisper_speech_folder(tmp_path / "untied", tie_word_embeddings=False)
    weights = load_file(whole / "model.safetensors")
    weights[TIED_HEAD] = torch.randn(weights[EMBEDDING].shape, generator=torch.Generator().manual_seed(3))
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    folder = cut_vocabulary(CutVocabularyConfig(str(whole), (room.texts,), tmp_path / "cut", size=LEAST + 4))
    made = load_file(folder / "model.safetensors")
    matches = match_ids(Room(whole, room.texts, folder))
    assert torch.equal(made[TIED_HEAD], weights[TIED_HEAD][matches])
    assert torch.equal(made[EMBEDDING], weights[EMBEDDING][matches])


def test_configs_name_the_new_ids_by_what_they_mean(tokenizer: dict[str, Any]) -> None:
    cut = choose_tokens(tokenizer, Counter(), LEAST + 1)
    old = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    new = {name: BYTES + place for place, name in enumerate(SPECIALS)}
    dropped = next(index for index in range(280) if index not in cut.kept)
    given_settings = {
        "vocab_size": 275, "d_model": 32, "eos_token_id": 2, "bos_token_id": 1, "decoder_start_token_id": 1,
        "no_timestamps_token_id": 5, "suppress_tokens": [1, dropped, old["<|en|>"]], "begin_suppress_tokens": [220, 9999],
        "lang_to_id": {"<|tr|>": old["<|tr|>"], "<|xx|>": 9999}, "task_to_id": {"transcribe": old["<|transcribe|>"]},
        "forced_decoder_ids": [[1, 50259]], "alignment_heads": [[0, 1]], "suppress_ids": None, "_from_model_config": True,
    }  # fmt: skip
    result = cut_token_ids(given_settings, tokenizer, cut)
    assert result == {
        "vocab_size": LEAST, "d_model": 32, "eos_token_id": new["<|endoftext|>"], "bos_token_id": new["<|endoftext|>"],
        "decoder_start_token_id": new["<|startoftranscript|>"], "no_timestamps_token_id": new["<|notimestamps|>"],
        "suppress_tokens": [1, new["<|en|>"]], "begin_suppress_tokens": [220],
        "lang_to_id": {"<|tr|>": new["<|tr|>"]}, "task_to_id": {"transcribe": new["<|transcribe|>"]},
        "alignment_heads": [[0, 1]], "suppress_ids": None,
    }  # fmt: skip
    assert "forced_decoder_ids" in given_settings, "the original is left alone"


def test_the_files_say_where_they_come_from(room: Room) -> None:
    run = json.loads((room.cut / "run.json").read_text(encoding="utf-8"))
    assert run["stage"] == "cut_vocabulary"
    assert set(run["inputs"]) == {"texts.txt"}
    assert 0.5 < run["results"]["coverage"] <= 1
    assert run["results"]["tokens"] == len(match_ids(room))
    (origin,) = json.loads((room.cut / "provenance.json").read_text(encoding="utf-8"))
    assert (origin["name"], origin["source"], origin["licence"]) == ("whole", str(room.whole), "unknown")
    made = json.loads((room.cut / "config.json").read_text(encoding="utf-8"))
    assert made["eos_token_id"] == Tokenizer.from_file(str(room.cut / "tokenizer.json")).token_to_id("<|endoftext|>")


# --- errors


def test_texts_and_models_that_are_not_there_are_named(room: Room, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no text file .*yok\.txt"):
        cut_vocabulary(CutVocabularyConfig(str(room.whole), (room.texts, tmp_path / "yok.txt"), tmp_path / "out"))
    with pytest.raises(BundleNotFoundError, match="there is no folder"):
        cut_vocabulary(CutVocabularyConfig(str(tmp_path / "yok"), (room.texts,), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_other_tokenizers_are_refused(room: Room, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"has no tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}, "pre_tokenizer": null}', encoding="utf-8")
    with pytest.raises(VocabularyError, match="is a Unigram tokenizer; only byte-level BPE"):
        read_tokenizer(tmp_path)


def test_an_embedding_of_another_tokenizer_is_refused(room: Room, tmp_path: Path) -> None:
    small = make_whisper_speech_folder(tmp_path / "small", vocab_size=100)
    with pytest.raises(VocabularyError, match="has 100 rows, its tokenizer reaches to"):
        cut_vocabulary(CutVocabularyConfig(str(small), (room.texts,), tmp_path / "out"))
    assert not (tmp_path / "out").exists()
