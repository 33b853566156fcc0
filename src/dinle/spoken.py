"""Numerals, and the signs around them, as a Turkish reader says them.

Rules run in the order of ``RULES``, the most particular first: a date is taken before its numbers are. Decisions, where
Turkish has more than one reading (the writing alone cannot tell them apart, so one is taken throughout):

=====================  ====================================  =====================================================
written                read                                  note
=====================  ====================================  =====================================================
3,5                    üç virgül beş                         not *üç buçuk*; ½ is *yarım* and 2½ *iki buçuk*
3,05  3,1416           virgül sıfır beş, ... bir dört bir    zeros are said; over three digits go one by one
3.5                    üç nokta beş                          a foreign decimal point; 1.250 is a thousand
%20, 20%, ‰5           yüzde yirmi, binde beş
14:30, saat 14.30      on dört otuz                          minutes 00 are silent, 09:05 is *dokuz sıfır beş*
29.10.1923             yirmi dokuz ekim bin dokuz yüz ...    also 29/10/1923, 29-10-1923 and 1923-10-29
150 TL, 3,50 TL        yüz elli lira, üç lira elli kuruş     two decimals are kuruş; € is *avro* (TDK), £ *sterlin*
3. kat, 3'üncü, 3.'sü  üçüncü ...                            a full stop before a word; *1923. Atatürk* ends a sentence
3/4, 5/3, 3/4'ü        dörtte üç, beş bölü üç, ... dördü     a proper fraction, anything else, with a suffix
7/24                   yedi yirmi dört                       always, day and night
-5, +5                 eksi beş, artı beş                    only right before the number; 3-5 is *üç beş*
90 km/sa               saatte doksan kilometre
0532 123 45 67, 007    sıfır beş yüz otuz iki ...            leading zeros are said
5G, A4, mp3            beş G, A dört, mp üç
XIX.                   left alone                            Roman numerals cannot be told from letters
=====================  ====================================  =====================================================

Suffixes are joined without their apostrophe and made to agree: ``4'ü -> dördü``, ``TL'ye -> liraya``.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from dinle.errors import UsageError
from dinle.numerals import ONES, ZERO, attach_suffix, spell_digits, spell_integer, spell_ordinal
from dinle.signs import CURRENCIES, MONTHS, OPERATORS, SPEEDS, SYMBOLS, UNITS, VULGAR, VULGAR_AFTER
from dinle.text import APOSTROPHES, lower_tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

YEAR_SIZE = 1000  # a number this large before ". Xxx" is a year that ends a sentence, not an ordinal
DENOMINATORS = range(2, 101)
CENT_DIGITS = 2
LONGEST = 18  # digits that can be spelt as one number
DECIMAL_DIGITS = 3  # decimals up to this many are read as one number

_L = "A-Za-zÇĞİÖŞÜçğıöşüâîûÂÎÛ"
_WHOLE = r"(?:[1-9]\d{0,2}(?:\.\d{3})+(?!\d)|\d+)"
_NUMBER = rf"(?<!\d)(?P<number>{_WHOLE}(?:[.,]\d+)?)(?!\d)"
_SCALE = r"(?P<scale> (?:bin|milyon|milyar|trilyon)\b)?"
# after an apostrophe any letters are a suffix; without one (5te, 90lar) only what cannot be anything else
_GLUED = r"[dt][ae]n?(?:ki)?|l[ıiuü]k?|l[ae]r[a-zçğıöşü]{0,6}|n[ıiuü]n|y[ae]|[ıiuü]?nc[ıiuü][a-zçğıöşü]{0,5}"
_SUFFIX = rf"(?:(?:'(?P<suffix>[{_L}]{{1,15}})|(?P<glued>{_GLUED}))(?![{_L}]))?"
_SIGN = "[₺$€£¥]"


class Rule(NamedTuple):
    """What to look for and how to say it."""

    pattern: re.Pattern[str]
    speak: Callable[[re.Match[str]], str]


def speak_numbers(text: str) -> str:
    """Write every numeral in ``text`` out in lower-case Turkish words; the rest stays as it is, apostrophes made ASCII.

    ``"Saat 14:30'da 3. katta" -> "Saat on dört otuzda üçüncü katta"``. See the module's docstring for the decisions.
    """
    text = _tidy(text)
    for rule in RULES:
        text = rule.pattern.sub(lambda match, speak=rule.speak: _space(match, speak(match)), text)  # type: ignore[misc]
    return text


def _tidy(text: str) -> str:
    """One form for what has many: NFC, digits of every script, apostrophes, and groups of thousands."""
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    if not text.isascii():
        text = _FOREIGN_DIGIT.sub(lambda match: str(unicodedata.digit(match[0])), text)
    return _GROUPS.sub(lambda match: re.sub(r"[^\d]", ".", match[0]), text)


_APOSTROPHES = dict.fromkeys(map(ord, APOSTROPHES), "'")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_THIN = "\u00a0\u2009\u202f"
# 1 250 000 and 1,250,000; one group after an ordinary space only when it is round (10 000), else it is two numbers
_GROUPS = re.compile(
    rf"(?<![\d.,])(?<!\d )[1-9]\d{{0,2}}(?:(?: \d{{3}}){{2,}}|(?:,\d{{3}}){{2,}}|(?:[{_THIN}]\d{{3}})+| 000)(?![\d.]|[ ,]\d)"
)


def _space(match: re.Match[str], spoken: str) -> str:
    """Keep the words apart from letters and digits that stand right beside the numeral: 5G -> beş G."""
    start, end = match.span()
    before = " " if start and match.string[start - 1].isalnum() else ""
    after = " " if end < len(match.string) and match.string[end].isalnum() else ""
    return before + spoken + after


def _suffix(match: re.Match[str]) -> str:
    return lower_tr(_group(match, "suffix") or _group(match, "glued")).translate(_CIRCUMFLEX)


def _group(match: re.Match[str], name: str) -> str:
    """What a named group caught; nothing when the rule has no such group."""
    return match.groupdict().get(name) or ""


_CIRCUMFLEX = str.maketrans("âîû", "aiu")


def read_number(number: str) -> str:
    """Read a numeral without a sign: ``1.250.000``, ``3,5``, ``3.5``, ``007``."""
    parts = re.fullmatch(rf"({_WHOLE})(?:([.,])(\d+))?", number)
    if parts is None:
        raise UsageError(f"{number!r} is not a numeral; expected a form such as 1.250 or 3,5")
    whole, point, decimals = parts.groups()
    words = _read_whole(whole)
    if not point:
        return words
    return f"{words} {'virgül' if point == ',' else 'nokta'} {_read_decimals(decimals)}"


def _read_whole(whole: str) -> str:
    digits = whole.replace(".", "")
    if "." in whole and len(digits) <= LONGEST:
        return spell_integer(int(digits))  # its writer divided it: an amount, however long
    return spell_digits(digits)


def _read_decimals(decimals: str) -> str:
    if len(decimals) > DECIMAL_DIGITS:
        return " ".join(ONES[int(digit)] or ZERO for digit in decimals)
    return spell_digits(decimals)


def _speak_number(match: re.Match[str]) -> str:
    return attach_suffix(read_number(match["number"]), _suffix(match))


def _speak_mixed(match: re.Match[str]) -> str:
    if not match["number"]:
        return VULGAR[match["part"]]
    return f"{read_number(match['number'])} {VULGAR_AFTER[match['part']]}"


def _speak_date(match: re.Match[str]) -> str:
    day, month, year = int(match["day"]), int(match["month"]), match["year"]
    words = f"{spell_integer(day)} {MONTHS[month - 1]} {spell_digits(year)}"
    return attach_suffix(words, _suffix(match))


def _speak_money(match: re.Match[str]) -> str:
    unit, hundredth = CURRENCIES[match["unit"]]
    scale = _group(match, "scale")
    whole, _, cents = match["number"].replace(",", ".").rpartition(".")
    if scale or hundredth is None or len(cents) != CENT_DIGITS or not whole:
        words = f"{read_number(match['number'])}{scale} {unit}"
    else:
        words = " ".join(_read_coins(whole.replace(".", ""), cents, unit, hundredth))
    return attach_suffix(words, _suffix(match))


def _read_coins(whole: str, cents: str, unit: str, hundredth: str) -> Iterator[str]:
    if int(whole) or not int(cents):
        yield f"{spell_digits(whole)} {unit}"
    if int(cents):
        yield f"{spell_integer(int(cents))} {hundredth}"


def _speak_time(match: re.Match[str]) -> str:
    hour, *rest = match["hour"], match["minute"], _group(match, "second")
    words = [spell_integer(int(hour)) if int(hour) else f"{ZERO} {ZERO}"]
    rest = [part for part in rest if part]
    while rest and not int(rest[-1]):
        rest.pop()  # 14:00 is on dört
    words += [spell_digits(part) for part in rest]
    return attach_suffix(" ".join(words), _suffix(match))


def _speak_percent(match: re.Match[str]) -> str:
    share = "yüzde" if match["sign"] == "%" else "binde"
    return attach_suffix(f"{share} {read_number(match['number'])}{_group(match, 'scale')}", _suffix(match))


def _speak_version(match: re.Match[str]) -> str:
    if re.fullmatch(_WHOLE, match[0]):
        return match[0]  # 1.250.000
    return " nokta ".join(map(spell_digits, match[0].split(".")))


def _speak_unit(match: re.Match[str]) -> str:
    words = f"{read_number(match['number'])}{_group(match, 'scale')} {UNITS[match['unit']]}"
    return attach_suffix(words, _suffix(match))


def _speak_speed(match: re.Match[str]) -> str:
    time, distance = SPEEDS[match["unit"]]
    words = f"{time} {read_number(match['number'])}{_group(match, 'scale')} {distance}"
    return attach_suffix(words, _suffix(match))


def _speak_fraction(match: re.Match[str]) -> str:
    upper, lower, suffix = int(match["upper"]), int(match["lower"]), _suffix(match)
    if upper < lower and lower in DENOMINATORS and not suffix:
        return f"{attach_suffix(spell_integer(lower), 'de')} {spell_integer(upper)}"
    return attach_suffix(f"{spell_digits(match['upper'])} bölü {spell_digits(match['lower'])}", suffix)


def _speak_ordinal(match: re.Match[str]) -> str:
    digits = match["whole"].replace(".", "")
    if len(digits) > LONGEST or (_group(match, "capital") and int(digits) >= YEAR_SIZE):
        return match[0]
    return attach_suffix(spell_ordinal(int(digits)), _suffix(match))


def _find(pattern: str, speak: Callable[[re.Match[str]], str]) -> Rule:
    return Rule(re.compile(pattern), speak)


def _any(words: Iterable[str]) -> str:
    """An alternation that tries long words before their beginnings."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_DAY, _MONTH = r"(?P<day>0?[1-9]|[12]\d|3[01])", r"(?P<month>0?[1-9]|1[0-2])"
