"""A text with its number words written as digits, and the way back to the original text."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

import attrs

from memoair_redaction.number_words import Role, Word, form_numbers, vocabulary

Span = tuple[int, int]
Replacement = tuple[int, int, str, bool]  # begin, end, what instead, whether it is a number

_WORD = re.compile(r"[^\W\d_]+")
# What may separate two words of one number, and two numbers of one sequence.
_JOINT = re.compile(r"[ \u00a0-]{0,2}")
_GAP = re.compile(r"[\s,.;:…\u2010-\u2014/-]{0,5}")
# Between the groups of a number, the first kind separates like a space. The second may also stand between two numbers,
# so it separates only the groups of a number with check digits.
_HESITATIONS = (
    r"u[hm]+|er+m?|[hm]{2,}|mhm|ähm?|öhm|eh|este|dash|hyphen|space|minus|strich|bindestrich|leerzeichen|gui[oó]n"
    r"|number|nummer|n[uú]mero"
    r"|espacio"
)
_CONNECTIVES = r"and|then|und|dann|y|luego|después"
_FILLER = re.compile(
    rf"(?:[\s,.…-]{{1,3}}(?:{_HESITATIONS}|{_CONNECTIVES})(?![^\W_])){{1,4}}[\s,.…-]{{1,3}}", re.IGNORECASE
)
_HESITATION = re.compile(rf"(?:[\s,.…-]{{1,3}}(?:{_HESITATIONS})(?![^\W_])){{1,4}}[\s,.…-]{{1,3}}", re.IGNORECASE)
_HAS_CONNECTIVE = re.compile(rf"\b(?:{_CONNECTIVES})\b", re.IGNORECASE)
_PLUS = re.compile(r"\b(?:plus|más|mas)[ ,]{1,2}", re.IGNORECASE)
WEAK_SEPARATOR = "\x1e"


@attrs.frozen
class SpokenText:
    """A text whose number words are digits.

    Attributes:
        text: The text with digits.
        spoken: The spans of the digits in it that were words.
    """

    text: str
    spoken: Sequence[Span] = ()
    _replaced: Sequence[tuple[int, int, int, int]] = ()  # begin and end in `text`, begin and end in the original
    _begins: Sequence[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_begins", [replaced[0] for replaced in self._replaced])

    def is_spoken(self, begin: int, end: int) -> bool:
        """Return whether any digit within a span of `text` was a word."""
        place = bisect_left(self.spoken, (begin, begin))
        return place < len(self.spoken) and self.spoken[place][0] < end

    def count_spoken(self, begin: int, end: int) -> int:
        """Return how many numbers within a span of `text` were words."""
        return bisect_left(self.spoken, (end, end)) - bisect_left(self.spoken, (begin, begin))

    def to_original(self, begin: int, end: int) -> Span:
        """Return the span of the original text that a span of `text` stands for."""
        return self._offset(begin, is_end=False), self._offset(end, is_end=True)

    def _offset(self, offset: int, *, is_end: bool) -> int:
        # A boundary between two replaced parts belongs to the one before it if it is an end.
        place = (bisect_left if is_end else bisect_right)(self._begins, offset) - 1
        if place < 0:
            return offset
        _, end, original_begin, original_end = self._replaced[place]
        if offset < end or (is_end and offset == end):
            return original_end if is_end else original_begin
        return offset - end + original_end


def write_digits(text: str) -> SpokenText:
    """Return a text with the digits of all scripts, and numbers in words, as ASCII digits."""
    plain = _with_ascii_digits(text)
    replacements = list(_find_numbers(plain))
    replacements += [*_find_fillers(plain, replacements), *_find_plus(plain, replacements)]
    return _replace(plain, sorted(replacements)) if replacements else SpokenText(plain)


def has_numbers(text: str) -> bool:
    """Return whether a text has a digit or a number word."""
    words = vocabulary()
    return any(char.isdecimal() for char in text) or any(word[0].lower() in words for word in _WORD.finditer(text))


def _with_ascii_digits(text: str) -> str:
    """Return a text of the same length with the digits of all scripts replaced by 0 to 9."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _find_plus(text: str, numbers: Sequence[Replacement]) -> Iterator[Replacement]:
    begins = {number[0] for number in numbers}
    for match in _PLUS.finditer(text):
        if match.end() in begins or text[match.end() : match.end() + 1].isdigit():
            yield (*match.span(), "+", False)


def _replace(text: str, replacements: Sequence[Replacement]) -> SpokenText:
    parts, replaced, spoken, done, length = list[str](), [], list[Span](), 0, 0
    for begin, end, instead, is_number in replacements:
        if begin < done:
            continue
        parts += [text[done:begin], instead]
        length += begin - done
        replaced.append((length, length + len(instead), begin, end))
        if is_number:
            spoken.append((length, length + len(instead)))
        length += len(instead)
        done = end
    return SpokenText("".join([*parts, text[done:]]), spoken, replaced)


def _find_numbers(text: str) -> Iterator[Replacement]:
    known = vocabulary()
    sequence: list[tuple[re.Match[str], list[Word]]] = []
    for match in _WORD.finditer(text):
        meanings = known.get(match[0].lower())
        if meanings is None:
            continue
        if sequence:
            languages = {word.language for word in sequence[-1][1]}
            common = [word for word in meanings if word.language in languages]
            gap = sequence[-1][0].end(), match.start()
            if common and (_GAP.fullmatch(text, *gap) or _HESITATION.fullmatch(text, *gap)):
                sequence.append((match, common))
                continue
            yield from _form(text, sequence)
        sequence = [(match, meanings)]
    if sequence:
        yield from _form(text, sequence)


def _form(text: str, sequence: list[tuple[re.Match[str], list[Word]]]) -> Iterator[Replacement]:
    languages = {word.language for word in sequence[-1][1]}
    words = [next(word for word in meanings if word.language in languages) for _, meanings in sequence]
    matches = [match for match, _ in sequence]
    joints = [bool(_JOINT.fullmatch(text, a.end(), b.start())) for a, b in pairwise(matches)]
    numbers = form_numbers(words, [*joints, False])
    is_certain = any(not word.is_weak and word.role is not Role.AND for word in words)
    for number in numbers:
        begin, end = matches[number.first].start(), matches[number.last].end()
        if words[number.first].is_weak:
            # "Oh, 555 0134" does not begin with a zero.
            is_beside_number = number.first > 0 or number.digits != "0" or any(joints[number.last : number.last + 1])
            if not (is_beside_number and is_certain) and not _touches_digit(text, begin, end):
                continue
        yield begin, end, number.digits, True


def _touches_digit(text: str, begin: int, end: int) -> bool:
    return bool(re.match(r"[ -]\d", text[end : end + 2]) or re.match(r"\d[ -]", text[max(0, begin - 2) : begin]))


def _find_fillers(text: str, numbers: Sequence[Replacement]) -> Iterator[Replacement]:
    begins, ends = {number[0] for number in numbers}, {number[1] for number in numbers}
    for match in _FILLER.finditer(text):
        begin, end = match.span()
        if (begin in ends or text[begin - 1 : begin].isdigit()) and (end in begins or text[end : end + 1].isdigit()):
            yield begin, end, WEAK_SEPARATOR if _HAS_CONNECTIVE.search(match[0]) else " ", False
