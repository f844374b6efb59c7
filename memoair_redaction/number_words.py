"""Number words of English, German and Spanish: which words are numbers, and which numbers adjacent ones form."""

from collections.abc import Sequence
from enum import Enum
from functools import cache

import attrs


class Role(Enum):
    """What a word does in a number."""

    UNIT = "unit"  # 0 to 9
    PAIR = "pair"  # a number of two digits that takes no unit: 10 to 19, and one-word numbers such as veintidós
    TENS = "tens"  # 20, 30, ... 90
    HUNDREDS = "hundreds"  # a value: trescientos; in German up to 999 in one word
    TIMES_HUNDRED = "times hundred"
    THOUSANDS = "thousands"  # a value of four digits in one word
    TIMES_THOUSAND = "times thousand"
    TIMES_MILLION = "times million"
    REPEAT = "repeat"  # double, triple
    AND = "and"  # within a number: forty and two


@attrs.frozen
class Word:
    """A number word.

    Attributes:
        language: The language, as its ISO 639-1 code.
        role: What it does in a number.
        value: Its value.
        is_weak: Whether it is also an everyday word ("oh", "once"), and a number only beside another one.
    """

    language: str
    role: Role
    value: int = 0
    is_weak: bool = False


@attrs.frozen
class SpokenNumber:
    """A number made of words.

    Attributes:
        first: The index of its first word.
        last: The index of its last word.
        digits: Its digits, as a speech recognizer would write them.
    """

    first: int
    last: int
    digits: str


ENGLISH_UNITS = "zero one two three four five six seven eight nine".split()
ENGLISH_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_GERMAN_UNITS = "null ein zwei drei vier fünf sechs sieben acht neun".split()
_GERMAN_TEENS = "zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn".split()
_GERMAN_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()
_SPANISH_UNITS = "cero uno dos tres cuatro cinco seis siete ocho nueve".split()
_SPANISH_PAIRS = (
    "diez once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós "
    "veintitrés veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve"
).split()
_SPANISH_TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa".split()
_SPANISH_HUNDREDS = (
    "doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos".split()
)


@cache
def vocabulary() -> dict[str, list[Word]]:
    """Return the meanings of every number word in lower case. Words that several languages share have several."""
    words: dict[str, list[Word]] = {}
    for language, spellings in (("en", _english()), ("de", _german()), ("es", _spanish())):
        for spelling, word in spellings.items():
            for variant in _spellings(spelling) if language != "en" else {spelling}:
                words.setdefault(variant, []).append(attrs.evolve(word, language=language))
    return words


def _english() -> dict[str, Word]:
    words = {name: Word("en", Role.UNIT, value) for value, name in enumerate(ENGLISH_UNITS)}
    words |= {name: Word("en", Role.UNIT, 0, is_weak=True) for name in ("oh", "o", "nought", "naught")}
    words |= {"niner": Word("en", Role.UNIT, 9), "fourty": Word("en", Role.TENS, 40)}
    words |= {name: Word("en", Role.PAIR, 10 + value) for value, name in enumerate(ENGLISH_TEENS)}
    words |= {name: Word("en", Role.TENS, 20 + 10 * value) for value, name in enumerate(ENGLISH_TENS)}
    words |= {"hundred": Word("en", Role.TIMES_HUNDRED, 100), "thousand": Word("en", Role.TIMES_THOUSAND, 1_000)}
    words |= {"million": Word("en", Role.TIMES_MILLION, 10**6), "and": Word("en", Role.AND)}
    words |= {"double": Word("en", Role.REPEAT, 2), "triple": Word("en", Role.REPEAT, 3)}
    return words | {"treble": Word("en", Role.REPEAT, 3), "quadruple": Word("en", Role.REPEAT, 4)}


def _german() -> dict[str, Word]:
    below_hundred = _german_below_hundred()
    words = {name: Word("de", Role.PAIR, value) for name, value in below_hundred.items() if value > 9}
    words |= {name: Word("de", Role.UNIT, value) for value, name in enumerate(_GERMAN_UNITS) if name != "ein"}
    words |= {"eins": Word("de", Role.UNIT, 1), "zwo": Word("de", Role.UNIT, 2)}
    words["elf"] = Word("de", Role.PAIR, 11, is_weak=True)  # a being of legend
    for hundreds in range(1, 20):
        hundred = f"{_german_name(hundreds)}hundert"
        for spelling, rest in {"": 0, **below_hundred}.items():
            if hundreds != 10:
                role = Role.HUNDREDS if hundreds < 10 else Role.THOUSANDS
                words[hundred + spelling] = Word("de", role, 100 * hundreds + rest)
                words[f"{hundred}und{spelling}"] = Word("de", role, 100 * hundreds + rest)
    words |= {"hundert": Word("de", Role.HUNDREDS, 100), "tausend": Word("de", Role.TIMES_THOUSAND, 1_000)}
    for thousands in range(1, 10):
        for spelling, rest in {"": 0, **below_hundred}.items():
            words[f"{_german_name(thousands)}tausend{spelling}"] = Word("de", Role.THOUSANDS, 1_000 * thousands + rest)
            words[f"{_german_name(thousands)}tausendund{spelling}"] = Word(
                "de", Role.THOUSANDS, 1_000 * thousands + rest
            )
    words |= {name: Word("de", Role.TIMES_MILLION, 10**6) for name in ("million", "millionen")}
    return words | {"doppel": Word("de", Role.REPEAT, 2), "doppelt": Word("de", Role.REPEAT, 2)}


def _german_name(value: int) -> str:
    return _GERMAN_UNITS[value] if value < 10 else _GERMAN_TEENS[value - 10]


