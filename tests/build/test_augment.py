from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.build.augment import (
    Augmenter,
    add_noise,
    change_speed,
    colour_pink,
    draw_noise,
    limit_peak,
    limit_to_telephone,
    reverberate,
)
from dinle.build.config import Augmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dinle.recognize.audio import Waveform

KINDS: tuple[Augmentation, ...] = get_args(Augmentation)
RATE_HZ = 16_000


def make_noise(samples: int, seed: int = 0, level: float = 0.1) -> Waveform:
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def make_tone(hz: float, seconds: float = 1.0) -> Waveform:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def power(waveform: Waveform) -> float:
    return float(np.mean(np.square(waveform, dtype=np.float64)))


def band_energy(waveform: Waveform) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return np.fft.rfftfreq(len(waveform), 1 / RATE_HZ), np.abs(np.fft.rfft(waveform)) ** 2


def augment(waveform: Waveform, seed: int, epoch: int = 0, clip: int = 0) -> Waveform:
    def draw_voice(generator: np.random.Generator) -> Waveform:
        return make_noise(int(generator.integers(1, 9_000)))

    return Augmenter(KINDS, 0.7, seed).apply(waveform, epoch=epoch, clip=clip, draw_voice=draw_voice)


@given(
    seed=st.integers(0, 10_000),
    samples=st.sampled_from([1, 2, 50, 8_000, 20_001]),
    level=st.sampled_from([0.0, 1e-4, 0.3, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_any_draw_is_finite_float32_within_one_and_leaves_its_input(seed: int, samples: int, level: float) -> None:
    waveform = np.clip(make_noise(samples, seed, level), -1, 1)
    before = waveform.copy()
    changed = augment(waveform, seed)
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert np.abs(changed).max(initial=0) <= 1
    np.testing.assert_array_equal(waveform, before)


def test_the_same_seed_epoch_and_clip_give_the_same_sound_and_any_other_does_not() -> None:
    waveform = make_noise(16_000)
    first = augment(waveform, seed=3, epoch=1, clip=5)
    np.testing.assert_array_equal(first, augment(waveform, seed=3, epoch=1, clip=5))
    for other in ((4, 1, 5), (3, 2, 5), (3, 1, 6)):
        changed = augment(waveform, *other)
        assert len(changed) != len(first) or not np.array_equal(changed, first)


def test_probability_decides_how_often() -> None:
    waveform = make_tone(500, 0.1)
    for probability in (0.0, 0.3, 1.0):
        augmenter = Augmenter(("volume",), probability, 1)
        changed = [not np.array_equal(augmenter.apply(waveform, epoch=0, clip=i), waveform) for i in range(300)]
        assert np.mean(changed) == pytest.approx(probability, abs=0.1)


@pytest.mark.parametrize("snr_db", [-3.0, 5.0, 17.5, 30.0])
@pytest.mark.parametrize("kind", ["white", "pink", "babble"])
def test_noise_has_the_ratio_that_was_asked(snr_db: float, kind: str) -> None:
    speech = make_tone(300) * np.linspace(0, 1, RATE_HZ, dtype=np.float32)
    noise = {"white": make_noise(RATE_HZ), "pink": colour_pink(make_noise(RATE_HZ)), "babble": make_tone(210)}[kind]
    noisy = add_noise(speech, noise, snr_db)
    measured_db = 10 * np.log10(power(speech) / power(noisy - speech))
    assert measured_db == pytest.approx(snr_db, abs=0.5)


def test_noise_onto_or_of_silence_changes_nothing() -> None:
    silence, speech = np.zeros(100, dtype=np.float32), make_noise(100)
    np.testing.assert_array_equal(add_noise(silence, speech, 5.0), silence)
    np.testing.assert_array_equal(add_noise(speech, silence, 5.0), speech)


def test_pink_noise_falls_by_three_decibels_an_octave() -> None:
    frequencies, energy = band_energy(colour_pink(make_noise(20 * RATE_HZ)))
    octaves_db = [
        10 * np.log10(energy[(frequencies >= low) & (frequencies < 2 * low)].mean())
        for low in (100, 200, 400, 800, 1600)
    ]
    np.testing.assert_allclose(np.diff(octaves_db), -10 * np.log10(2), atol=0.5)


def test_babble_is_made_of_other_clips_of_any_length() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_noise(5_000, generator, lambda _: make_tone(440, 0.1)) for _ in range(30)]
    tonal = 0
    for noise in drawn:
        assert noise.shape == (5_000,)
        frequencies, energy = band_energy(noise)
        tonal += bool(energy[np.abs(frequencies - 440) < 50].sum() > 0.8 * energy.sum())
    assert 3 < tonal < 20


@pytest.mark.parametrize("factor", [0.9, 0.97, 1.0, 1.1])
@pytest.mark.parametrize("samples", [37, 16_000, 20_001])
def test_speed_divides_the_length_and_multiplies_the_pitch(factor: float, samples: int) -> None:
    assert abs(len(change_speed(make_noise(samples), factor)) - samples / factor) <= 1
    frequencies, energy = band_energy(change_speed(make_tone(1_000), factor))
    assert frequencies[energy.argmax()] == pytest.approx(1_000 * factor, abs=2)


def test_a_clip_is_never_sped_up_below_what_its_label_needs() -> None:
    augmenter = Augmenter(("speed",), 1.0, 1)
    waveform = make_noise(10_000)
    tight = [len(augmenter.apply(waveform, epoch=0, clip=i, min_samples=9_990)) for i in range(100)]
    free = [len(augmenter.apply(waveform, epoch=0, clip=i)) for i in range(100)]
    assert min(tight) >= 9_990
    assert max(tight) > 10_500
    assert min(free) < 9_300


def test_a_clip_is_never_slowed_down_beyond_what_the_model_takes() -> None:
    waveform = make_noise(16_000)
    augmenter = Augmenter(("speed",), 1.0, seed=1)
    lengths = {len(augmenter.apply(waveform, epoch=0, clip=n, max_samples=16_400)) for n in range(30)}
    assert 16_000 < max(lengths) <= 16_400
    assert len(augmenter.apply(waveform, epoch=0, clip=0, min_samples=16_000, max_samples=16_000)) == 16_000


def test_the_telephone_keeps_its_band_and_drops_the_rest() -> None:
    noise = make_noise(2 * RATE_HZ)
    line = limit_to_telephone(noise)
    assert len(line) == len(noise)
    frequencies, before = band_energy(noise)
    _, after = band_energy(line)
    for outside in (frequencies < 200, frequencies > 3_500, frequencies > 4_000):
        assert 10 * np.log10(after[outside].sum() / before[outside].sum()) < -20
    inside = (frequencies > 320) & (frequencies < 3_300)
    assert 10 * np.log10(after[inside].sum() / before[inside].sum()) == pytest.approx(0, abs=0.5)


def test_a_room_adds_a_tail_that_decays_as_asked_and_keeps_power_and_onset() -> None:
    click = np.zeros(RATE_HZ, dtype=np.float32)
    click[1_000] = 0.5
    wet = reverberate(click, reverb_s=0.4, direct_db=3.0, generator=np.random.default_rng(1))
    assert len(wet) == len(click)
    assert power(wet) == pytest.approx(power(click), rel=1e-3)
    assert np.abs(wet[:1_000]).max() < 1e-6
    assert np.abs(wet).argmax() == 1_000
    tail = wet[1_001:]
    early, late = power(tail[: RATE_HZ // 20]), power(tail[RATE_HZ // 5 : RATE_HZ // 5 + RATE_HZ // 20])
    # 60 dB in 0.4 s: 30 dB from one 50 ms window to that 0.2 s later
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=2)
    direct_db = 10 * np.log10(float(wet[1_000]) ** 2 / float(np.sum(np.square(tail))))
    assert direct_db == pytest.approx(3.0, abs=0.1)


def test_the_peak_is_limited_by_scaling_and_quiet_sound_stays() -> None:
    loud = make_tone(440) * 4
    limited = limit_peak(loud)
    assert np.abs(limited).max() == pytest.approx(0.99)
    np.testing.assert_allclose(limited, loud * np.abs(limited).max() / np.abs(loud).max(), rtol=1e-5)
    quiet = make_tone(440)
    np.testing.assert_array_equal(limit_peak(quiet), quiet)
