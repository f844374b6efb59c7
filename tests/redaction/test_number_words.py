"""Numbers in words: whatever their digits, and however they are grouped, they are found like numbers in digits."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_redaction import KINDS, Redactor
from memoair_redaction.spoken_text import write_digits

redact = Redactor(KINDS)
UNITS = {
    "en": "zero one two three four five six seven eight nine".split(),
    "de": "null eins zwei drei vier fünf sechs sieben acht neun".split(),
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve".split(),
}
TEENS = {
    "en": "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(),
    "de": "zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn".split(),
    "es": "diez once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve".split(),
}
TENS = {
    "en": "twenty thirty forty fifty sixty seventy eighty ninety".split(),
    "de": "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split(),
    "es": "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa".split(),
}
TWENTIES = (
    "veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve".split()
)


def say_pair(value: int, language: str) -> str:
    """Return the words of a number from 10 to 99."""
    tens, unit = divmod(value, 10)
    if tens == 1:
        return TEENS[language][unit]
    if not unit:
        return TENS[language][tens - 2]
    if language == "en":
        return f"{TENS['en'][tens - 2]}-{UNITS['en'][unit]}"
    if language == "de":
        return f"{'ein' if unit == 1 else UNITS['de'][unit]}und{TENS['de'][tens - 2]}"
    return TWENTIES[unit - 1] if tens == 2 else f"{TENS['es'][tens - 2]} y {UNITS['es'][unit]}"


@st.composite
def spoken(draw: st.DrawFn, digits: str) -> str:
    """Say digits one by one and in pairs, with pauses. A pause is behind tens, or the next digit would belong to it."""
    language, place, said = draw(st.sampled_from(["en", "de", "es"])), 0, ""
    while place < len(digits):
        takes_pair = place + 1 < len(digits) and digits[place] != "0" and draw(st.booleans())
        length = 2 if takes_pair else 1
        value = int(digits[place : place + length])
        is_tens = takes_pair and value >= 20 and value % 10 == 0
        said += say_pair(value, language) if takes_pair else UNITS[language][value]
        said += ", " if is_tens else draw(st.sampled_from([" ", " ", ", ", " uh ", "... "]))
        place += length
    return said.rstrip(" .,").removesuffix(" uh")


@given(st.data(), st.sampled_from("0469"), st.text("0123456789", min_size=8, max_size=10))
def test_a_telephone_number_in_words_is_redacted(data: st.DataObject, first: str, rest: str) -> None:
    number = first + rest
    said = data.draw(spoken(number))
    steps = {int(b) - int(a) for a, b in pairwise(number)}
    if len(steps) > 1 or steps == {0}:  # counting is no number
        assert redact(f"Okay: {said}. Thanks.") == "Okay: [phone number]. Thanks."


@given(st.data(), st.sampled_from(["4", "51", "2221", "37", "6011", "3528"]), st.text("0123456789", min_size=14))
def test_a_card_number_in_words_is_redacted(data: st.DataObject, first: str, rest: str) -> None:
    number = (first + rest)[: 14 if first == "37" else 15]
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(number))]
    number += str(-sum(sum(divmod(value, 10)) for value in doubled) % 10)
    kept = redact(f"Okay: {data.draw(spoken(number))}. Thanks.")
    assert not re.search(r"\d", write_digits(kept).text), kept


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("twenty three", "23"),
        ("double five oh", "55 0"),
        ("eight hundred five five five", "800 5 5 5"),
        ("one hundred and five", "105"),
        ("nineteen eighty-four", "19 84"),
        ("two thousand and one", "2001"),
        ("oh, well", "oh, well"),
        ("once I was there", "once I was there"),
        ("a million thanks", "a million thanks"),
        ("neunzehnhundertvierundachtzig", "1984"),
        ("siebenhundertzwölf, fuenf", "712, 5"),
        ("mil novecientos ochenta y cuatro", "1984"),
        ("seiscientos doce, treinta y cuatro", "612, 34"),
        ("uno y dos", "1\x1e2"),
        ("plus four nine", "+4 9"),
        ("tres o cuatro", "3 o 4"),
    ],
)
def test_number_words_are_written_as_a_recognizer_does(said: str, written: str) -> None:
    assert write_digits(said).text == written


@given(st.lists(st.sampled_from(["four ", "oh ", "dreiundzwanzig, ", "x", " uh ", "plus ", "cuarenta y dos ", "7 "])))
def test_each_span_has_a_place_in_the_original(pieces: list[str]) -> None:
    text = "".join(pieces)
    said = write_digits(text)
    assert said.to_original(0, len(said.text)) == (0, len(text))
    for begin, end in said.spoken:
        first, last = said.to_original(begin, end)
        assert write_digits(text[first:last]).text in (said.text[begin:end], text[first:last])
