from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.numerals import LIMIT, ONES, SCALES, TENS, attach_suffix, spell_digits, spell_integer, spell_ordinal
from dinle.spoken import read_number, speak_numbers
from dinle.text import ALPHABET, lower_tr, normalize_tr

# written, then the form tr of what a Turkish reader says; each line was read aloud by hand
READINGS = """
0                              | sıfır
1                              | bir
10                             | on
11                             | on bir
45                             | kırk beş
99                             | doksan dokuz
100                            | yüz
101                            | yüz bir
110                            | yüz on
200                            | iki yüz
999                            | dokuz yüz doksan dokuz
1000                           | bin
1001                           | bin bir
1100                           | bin yüz
1453 yılı                      | bin dört yüz elli üç yılı
2000                           | iki bin
2024                           | iki bin yirmi dört
10000                          | on bin
100000                         | yüz bin
1000000                        | bir milyon
2.000                          | iki bin
1.250.000                      | bir milyon iki yüz elli bin
1 250 000                      | bir milyon iki yüz elli bin
1,250,000                      | bir milyon iki yüz elli bin
10 000 kişi                    | on bin kişi
1.000.000.000                  | bir milyar
100 bin                        | yüz bin
saat 5 100 kişi                | saat beş yüz kişi
3. kat                         | üçüncü kat
3'üncü                         | üçüncü
21'inci                        | yirmi birinci
6'ncı                          | altıncı
4'üncü                         | dördüncü
9'uncusu                       | dokuzuncusu
30'uncu                        | otuzuncu
40'ıncı                        | kırkıncı
100'üncü                       | yüzüncü
1000'inci                      | bininci
5.'si                          | beşincisi
19.yüzyıl                      | on dokuzuncu yüzyıl
18.nci yüzyıl                  | on sekizinci yüzyıl
2.'nci                         | ikinci
7/24 hizmet                    | yedi yirmi dört hizmet
saat 14.30-15.30 arası         | saat on dört otuz on beş otuz arası
saat 20.00 – 21.05'te          | saat yirmi yirmi bir sıfır beşte
20. yüzyılın                   | yirminci yüzyılın
1. Dünya Savaşı                | birinci dünya savaşı
2. Ramses                      | ikinci ramses
1., 2. ve 3. sınıf             | birinci ikinci ve üçüncü sınıf
Yıl 1923. Ankara başkent oldu. | yıl bin dokuz yüz yirmi üç ankara başkent oldu
Odamız 5.                      | odamız beş
3,5                            | üç virgül beş
0,05                           | sıfır virgül sıfır beş
3,14                           | üç virgül on dört
3,1416                         | üç virgül bir dört bir altı
1.250,75                       | bin iki yüz elli virgül yetmiş beş
3.5                            | üç nokta beş
2,5 milyon                     | iki virgül beş milyon
1,2,3                          | bir iki üç
%20                            | yüzde yirmi
% 20                           | yüzde yirmi
20%                            | yüzde yirmi
%12,5                          | yüzde on iki virgül beş
%20'si                         | yüzde yirmisi
%47'ye                         | yüzde kırk yediye
%10-20                         | yüzde on yirmi
‰5                             | binde beş
-%5                            | eksi yüzde beş
14:30                          | on dört otuz
14:30'da                       | on dört otuzda
saat 09:05                     | saat dokuz sıfır beş
14:00                          | on dört
14:00'te                       | on dörtte
00:30                          | sıfır sıfır otuz
12:15:40                       | on iki on beş kırk
10:00-12:00                    | on on iki
saat 14.30                     | saat on dört otuz
7.30'da                        | yedi otuzda
9.00'dan                       | dokuzdan
19.10'daki                     | on dokuz ondaki
saat 15.00'da                  | saat on beşte
29.10.1923                     | yirmi dokuz ekim bin dokuz yüz yirmi üç
29/10/1923                     | yirmi dokuz ekim bin dokuz yüz yirmi üç
29-10-1923                     | yirmi dokuz ekim bin dokuz yüz yirmi üç
1923-10-29                     | yirmi dokuz ekim bin dokuz yüz yirmi üç
29 Ekim 1923                   | yirmi dokuz ekim bin dokuz yüz yirmi üç
01.05.2020                     | bir mayıs iki bin yirmi
23.04.1920'de                  | yirmi üç nisan bin dokuz yüz yirmide
19.05.19                       | on dokuz mayıs on dokuz
1990'da                        | bin dokuz yüz doksanda
1990'lı                        | bin dokuz yüz doksanlı
90'lar                         | doksanlar
1990-2000                      | bin dokuz yüz doksan iki bin
150 TL                         | yüz elli lira
150₺                           | yüz elli lira
₺150                           | yüz elli lira
3,50 TL                        | üç lira elli kuruş
3,05 TL                        | üç lira beş kuruş
3,00 TL                        | üç lira
0,50 TL                        | elli kuruş
3,5 TL                         | üç virgül beş lira
1.250,50 TL                    | bin iki yüz elli lira elli kuruş
150 TL'ye                      | yüz elli liraya
1,5 milyon TL                  | bir virgül beş milyon lira
$5                             | beş dolar
$5 $10                         | beş dolar on dolar
5$ 10$                         | beş dolar on dolar
5$'a                           | beş dolara
$3 milyar                      | üç milyar dolar
100 USD                        | yüz dolar
€20                            | yirmi avro
20 €'luk                       | yirmi avroluk
12 EURO                        | on iki euro
£3,50                          | üç sterlin elli peni
¥500                           | beş yüz yen
5'te                           | beşte
6'da                           | altıda
20'ye                          | yirmiye
100'e                          | yüze
4'ü                            | dördü
4'er                           | dörder
2'şer                          | ikişer
3'lü                           | üçlü
8.000'den                      | sekiz binden
5’inde                         | beşinde
1990'daki                      | bin dokuz yüz doksandaki
5'ken                          | beşken
1'i                            | biri
5te                            | beşte
1990larda                      | bin dokuz yüz doksanlarda
-5                             | eksi beş
−5 derece                      | eksi beş derece
+5                             | artı beş
3-4 kişi                       | üç dört kişi
8 - 9 arasında                 | sekiz dokuz arasında
(5)                            | beş
'5'                            | beş
007                            | sıfır sıfır yedi
0532 123 45 67                 | sıfır beş yüz otuz iki yüz yirmi üç kırk beş altmış yedi
05321234567                    | sıfır beş yüz otuz iki yüz yirmi üç kırk beş altmış yedi
12345678901                    | bir iki üç dört beş altı yedi sekiz dokuz sıfır bir
1/2                            | ikide bir
3/4                            | dörtte üç
5/3                            | beş bölü üç
3/4'ü                          | üç bölü dördü
½ kilo                         | yarım kilo
2½ kilo                        | iki buçuk kilo
5 km                           | beş kilometre
3-5 km                         | üç beş kilometre
70 kg                          | yetmiş kilogram
5 kg'lık                       | beş kilogramlık
100 m²                         | yüz metrekare
90 km/sa                       | saatte doksan kilometre
-5 °C                          | eksi beş derece
20°C'ye                        | yirmi dereceye
60 W'lık                       | altmış vatlık
16 GB                          | on altı gigabayt
2 + 3 = 5                      | iki artı üç eşittir beş
3x4                            | üç çarpı dört
1.2.3                          | bir nokta iki nokta üç
5G                             | beş g
A4                             | a dört
mp3                            | mp üç
D9S'e                          | d dokuz se
No: 5                          | numara beş
№5                             | numara beş
R&D                            | r ve d
٣ elma                         | üç elma
""".strip().splitlines()


