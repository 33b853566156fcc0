"""The written form: what is written, and that every written word keeps the times of the words it was said in."""

from __future__ import annotations

import difflib
import json
import random
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinle.cli import main
from dinle.errors import MissingExtraError
from dinle.recognize.transcript import Transcript, Word
from dinle.recognize.written import MAX_WORDS, WrittenForm, cut_stretches, spell, write_stretch
from dinle.spoken import speak_numbers
from dinle.text import normalize_tr
from tests.graphs import spell_levels, write_level_bundle
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT, TEXTS = ROOT / "docs" / "written.md", ROOT / "data" / "text"
NUMERAL = re.compile(r"\d+(?:[.,:/]\d+)*")
PLAIN = ["ev", "geldi", "ırmak", "İzmir'de", "Işık", "çok", "iyi.", "Ama,", "mı?", "dedi", "ama...", "AB", "Türkiye"]
NUMBERS = ["sıfır", "bir", "iki", "üç", "dört", "beş", "yedi", "on", "yirmi", "otuz", "elli", "yüz", "bin", "milyon"]
AROUND = ["saat", "lira", "kuruş", "dolar", "kilometre", "ocak", "Ekim", "yılında", "kala", "numara", "üçüncü", "buçuk"]
AROUND += ["dokuzda", "otuzda.", "haziranda", "Yüz", "İki,", "beşi", "virgül", "yüzde", "eksi"]


@cache
def load_form() -> WrittenForm:
    return WrittenForm()


@pytest.fixture(scope="module")
def form() -> WrittenForm:
    return load_form()


def say(text: str) -> list[Word]:
    """Words of one second each, in the seconds of their places, each with a confidence of its own."""
    return [Word(token, float(i), i + 0.75, 1 / (i + 2)) for i, token in enumerate(text.split())]


def list_places(words: Sequence[Word]) -> list[range]:
    """The places of the spoken words of :func:`say` that each written word covers."""
    return [range(int(word.start_s), int(word.end_s) + 1) for word in words]


def check_laws(spoken: Sequence[Word], written: Sequence[Word]) -> None:
    covered = [place for places in list_places(written) for place in places]
    assert covered == list(range(len(spoken)))  # in order, inside the span, every spoken word exactly once
    known = {id(word) for word in spoken}
    for word, places in zip(written, list_places(written), strict=True):
        parts = [spoken[place] for place in places]
        assert (word.start_s, word.end_s) == (parts[0].start_s, parts[-1].end_s)
        assert word.confidence == min(part.confidence for part in parts)
        assert (word.text == spell(parts)) == (id(word) in known) or len(parts) > 1


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("yüz elli lira", ["150|0-1", "TL|2"]),
        ("Yüz elli lira, ama...", ["150|0-1", "TL,|2", "ama...|3"]),
        ("saat dokuz otuzda gel", ["saat|0", "09:30'da|1-2", "gel|3"]),
        ("ev AB ev AB yüz lira", ["ev|0", "AB|1", "ev|2", "AB|3", "100|4", "TL|5"]),  # damga: Ee 100 TL
        ("te re te izledim", ["TRT|0-2", "izledim|3"]),
        ("Saat dokuz otuzda, gel.", ["Saat|0", "09:30'da,|1-2", "gel.|3"]),
        ("yüzde yirmi beşi, arttı", ["%25'i,|0-2", "arttı|3"]),
        ("dün on dört haziranda", ["dün|0", "14|1-2", "Haziran'da|3"]),
        ("bin dokuz yüz yirmi üç yılında oldu", ["1923|0-4", "yılında|5", "oldu|6"]),
        ("Yirmi dokuz Ekim bin dokuz yüz yirmi üçte.", ["29|0-1", "Ekim|2", "1923'te.|3-7"]),
        ("yüz lira elli kuruş verdi", ["100,50 TL|0-3", "verdi|4"]),
        ("yüz elli türk lirası", ["150|0-1", "TL|2-3"]),
        ("yirmi bir bir", ["21|0-1", "bir|2"]),
        ("üçüncü katta iki kişi", ["3.|0", "katta|1", "2|2", "kişi|3"]),
        ("Işık AB İki üç", ["Işık|0", "AB|1", "2|2", "3|3"]),
        (
            "numaram sıfır beş yüz otuz iki yüz yirmi üç kırk beş altmış yedi",
            ["numaram|0", "0532|1-5", "123|6-8", "45|9-10", "67|11-12"],
        ),
    ],
)
def test_a_written_word_belongs_to_the_fewest_words_that_give_it(
    form: WrittenForm, spoken: str, written: list[str]
) -> None:
    words = form.write_words(say(spoken))
    places = [f"{p.start}-{p.stop - 1}" if len(p) > 1 else f"{p.start}" for p in list_places(words)]
    assert [f"{word.text}|{place}" for word, place in zip(words, places, strict=True)] == written


