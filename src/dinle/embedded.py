"""``make embedded-model``: from public weights and texts to the two bundled models, step by step.

The experiment files hold what a person would tune; this module decides where things go, and in which order. A run that
was stopped goes on where it was: see :mod:`dinle.steps`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dinle.build.config import CutVocabularyConfig, ExportConfig, PrepareConfig, QuantizeConfig, TrainConfig
from dinle.build.language_model import LM_RUN_FILE, LmConfig, build_into_bundle
from dinle.build.language_model_weights import tune_weights
from dinle.demo import Stages
from dinle.embedded_texts import NATURAL_FILE, ROBOTIC_FILE, TEXTS_RUN_FILE, ChooseTextsConfig, choose_texts, find_texts
from dinle.errors import UsageError
from dinle.manifest import MANIFEST_NAME, iterate_lines
from dinle.measure.config import EvaluateConfig
from dinle.progress import open_console
from dinle.run import write_run
from dinle.steps import Ledger, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

WHISPER_NAME, CTC_NAME = "dinle-base-tr", "dinle-ctc-tr"
CHECKPOINT = "checkpoint"  # inside the CTC bundle: what the demo fine-tunes
KOKORO_HINT = (
    "download the model and the folder voices of https://huggingface.co/onnx-community/Kokoro-82M-v1.0-ONNX "
    "(hexgrad/Kokoro-82M in ONNX), then: make embedded-model KOKORO=.../onnx/model.onnx KOKORO_VOICES=.../voices"
)


@dataclass(frozen=True)
class EmbeddedConfig:
    """public weights and texts -> the two bundled models."""

    whisper: Annotated[str, "hub id or folder of the Whisper model to start from"] = "openai/whisper-base"
    whisper_source: Annotated[str | None, "address of those weights, where they do not say it (default: the hub's)"] = (
        None
    )
    whisper_licence: Annotated[str, "licence of those weights, where they do not say it"] = "MIT"
    ctc: Annotated[str | None, "hub id or folder that the CTC model starts from (default: the experiment's)"] = None
    kokoro: Annotated[Path | None, "Kokoro's model.onnx"] = None
    kokoro_voices: Annotated[Path | None, "Kokoro's folder of *.bin"] = None
    whisper_experiment: Annotated[Path, "settings of the vocabulary, Kokoro's speech and the Whisper model"] = Path(
        "configs/embedded-whisper.toml"
    )
    ctc_experiment: Annotated[Path, "settings of espeak-ng's speech and the CTC model"] = Path(
        "configs/embedded-ctc.toml"
    )
    texts: Annotated[Path, "folder of texts"] = Path("data/text")
    judge_on: Annotated[tuple[Path, ...], "data sets that both models are evaluated on"] = (
        Path("data/synthetic-sentences"),
        Path("data/synthetic-words"),
    )
    held_out: Annotated[tuple[Path, ...], "further data sets whose texts are not taken"] = (Path("data/mini"),)
    output_dir: Annotated[Path, "folder for everything that is made"] = Path("build-out/embedded")
    sentences: Annotated[int, "sentences to speak"] = 1500
    robotic: Annotated[int, "those of them that espeak-ng says; Kokoro says the rest"] = 500
    words: Annotated[int, "lines of words and numbers to speak"] = 800
    seed: Annotated[int, "seed of the texts"] = 1
    threads: Annotated[int | None, "threads of every step (default: all cores)"] = None


@dataclass(frozen=True)
class MergeConfig:
    """prepared folders -> one manifest that names their clips where they are."""

    folders: tuple[Path, ...]
    sources: tuple[str, ...]  # what the manifest says of the clips of each folder
    output_dir: Path


def make_embedded_models(config: EmbeddedConfig) -> tuple[Path, Path]:
    """Make both bundled models, and evaluate them; what an earlier call made with the same settings and inputs is kept.

    Returns:
        The bundle of the Whisper model and that of the CTC model.

    Raises:
        UsageError: Kokoro is missing, an experiment is wrong, or an interrupted training of other settings is in the way.
        DinleError: a step failed.
    """
    whisper, ctc = (Stages(path, open_console()) for path in (config.whisper_experiment, config.ctc_experiment))
    check_sources(config, ctc)
    ledger = Ledger(config.output_dir, whisper)
    for step in list_steps(config, whisper, ctc):
        ledger.run(step)
    bundles = config.output_dir / WHISPER_NAME, config.output_dir / CTC_NAME
    copy = f"to bundle them: cp -r {bundles[0]} {bundles[1]} models/"
    whisper.console.print(copy, highlight=False, soft_wrap=True)
    return bundles


def check_sources(config: EmbeddedConfig, ctc: Stages) -> None:
    """Find everything that comes from outside, before hours are spent.

    Raises:
        UsageError: Kokoro is not given, or not there.
        DatasetError: the texts are missing.
        BundleNotFoundError, HubUnreachableError: a model to start from cannot be found.
    """
    from dinle.build.model_source import find_model_folder

    if config.kokoro is None or config.kokoro_voices is None:
        raise UsageError(f"the speech is made by Kokoro, and KOKORO or KOKORO_VOICES is not given; {KOKORO_HINT}")
    if not config.kokoro.is_file() or not config.kokoro_voices.is_dir():
        raise UsageError(
            f"there is no file {config.kokoro} or no folder {config.kokoro_voices}; expected Kokoro: {KOKORO_HINT}"
        )
    find_texts(config.texts)
    for name in (config.whisper, find_ctc_start(config, ctc)):
        find_model_folder(name)


def find_ctc_start(config: EmbeddedConfig, ctc: Stages) -> str:
    """What the CTC model starts from."""
    return config.ctc or str(ctc.tables.get("train", {}).get("model_name", ""))


def list_steps(config: EmbeddedConfig, whisper: Stages, ctc: Stages) -> Iterator[Step]:
    """Every step in order. A step's inputs need not be there before those in front of it are made."""
    yield cut_step(config, whisper)
    yield texts_step(config)
    yield from speech_steps(config, whisper, ctc)
    yield train_step(config, whisper, config.output_dir / "whisper", str(config.output_dir / "cut"))
    yield bundle_step(config, whisper, config.output_dir / "whisper", WHISPER_NAME)
    yield train_step(config, ctc, config.output_dir / "ctc", find_ctc_start(config, ctc))
    yield bundle_step(config, ctc, config.output_dir / "ctc", CTC_NAME)
    for name, trained in ((WHISPER_NAME, "whisper"), (CTC_NAME, "ctc")):
        yield language_step(config, name, config.output_dir / trained / "best")
    for name, stages in ((WHISPER_NAME, whisper), (CTC_NAME, ctc)):
        for data in config.judge_on:
            yield evaluate_step(config, stages, name, data)


