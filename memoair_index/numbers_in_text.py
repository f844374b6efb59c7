"""Numbers in a text, however they are written or said: 1,299.50, "double five", "two and a half thousand"."""

import re
from collections.abc import Sequence
from typing import NamedTuple

DIGITS = {
    name: str(digit) for digit, name in enumerate("zero one two three four five six seven eight nine".split())
} | {"oh": "0", "o": "0", "nought": "0"}
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBERS = {name: number for number, name in enumerate(_TEENS, 10)} | {
    name: 10 * number for number, name in enumerate(_TENS, 2)
}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
REPEATS = {"double": 2, "triple": 3, "treble": 3}
# Digits that are also other words count only beside another digit.
_AMBIGUOUS_DIGITS = frozenset(["oh", "o"])
_TOKEN = re.compile(
    r"\d{1,3}(?: \d{3})+,\d{1,2}(?!\d)|\d+(?:[.,']\d{3})+(?:[.,]\d{1,2})?(?!\d)|\d+[.,]\d{1,2}(?!\d)(?![.,]\d)|\d+"
    r"|[^\W\d_]+(?:'[^\W\d_]+)?"
)
# What may stand between two parts of one number.
NUMBER_GAP = re.compile(r"[\s\-\u2010-\u2015./()+,:#]{0,4}")
_CODE_BEFORE = re.compile(r"[^\W_]-?$")
_AND_A_HALF = re.compile(r" and a half(?![^\W_])")

MAX_FORM_CHARS = 24


class Token(NamedTuple):
    """A word or a written number, and where it is."""

    text: str
    start: int
    end: int


class NumberInText(NamedTuple):
    """A number in a text, in digits, and where it is."""

    digits: str
    start: int
    end: int


def find_tokens(folded: str) -> list[Token]:
    """Return the words and written numbers of a folded text."""
    return [Token(match[0], match.start(), match.end()) for match in _TOKEN.finditer(folded)]


def find_numbers(folded: str, tokens: Sequence[Token]) -> list[NumberInText]:
    """Return the numbers of a text in order: digits, digits in words ("double five"), and cardinals ("forty two")."""
    parts: list[NumberInText] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.text[0].isdigit():
            digits, count = _normalize_written(token.text), 1
        elif parts and token.text in DIGITS and _is_point(folded, parts[-1].end, token.start):
            digits, count = DIGITS[token.text], 1  # without a scale behind it, which belongs to the whole
        else:
            digits, count = _read_words(folded, tokens, at)
        if count:
            part = NumberInText(digits, token.start, tokens[at + count - 1].end)
            if parts and (decimal := _read_decimal(folded, parts[-1], part)):
                parts[-1] = decimal
            else:
                parts.append(part)
            if tail := _read_tail(folded, tokens, at + count, parts[-1]):
                parts[-1], further = tail
                count += further
        at += max(1, count)
    return parts


def _read_tail(folded: str, tokens: Sequence[Token], at: int, part: NumberInText) -> tuple[NumberInText, int] | None:
    """Read "and a half", "million" or "k" behind a number; return the number and how many tokens that took."""
    digits, end, count = part.digits, part.end, 0
    if digits.isdigit() and (half := _AND_A_HALF.match(folded, end)):
        digits, end, count = f"{digits}.5", half.end(), 3
    if at + count < len(tokens):
        token = tokens[at + count]
        gap = folded[end : token.start]
        if token.text in _SCALES and gap == " ":
            digits, end, count = _multiply(digits, _SCALES[token.text]), token.end, count + 1
        elif token.text == "k" and not gap and folded[end - 1].isdigit() and not _continues_code(folded, part.start):
            digits, end, count = _multiply(digits, _SCALES["thousand"]), token.end, count + 1
    return (NumberInText(digits, part.start, end), count) if count else None


def _continues_code(folded: str, start: int) -> bool:
    """Return whether a number is part of a code: WX-4471-K, wx4471k."""
    return _CODE_BEFORE.search(folded, max(0, start - 2), start) is not None


def _is_point(folded: str, start: int, end: int) -> bool:
    return end - start <= len(" point ") and folded[start:end] in (" point ", " comma ")


