"""Changes to a waveform that a recogniser should not mind: speed, noise, rooms, telephones, loudness.

Each clip of each epoch has a random generator of its own, so that a run repeats whatever the number of workers or
processes. numpy and soxr alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soxr

from dinle.build.config import Augmentation
from dinle.recognize.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable

    from dinle.recognize.audio import Waveform

# The ranges in use for speech: three-fold speed perturbation of Ko et al. 2015 (0.9, 1.0, 1.1), SNRs from a busy street
# to a quiet room, and reverberation times from a small furnished room to a lecture hall.
SPEED_RANGE = (0.9, 1.1)
SNR_RANGE_DB = (5.0, 30.0)
REVERB_RANGE_S = (0.1, 0.8)
DIRECT_TO_REVERB_RANGE_DB = (0.0, 15.0)
VOLUME_RANGE_DB = (-15.0, 6.0)
TELEPHONE_RATE_HZ = 8_000
TELEPHONE_BAND_HZ = (300.0, 3_400.0)  # ITU-T G.712
BABBLE_VOICES = 3
PEAK_LIMIT = 0.99
_ROLL_OFF_HZ = 50.0  # width of the band's edges: a brick wall would ring


@dataclass(frozen=True)
class Augmenter:
    """Draws and applies augmentations in the order of the physical chain: mouth, room, noise, line, level.

    Attributes:
        kinds: what to draw from.
        probability: of each kind, for a clip.
        seed: with the epoch and the clip's number it decides on everything random.
    """

    kinds: tuple[Augmentation, ...]
    probability: float
    seed: int

    def apply(
        self, waveform: Waveform, *, epoch: int, clip: int, min_samples: int = 1, max_samples: int | None = None,
        draw_voice: Callable[[np.random.Generator], Waveform] | None = None,
    ) -> Waveform:  # fmt: skip
        """Change a clip, the same way for the same seed, epoch and clip.

        Args:
            waveform: (S,) float32 at 16 kHz in [-1, 1]; not modified.
            epoch: counted from 0.
            clip: the clip's number.
            min_samples: the result never gets shorter than this (so that a label keeps its frames).
            max_samples: nor longer than this, which the model takes at most (None: no limit).
            draw_voice: gives another clip's waveform, for babble; without it the noise is white or pink.

        Returns:
            (S',) float32, finite, peak at most 1; S' differs from S only by a change of speed.
        """
        generator = np.random.default_rng((self.seed, epoch, clip))
        chosen = {kind for kind in self.kinds if generator.random() < self.probability}
        if "speed" in chosen:
            fastest = min(SPEED_RANGE[1], (len(waveform) - 1) / max(1, min_samples))  # the resampler rounds by one
            slowest = max(SPEED_RANGE[0], (len(waveform) + 1) / max_samples) if max_samples else SPEED_RANGE[0]
            waveform = change_speed(waveform, _draw_speed(generator, slowest, fastest))
        if "reverb" in chosen:
            reverb_s, direct_db = generator.uniform(*REVERB_RANGE_S), generator.uniform(*DIRECT_TO_REVERB_RANGE_DB)
            waveform = reverberate(waveform, reverb_s, direct_db, generator)
        if "noise" in chosen:
            noise = draw_noise(len(waveform), generator, draw_voice)
            waveform = add_noise(waveform, noise, generator.uniform(*SNR_RANGE_DB))
        if "telephone" in chosen:
            waveform = limit_to_telephone(waveform)
        if "volume" in chosen:
            waveform = waveform * np.float32(10 ** (generator.uniform(*VOLUME_RANGE_DB) / 20))
        return limit_peak(waveform) if chosen else waveform


def _draw_speed(generator: np.random.Generator, slowest: float, fastest: float) -> float:
    """A factor between the two; 1 where the clip may not change at all."""
    return generator.uniform(slowest, fastest) if slowest < fastest else 1.0


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play (S,) ``factor`` times as fast, pitch included, by resampling: the result has S / factor samples (within 1)."""
    if factor == 1:
        return waveform
    changed: Waveform = soxr.resample(waveform, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ).astype(np.float32, copy=False)
    return changed


def add_noise(waveform: Waveform, noise: Waveform, snr_db: float) -> Waveform:
    """Add ``noise`` (S,) to ``waveform`` (S,) at a signal-to-noise ratio in dB of the clips' mean powers.

    Where either is silent there is no such ratio, and the waveform stays as it is.
    """
    signal_power, noise_power = np.mean(np.square(waveform)), np.mean(np.square(noise))
    if signal_power <= 0 or noise_power <= 0:
        return waveform
    gain = np.sqrt(signal_power / (noise_power * 10 ** (snr_db / 10)))
    return np.asarray(waveform + noise * gain, dtype=np.float32)


def draw_noise(
    samples: int, generator: np.random.Generator, draw_voice: Callable[[np.random.Generator], Waveform] | None = None
) -> Waveform:
    """White noise, pink noise or the babble of some voices, at equal odds: (S,) of arbitrary level."""
    kind = generator.choice(["white", "pink"] if draw_voice is None else ["white", "pink", "babble"])
    if kind == "babble" and draw_voice is not None:
        voices = [draw_voice(generator) for _ in range(BABBLE_VOICES)]
        starts = [int(generator.integers(max(1, len(voice)))) for voice in voices]
        looped = [np.resize(np.roll(voice, -start), samples) for voice, start in zip(voices, starts, strict=True)]
        return np.asarray(np.sum(looped, axis=0), dtype=np.float32)
    white = generator.standard_normal(samples, dtype=np.float32)
    return white if kind == "white" else colour_pink(white)


def colour_pink(white: Waveform) -> Waveform:
    """Give white noise (S,) the power spectrum 1/f, as most natural noise has; flat below 20 Hz."""
    frequencies = np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(white) / np.sqrt(np.maximum(frequencies, 20.0))
    return np.fft.irfft(spectrum, len(white)).astype(np.float32)


def reverberate(waveform: Waveform, reverb_s: float, direct_db: float, generator: np.random.Generator) -> Waveform:
    """Put a voice into a room: the direct sound, then noise that decays exponentially (Polack's statistical model).

    Args:
        waveform: (S,).
        reverb_s: RT60, the time in which the reverberation falls by 60 dB.
        direct_db: energy of the direct sound over that of the reverberation.
        generator: draws the reflections.

    Returns:
        (S,) at the power of the input: the tail beyond the end is cut, onsets stay where they were.
    """
    power = float(np.mean(np.square(waveform)))
    if power <= 0:
        return waveform
    times_s = np.arange(1, round(reverb_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = generator.standard_normal(len(times_s)) * 10 ** (-3 * times_s / reverb_s)
    tail *= np.sqrt(10 ** (-direct_db / 10) / np.sum(np.square(tail)))
    response = np.concatenate([[1.0], tail])
    size = len(waveform) + len(response) - 1
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)[: len(waveform)]
    return np.asarray(wet * np.sqrt(power / np.mean(np.square(wet))), dtype=np.float32)


def limit_to_telephone(waveform: Waveform) -> Waveform:
    """What a telephone line leaves of (S,): 8 kHz, 300 to 3400 Hz; the length stays."""
    narrow = soxr.resample(
        soxr.resample(waveform, SAMPLE_RATE_HZ, TELEPHONE_RATE_HZ), TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ
    )
    narrow = np.pad(narrow[: len(waveform)], (0, max(0, len(waveform) - len(narrow))))
    frequencies = np.fft.rfftfreq(len(narrow), 1 / SAMPLE_RATE_HZ)
    low, high = TELEPHONE_BAND_HZ
    rise, fall = (frequencies - low) / _ROLL_OFF_HZ + 1, (high - frequencies) / _ROLL_OFF_HZ + 1
    gain = np.clip(np.minimum(rise, fall), 0, 1)
    return np.fft.irfft(np.fft.rfft(narrow) * gain, len(narrow)).astype(np.float32)


def limit_peak(waveform: Waveform) -> Waveform:
    """Scale (S,) down to a peak of :data:`PEAK_LIMIT` where it is higher; a scale, not a clip, adds no distortion."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return (waveform * np.float32(PEAK_LIMIT / peak)) if peak > PEAK_LIMIT else waveform.astype(np.float32, copy=False)