_HOUR, _MINUTE = r"(?P<hour>[01]?\d|2[0-4])", r"(?P<minute>[0-5]\d)"
_CLOCK = r"(?:[01]?\d|2[0-4])\.[0-5]\d"
_WORD_AFTER = r"(?=\s?[a-zçğıöşüâîû]|[,;]\s|[-–/]\d)|(?=\s?[\"“(]?(?P<capital>[A-ZÇĞİÖŞÜ]))"
_TIME_WORD = r"(?:(?<=[Ss]aat )|(?<=[Ss]aati )|(?<=[Ss]abah )|(?<=[Aa]kşam )|(?<=[Gg]ece )|(?<=[Öö]ğlen )|(?<=sonra ))"

_ORDINAL = rf"(?<![\d.,])(?P<whole>{_WHOLE})"
_BOUND = r"(?<![\d.,%])"
_OPEN = r"(?![\d%]|[.,]\d)"  # no further digits of the same numeral

RULES: tuple[Rule, ...] = (
    _find(r"(?:(?<!\d)(?P<number>\d{1,9}) ?)?(?P<part>[½¼¾])", _speak_mixed),
    _find(r"№\s?|\b[Nn][Oo][:.]\s?(?=\d)", lambda _: "numara"),
    # "2 + 3" and "3x4" are sums; "-" is not among them, because between numbers it is a range
    _find(r"(?<=\d)\s?(?P<operator>[+=×x*÷])\s?(?=\d)", lambda match: OPERATORS[match["operator"]]),
    _find(r"(?<![\w.,])[-−](?=[%₺$€£¥]?\d)", lambda _: "eksi"),
    _find(r"(?<![\w.,])\+(?=[%₺$€£¥]?\d)", lambda _: "artı"),
    _find(rf"(?<![\d.])(?P<year>\d{{4}})-{_MONTH}-{_DAY}(?!\d){_SUFFIX}", _speak_date),
    _find(
        rf"(?<![\d.,/-]){_DAY}(?P<mark>[./-]\s?){_MONTH}(?P=mark)(?P<year>\d{{4}}|\d{{2}})(?![./-]?\d){_SUFFIX}",
        _speak_date,
    ),
    _find(rf"(?<!\d)(?P<unit>{_SIGN}){_NUMBER}{_SCALE}{_SUFFIX}", _speak_money),
    _find(rf"{_NUMBER}{_SCALE}\s?(?P<unit>{_any(CURRENCIES)}){_SUFFIX}(?![{_L}])", _speak_money),
    _find(rf"(?P<unit>{_SIGN})\s{_NUMBER}{_SCALE}{_SUFFIX}", _speak_money),
    # saat 14.30-15.30: what is said of the first holds for the second
    _find(rf"{_TIME_WORD}{_HOUR}\.{_MINUTE}\s?[-–]\s?{_CLOCK}{_OPEN}", lambda match: match[0].replace(".", ":")),
    _find(rf"(?<![\d:.,]){_HOUR}:{_MINUTE}(?::(?P<second>[0-5]\d))?(?![\d:]){_SUFFIX}", _speak_time),
    # 14.30 is a time after a word that says so, before "at" or "from", or when full hours are written out
    _find(rf"{_TIME_WORD}{_HOUR}\.{_MINUTE}{_OPEN}{_SUFFIX}", _speak_time),
    _find(rf"{_BOUND}{_HOUR}\.{_MINUTE}(?='[dt][ae](?:n|ki)?(?![{_L}])){_SUFFIX}", _speak_time),
    _find(rf"{_BOUND}(?P<hour>[01]\d|2[0-4])\.(?P<minute>00){_OPEN}{_SUFFIX}", _speak_time),
    _find(rf"(?<!\d)(?P<sign>[%‰])\s?{_NUMBER}{_SCALE}{_SUFFIX}", _speak_percent),
    _find(rf"{_NUMBER}\s?(?P<sign>[%‰]){_SUFFIX}", _speak_percent),
    _find(r"(?<![\d.,])\d+(?:\.\d+){2,}(?![\d,])", _speak_version),
    _find(r"(?<![\d.,])\d+(?:,\d+){2,}(?![\d.])", lambda match: match[0].replace(",", ", ")),
    _find(rf"{_NUMBER}{_SCALE}\s?(?P<unit>{_any(SPEEDS)})(?![\w/]){_SUFFIX}", _speak_speed),
    _find(rf"{_NUMBER}{_SCALE}\s?(?P<unit>{_any(UNITS)})(?![\w/²³°]){_SUFFIX}", _speak_unit),
    _find(r"(?<![\d/.,])7/24(?!/|[.,]?\d)", lambda _: "yedi yirmi dört"),
    _find(rf"(?<![\d/.,])(?P<upper>\d{{1,3}})/(?P<lower>\d{{1,3}})(?!/|[.,]?\d){_SUFFIX}", _speak_fraction),
    _find(rf"{_ORDINAL}\.?'?[ıiuü]?nc[ıiuü](?P<suffix>[{_L}]{{1,12}})?", _speak_ordinal),
    _find(rf"{_ORDINAL}\.'(?P<suffix>[{_L}]{{1,12}})", _speak_ordinal),
    _find(rf"{_ORDINAL}\.(?:{_WORD_AFTER})", _speak_ordinal),
    _find(rf"{_NUMBER}{_SUFFIX}", _speak_number),
    _find("[" + "".join(SYMBOLS) + "]", lambda match: SYMBOLS[match[0]]),
)