def cut_step(config: EmbeddedConfig, stages: Stages) -> Step:
    """Whisper with the vocabulary that Turkish needs: half of a small model's decoder is words it never writes."""
    folder = config.output_dir / "cut"
    cut = stages.make(CutVocabularyConfig, "cut-vocabulary", model_name=config.whisper, output_dir=folder)

    def make(_resume: bool) -> None:
        from dinle.build.cut_vocabulary import cut_vocabulary
        from dinle.build.provenance import describe_weights, read_provenance, write_provenance

        cut_vocabulary(cut)
        if not read_provenance(config.whisper):  # weights of the hub say nothing of themselves
            origin = describe_weights(config.whisper, source=find_address(config), licence=config.whisper_licence)
            write_provenance(folder, [origin])

    return Step("cut the vocabulary", folder / "run.json", (cut,), (Path(config.whisper), *cut.texts), make)


def find_address(config: EmbeddedConfig) -> str:
    """Where the Whisper weights can be had; of a local folder its name alone, not this machine's path."""
    folder = Path(config.whisper)
    return config.whisper_source or (folder.name if folder.is_dir() else f"https://huggingface.co/{config.whisper}")


def texts_step(config: EmbeddedConfig) -> Step:
    """The lines that are spoken."""
    choice = ChooseTextsConfig(
        texts=config.texts,
        output_dir=config.output_dir,
        held_out=(*config.judge_on, *config.held_out),
        sentences=config.sentences,
        robotic=config.robotic,
        words=config.words,
        seed=config.seed,
    )
    inputs = (*find_texts(config.texts), *choice.held_out)
    record = config.output_dir / TEXTS_RUN_FILE
    return Step("choose the texts", record, (choice,), inputs, lambda _resume: choose_texts(choice))


def speech_steps(config: EmbeddedConfig, whisper: Stages, ctc: Stages) -> Iterator[Step]:
    """Natural voices with an accent, exact ones that sound like robots, and both in one manifest."""
    root, limit = config.output_dir, {"threads": config.threads}
    natural = whisper.make(
        PrepareConfig, "prepare", from_text=root / NATURAL_FILE, output_dir=root / "speech-kokoro", speech_engine="kokoro",
        voice_model=config.kokoro, voices=[str(config.kokoro_voices)], **limit,
    )  # fmt: skip
    robotic = ctc.make(
        PrepareConfig, "prepare", from_text=root / ROBOTIC_FILE, output_dir=root / "speech-espeak",
        speech_engine="espeak-ng", **limit,
    )  # fmt: skip
    files = tuple(path for path in (config.kokoro, config.kokoro_voices) if path is not None)
    yield prepare_step("speech by Kokoro", natural, files)
    yield prepare_step("speech by espeak-ng", robotic, ())
    merge = MergeConfig(
        (natural.output_dir, robotic.output_dir),
        (
            "Kokoro-82M (synthetic voice), Common Voice sentences and FrequencyWords words",
            "espeak-ng (synthetic voice), Common Voice sentences",
        ),
        root / "speech",
    )
    manifests = tuple(folder / MANIFEST_NAME for folder in merge.folders)
    record = merge.output_dir / "run.json"
    yield Step("merge the speech", record, (merge,), manifests, lambda _resume: merge_manifests(merge))


