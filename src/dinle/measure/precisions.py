"""Which precision is the best on this processor: latency by threads, and what is lost in WER, measured on one bundle."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dinle.errors import UsageError
from dinle.manifest import read_manifest
from dinle.measure.backends import LABELS, open_model
from dinle.measure.timing import SETTLE_S, Timings, summarize, time_interleaved
from dinle.measure.wer import count_errors, paired_bootstrap, pool
from dinle.progress import progress, track
from dinle.recognize.bundle import read_bundle, write_bundle
from dinle.recognize.cpu import find_cpu_kind
from dinle.recognize.load import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dinle.manifest import Clip
    from dinle.measure.config import BenchmarkConfig
    from dinle.measure.weights import ModelFiles
    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer

logger = logging.getLogger(__name__)

NORMALIZER = "tr"


def list_thread_counts(threads: int) -> list[int]:
    """1, 2 and all that are asked for."""
    return sorted({1, min(2, threads), threads})


def time_recognizers(
    recognizers: Mapping[str, Recognizer], waveform: Waveform, config: BenchmarkConfig, on_run: Callable[[], object]
) -> Timings:
    """Time recognisers on one clip (S,), in turns, by the config's runs and warm-up."""
    return time_interleaved(
        {name: partial(recognizer.transcribe, waveform) for name, recognizer in recognizers.items()},
        runs=config.runs,
        warmup=config.warmup,
        pause_s=SETTLE_S,
        on_run=on_run,
    )


def time_by_threads(
    models: Sequence[ModelFiles], waveform: Waveform, config: BenchmarkConfig, counts: Sequence[int]
) -> dict[int, dict[str, dict[str, float]]]:
    """Latency of one clip: thread count to backend to figures; the backends of a count take turns in one process.

    Args:
        models: what is timed.
        waveform: (S,) the clip.
        config: runs and warm-up.
        counts: thread counts.
    """
    figures: dict[int, dict[str, dict[str, float]]] = {}
    rounds = config.warmup + config.runs
    with progress("timing by threads", total=len(counts) * len(models) * rounds) as bar:
        for count in counts:
            bar.update(description=f"timing with {count} thread{'s' if count > 1 else ''}")
            recognizers: dict[str, Recognizer] = {
                model.backend: open_model(model.source, model.backend, count, language_model=model.language_model)
                for model in models
            }
            timings = time_recognizers(recognizers, waveform, config, bar.advance)
            figures[count] = {name: summarize(samples).to_dict() for name, samples in timings.samples_s.items()}
    return figures


def measure_quality(models: Sequence[ModelFiles], config: BenchmarkConfig, threads: int) -> dict[str, dict[str, Any]]:
    """WER of each backend on the manifest, and what it loses against fp32: backend to figures.

    The loss is that of pooled WER, positive where the backend is worse; its interval is a paired bootstrap over clips.

    Raises:
        UsageError: no fp32 among the models to compare with.
        ManifestError, AudioError: from the manifest and its clips.
    """
    if config.manifest is None:
        return {}
    baseline = next((model for model in models if model.backend in ("onnx", "pytorch")), None)
    if baseline is None:
        raise UsageError(
            "a loss of WER is measured against fp32, and the bundle has none: export it without dropping model.onnx, or "
            "leave the manifest out"
        )
    clips = read_manifest(config.manifest, split=config.split)
    heard = {model.backend: _transcribe(model, clips, threads) for model in models}
    names = [str(clip.audio) for clip in clips]
    references = [clip.text for clip in clips]
    counts = {name: count_errors(references, texts, names, normalizer=NORMALIZER) for name, (texts, _) in heard.items()}
    exact = counts[baseline.backend]
    audio_s = sum(clip.duration_s for clip in clips)
    return {
        name: {
            "clips": len(clips),
            "normalizer": NORMALIZER,
            "wer": pool(each).wer,
            "cer": pool(each).cer,
            "wer_loss": pool(each).wer - pool(exact).wer,
            "wer_loss_interval": paired_bootstrap(exact, each).interval.to_list(),
            "seconds": heard[name][1],
            "rtfx": audio_s / heard[name][1],
        }
        for name, each in counts.items()
    }


def _transcribe(model: ModelFiles, clips: Sequence[Clip], threads: int) -> tuple[list[str], float]:
    """Texts of all clips and the seconds that they took, files decoded."""
    recognizer = open_model(model.source, model.backend, threads, language_model=model.language_model)
    recognizer.warm_up()
    started = time.perf_counter()
    texts = [
        recognizer.transcribe(clip.audio).text for clip in track(clips, f"transcribing with {LABELS[model.backend]}")
    ]
    return texts, time.perf_counter() - started


def rank_backends(
    latency: Mapping[str, Mapping[str, float]], quality: Mapping[str, Mapping[str, Any]], max_wer_loss: float
) -> list[str]:
    """The backends that ``auto`` may take, the fastest first: ours, and no more WER lost than allowed."""
    ours = [name for name in latency if name in PRECISIONS]
    good = [name for name in ours if name not in quality or quality[name]["wer_loss"] <= max_wer_loss]
    return sorted(good, key=lambda name: latency[name]["median_s"])


def write_choice(source: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Write the ranking into the bundle, under this kind of processor, for ``backend=auto``; what was written.

    Raises:
        BundleError: the bundle cannot be read.
    """
    table = report["precisions"]
    threads = report["conditions"]["threads"]
    choice = {
        "backends": table["ranking"],
        "cpu": report["machine"]["cpu"],
        "threads": threads,
        "clip_s": round(report["conditions"]["clip_s"], 3),
        "median_s": {name: round(one["median_s"], 5) for name, one in table["latency"][str(threads)].items()},
        "wer_loss": {name: round(one["wer_loss"], 5) for name, one in table["quality"].items()},
    }
    bundle = read_bundle(source)
    try:
        write_bundle(replace(bundle, choices={**bundle.choices, find_cpu_kind(): choice}))
    except OSError as error:  # an installed package, or a folder that is mounted to be read
        logger.warning("the choice was not written into %s: %s; the report has it", bundle.folder, error.strerror)
    return choice


def measure_precisions(
    models: Sequence[ModelFiles],
    waveform: Waveform,
    config: BenchmarkConfig,
    threads: int,
    latency: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The precision table, as the report's JSON holds it; ``latency`` of all ``threads`` is measured already."""
    counts = list_thread_counts(threads)
    by_threads = time_by_threads(models, waveform, config, [count for count in counts if count != threads])
    quality = measure_quality(models, config, threads)
    return {
        "cpu_kind": find_cpu_kind(),
        "cores": os.cpu_count(),
        "thread_counts": counts,
        "latency": {str(count): figures for count, figures in (*by_threads.items(), (threads, latency))},
        "quality": quality,
        "manifest": str(config.manifest) if config.manifest is not None else None,
        "max_wer_loss": config.max_wer_loss,
        "ranking": rank_backends(latency, quality, config.max_wer_loss),
    }
