from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.build.config import PrepareConfig
from dinle.build.speech import Cast, Delivery, Voice, find_voice
from dinle.build.text_source import write_for_voice
from dinle.errors import UsageError
from dinle.text import ALPHABET, normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterable

VOICES = ("ada", "can", "ece", "gül", "ali")
TURKISH = st.text(alphabet=ALPHABET + "ABCÇIİÖŞÜâîûÂ 0123456789.,:;'’-%₺!?…\"()&°", max_size=60)


def make_cast(voices: tuple[str, ...] = VOICES, **fields: Any) -> Cast:
    return Cast(voices, PrepareConfig(**fields))


def name_parts(deliveries: Iterable[Delivery]) -> set[str]:
    return {name for each in deliveries for name in (each.voice.first, each.voice.second) if name is not None}


# --- what is said ---


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("IŞIK söndü.", "ışık söndü."),
        ("İSTANBUL'da", "istanbulda"),
        ("I\u0307zmir", "izmir"),
        ("Saat 14:30'da, 3. katta!", "saat on dört otuzda, üçüncü katta!"),
        ("Türkiye’nin %20'si", "türkiyenin yüzde yirmisi"),
        ("hâlâ kâğıt", "hâlâ kâğıt"),
        ("Café [[x]] <b>", "cafe x b"),
        ("e-posta 日本 😀 ok…", "e posta ok…"),
    ],
)
def test_a_voice_is_given_what_the_label_reads(written: str, said: str) -> None:
    assert write_for_voice(written) == said


@given(st.one_of(TURKISH, st.text(max_size=40)))
def test_label_and_sound_agree(text: str) -> None:
    assert normalize_tr(write_for_voice(text)) == normalize_tr(text)


# --- who says it ---


@given(st.integers(0, 1000), st.integers(1, 10_000))
def test_a_held_out_voice_is_in_no_training_clip_and_a_test_clip_has_no_other(seed: int, line: int) -> None:
    cast = make_cast(test_voices=("can", "gül"), seed=seed, blend_voices=0.7, speakers_per_text=4)
    for split in ("train", "validation", "other"):
        assert not name_parts(cast.draw(split, line)) & {"can", "gül"}
    assert name_parts(cast.draw("test", line)) <= {"can", "gül"}


def test_the_same_seed_draws_the_same_and_each_line_for_itself() -> None:
    first, again, other = (make_cast(seed=seed, blend_voices=0.5) for seed in (3, 3, 4))
    drawn = [first.draw("train", line) for line in range(50)]
    assert [again.draw("train", line) for line in reversed(range(50))][::-1] == drawn
    assert [other.draw("train", line) for line in range(50)] != drawn


def test_no_voice_comes_twice_before_each_has_come_once() -> None:
    for line in range(20):
        drawn = [delivery.voice.first for delivery in make_cast(speakers_per_text=7).draw("train", line)]
        assert sorted(drawn[:5]) == sorted(VOICES)
        assert drawn[5:] == drawn[:2]


def test_blends_speeds_and_pitches_are_drawn_from_their_ranges() -> None:
    cast = make_cast(blend_voices=0.5, speed_range=(0.9, 1.1), pitch_range=(1.0, 1.0))
    drawn = [cast.draw("train", line)[0] for line in range(400)]
    blends = [delivery.voice for delivery in drawn if delivery.voice.second]
    assert 160 < len(blends) < 240  # 200 +- 10
    assert all(voice.first != voice.second and 0.3 <= voice.share <= 0.7 for voice in blends)
    assert all(0.9 <= delivery.speed <= 1.1 and delivery.pitch == 1 for delivery in drawn)
    assert name_parts(drawn) == set(VOICES)
    assert {
        each.voice.second for each in (make_cast(("ada",), blend_voices=1.0).draw("train", n)[0] for n in range(9))
    } == {None}


def test_a_text_is_on_one_side_however_it_is_written() -> None:
    cast = make_cast(test_voices=("can",))
    sides = {text: cast.choose_split(text) for text in (f"cümle {number}" for number in range(500))}
    assert 70 < sum(side == "test" for side in sides.values()) < 130  # one voice of five: 100 +- 9
    assert all(cast.choose_split(text.replace("cümle", "CÜMLE,") + "!") == side for text, side in sides.items())
    assert {make_cast().choose_split(text) for text in sides} == {"train"}


def test_voices_are_found_by_their_last_part() -> None:
    assert find_voice("f1", ("tr", "tr+f1")) == find_voice("tr+f1", ("tr", "tr+f1")) == "tr+f1"
    with pytest.raises(UsageError, match=r"there is no voice 'zoe'; known are: ada, can"):
        find_voice("zoe", VOICES)
    with pytest.raises(UsageError, match="holds out every voice"):
        make_cast(("ada", "can"), test_voices=("ada", "can"))


def test_a_blend_is_labelled_with_both() -> None:
    assert (Voice("ada").label, Voice("ada", "can", 0.4).label) == ("ada", "ada+can")