@pytest.mark.parametrize("line", READINGS, ids=lambda line: line.split("|")[0].strip())
def test_reads_as_a_turkish_reader_does(line: str) -> None:
    written, spoken = (part.strip() for part in line.split("|"))
    assert normalize_tr(written) == spoken


def test_the_table_is_large_and_of_distinct_cases() -> None:
    assert len({line.split("|")[0].strip() for line in READINGS}) == len(READINGS) > 120


def test_the_rest_of_the_text_stays() -> None:
    written = "Saat 14:30'da, 3. katta (Çağ Apt.) XIX. yüzyıl!"
    assert speak_numbers(written) == "Saat on dört otuzda, üçüncü katta (Çağ Apt.) XIX. yüzyıl!"


VALUES = {word: value for value, word in enumerate(ONES)} | {word: 10 * value for value, word in enumerate(TENS)}
POWERS = {word: 1000**power for power, word in enumerate(SCALES) if word}


def parse_integer(words: str) -> int:
    """The number that the words mean: the way back, written on its own."""
    total = group = 0
    for word in words.removeprefix("eksi ").split():
        if word == "yüz":
            group = max(1, group) * 100
        elif word in POWERS:
            total += max(1, group) * POWERS[word]
            group = 0
        elif word != "sıfır":
            group += VALUES[word]
    return (-1 if words.startswith("eksi ") else 1) * (total + group)


@given(st.integers(-LIMIT + 1, LIMIT - 1))
@example(121_001)  # num2words 0.5.14 says yüzyirmibinbir, as for 120 001
@example(1_001_001)
def test_words_lead_back_to_their_number(number: int) -> None:
    words = spell_integer(number)
    assert parse_integer(words) == number
    assert not words.startswith(("bir bin", "bir yüz", "eksi bir bin"))


@given(st.integers(1, LIMIT - 1))
def test_dots_between_thousands_change_nothing(number: int) -> None:
    assert normalize_tr(f"{number:,}".replace(",", ".")) == spell_integer(number)


