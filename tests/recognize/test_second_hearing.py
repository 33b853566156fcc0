"""Sound that a decoder passed over is heard again by itself, on writers that pass over sound as the bundled model does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.recognize.second_hearing import SILENT_S, TIMES, find_passed, goes_in_circles, hear_again
from dinle.recognize.segments import Segment
from dinle.recognize.transcript import Word
from dinle.recognize.word_edges import measure_levels
from tests.sounds import make_noise, scale_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dinle.recognize.audio import Waveform

RATE = 16_000
WORD_S = 0.4
NAMES = ("bir", "iki", "üç", "dört", "beş", "altı", "yedi", "sekiz", "dokuz", "on", "yirmi", "otuz", "kırk", "elli")
START_S = 100.0  # of the segment in its recording


def make_segment(count: int, *, pause_s: float = 0.0) -> tuple[Segment, list[Word]]:
    """A segment of so many words, each 0.4 s of noise, and what a writer that hears everything makes of it."""
    sounds: list[Waveform] = []
    words, at = [], START_S
    room = scale_to(make_noise(pause_s + 0.05, "pink", seed=1), -60)
    for i in range(count):
        words.append(Word(NAMES[i % len(NAMES)], at, at + WORD_S, 0.9))
        sounds += [scale_to(make_noise(WORD_S, "pink", seed=i), -20), room]
        at += WORD_S + len(room) / RATE
    samples = np.concatenate(sounds).astype(np.float32)
    return Segment(samples, round(START_S * RATE), 0.99), words


def fill(words: Sequence[Word], segment: Segment) -> list[Word]:
    """As an alignment leaves them: each lasts until the next begins, all of the sound is theirs."""
    first_s, end_s = segment.start / RATE, (segment.start + len(segment.samples)) / RATE
    starts = [first_s, *[word.start_s for word in words[1:]], end_s]
    return [
        replace(word, start_s=start, end_s=end) for word, start, end in zip(words, starts, starts[1:], strict=False)
    ]


class Writer:
    """Writes the words whose middles lie in a part, but for what ``pass_over`` leaves of them."""

    def __init__(self, said: Sequence[Word], pass_over: Callable[[list[Word]], list[Word]] = list) -> None:
        self.said, self.pass_over = said, pass_over
        self.heard: list[Segment] = []

    def __call__(self, part: Segment) -> list[Word]:
        self.heard.append(part)
        first, end = part.start / RATE, (part.start + len(part.samples)) / RATE
        return fill(
            self.pass_over([word for word in self.said if first <= (word.start_s + word.end_s) / 2 < end]), part
        )

    def read(self, segment: Segment, *, times: int = TIMES) -> list[str]:
        return [word.text for word in hear_again(segment, self(segment), self, times=times)]


def names(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words]


def test_a_text_of_all_words_is_heard_once() -> None:
    segment, said = make_segment(12)
    writer = Writer(said)
    assert writer.read(segment) == names(said)
    assert len(writer.heard) == 1


def test_a_pause_is_not_sound_that_was_passed_over() -> None:
    segment, said = make_segment(8, pause_s=1.6)
    assert max(word.end_s - word.start_s for word in fill(said, segment)) > 2
    writer = Writer(said)
    assert writer.read(segment) == names(said)
    assert len(writer.heard) == 1


@pytest.mark.parametrize("kept", [slice(0, 5), slice(7, None), slice(0, 1)], ids=["end", "beginning", "all but a word"])
def test_what_was_passed_over_at_either_end_is_heard_again(kept: slice) -> None:
    segment, said = make_segment(12)
    writer = Writer(said, lambda words: words[kept] if len(words) == len(said) else words)
    assert writer.read(segment) == names(said)
    assert sum(len(part.samples) for part in writer.heard[1:]) < 1.2 * len(segment.samples)


def test_what_was_passed_over_in_the_middle_is_heard_again_without_the_rest() -> None:
    segment, said = make_segment(14)
    writer = Writer(said, lambda words: words[:4] + words[10:] if len(words) == len(said) else words)
    assert writer.read(segment) == names(said)
    assert len(writer.heard) == 2
    assert len(writer.heard[1].samples) < 0.65 * len(segment.samples)


def test_a_segment_without_a_word_is_heard_in_two() -> None:
    segment, said = make_segment(12)
    writer = Writer(said, lambda words: [] if len(words) > 8 else words)
    assert writer.read(segment) == names(said)
    assert len(writer.heard) == 3
    first, second = writer.heard[1:]
    assert first.start == segment.start
    assert second.start == first.start + len(first.samples)
    assert second.start + len(second.samples) == segment.start + len(segment.samples)
    between = [abs(second.start / RATE - (word.start_s + word.end_s) / 2) for word in said]
    assert min(between) >= 0.4 * WORD_S  # cut between two words


def test_sound_that_nobody_understands_is_heard_a_few_times_only() -> None:
    segment, _ = make_segment(60)
    writer = Writer([])
    assert writer.read(segment) == []
    assert len(writer.heard) <= 2 ** (TIMES + 1) - 1
    assert sum(len(part.samples) for part in writer.heard) <= (TIMES + 1) * len(segment.samples)


def test_a_word_that_nobody_understands_is_heard_once() -> None:
    segment, _ = make_segment(int(SILENT_S / WORD_S) - 1)
    writer = Writer([])
    assert writer.read(segment) == []
    assert len(writer.heard) == 1


def test_the_first_hearing_stays_where_the_second_has_less() -> None:
    segment, said = make_segment(12)
    writer = Writer(said, lambda words: words[:5] if len(words) == len(said) else [])
    assert writer.read(segment) == names(said)[:5]
    assert len(writer.heard) > 1


def test_a_text_that_goes_in_circles_is_replaced_by_a_shorter_one() -> None:
    segment, said = make_segment(12)
    circle = [Word(text, START_S, START_S, 0.9) for text in NAMES[:6] * 4]
    step_s = len(segment.samples) / RATE / len(circle)
    circle = [Word(one.text, START_S + i * step_s, START_S + (i + 1) * step_s, 0.9) for i, one in enumerate(circle)]
    writer = Writer(said)
    assert names(hear_again(segment, circle, writer)) == names(said)
    assert names(hear_again(segment, circle, Writer([]))) == names(circle)  # nothing is lost


def test_people_may_repeat_themselves() -> None:
    def circles(text: str) -> bool:
        return goes_in_circles([Word(one, 0, 0, 1) for one in text.split()])

    assert not circles("")
    assert not circles("evet evet evet")
    assert not circles("bir daha söyle, bir daha söyle, bir daha söyle")
    assert circles("Her gün odamda oturuyor kitap. HER GÜN ODAMDA oturuyor, kitap. Andı. Her gün odamda oturuyor kitap")


def test_drafts_are_not_heard_again() -> None:
    segment, said = make_segment(12)
    writer = Writer(said, lambda words: words[:5] if len(words) == len(said) else words)
    assert writer.read(segment, times=0) == names(said)[:5]
    assert len(writer.heard) == 1


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 500])
def test_no_sound_to_speak_of_is_left_as_it_is(samples: int) -> None:
    segment = Segment(np.zeros(samples, dtype=np.float32), 0, 0.5)
    for words in ([], [Word("bir", 0.0, samples / RATE, 0.5)]):
        assert hear_again(segment, words, Writer([])) == words


def test_a_melody_that_sounds_throughout_is_found_and_silence_around_a_word_is_not() -> None:
    segment, said = make_segment(1, pause_s=8.0)
    levels = measure_levels(segment.samples)
    assert list(find_passed(fill(said, segment), levels, START_S)) == []
    assert list(find_passed([], levels, START_S)) == []
    loud = make_noise(8.0, "pink", seed=0)
    assert [passed.stop for passed in find_passed([], measure_levels(loud), 0.0)] == [0]


@given(kept=st.lists(st.booleans(), min_size=14, max_size=14), most=st.integers(3, 14))
@settings(max_examples=60, deadline=None)
def test_words_come_in_order_once_and_inside_the_segment(kept: list[bool], most: int) -> None:
    """A law: whatever the writer passes over, no word comes twice, none out of order, none outside of the sound."""
    segment, said = make_segment(14)
    chosen = {word.start_s for word, keep in zip(said, kept, strict=True) if keep}
    writer = Writer(said, lambda words: [one for one in words if one.start_s in chosen] if len(words) > most else words)
    words = hear_again(segment, writer(segment), writer)
    places = [NAMES.index(word.text) for word in words]
    assert places == sorted(set(places))
    assert set(places) >= {i for i, keep in enumerate(kept) if keep}
    times = [time_s for word in words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert not times or START_S <= times[0] <= times[-1] <= START_S + len(segment.samples) / RATE
