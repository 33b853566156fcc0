from __future__ import annotations

import json
import re

from dinle.recognize.transcript import Transcript, Word, split_cues


def make_transcript(*words: Word) -> Transcript:
    return Transcript(" ".join(w.text for w in words), words, duration_s=4.0, inference_s=0.05, model="fake")


HELLO = make_transcript(
    Word("şu", 0.5, 0.75, 0.9), Word("ırmak", 0.8, 1.2, 0.123456), Word("uzak", 3661.5, 3661.9, 1.0)
)


def test_json_keeps_turkish_letters_and_rounds() -> None:
    assert "ırmak" in HELLO.to_json()
    data = json.loads(HELLO.to_json())
    assert data["words"][1] == {"text": "ırmak", "start_s": 0.8, "end_s": 1.2, "confidence": 0.123}
    assert (data["duration_s"], data["model"]) == (4.0, "fake")


def test_srt_is_numbered_with_comma_milliseconds() -> None:
    assert HELLO.to_srt() == (
        "1\n00:00:00,500 --> 00:00:01,200\nşu ırmak\n\n2\n01:01:01,500 --> 01:01:01,900\nuzak\n\n"
    )


def test_vtt_has_a_header_and_dot_milliseconds() -> None:
    lines = HELLO.to_vtt().splitlines()
    assert lines[0] == "WEBVTT"
    assert re.fullmatch(r"00:00:00\.500 --> 00:00:01\.200", lines[2])


def test_silence_makes_valid_empty_files() -> None:
    silence = make_transcript()
    assert (silence.to_srt(), silence.to_vtt()) == ("", "WEBVTT\n\n")


def test_cues_hold_every_word_and_stay_short() -> None:
    words = [Word("kelime", i * 0.5, i * 0.5 + 0.4, 1.0) for i in range(60)]
    cues = list(split_cues(words))
    assert [word for cue in cues for word in cue] == words
    assert max(cue[-1].end_s - cue[0].start_s for cue in cues) <= 7.0
    assert max(len(" ".join(w.text for w in cue)) for cue in cues) <= 84


def test_a_clock_does_not_round_to_sixty_seconds() -> None:
    assert "00:01:00,000 -->" in make_transcript(Word("a", 59.9996, 60.5, 1.0)).to_srt()