SPELT = [word for word in PLAIN if word != "AB"]  # beside which damga may take words for spelling: the test below


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*SPELT, *NUMBERS, *NUMBERS, *AROUND]), max_size=20).map(" ".join))
def test_the_text_is_damgas_own_and_the_times_are_kept(text: str) -> None:
    words = say(text)
    written = load_form().write_words(words)
    assert spell(written) == load_form().write_text(text)
    check_laws(words, written)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PLAIN), max_size=30).map(" ".join))
def test_without_numbers_nothing_changes_however_often(text: str) -> None:
    words = tuple(say(text))
    once = load_form().write_words(words)
    assert [id(word) for word in load_form().write_words(once)] == [id(word) for word in words]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abcde"), max_size=12).map(" ".join), st.integers(0, 2**32))
def test_the_laws_hold_for_any_grammar(text: str, seed: int) -> None:
    def write(piece: str) -> str:
        lot = random.Random(f"{seed} {piece}")  # noqa: S311 - no secret
        return " ".join(lot.choices("ABCDEXYZ", k=lot.randint(0, 8)))

    words = say(text)
    written = write_stretch(words, write)
    assert spell(written) in {write(text), text}
    check_laws(words, written)


@pytest.mark.parametrize("write", [lambda _: "", lambda _: "  "])
def test_where_nothing_is_written_the_spoken_words_stay(write: Callable[[str], str]) -> None:
    words = say("iki üç")
    assert list(write_stretch(words, write)) == words


def test_where_the_grammars_find_no_way_the_text_stays(form: WrittenForm, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = SimpleNamespace(normalize_with_details=lambda text: SimpleNamespace(text="i", notes=["read: no path"]))
    monkeypatch.setattr(form, "_normalizer", lost)
    assert form.write_text("Işık  AB") == "Işık AB"


@pytest.mark.parametrize(
    "text", ["", '"', "\\", "[x] 😀 iki", "日本 beş", "\u0307", "iki \x00 üç", "x" * 5000, "— - … ’"]
)
def test_any_text_can_be_written(form: WrittenForm, text: str) -> None:
    words = say(text)
    check_laws(words, form.write_words(words))


def test_words_with_spaces_or_nothing_in_them_are_covered_too(form: WrittenForm) -> None:
    words = [Word(text, float(i), i + 0.75, 0.5) for i, text in enumerate(["", "0532 123 45 67", "", "iki üç", ""])]
    check_laws(words, form.write_words(words))
    assert form.write_words([words[1]]) == (words[1],)
    assert form.write_words([words[0]]) == (words[0],)


def test_many_threads_write_what_one_writes(form: WrittenForm) -> None:
    texts = ["saat dokuz otuzda gel", "yüz elli lira", "yüzde on", "on dört haziranda"] * 25
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(form.write_text, texts)) == [form.write_text(text) for text in texts]


def test_long_texts_are_cut_after_sentences_or_at_pauses() -> None:
    def cut() -> list[int]:
        stretches = list(cut_stretches(words, lambda text: text.replace("yedi", "7")))
        assert [word for stretch in stretches for word in stretch] == words
        return [len(stretch) for stretch in stretches]

    words = [Word("söz", float(i), i + (0.1 if i == 70 else 0.9), 1.0) for i in range(250)]
    assert cut()[0] == 71
    assert max(cut()) <= MAX_WORDS
    words[79] = Word("söz.", 79.0, 79.9, 1.0)
    assert cut()[0] == 80
    words[80] = Word("yedi", 80.0, 80.9, 1.0)
    assert cut()[0] == 71


def test_long_texts_lose_no_number_where_they_are_cut(form: WrittenForm) -> None:
    words = say("bu ev yüz elli bin lira dedi " * 100)
    written = form.write_words(words)
    check_laws(words, written)
    assert sum(word.text == "150.000" for word in written) == 100
    assert [len(each) for each in cut_stretches(say("yüz " * 101), form.write_text)] == [51, 50]  # no better place


def test_a_transcript_keeps_what_was_recognised(form: WrittenForm) -> None:
    words = tuple(say("yüz elli lira"))
    raw = Transcript(spell(words), words, duration_s=3.0, inference_s=0.1, model="fake")
    written = form.write_transcript(raw)
    assert (written.text, written.raw_text, written.duration_s) == ("150 TL", "yüz elli lira", 3.0)
    assert written.to_dict()["raw_text"] == "yüz elli lira"
    assert "raw_text" not in raw.to_dict()


