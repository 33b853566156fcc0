"""Whole numbers in Turkish words, and suffixes that agree with the word before them.

No library is used, for measured reasons. num2words 0.5.14 joins the words (the spelling of cheques), says 121 001 as 120 001
(``yüzyirmibinbir``; 19 980 of the first 300 000 integers are wrong like this), reads 3.5 as ``üçvirgülelli`` and knows no
suffixes. damga 1.0.5 reads prose well but leaves or misreads 30 of 162 forms of the table in the tests (``$3 milyar``, ``1 250
000``, ``15.00'da``), takes 128 MB on disk, a second to load and 8 ms for a sentence; this takes under 1 ms.
"""

from __future__ import annotations

import re

from dinle.errors import UsageError

ONES = ("", "bir", "iki", "üç", "dört", "beş", "altı", "yedi", "sekiz", "dokuz")
TENS = ("", "on", "yirmi", "otuz", "kırk", "elli", "altmış", "yetmiş", "seksen", "doksan")
SCALES = ("", "bin", "milyon", "milyar", "trilyon", "katrilyon")
ZERO = "sıfır"
LIMIT = 1000 ** len(SCALES)

_VOWELS = "aıoueiöü"
_VOICELESS = "fstkçşhp"
_HIGH_VOWEL = {"a": "ı", "ı": "ı", "e": "i", "i": "i", "o": "u", "u": "u", "ö": "ü", "ü": "ü"}
_FRONT_THOUGH_BACK = ("saat",)  # words spelt with back vowels that take front suffixes: saati, not saatı
_UNCHANGING = re.compile(r"ki|ken")  # -ki and -ken never change their vowel: ondaki, dokuzdaki
_SHORT_DIGITS = 3  # digits after a leading zero that are still read as one number: 0532 -> sıfır beş yüz otuz iki
_LONG_DIGITS = 9  # an undivided string longer than this is an account or a telephone, not an amount
_PHONE = re.compile(r"(0)(\d{3})(\d{3})(\d{2})(\d{2})")  # trunk zero, area or operator, and the usual grouping


def spell_integer(number: int) -> str:
    """Spell ``number``, words apart: 1923 -> ``bin dokuz yüz yirmi üç``.

    Raises:
        UsageError: ``abs(number)`` is 10^18 or more.
    """
    if abs(number) >= LIMIT:
        raise UsageError(f"{number} is too large to spell; expected less than 10^18: read it digit by digit")
    if number == 0:
        return ZERO
    words = ["eksi"] if number < 0 else []
    rest = abs(number)
    for power in range(len(SCALES) - 1, -1, -1):
        group, rest = divmod(rest, 1000**power)
        if group and not (power == 1 and group == 1):  # bin, not bir bin; but bir milyon
            words += _spell_group(group)
        if group and power:
            words.append(SCALES[power])
    return " ".join(words)


def _spell_group(group: int) -> list[str]:
    hundreds, rest = divmod(group, 100)
    words = [ONES[hundreds] if hundreds > 1 else "", "yüz" if hundreds else "", TENS[rest // 10], ONES[rest % 10]]
    return [word for word in words if word]


def spell_ordinal(number: int) -> str:
    """Spell the ordinal of ``number``: 21 -> ``yirmi birinci``, 4 -> ``dördüncü``.

    Raises:
        UsageError: see :func:`spell_integer`.
    """
    return attach_suffix(spell_integer(number), "inci")


def spell_digits(digits: str) -> str:
    """Read an undivided string of digits as a Turkish speaker would.

    An amount is spelt; leading zeros are said (``007`` -> ``sıfır sıfır yedi``); eleven digits after a zero are read as a
    telephone number (0 532 123 45 67); any other string of more than nine digits that is no round number is read digit
    by digit.
    """
    phone = _PHONE.fullmatch(digits)
    if phone:
        return " ".join(map(spell_digits, phone.groups()))
    bare = digits.lstrip("0")
    zeros = [ZERO] * (len(digits) - len(bare))
    if not bare:
        return " ".join(zeros)
    too_long = len(bare) > (_SHORT_DIGITS if zeros else _LONG_DIGITS)
    if (too_long and (zeros or not bare.endswith("000"))) or len(bare) >= len(str(LIMIT)):
        return " ".join(ONES[int(digit)] or ZERO for digit in digits)
    return " ".join([*zeros, spell_integer(int(bare))])


def attach_suffix(word: str, suffix: str) -> str:
    """Join a lower-case ``suffix`` to ``word`` so that it agrees: ``dört, ü -> dördü``; ``lira, ye -> liraya``.

    The writer chose the suffix for one reading (``TL'ye`` for *te le*, ``15.00'da`` for *sıfır sıfır*); ours may be
    another, so its vowels follow vowel harmony, d/t and c/ç follow the last sound, and a joining y, n or s comes or goes.
    """
    if not suffix:
        return word
    suffix = _agree_joint(word, suffix)
    if word.endswith("dört") and suffix[0] in _VOWELS:
        word = word[:-1] + "d"  # the one number whose last sound softens
    return word + _agree_vowels(word, suffix)


def _agree_joint(word: str, suffix: str) -> str:
    last, first, second = word[-1:], suffix[0], suffix[1:2]
    if last in _VOWELS:
        if re.match(r"[ıiuü]nc[ıiuü]", suffix) or re.match(r"[ıiuü]m", suffix):
            return suffix[1:]  # iki + inci
        if first in _VOWELS:
            return _joining_sound(suffix) + suffix
        return _voice(suffix, soft=True)
    if (first in "yn" and second and second in _VOWELS) or re.match(r"yl[ae]", suffix):
        return suffix[1:]  # bin + ye
    if re.fullmatch(r"s[ıiuü](?!z).*", suffix):
        return suffix[1:]  # bin + si; but binsiz
    return _voice(suffix, soft=last not in _VOICELESS)


def _joining_sound(suffix: str) -> str:
    if re.match(r"[ae]r", suffix):
        return "ş"  # distributives: ikişer
    return "n" if re.match(r"[ıiuü]n", suffix) else "y"


def _voice(suffix: str, *, soft: bool) -> str:
    for voiced, voiceless in (("d", "t"), ("c", "ç")):
        if suffix[0] in (voiced, voiceless) and suffix[1:2] in tuple(_VOWELS):
            return (voiced if soft else voiceless) + suffix[1:]
    return suffix


def _agree_vowels(word: str, suffix: str) -> str:
    vowel = next((letter for letter in reversed(word) if letter in _VOWELS), "e")
    if word.endswith(_FRONT_THOUGH_BACK):
        vowel = "e"
    letters = []
    fixed = {index for match in _UNCHANGING.finditer(suffix) for index in range(*match.span())}
    for index, letter in enumerate(suffix):
        agreed = letter
        if index not in fixed and letter in "ae":
            agreed = "e" if vowel in "eiöü" else "a"
        elif index not in fixed and letter in "ıiuü":
            agreed = _HIGH_VOWEL[vowel]
        vowel = agreed if agreed in _VOWELS else vowel
        letters.append(agreed)
    return "".join(letters)