def _german_below_hundred() -> dict[str, int]:
    numbers = {name: value for value, name in enumerate(_GERMAN_UNITS) if value} | {"eins": 1}
    numbers |= {name: 10 + value for value, name in enumerate(_GERMAN_TEENS)}
    for place, tens in enumerate(_GERMAN_TENS):
        numbers[tens] = 20 + 10 * place
        numbers |= {f"{unit}und{tens}": 20 + 10 * place + value for value, unit in enumerate(_GERMAN_UNITS) if value}
    return numbers


def _spanish() -> dict[str, Word]:
    words = {name: Word("es", Role.UNIT, value) for value, name in enumerate(_SPANISH_UNITS)}
    words |= {name: Word("es", Role.PAIR, 10 + value) for value, name in enumerate(_SPANISH_PAIRS)}
    words["once"] = Word("es", Role.PAIR, 11, is_weak=True)  # an English word
    words |= {name: Word("es", Role.TENS, 30 + 10 * value) for value, name in enumerate(_SPANISH_TENS)}
    words |= {name: Word("es", Role.HUNDREDS, 100) for name in ("cien", "ciento")}
    for value, name in enumerate(_SPANISH_HUNDREDS):
        words |= {each: Word("es", Role.HUNDREDS, 200 + 100 * value) for each in (name, f"{name[:-2]}as")}
    words |= {"mil": Word("es", Role.TIMES_THOUSAND, 1_000), "y": Word("es", Role.AND)}
    words |= {name: Word("es", Role.TIMES_MILLION, 10**6) for name in ("millón", "millones")}
    return words | {"doble": Word("es", Role.REPEAT, 2), "triple": Word("es", Role.REPEAT, 3)}


def _spellings(word: str) -> set[str]:
    """Return the spellings of a word: with accents and without, as recognizers and keyboards write them."""
    plain = word.translate(str.maketrans("áéíóú", "aeiou")).replace("ß", "ss")
    without_umlauts = plain.replace("ü", "ue").replace("ö", "oe")
    return {word, plain, without_umlauts, plain.translate(str.maketrans("üö", "uo"))}


def form_numbers(words: Sequence[Word], is_joined: Sequence[bool]) -> list[SpokenNumber]:
    """Return the numbers that adjacent words of one language form.

    Args:
        words: The words.
        is_joined: For each word, whether only a space or a hyphen separates it from the next one, so that both may
            belong to one number.
    """
    numbers, position = [], 0
    while position < len(words):
        number = _Reader(words, is_joined, position).read()
        if number is not None:
            numbers.append(number)
        position = position + 1 if number is None else number.last + 1
    return numbers


@attrs.define
class _Reader:
    """Reads one number from the words, beginning at a position."""

    words: Sequence[Word]
    is_joined: Sequence[bool]
    first: int
    position: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.position = self.first

    def read(self) -> SpokenNumber | None:
        repeats = self._take(Role.REPEAT)
        if repeats is not None:
            unit = self._take(Role.UNIT)
            return None if unit is None else self._number(str(unit) * repeats)
        value = self._take(Role.THOUSANDS)
        if value is None:
            value = self._read_below_thousand()
            millions = self._take(Role.TIMES_MILLION) if value else None
            if value and millions is not None:
                value = millions * value + (self._read_below_thousand() or 0)
            # "Mil" is a number on its own; of "50 thousand", the number is in digits.
            is_number = value or (value is None and self._role(0) is Role.TIMES_THOUSAND and self._language == "es")
            thousands = self._take(Role.TIMES_THOUSAND) if is_number else None
            if thousands is not None:
                value = thousands * (value or 1) + (self._read_below_thousand(after_more=True) or 0)
        return None if value is None else self._number(str(value))

    def _number(self, digits: str) -> SpokenNumber:
        return SpokenNumber(self.first, self.position - 1, digits)

    def _read_below_thousand(self, *, after_more: bool = False) -> int | None:
        mark = self.position
        if after_more:
            self._take(Role.AND)
        hundreds = self._take(Role.HUNDREDS)
        if hundreds is None:
            value = self._read_below_hundred()
            if value is None:
                self.position = mark
                return None
            factor = None if value == 0 else self._take(Role.TIMES_HUNDRED)
            if factor is None:
                return value
            hundreds = value * factor
        if hundreds % 100:
            return hundreds
        mark = self.position
        has_and = self._take(Role.AND) is not None
        # "Eight hundred five five five" is 800 and three digits, not 805 and two.
        is_digit_sequence = not has_and and self._role(0) is Role.UNIT and self._role(1) in (Role.UNIT, Role.REPEAT)
        rest = None if is_digit_sequence or self._role(0) is None else self._read_below_hundred()
        if not rest:
            self.position = mark
            return hundreds
        return hundreds + rest

    def _read_below_hundred(self) -> int | None:
        tens = self._take(Role.TENS)
        if tens is None:
            pair = self._take(Role.PAIR)
            return self._take(Role.UNIT) if pair is None else pair
        mark = self.position
        if self._language == "es" and self._take(Role.AND) is None:
            return tens
        unit = self._take(Role.UNIT)
        if not unit:
            self.position = mark
        return tens + (unit or 0)

    @property
    def _language(self) -> str:
        return self.words[self.first].language

    def _role(self, ahead: int) -> Role | None:
        """Return the role of a word ahead, or None if it cannot belong to the number."""
        place = self.position + ahead
        if place >= len(self.words) or (place > self.first and not self.is_joined[place - 1]):
            return None
        return self.words[place].role

    def _take(self, role: Role) -> int | None:
        if self._role(0) is not role:
            return None
        self.position += 1
        return self.words[self.position - 1].value