def prepare_step(title: str, speech: PrepareConfig, files: tuple[Path, ...]) -> Step:
    """Speech of one engine; clips that are spoken already are kept."""

    def make(_resume: bool) -> None:
        from dinle.build.prepare import prepare

        prepare(speech)

    inputs = (*files, *([speech.from_text] if speech.from_text else []))
    return Step(title, speech.output_dir / "run.json", (speech,), inputs, make)


def merge_manifests(config: MergeConfig) -> Path:
    """One manifest of several; clips stay where they are and are named relative to it, so that all can move together."""
    started = time.monotonic()
    lines = []
    for folder, source in zip(config.folders, config.sources, strict=True):
        for _, fields in iterate_lines(folder / MANIFEST_NAME):
            audio = Path(os.path.relpath(folder / fields["audio"], config.output_dir)).as_posix()
            lines.append(json.dumps({**fields, "audio": audio, "source": source}, ensure_ascii=False) + "\n")
    config.output_dir.mkdir(parents=True, exist_ok=True)
    manifest = config.output_dir / MANIFEST_NAME
    manifest.write_text("".join(lines), encoding="utf-8")
    inputs = {folder.name: folder / MANIFEST_NAME for folder in config.folders}
    seconds = time.monotonic() - started
    write_run(
        config.output_dir, stage="merge", config=config, seconds=seconds, inputs=inputs, results={"clips": len(lines)}
    )
    return manifest


def train_step(config: EmbeddedConfig, stages: Stages, folder: Path, start: str) -> Step:
    """A training; an interrupted one goes on from its last checkpoint."""
    data = config.output_dir / "speech"
    settings = stages.make(
        TrainConfig, "train", model_name=start, dataset_name=str(data), output_dir=folder, threads=config.threads
    )

    def make(resume: bool) -> None:
        from dinle.build.train import train

        train(replace(settings, resume=resume))

    record = folder / "best" / "run.json"
    return Step(f"train {folder.name}", record, (settings,), (Path(start), data), make, checkpoints=folder)


def bundle_step(config: EmbeddedConfig, stages: Stages, trained: Path, name: str) -> Step:
    """Export and quantise as one: the fp32 graph between them does not outlive the gate."""
    folder, best = config.output_dir / name, trained / "best"
    start = folder / CHECKPOINT if name == CTC_NAME else best
    exported = stages.make(ExportConfig, "export", checkpoint_dir=str(start), onnx_dir=folder, name=name, int8=False)
    quantized = stages.make(QuantizeConfig, "quantize", bundle_dir=folder, drop_fp32=True, threads=config.threads)

    def make(_resume: bool) -> None:
        from dinle.build.export import export
        from dinle.build.quantize import quantize

        if start != best:
            save_half(best, start)
        export(exported)
        quantize(quantized)

    inputs = (best, *([quantized.manifest] if quantized.manifest else []))
    return Step(f"bundle {name}", folder / "run_quantize.json", (exported, quantized), inputs, make)


def language_step(config: EmbeddedConfig, name: str, best: Path) -> Step:
    """The language model of a bundle, without the texts that it will be judged on; its weights from the held-out clips."""
    folder = config.output_dir / name
    learnt = LmConfig(
        action="build", texts=(config.texts,), bundle_dir=folder, exclude=(*config.judge_on[:1], *config.held_out)
    )
    tuned = learnt
    if config.held_out:
        tuned = replace(
            learnt, action="tune", texts=(), manifest=config.held_out, split="train", threads=config.threads
        )

    def make(_resume: bool) -> None:
        build_into_bundle(learnt)
        if tuned is not learnt:
            tune_weights(tuned)

    return Step(f"language model of {name}", folder / LM_RUN_FILE, (learnt, tuned), (best, config.texts), make)


def save_half(best: Path, folder: Path) -> None:
    """A CTC checkpoint in fp16, to travel inside its bundle."""
    from dinle.build.models import load_model
    from dinle.build.provenance import read_provenance, write_provenance

    folder.mkdir(parents=True, exist_ok=True)
    load_model(best).save(folder, half=True)
    write_provenance(folder, read_provenance(best))


def evaluate_step(config: EmbeddedConfig, stages: Stages, name: str, data: Path) -> Step:
    """WER and CER of a bundle on a data set."""
    bundle = config.output_dir / name
    folder = config.output_dir / "evaluation" / f"{name}_{data.name}"
    settings = stages.make(
        EvaluateConfig, "evaluate", manifest=data / MANIFEST_NAME, model=str(bundle), output_dir=folder,
        threads=config.threads,
    )  # fmt: skip

    def make(_resume: bool) -> None:
        from dinle.measure.evaluate import evaluate
        from dinle.measure.report import render_scores
        from dinle.measure.scores import SCORES_FILE

        scores = json.loads((evaluate(settings) / SCORES_FILE).read_text(encoding="utf-8"))
        stages.console.print(render_scores(scores))

    return Step(f"evaluate {name} on {data.name}", folder / "run.json", (settings,), (bundle, data), make)
