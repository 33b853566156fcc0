"""Makers of tiny model folders with random weights, in the forms that load_model reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    PreTrainedModel,
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechSatConfig,
    UniSpeechSatForCTC,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    WavLMConfig,
    WavLMForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from dinle.build.hf_files import describe_bert_extractor, describe_wav2vec2_extractor, write_processor
from dinle.build.whisper_ctc import WhisperCtcModel
from dinle.recognize.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pathlib import Path

# the published kernels and strides: 16 000 samples are 49 frames
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

BERT_SIZES = {"conv_depthwise_kernel_size": 7, "left_max_position_embeddings": 8, "right_max_position_embeddings": 4}

CTC_MAKERS: dict[str, tuple[type[PreTrainedModel], type[Any], dict[str, Any]]] = {
    "wav2vec2-group": (Wav2Vec2ForCTC, Wav2Vec2Config, {"feat_extract_norm": "group"}),
    "wav2vec2-layer": (Wav2Vec2ForCTC, Wav2Vec2Config, STABLE),
    "wav2vec2-adapter": (
        Wav2Vec2ForCTC,
        Wav2Vec2Config,
        {**STABLE, "add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 24},
    ),
    "hubert": (HubertForCTC, HubertConfig, {"feat_extract_norm": "group"}),
    "hubert-batch-norm": (HubertForCTC, HubertConfig, {"feat_extract_norm": "group", "conv_pos_batch_norm": True}),
    "wavlm": (WavLMForCTC, WavLMConfig, {"feat_extract_norm": "group"}),
    "wavlm-layer": (WavLMForCTC, WavLMConfig, STABLE),
    "unispeech": (UniSpeechForCTC, UniSpeechConfig, STABLE),
    "unispeech-sat": (UniSpeechSatForCTC, UniSpeechSatConfig, {"feat_extract_norm": "group"}),
    "bert": (Wav2Vec2BertForCTC, Wav2Vec2BertConfig, BERT_SIZES),
    "bert-adapter": (
        Wav2Vec2BertForCTC,
        Wav2Vec2BertConfig,
        {**BERT_SIZES, "add_adapter": True, "output_hidden_size": 24, "use_intermediate_ffn_before_adapter": True},
    ),
    "data2vec-audio": (
        Data2VecAudioForCTC,
        Data2VecAudioConfig,
        {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 7},
    ),
}


def make_ctc_folder(folder: Path, kind: str = "wav2vec2-group", **changes: Any) -> Path:
    """A CTC model of one of CTC_MAKERS with the Turkish vocabulary, its tokenizer and feature extractor."""
    torch.manual_seed(1)
    model_class, config_class, differences = CTC_MAKERS[kind]
    vocabulary = Vocabulary.turkish()
    config = config_class(**{**SIZES, "vocab_size": vocabulary.size, "pad_token_id": 0, **differences, **changes})
    model = model_class(config)
    scatter_weights(model)
    model.save_pretrained(folder)
    extractor = (
        describe_bert_extractor(80, 2) if kind.startswith("bert") else describe_wav2vec2_extractor(normalize=True)
    )
    write_processor(folder, vocabulary, extractor)
    return folder


def make_bare_encoder_folder(folder: Path) -> Path:
    """As facebook/wav2vec2-base: pretraining weights, a feature extractor, no tokenizer and no CTC head."""
    torch.manual_seed(1)
    small = {"codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 4}
    Wav2Vec2ForPreTraining(Wav2Vec2Config(**{**SIZES, **small})).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}), encoding="utf-8")
    return folder


def make_whisper_config() -> WhisperConfig:
    return WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def make_whisper_folder(folder: Path) -> Path:
    """As openai/whisper-base: encoder and decoder."""
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(make_whisper_config())
    scatter_weights(model.model.encoder)
    model.save_pretrained(folder)
    return folder


WHISPER_SPECIALS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|tr|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>",
)  # fmt: skip
WHISPER_TIMES = ("<|0.00|>", "<|0.02|>")


def make_whisper_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer of all bytes and a few merges, with some of Whisper's special tokens last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=266, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([" masa kal ekle ışık", " kalmak masal"] * 3, trainer)
    tokenizer.add_special_tokens(list(WHISPER_SPECIALS))
    tokenizer.add_tokens(list(WHISPER_TIMES))
    return tokenizer


def make_whisper_speech_folder(folder: Path, **changes: Any) -> Path:
    """As openai/whisper-base with its tokenizer; config.json keeps the wrong special tokens of make_whisper_config."""
    torch.manual_seed(1)
    tokenizer, config = make_whisper_tokenizer(), make_whisper_config()
    config.update({"vocab_size": tokenizer.get_vocab_size(), "decoder_layers": 2, **changes})
    model = WhisperForConditionalGeneration(config)
    scatter_weights(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_whisper_ctc(vocabulary: Vocabulary | None = None, **changes: Any) -> WhisperCtcModel:
    """A random Whisper encoder with a CTC head, in eval mode; changes are fields of its config."""
    torch.manual_seed(1)
    config = make_whisper_config()
    config.update(changes)
    model = WhisperCtcModel(config, vocabulary or Vocabulary.turkish())
    scatter_weights(model)
    model.eval()
    return model


def make_whisper_ctc_folder(folder: Path) -> Path:
    """Our own whisper-ctc checkpoint."""
    make_whisper_ctc().save(folder)
    return folder


def scatter_weights(model: torch.nn.Module) -> None:
    """Random norms and biases and larger weights: fresh initialisation hides errors behind ones and zeros."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn_like(buffer))


def turn_off_dropout(model: torch.nn.Module) -> None:
    """Make train mode deterministic; modules keep a rate in `p` or, before a functional call, in `dropout`."""
    for module in model.modules():
        settings: Any = module
        if isinstance(module, torch.nn.Dropout):
            settings.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            settings.dropout = 0.0
