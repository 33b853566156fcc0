from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.text import (
    ALPHABET,
    APOSTROPHES,
    COMBINING_DOT,
    NORMALIZERS,
    TURKISH_ALPHABET,
    lower_tr,
    normalize_raw,
    normalize_tr,
    normalize_whisper_basic,
    upper_tr,
)

# The laws of dinle's own forms; whisper-basic is somebody else's, and does not hold them.
OWN_FORMS = ("raw", "tr")

# Text with many of the letters that go wrong: dotted and dotless, in pieces and whole.
TRICKY = st.text(
    alphabet=st.one_of(st.sampled_from("Iİıi\u0307\u0327\u0306\u0302ŞşĞğâÎ' -5.%"), st.characters()), max_size=40
)


def test_the_alphabet() -> None:
    assert len(TURKISH_ALPHABET) == len(set(TURKISH_ALPHABET)) == 29
    assert set(ALPHABET) - set(TURKISH_ALPHABET) == set("qwx")


@pytest.mark.parametrize(
    ("text", "lowered"),
    [
        ("IŞIK", "ışık"),
        ("İstanbul", "istanbul"),
        ("I\u0307stanbul", "istanbul"),  # İ in pieces
        ("i\u0307stanbul", "istanbul"),  # what str.lower makes of it
        ("DİYARBAKIR", "diyarbakır"),
        ("ÇĞIİÖŞÜ", "çğıiöşü"),
        ("KÂĞIT Î", "kâğıt î"),
        ("gu\u0308zel", "güzel"),
        ("ı\u0307", "ı"),
        ("", ""),
    ],
)
def test_lower_case(text: str, lowered: str) -> None:
    assert lower_tr(text) == lowered


@pytest.mark.parametrize(
    ("text", "raised"),
    [("ışık", "IŞIK"), ("istanbul", "İSTANBUL"), ("i\u0307", "İ"), ("diyarbakır", "DİYARBAKIR"), ("", "")],
)
def test_upper_case(text: str, raised: str) -> None:
    assert upper_tr(text) == raised


@given(st.text(alphabet=ALPHABET + " "))
def test_upper_then_lower_gives_turkish_letters_back(text: str) -> None:
    assert lower_tr(upper_tr(text)) == text


@given(TRICKY)
def test_no_combining_dot_survives(text: str) -> None:
    for result in (lower_tr(text), upper_tr(text), normalize_tr(text)):
        assert COMBINING_DOT not in result


@given(TRICKY)
def test_casing_gives_nfc(text: str) -> None:
    assert unicodedata.is_normalized("NFC", lower_tr(text))
    assert unicodedata.is_normalized("NFC", upper_tr(text))
    assert lower_tr(lower_tr(text)) == lower_tr(text)


@given(TRICKY)
def test_the_form_tr_holds_the_alphabet_and_single_spaces(text: str) -> None:
    result = normalize_tr(text)
    assert set(result) <= set(ALPHABET + " ")
    assert result == " ".join(result.split())


@pytest.mark.parametrize("name", OWN_FORMS)
@given(text=TRICKY)
def test_normalising_twice_changes_nothing(name: str, text: str) -> None:
    normalize = NORMALIZERS[name]
    assert normalize(normalize(text)) == normalize(text)


@given(TRICKY)
def test_pieces_and_whole_letters_are_one_text(text: str) -> None:
    for normalize in (NORMALIZERS[name] for name in OWN_FORMS):
        assert normalize(unicodedata.normalize("NFD", text)) == normalize(unicodedata.normalize("NFC", text))


@given(st.text(alphabet=ALPHABET + " ", max_size=40))
def test_casing_does_not_matter_to_the_form_tr(text: str) -> None:
    assert normalize_tr(upper_tr(text)) == normalize_tr(text)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("Türkiye'nin", "türkiyenin"),
        ("kâğıt, millî, sükûnet", "kağıt milli sükunet"),
        ("KÂĞIT MİLLÎ SÜKÛNET", "kağıt milli sükunet"),
        ("café Señor Straße Łódź Ångström", "cafe senor strasse lodz angström"),
        ('e-posta – Türk–Alman… "evet"! «o» (bu)', "e posta türk alman evet o bu"),
        ("İyi\tgünler \n dünya", "iyi günler dünya"),
        ("WhatsApp, Quiz, Xerox", "whatsapp quiz xerox"),
        ("ki\u00adtap ki\u200btap \ufeffkitap", "kitap kitap kitap"),  # invisible characters do not part words
        ("güzel 👍 Привет", "güzel"),
        ("ﬁlm Ａｎｋａｒａ", "film ankara"),
        ("...", ""),
        ("", ""),
    ],
)
def test_the_form_tr(text: str, normalised: str) -> None:
    assert normalize_tr(text) == normalised


@pytest.mark.parametrize("apostrophe", list(APOSTROPHES), ids=lambda character: f"U+{ord(character):04X}")
def test_every_apostrophe_joins(apostrophe: str) -> None:
    assert normalize_tr(f"Ankara{apostrophe}da 5{apostrophe}te") == "ankarada beşte"


def test_the_form_raw_changes_spaces_and_composition_alone() -> None:
    assert normalize_raw("  Gu\u0308zel,\u00a0 3\tİstanbul! \n") == "Güzel, 3 İstanbul!"


def test_there_are_three_forms() -> None:
    assert list(NORMALIZERS) == ["raw", "whisper-basic", "tr"]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("Bugün hava güzel.", "bugün hava güzel "),
        ("İstanbul", "i stanbul"),  # the reason for the form tr: one word has become two
        ("IŞIK", "işik"),
        ("Türkiye'nin %20'si", "türkiye nin 20 si"),
        ("KÂĞIT, kâğıt", "kâğit kâğıt"),
        ("e-posta", "e posta"),
        ("[gülüşmeler] evet <alkış> (öksürük) peki", " evet peki"),
        ("bir [iki> üç", "bir üç"),  # either closing bracket ends either opening one
        ("() (açık", " açık"),  # empty or unclosed parentheses are punctuation
        ("gu\u0308zel ﬁlm Ａ²", "güzel film a2"),
        ("a\u0331b", "a b"),  # a mark that does not compose parts the word
        ("5 ₺ \u00a0\n 3\t", "5 3 "),
        ("", ""),
    ],
)
def test_the_form_whisper_basic(text: str, normalised: str) -> None:
    assert normalize_whisper_basic(text) == normalised


@given(st.one_of(TRICKY, st.text(alphabet=st.one_of(st.sampled_from("<>[]()İIaB .\u0307"), st.characters()))))
def test_the_form_whisper_basic_is_what_transformers_makes(text: str) -> None:
    original = pytest.importorskip("transformers.models.whisper.english_normalizer").BasicTextNormalizer()
    assert normalize_whisper_basic(text) == original(text)


def test_the_module_is_light() -> None:
    code = """
import sys, dinle.text
dinle.text.normalize_tr("Saat 5.")
dinle.text.normalize_whisper_basic("Saat 5.")
heavy = {"numpy", "torch", "num2words", "damga", "onnxruntime", "rich"} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