ORDINALS = {
    0: "sıfırıncı", 1: "birinci", 2: "ikinci", 3: "üçüncü", 4: "dördüncü", 5: "beşinci", 6: "altıncı", 7: "yedinci",
    8: "sekizinci", 9: "dokuzuncu", 10: "onuncu", 20: "yirminci", 30: "otuzuncu", 40: "kırkıncı", 50: "ellinci",
    60: "altmışıncı", 70: "yetmişinci", 80: "sekseninci", 90: "doksanıncı", 100: "yüzüncü", 1000: "bininci",
    10**6: "bir milyonuncu", 10**9: "bir milyarıncı", 10**12: "bir trilyonuncu", 10**15: "bir katrilyonuncu",
}  # fmt: skip


@pytest.mark.parametrize(("number", "ordinal"), list(ORDINALS.items()))
def test_ordinals(number: int, ordinal: str) -> None:
    assert spell_ordinal(number) == ordinal


@given(st.integers(0, 23), st.integers(1, 59))
def test_every_time_names_its_minutes(hour: int, minute: int) -> None:
    minutes = spell_integer(minute) if minute > 9 else f"sıfır {spell_integer(minute)}"
    hours = spell_integer(hour) if hour else "sıfır sıfır"
    assert speak_numbers(f"{hour:02}:{minute:02}") == f"{hours} {minutes}"


@given(st.dates())
def test_every_way_of_writing_a_date_reads_alike(date: object) -> None:
    year, month, day = str(date).split("-")
    ways = {speak_numbers(way) for way in (f"{day}.{month}.{year}", f"{day}/{month}/{year}", f"{year}-{month}-{day}")}
    assert len(ways) == 1
    assert ways.pop().startswith(spell_integer(int(day)) + " ")


NUMERALS = st.text(alphabet="0123456789.,:/-%₺$€'°½²+x kmTLdae\u00a0٣", max_size=30)


@given(NUMERALS)
def test_no_digit_survives_and_no_rule_fails(text: str) -> None:
    assert not re.search(r"\d", speak_numbers(text))
    assert set(normalize_tr(text)) <= set(ALPHABET + " ")


@given(st.text(max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    assert not re.search(r"\d", speak_numbers(text))


@given(st.text(alphabet=ALPHABET + " .,!", max_size=40))
def test_a_text_without_numerals_is_left_alone(text: str) -> None:
    assert speak_numbers(text) == text


@pytest.mark.parametrize("digits", [1, 9, 10, 18, 19, 20, 5000])
def test_digit_strings_of_any_length(digits: int) -> None:
    assert normalize_tr("9" * digits).startswith("dokuz")
    assert normalize_tr("0" * digits).startswith("sıfır")
    assert normalize_tr("9" * digits + ". kat").endswith(" kat")
    assert normalize_tr("1" + ".000" * digits)


@pytest.mark.parametrize(
    ("word", "suffix", "joined"),
    [
        ("lira", "ye", "liraya"),  # te le'ye
        ("lira", "nin", "liranın"),
        ("lira", "lik", "liralık"),
        ("dolar", "ye", "dolara"),
        ("avro", "e", "avroya"),
        ("avro", "in", "avronun"),
        ("kilogram", "ı", "kilogramı"),
        ("saat", "ı", "saati"),
        ("dört", "ün", "dördün"),
        ("dört", "te", "dörtte"),
        ("beş", "de", "beşte"),
        ("on", "ta", "onda"),
        ("on", "daki", "ondaki"),
        ("altı", "er", "altışar"),
        ("iki", "inci", "ikinci"),
        ("bin", "si", "bini"),
        ("bin", "siz", "binsiz"),
        ("yüz", "yle", "yüzle"),
        ("beş", "", "beş"),
    ],
)
def test_suffixes_agree_with_the_word(word: str, suffix: str, joined: str) -> None:
    assert attach_suffix(word, suffix) == joined


@given(st.integers(0, 10**6), st.sampled_from(["de", "den", "e", "i", "in", "li", "lik", "ler", "inci"]))
def test_a_suffix_keeps_vowel_harmony(number: int, suffix: str) -> None:
    word = spell_integer(number)
    joined = attach_suffix(word, suffix)
    vowels = [letter for letter in joined if letter in "aıoueiöü"]
    own = len([letter for letter in word if letter in "aıoueiöü"])
    assert all((vowel in "eiöü") == (vowels[own - 1] in "eiöü") for vowel in vowels[own:])


def test_too_large_a_number_is_refused() -> None:
    with pytest.raises(UsageError, match="digit by digit"):
        spell_integer(LIMIT)
    assert spell_digits(str(LIMIT)) == " ".join(["bir", *["sıfır"] * 18])


def test_what_is_no_numeral_is_refused() -> None:
    with pytest.raises(UsageError, match="not a numeral"):
        read_number("beş")


def test_capital_suffixes_are_read_in_lower_case() -> None:
    assert speak_numbers("1990'DA") == lower_tr("BİN DOKUZ YÜZ DOKSANDA")
