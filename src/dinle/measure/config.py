"""The configs of the measuring stages: one frozen dataclass each, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from dinle.config import Arg, Backend

Peer = Literal["faster-whisper"]
PageAudio = Literal["link", "copy"]
EnginePeer = Literal["openvino-nncf", "ort-dynamic"]
Precision = Literal["all", "pytorch", "onnx", "onnx_int8", "onnx_int4", "openvino"]


@dataclass(frozen=True)
class EvaluateConfig:
    """bundle and manifest or dataset -> predictions.jsonl, scores.json and a report."""

    manifest: Annotated[Path | None, "JSONL manifest with references (or give a dataset)"] = None
    model: Annotated[str | None, "bundle folder, checkpoint folder or hub id (default: the bundled model)"] = None
    backend: Annotated[Backend, "which engine runs the model (auto: the best measured)"] = "auto"
    output_dir: Annotated[Path, "folder for predictions, scores and the report"] = Path("artifacts/evaluation")
    split: Annotated[str | None, "only this split (default: all of a manifest, test of a dataset)"] = None
    threads: Annotated[int | None, "threads (default: all cores)"] = None
    bootstrap_samples: Annotated[int, "resamples for the 95 % intervals"] = 1000
    seed: Annotated[int, "seed of the resampling"] = 1
    language_model: Annotated[bool, "let the bundle's language model have a say in the text, where it has one"] = True
    hotwords_file: Annotated[Path | None, "names and terms to be expected, one a line; # begins a comment"] = None
    dataset: Annotated[str | None, "hub id or folder, read into output_dir/data (instead of a manifest)"] = None
    dataset_config: Annotated[str | None, "configuration of the dataset, such as tr_tr"] = None
    audio_column: Annotated[str | None, "column of the dataset with the audio (default: found)"] = None
    text_column: Annotated[str | None, "column of the dataset with the reference (default: found)"] = None
    peer: Annotated[Peer | None, "another recogniser, in turns with ours on the same clips: faster-whisper"] = None
    peer_model: Annotated[str | None, "its model: CTranslate2 folder, size of Whisper, or hub id"] = None
    peer_name: Annotated[str | None, "what reports call it (default: the name of its folder or id)"] = None
    peer_beam_size: Annotated[int, "hypotheses that it follows (1: greedy)"] = 5
    html: Annotated[bool, "also a page with every clip's words side by side, and its sound: output_dir/diff"] = False
    html_audio: Annotated[PageAudio, "the page's sound: linked where it lies, or copied beside the page"] = "link"


@dataclass(frozen=True)
class CompareConfig:
    """two evaluations of the same clips -> a paired comparison."""

    baseline: Annotated[Path, Arg("evaluation folder to compare with", positional=True)]
    candidate: Annotated[Path, Arg("evaluation folder to judge", positional=True)]
    output_dir: Annotated[Path, "folder for the comparison"] = Path("artifacts/comparison")
    bootstrap_samples: Annotated[int, "resamples for the 95 % intervals"] = 1000
    seed: Annotated[int, "seed of the resampling"] = 1


@dataclass(frozen=True)
class WordTimesConfig:
    """single words, joined with known gaps -> how far a model's word times are from the truth."""

    manifest: Annotated[tuple[Path, ...], "manifests; of their clips, those of one word are used"]
    model: Annotated[str | None, "bundle folder (default: the bundled model)"] = None
    backend: Annotated[Backend, "which engine runs the model (auto: the best measured)"] = "auto"
    threads: Annotated[int | None, "threads (default: all cores)"] = None
    recordings: Annotated[int, "how many recordings are made"] = 50
    words_per_recording: Annotated[int, "words in each"] = 6
    min_gap_s: Annotated[float, "shortest gap between two words"] = 0.05
    max_gap_s: Annotated[float, "longest gap between two words"] = 0.6
    noise_db: Annotated[float, "level of the noise under everything, relative to the words"] = -40.0
    seed: Annotated[int, "seed of the order, the gaps and the noise"] = 1


@dataclass(frozen=True)
class CalibrateConfig:
    """bundle and manifests -> a confidence map in the bundle, fitted on some clips and judged on the others."""

    manifest: Annotated[tuple[Path, ...], "manifests; every fit_every-th clip fits, the others judge"]
    bundle_dir: Annotated[Path, "the bundle whose bundle.json gets the map"]
    judge_manifest: Annotated[tuple[Path, ...], "more manifests that only judge"] = ()
    fit_every: Annotated[int, "the first of so many clips of each manifest fits"] = 3
    backend: Annotated[Backend, "which engine runs the model (auto: the best measured)"] = "auto"
    threads: Annotated[int | None, "threads (default: all cores)"] = None
    bootstrap_samples: Annotated[int, "resamples for the 95 % intervals"] = 1000
    seed: Annotated[int, "seed of the resampling"] = 1
    write: Annotated[bool, "write the map into the bundle; otherwise only report"] = True


@dataclass(frozen=True)
class BenchmarkConfig:
    """backends side by side on one clip -> benchmark_report.md and plots."""

    checkpoint_dir: Annotated[str | None, "checkpoint folder or hub id, run by PyTorch"] = None
    onnx_path: Annotated[Path | None, "fp32 graph: model.onnx inside a bundle"] = None
    onnx_int8_path: Annotated[Path | None, "int8 graph: model_int8.onnx inside a bundle"] = None
    audio_path: Annotated[Path, "the clip"] = Path("samples/sample.wav")
    repeat_to_s: Annotated[float | None, "repeat the clip, or cut it, to so many seconds (default: as it is)"] = None
    runs: Annotated[int, "timed runs of each backend, interleaved"] = 10
    warmup: Annotated[int, "untimed runs of each backend first"] = 2
    threads: Annotated[int | None, "threads of every backend (default: all cores)"] = None
    report_path: Annotated[Path, "Markdown report; plots and JSON are written beside it"] = Path(
        "artifacts/benchmark_report.md"
    )
    precisions: Annotated[
        tuple[Precision, ...], "the precision table of a bundle: these of its backends, or all that can run here"
    ] = ()
    model: Annotated[str | None, "its bundle folder (default: the bundled model)"] = None
    manifest: Annotated[Path | None, "clips with references, to measure what a precision loses in WER"] = None
    split: Annotated[str | None, "only this split of the manifest"] = None
    language_model: Annotated[
        bool,
        "let the bundle's language model have a say in the text; PyTorch and peers have none, so engines compare without",
    ] = False
    max_wer_loss: Annotated[float, "loss of WER up to which a precision may be chosen (0.01 is one point)"] = 0.01
    write_choice: Annotated[bool, "write the best choice for this processor into the bundle, for backend auto"] = True
    peers: Annotated[
        tuple[EnginePeer, ...],
        "other ways to int8 from the same fp32 graph, in turns with ours: openvino-nncf, ort-dynamic",
    ] = ()
