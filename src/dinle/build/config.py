"""The configs of the four building stages: one frozen dataclass each, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

Augmentation = Literal["speed", "noise", "reverb", "telephone", "volume"]


@dataclass(frozen=True)
class PrepareConfig:
    """dataset, or text to be spoken -> manifest.jsonl and a data report."""

    dataset_name: Annotated[str, "hub id, audiofolder, Common Voice release folder, or JSONL manifest"] = ""
    output_dir: Annotated[Path, "folder for manifest.jsonl, the report and decoded audio"] = Path("data/prepared")
    dataset_config: Annotated[str | None, "configuration of a hub dataset, such as tr_tr"] = None
    split: Annotated[str | None, "only this split (default: all)"] = None
    audio_column: Annotated[str | None, "column with the audio (default: found)"] = None
    text_column: Annotated[str | None, "column with the transcript (default: found)"] = None
    train_percent: Annotated[float, "fraction of the training split to take, by a seeded shuffle"] = 1.0
    eval_percent: Annotated[float, "fraction of the evaluation splits to take, by a seeded shuffle"] = 1.0
    min_duration_s: Annotated[float, "drop shorter clips"] = 0.3
    max_duration_s: Annotated[float, "drop longer clips"] = 28.0
    max_chars_per_s: Annotated[float, "drop clips whose text is too long for their sound"] = 30.0
    min_chars_per_s: Annotated[float, "drop clips whose text is too short for their sound"] = 1.0
    max_bad_share: Annotated[float, "fail when a larger share of clips is corrupt"] = 0.05
    licence: Annotated[str | None, "licence of the data (of a text), where the source does not state it"] = None
    threads: Annotated[int | None, "clips decoded or spoken at a time (default: all cores)"] = None
    seed: Annotated[int, "seed of the shuffle, and of voices and speeds"] = 1
    from_text: Annotated[
        Path | None, "instead of a dataset: a text file to speak, a line an utterance (or text, tab, split)"
    ] = None
    speech_engine: Annotated[Literal["espeak-ng", "kokoro"], "what speaks the text"] = "espeak-ng"
    voices: Annotated[
        tuple[str, ...],
        "espeak-ng: variants such as f1 m3 (default: 17 of them); kokoro: a folder of *.bin, then names (default: all)",
    ] = ()
    test_voices: Annotated[tuple[str, ...], "voices held out: they speak the split test, and nothing else"] = ()
    speakers_per_text: Annotated[int, "clips of each line"] = 1
    blend_voices: Annotated[float, "share of the clips whose voice is a blend of two (kokoro)"] = 0.0
    speed_range: Annotated[tuple[float, ...], "slowest and fastest speech; 1 is the voice's own"] = (0.8, 1.25)
    pitch_range: Annotated[tuple[float, ...], "lowest and highest pitch; 1 is the voice's own (espeak-ng)"] = (0.5, 1.5)
    voice_model: Annotated[Path | None, "kokoro's ONNX model"] = None
    voice_vocab: Annotated[
        Path | None, "kokoro's vocabulary (default: tokenizer.json or vocab.json near the model)"
    ] = None


@dataclass(frozen=True)
class TrainConfig:
    """manifest -> checkpoint."""

    model_name: Annotated[str, "hub id or folder: a CTC model, a bare encoder, or a Whisper model"]
    dataset_name: Annotated[str, "a prepared folder or manifest, or anything that prepare reads"]
    output_dir: Annotated[Path, "folder for checkpoints; the best one ends in its subfolder best"] = Path("checkpoints")
    dataset_config: Annotated[str | None, "configuration of a hub dataset"] = None
    eval_dataset_name: Annotated[
        str | None, "manifest to evaluate on (default: the dataset's own evaluation split)"
    ] = None
    train_percent: Annotated[float, "fraction of the training clips"] = 1.0
    eval_percent: Annotated[float, "fraction of the evaluation clips"] = 1.0
    epochs: Annotated[float, "passes over the training clips"] = 5.0
    max_steps: Annotated[int, "stop after this many optimiser steps (-1: by epochs)"] = -1
    learning_rate: Annotated[float, "peak learning rate of the body"] = 1e-4
    head_learning_rate: Annotated[float | None, "peak learning rate of the CTC head (default: the body's)"] = None
    warmup_ratio: Annotated[float, "share of the steps spent warming up"] = 0.1
    schedule: Annotated[Literal["linear", "cosine"], "how the learning rates fall to zero after the warm-up"] = "linear"
    weight_decay: Annotated[float, "AdamW weight decay"] = 0.005
    batch_seconds: Annotated[float, "padded seconds of audio in a batch"] = 60.0
    gradient_accumulation_steps: Annotated[int, "batches per optimiser step"] = 1
    gradient_checkpointing: Annotated[bool, "trade time for memory"] = False
    freeze_front_end: Annotated[bool, "keep the convolutional front end as it is"] = True
    freeze_layers: Annotated[int, "keep the lowest N encoder layers as they are"] = 0
    spec_augment: Annotated[bool, "mask spans of time and feature channels"] = True
    augment: Annotated[tuple[Augmentation, ...], "audio augmentations to draw from"] = ()
    augment_probability: Annotated[float, "probability of each augmentation for a clip"] = 0.3
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], "auto: bf16 or fp16 where the device has it"] = "auto"
    eval_every_steps: Annotated[int, "evaluate and save each N steps (0: each epoch)"] = 0
    early_stopping_patience: Annotated[int, "stop after N evaluations without a better WER (0: never)"] = 0
    resume: Annotated[bool, "go on from the last checkpoint in output_dir"] = False
    log_dir: Annotated[Path, "TensorBoard logs"] = Path("runs")
    num_workers: Annotated[int, "processes that decode audio"] = 0
    threads: Annotated[int | None, "torch threads (default: all cores)"] = None
    seed: Annotated[int, "seed of everything random"] = 1
    family: Annotated[
        Literal["auto", "ctc", "whisper-ctc", "whisper"],
        "auto: what the checkpoint is; whisper-ctc: a Whisper encoder with a fresh CTC head",
    ] = "auto"
    method: Annotated[Literal["full", "frozen-encoder", "lora"], "what of a Whisper model is trained"] = "full"
    lora_rank: Annotated[int, "rank of LoRA's matrices"] = 16
    lora_alpha: Annotated[float, "LoRA counts alpha / rank times"] = 32.0
    lora_target: Annotated[Literal["decoder", "all"], "layers that get LoRA: the decoder's, or the encoder's too"] = (
        "all"
    )
    min_window_s: Annotated[
        float, "seconds that a Whisper encoder hears at least: the clip, then silence (30: Whisper's own padding)"
    ] = 8.0
    tail_silence_s: Annotated[float, "seconds of silence after the clip for a Whisper encoder and decoder"] = 0.5
    distill_weight: Annotated[
        float, "share of the loss that keeps a Whisper model near its start as that hears 30 s (0: off)"
    ] = 0.0


@dataclass(frozen=True)
class CutVocabularyConfig:
    """Whisper checkpoint and texts -> the same model with the vocabulary that the texts need."""

    model_name: Annotated[str, "hub id or folder of a Whisper model"]
    texts: Annotated[tuple[Path, ...], "text files, one sentence or `word count` a line"]
    output_dir: Annotated[Path, "folder of the checkpoint to write"] = Path("checkpoints/cut")
    size: Annotated[int, "entries to keep, special tokens and bytes among them"] = 10_000


@dataclass(frozen=True)
class ExportConfig:
    """checkpoint -> bundle with model.onnx, after a parity check."""

    checkpoint_dir: Annotated[str, "folder or hub id of the checkpoint"]
    onnx_dir: Annotated[Path, "the bundle folder to write"] = Path("artifacts/onnx")
    name: Annotated[str | None, "name of the bundle (default: the folder's)"] = None
    int8: Annotated[bool, "also write model_int8.onnx (the quantize stage with its default settings)"] = True
    parity_audio: Annotated[
        Path | None, "folder or manifest of clips for the parity check (default: the bundled sample)"
    ] = None
    opset: Annotated[int, "ONNX operator set"] = 18
    sentence_window_s: Annotated[
        float, "Whisper: seconds that the encoder hears at least of two seconds of speech and more (0: as of less)"
    ] = 0.0
    sentence_tail_s: Annotated[float, "Whisper: seconds of silence after such speech, with --sentence_window_s"] = 0.0
    licence: Annotated[str | None, "licence of the weights, for the bundle's provenance"] = None
    source: Annotated[str | None, "where the weights come from, for the bundle's provenance"] = None


@dataclass(frozen=True)
class QuantizeConfig:
    """bundle -> a smaller graph in the same bundle, such as model_int8.onnx, behind a quality gate."""

    bundle_dir: Annotated[Path, "the bundle folder (must hold model.onnx)"]
    manifest: Annotated[Path | None, "manifest to judge int8 against fp32 on (default: not judged)"] = None
    split: Annotated[str | None, "only this split of the manifest"] = None
    preset: Annotated[
        Literal["static", "dynamic", "qdq", "int4"],
        "static: int8, scales of activations measured on speech; dynamic: taken at run time; qdq: as static, in standard "
        "operators for OpenVINO; int4: weights of 4 bits",
    ] = "static"
    calibration: Annotated[
        Path | None,
        "speech to measure them on: folder or manifest (default: the manifest's split train, else the small data set)",
    ] = None
    max_wer_loss: Annotated[float, "allowed absolute loss of WER (0.01 is one point)"] = 0.01
    per_channel: Annotated[bool, "dynamic: one scale for each output channel of a weight (static: always)"] = True
    reduce_range: Annotated[bool, "7-bit weights: no saturation on CPUs without VNNI"] = True
    threads: Annotated[int | None, "threads for judging (default: all cores)"] = None
    drop_fp32: Annotated[bool, "keep only int8 when the gate does not refuse it: a bundle to ship"] = False