def _multiply(number: str, scale: int) -> str:
    """Return a number of millions and the like in digits: 1.5 million."""
    whole, _, decimals = number.partition(".")
    return str(int(whole + decimals) * scale // 10 ** len(decimals)) if len(number) <= MAX_FORM_CHARS else number


def _read_decimal(folded: str, before: NumberInText, part: NumberInText) -> NumberInText | None:
    """Return "two point five", and its further digits, as one number."""
    if len(before.digits) > MAX_FORM_CHARS or part.start - before.end > len(" point "):
        return None
    between = folded[before.end : part.start]
    is_further = (
        between == " " and "." in before.digits and not folded[before.start].isdigit() and len(part.digits) == 1
    )
    if _is_point(folded, before.end, part.start) and before.digits.isdigit() and part.digits.isdigit():
        return NumberInText(f"{before.digits}.{part.digits}", before.start, part.end)
    return NumberInText(before.digits + part.digits, before.start, part.end) if is_further else None


def _normalize_written(number: str) -> str:
    """Return a written number without separators of thousands, and with a point before cents."""
    if not number.isascii():  # digits of other scripts
        number = "".join(str(int(char)) if char.isdigit() else char for char in number)
    whole_parts = re.split(r"[.,' ]", number)
    if len(whole_parts) > 1 and len(whole_parts[-1]) < 3:
        return "".join(whole_parts[:-1]) + "." + whole_parts[-1]
    return "".join(whole_parts)


def _read_words(folded: str, tokens: Sequence[Token], at: int) -> tuple[str, int]:
    """Return the digits of the number in words that begins at a token, and of how many tokens it is; 0 for none."""
    word = tokens[at].text
    following = tokens[at + 1].text if at + 1 < len(tokens) else ""
    if word in REPEATS:
        digit = DIGITS.get(following) or (following if len(following) == 1 and following.isdigit() else None)
        return (digit * REPEATS[word], 2) if digit is not None else ("", 0)
    if word in _AMBIGUOUS_DIGITS:
        return (DIGITS[word], 1) if _is_beside_digit(tokens, at) else ("", 0)
    if word in DIGITS and following not in _SCALES:
        return DIGITS[word], 1
    return _read_cardinal(folded, tokens, at)


def _is_beside_digit(tokens: Sequence[Token], at: int) -> bool:
    neighbors = [tokens[place].text for place in (at - 1, at + 1) if 0 <= place < len(tokens)]
    return any(
        word[0].isdigit() or word in REPEATS or (word in DIGITS and word not in _AMBIGUOUS_DIGITS) for word in neighbors
    )


def _read_cardinal(folded: str, tokens: Sequence[Token], at: int) -> tuple[str, int]:
    """Read a cardinal number in words: "two hundred and five", "forty two", "nineteen"."""
    total = current = count = 0
    limit = 10**12  # what follows must be below this: after "forty" only a unit
    while at + count < len(tokens):
        word = tokens[at + count].text
        if count and not NUMBER_GAP.fullmatch(folded, tokens[at + count - 1].end, tokens[at + count].start):
            break
        unit = _unit(word)
        if unit is not None:
            if unit >= limit:
                break
            current += unit
            limit = 10 if unit >= 20 else 1
        elif word == "hundred" and 0 < current < 100:
            current *= 100
            limit = 100
        elif word in _SCALES and word != "hundred" and count:
            total += max(1, current) * _SCALES[word]
            current, limit = 0, _SCALES[word]
        elif not (word == "and" and _joins_unit(tokens, at + count)):
            break
        count += 1
    return (str(total + current), count) if count else ("", 0)


def _unit(word: str) -> int | None:
    if word in DIGITS:
        return int(DIGITS[word]) if DIGITS[word] != "0" else None
    return _NUMBERS.get(word)


def _joins_unit(tokens: Sequence[Token], at: int) -> bool:
    """Return whether an "and" is part of a number: after a scale, before a unit."""
    return 0 < at < len(tokens) - 1 and tokens[at - 1].text in _SCALES and _unit(tokens[at + 1].text) is not None
