"""Speech that a graph is run on, to see which numbers its activations take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.build.parity import find_sounds
from dinle.errors import ManifestError
from dinle.manifest import MANIFEST_NAME, read_manifest
from dinle.recognize.audio import SAMPLE_RATE_HZ, Waveform, decode_audio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dinle.build.config import QuantizeConfig
    from dinle.recognize.bundle import Bundle

MAX_CLIPS = 32  # a minute or two of speech
MAX_CLIP_S = 20.0
SPLIT = "train"  # the gate judges on other clips


def find_calibration_files(config: QuantizeConfig) -> list[Path]:
    """Sound files to calibrate on: those that are given, the training split of the manifest, or the small data set.

    Returns:
        Up to MAX_CLIPS files, spread over the source; none in an installed package without any of the three.

    Raises:
        UsageError, ManifestError: what is given cannot be read.
    """
    if config.calibration is not None:
        return _spread(find_sounds(config.calibration))
    bundled = Path(__file__).resolve().parents[3] / "data" / "mini" / MANIFEST_NAME
    for manifest in (config.manifest, bundled):
        if manifest is not None:
            with suppress(ManifestError):  # no such split, or an installed package
                return _spread([clip.audio for clip in read_manifest(manifest, split=SPLIT)])
    return []


def _spread(files: Sequence[Path]) -> list[Path]:
    """At most MAX_CLIPS of the files, from all over the list."""
    places = np.linspace(0, len(files) - 1, min(len(files), MAX_CLIPS)).round().astype(int)
    return [files[place] for place in places]


def make_feeds(files: Sequence[Path], bundle: Bundle) -> Iterator[dict[str, NDArray[Any]]]:
    """Each clip as a batch of one, as a bundle's graph or encoder hears it: an encoder gets its silence behind.

    Raises:
        AudioError: a file cannot be read.
    """
    for file in files:
        waveform = decode_audio(file)[: round(MAX_CLIP_S * SAMPLE_RATE_HZ)]
        heard = _fill(waveform, bundle)
        yield {"waveform": heard[np.newaxis], "lengths": np.array([len(heard)], np.int64)}


def _fill(waveform: Waveform, bundle: Bundle) -> Waveform:
    """The clip, cut to what the model takes, with the silence that the bundle asks for."""
    tail, least = (round(seconds * SAMPLE_RATE_HZ) for seconds in (bundle.tail_s, bundle.min_window_s))
    most = round((bundle.max_seconds or MAX_CLIP_S) * SAMPLE_RATE_HZ) - tail
    clip = waveform[:most]
    return np.pad(clip, (0, max(tail, least - len(clip))))
