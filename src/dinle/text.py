"""Turkish letters: casing, the alphabet, and the three named forms of a text.

``str.lower()`` is wrong for Turkish twice: ``IŞIK`` becomes ``işik`` instead of ``ışık``, and ``İ`` becomes ``i`` with a
combining dot (U+0307) that no vocabulary holds. Everything that touches text goes through :func:`lower_tr`.

Decisions of the form ``tr`` (:func:`normalize_tr`), which labels are trained on and scores are counted in:

* â î û (and Â Î Û) lose their circumflex: ``kâğıt -> kağıt``, ``millî -> milli``. They are pronounced, but the sources
  use them at will, so a model that wrote them would be scored on the writer's habit.
* Apostrophes of every kind go and the word stays whole: ``Türkiye'nin -> türkiyenin``. Speech does not hold them.
* Dashes and all other punctuation part words: ``e-posta -> e posta``.
* Foreign letters fall back to their base letter: ``café -> cafe``, ``Straße -> strasse``. q, w and x stay.
* Numerals become words (:mod:`dinle.spoken`).
* What has no Turkish reading (other scripts, emoji) goes; ``dinle lint`` reports it.

The form ``raw`` is the text as written. The form ``whisper-basic`` (:func:`normalize_whisper_basic`) is not dinle's: published
figures are often counted in it, and only figures in the same form can be compared.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TURKISH_ALPHABET = "abcçdefgğhıijklmnoöprsştuüvyz"
ALPHABET = TURKISH_ALPHABET + "qwx"
COMBINING_DOT = "\u0307"
# ASCII, typographic, modifier-letter, prime, accent and full-width forms that stand where an apostrophe is meant.
APOSTROPHES = "'’‘‛`´′‵ʼʻʽʾʿˈˊˋʹ՚＇"

_LOWER = str.maketrans({"I": "ı", "İ": "i"})
_UPPER = str.maketrans({"i": "İ", "ı": "I"})
# Letters that Unicode does not decompose; ə is the Azerbaijani open e.
_NO_DECOMPOSITION = {
    "ß": "ss",
    "æ": "ae",
    "œ": "oe",
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "t",
    "ħ": "h",
    "ŋ": "n",
    "ə": "e",
}
# Of Whisper's basic normaliser: <...> and [...] (any of the closing pair ends them), then (...).
_WHISPER_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]")
_WHISPER_PARENTHESES = re.compile(r"\([^)]+?\)")
_SPOKEN = re.compile(r"[\d²³¼½¾%‰₺$€£¥№&°]")


class _FoldTable(dict[int, str]):
    """For ``str.translate``: what each lower-case character becomes, worked out once, when it is first met."""

    def __missing__(self, codepoint: int) -> str:
        self[codepoint] = folded = fold_character(chr(codepoint))
        return folded


_FOLD = _FoldTable()


def lower_tr(text: str) -> str:
    """Lower-case in Turkish (``IŞIK -> ışık``, ``İstanbul -> istanbul``), in NFC and free of U+0307."""
    return unicodedata.normalize("NFC", _strip_dots(text).translate(_LOWER).lower())


def upper_tr(text: str) -> str:
    """Upper-case in Turkish (``ışık -> IŞIK``, ``istanbul -> İSTANBUL``), in NFC and free of U+0307."""
    return unicodedata.normalize("NFC", _strip_dots(text).translate(_UPPER).upper())


def _strip_dots(text: str) -> str:
    """NFC, which makes İ of I + U+0307, and then no U+0307: the mark that ``str.lower`` leaves behind."""
    composed = unicodedata.normalize("NFC", text)
    if COMBINING_DOT not in composed:
        return composed
    return unicodedata.normalize("NFC", composed.replace(COMBINING_DOT, ""))


def fold_character(character: str) -> str:
    """What one lower-case character becomes in the form ``tr``: letters of the alphabet, a space, or nothing.

    Nothing for apostrophes, combining marks and invisible characters, which do not part a word; a space for the rest.
    """
    if character in ALPHABET:
        return character
    if character in APOSTROPHES or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return ""
    decomposed = lower_tr(unicodedata.normalize("NFKD", character))
    letters = "".join(_NO_DECOMPOSITION.get(part, part if part in ALPHABET else "") for part in _take_apart(decomposed))
    return letters or " "


def _take_apart(text: str) -> str:
    """Base letters and their marks, but the Turkish letters whole."""
    return "".join(part if part in ALPHABET else unicodedata.normalize("NFKD", part) for part in text)


def normalize_raw(text: str) -> str:
    """The form ``raw``: the text as written, in NFC, with single spaces and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def normalize_whisper_basic(text: str) -> str:
    """The form ``whisper-basic``: what OpenAI Whisper's ``BasicTextNormalizer`` makes of a text with its default options.

    Case falls without Turkish rules, texts in brackets go, and marks, symbols and punctuation (Unicode's M, S and P, after
    NFKC) become spaces. For Turkish it is wrong: ``I`` becomes ``i``, and ``İstanbul`` becomes the two words ``i stanbul``,
    since ``str.lower`` leaves U+0307 behind, a mark. Numerals stay digits, and ``Türkiye'nin`` is two words.

    Defined in https://github.com/openai/whisper/blob/main/whisper/normalizers/basic.py and in appendix C of Radford et al.,
    "Robust Speech Recognition via Large-Scale Weak Supervision", 2022. Kept to the letter: like the original it may leave a
    space at either end.
    """
    text = _WHISPER_PARENTHESES.sub("", _WHISPER_BRACKETS.sub("", text.lower()))
    composed = unicodedata.normalize("NFKC", text)
    spaced = "".join(" " if unicodedata.category(each)[0] in "MSP" else each for each in composed)
    return re.sub(r"\s+", " ", spaced.lower())


def normalize_tr(text: str) -> str:
    """The form ``tr``, for training and scoring: letters of ``ALPHABET`` and single spaces, nothing else.

    ``"Türkiye'nin %20'si 1923'te..." -> "türkiyenin yüzde yirmisi bin dokuz yüz yirmi üçte"``. Normalising twice
    changes nothing more. See the module's docstring for the decisions.
    """
    if _SPOKEN.search(text):
        from dinle.spoken import speak_numbers  # only texts with numerals pay for its patterns

        text = speak_numbers(text)
    return " ".join(fold_letters(text).split())


def fold_letters(text: str) -> str:
    """Lower-case letters of ``ALPHABET`` for a text or a part of one, spaces as they are; numerals become spaces."""
    return lower_tr(text).translate(_FOLD)


NORMALIZERS: Mapping[str, Callable[[str], str]] = {
    "raw": normalize_raw,
    "whisper-basic": normalize_whisper_basic,
    "tr": normalize_tr,
}