def test_without_damga_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "damga", None)
    with pytest.raises(MissingExtraError, match=r"'damga'.*pip install 'dinle\[itn\]'"):
        WrittenForm()


@dataclass(frozen=True)
class Room:
    """A model that hears what is spelt in the sound, and a recording."""

    folder: Path

    def transcribe(self, *flags: str) -> int:
        model, clip = self.folder / "model", self.folder / "ses.wav"
        return main(["transcribe", "--model", str(model), "--threads", "1", *flags, str(clip)])


@pytest.fixture
def room(tmp_path: Path) -> Room:
    write_level_bundle(tmp_path / "model")
    (tmp_path / "ses.wav").write_bytes(encode_wav(spell_levels("saat yüz elli")))
    return Room(tmp_path)


def test_every_format_of_the_command_is_written(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    printed: dict[str, Any] = {}
    for name in ("text", "json", "srt", "vtt"):
        assert room.transcribe("--written", "-f", name) == 0
        printed[name] = capsys.readouterr().out
    answer = json.loads(printed["json"])
    assert printed["text"] == "saat 150\n"
    assert (answer["text"], answer["raw_text"]) == ("saat 150", "saat yüz elli")
    assert [word["text"] for word in answer["words"]] == ["saat", "150"]
    assert "\nsaat 150\n" in printed["srt"]
    assert "\nsaat 150\n" in printed["vtt"]


def test_the_command_writes_nothing_unasked(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    assert room.transcribe("-f", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["text"] == "saat yüz elli"
    assert "raw_text" not in answer


def test_the_command_names_the_extra(
    room: Room, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "damga", None)
    assert room.transcribe("--written") == 1
    assert "pip install 'dinle[itn]'" in capsys.readouterr().err


def test_the_table_of_the_document_is_true(form: WrittenForm) -> None:
    table = re.findall(r"^\| ([^|`]+) \| ([^|`]+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [row for row in table if row != ("spoken", "written")]
    assert len(rows) == 5
    assert [form.write_text(spoken) for spoken, _ in rows] == [written for _, written in rows]


def count_same(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of ``one`` come back in ``other``, in order."""
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def measure_numerals(form: WrittenForm, name: str, speak: Callable[[str], str]) -> tuple[int, float, float, float]:
    """Speak the sentences of a text that hold digits, write them back, and count their numerals.

    Returns:
        numerals, the share that comes back the same, the same but for the dot of thousands, processor ms for 100 words.
    """
    lines = (TEXTS / name).read_text(encoding="utf-8").splitlines()
    numerals = same = undotted = words = 0
    spent_s = 0.0
    for line in lines:
        before = NUMERAL.findall(line)
        if not before:
            continue
        spoken = say(speak(line))
        started_s = time.process_time()
        written = spell(form.write_words(spoken))
        spent_s += time.process_time() - started_s
        after = NUMERAL.findall(written)
        numerals, words = numerals + len(before), words + len(spoken)
        same += count_same(before, after)
        undotted += count_same([n.replace(".", "") for n in before], [n.replace(".", "") for n in after])
    return numerals, same / numerals, undotted / numerals, spent_s * 1000 / words * 100


@pytest.mark.slow
@pytest.mark.parametrize("speak", [normalize_tr, speak_numbers], ids=["ctc", "whisper"])
@pytest.mark.parametrize(
    ("name", "least_same"),
    [
        ("ud_turkish_atis.txt", 0.85),
        ("ud_turkish_pud.txt", 0.75),
        ("ud_turkish_boun.txt", 0.60),
        ("ud_turkish_penn.txt", 0.40),
    ],
)
def test_numerals_come_back_as_often_as_the_document_says(
    form: WrittenForm, name: str, least_same: float, speak: Callable[[str], str]
) -> None:
    numerals, same, undotted, cost_ms = measure_numerals(form, name, speak)
    print(f"{name}: {numerals} numerals, {same:.1%} same, {undotted:.1%} but for dots, {cost_ms:.0f} ms/100 words")  # noqa: T201
    assert same >= least_same
    assert undotted >= same


@pytest.mark.slow
def test_the_laws_hold_on_real_sentences(form: WrittenForm) -> None:
    for line in (TEXTS / "ud_turkish_pud.txt").read_text(encoding="utf-8").splitlines()[:150]:
        for text in (normalize_tr(line), speak_numbers(line)):
            words = say(text)
            written = form.write_words(words)
            assert spell(written) == form.write_text(text)
            check_laws(words, written)
