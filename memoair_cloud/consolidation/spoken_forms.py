"""Write what was said in words as it is written: numbers digit by digit, email addresses, spelled names.

What can be written in more than one way is left out: a wrong address is worse than none.
"""

import re
from unicodedata import combining, normalize

from memoair_redaction.number_words import ENGLISH_TEENS, ENGLISH_TENS, ENGLISH_UNITS

_DIGITS = {word: str(digit) for digit, word in enumerate(ENGLISH_UNITS)}
_DIGITS |= {"oh": "0", "o": "0"}
_DIGIT_WORD = "|".join(_DIGITS)
# A number that is spoken digit by digit: at least six digits, as in phone numbers.
_SPOKEN_NUMBER = re.compile(
    rf"\b(?:(?:double|triple)\s+)?(?:{_DIGIT_WORD})(?:[\s,-]+(?:(?:double|triple)\s+)?(?:{_DIGIT_WORD})){{5,}}\b",
    re.IGNORECASE,
)
# Letters that are spelled without their stroke, and do not come apart by themselves
_PLAIN = str.maketrans({"\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00e6": "ae", "\u0131": "i", "\u00f0": "d"})
_SMALL_NUMBERS = {word: number for number, word in enumerate(ENGLISH_TEENS, start=10)}
_SMALL_NUMBERS |= {word: number for number, word in zip(range(20, 100, 10), ENGLISH_TENS, strict=True)}

_SIGNS = {"dot": ".", "point": ".", "underscore": "_", "hyphen": "-", "dash": "-", "minus": "-", "plus": "+"}
# What may stand before a spoken address: its first word begins behind it.
_ADDRESS_LEAD = (
    r"(?:\b(?:e-?mail|mail)(?: address)?(?: is|'s)(?: now)?|\b(?:it|that)(?:'s| is)(?: now)?"
    r"|\bme (?:at|on|under)|^|[,.!?])\s*"
)
_LOCAL_WORD = r"(?!(?:is|e-?mail|mail|address|me|my|our|at|on|it|it's|that's|the|and|you)\b)[\w.+-]+"
_SPOKEN_EMAIL = re.compile(
    rf"(?P<lead>{_ADDRESS_LEAD})(?P<local>{_LOCAL_WORD}(?: {_LOCAL_WORD}){{0,11}}?) at "
    r"(?P<domain>[\w.-]+(?: (?:dot|hyphen|dash|point) \w+)*(?: dot \w+|\.\w{2,}))(?=\W|$)",
    re.IGNORECASE,
)
_CAPITAL = "[A-Z\u00c0-\u00de]"
_LETTERS = rf"{_CAPITAL}(?:[-. ]{{1,2}}{_CAPITAL}){{2,}}(?=\W|$)"
_SPELLED_AFTER_NAME = re.compile(
    r"(?!is\b|name\b)\b(?P<name>[^\W\d_][\w'-]+)"
    r"(?:,|\.| -| that is| that's|,? spelled|,? spelt|,? i spell (?:it|that)),? "
    rf"(?P<letters>(?-i:{_LETTERS}))",
    re.IGNORECASE,
)
_SPELLED_ALONE = re.compile(
    rf"(?P<lead>^(?:[Ii]t(?:'s| is) |[Tt]hat(?:'s| is) )?|\bname(?:'s| is)(?: spelled| spelt| written)? )"
    rf"(?P<letters>{_LETTERS})"
)


def write_spoken_forms(text: str) -> str:
    """Return a text with its numbers, email addresses and spelled names as they are written."""
    text = _SPOKEN_EMAIL.sub(_write_email, text)
    text = _SPOKEN_NUMBER.sub(lambda match: _write_digits(match[0]), text)
    text = _SPELLED_AFTER_NAME.sub(_choose_spelling, text)
    return _SPELLED_ALONE.sub(
        lambda match: re.sub(" (?:spelled|spelt|written)", "", match["lead"]) + _join_letters(match["letters"]), text
    )


def parse_small_number(text: str) -> int | None:
    """Return the value of a number below a hundred, in digits or words; None if it is something else."""
    words = re.split(r"[\s-]+", text.strip().lower())
    if len(words) == 1 and words[0].isdecimal():
        return int(words[0])
    if len(words) == 1:
        return int(_DIGITS[words[0]]) if words[0] in _DIGITS else _SMALL_NUMBERS.get(words[0])
    if len(words) == 2 and words[0] in ENGLISH_TENS and words[1] in _DIGITS and _DIGITS[words[1]] != "0":
        return _SMALL_NUMBERS[words[0]] + int(_DIGITS[words[1]])
    return None


def _write_digits(number_words: str) -> str:
    digits, repeat = "", 1
    for word in re.findall(r"\w+", number_words.lower()):
        if word in ("double", "triple"):
            repeat = 2 if word == "double" else 3
        else:
            digits += _DIGITS[word] * repeat
            repeat = 1
    return digits


def _write_email(match: re.Match[str]) -> str:
    local, domain = _write_local_part(match["local"]), _write_domain(match["domain"])
    if local is None or domain is None:
        # Not an address ("I live at ..."), or one that can be written in several ways.
        return match[0] if not re.search(r" dot ", match[0]) else match["lead"]
    return f"{match['lead']}{local}@{domain}"


def _write_local_part(text: str) -> str | None:
    """Return the part before the @: words are joined only where a sign or a number stands between them."""
    pieces: list[str] = []
    last = ""  # the kind of the last piece
    words = text.lower().split()
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word in _SIGNS:
            if last in ("", "sign"):
                return None
            pieces.append(_SIGNS[word])
            last = "sign"
            continue
        if word in ("double", "triple") and position < len(words) and words[position] in _DIGITS:
            pieces.append(_DIGITS[words[position]] * (2 if word == "double" else 3))
            position += 1
            last = "number"
            continue
        has_units = position < len(words) and word in ENGLISH_TENS
        pair = parse_small_number(f"{word} {words[position]}") if has_units else None
        number = pair if pair is not None else parse_small_number(word)
        if number is not None and not (word == "o" and last != "number"):
            position += pair is not None
            pieces.append(word if word.isdecimal() else str(number))
            last = "number"
            continue
        is_letter = len(word) == 1
        if not re.fullmatch(r"[a-z0-9][a-z0-9._+-]*", word) or (last == "word" and not is_letter):
            return None
        if last == "letter" and not is_letter:
            return None
        pieces.append(word)
        last = "letter" if is_letter else "word"
    return "".join(pieces) if last and last != "sign" else None


def _write_domain(text: str) -> str | None:
    written = re.sub(r" (?:dot|point) ", ".", text.lower())
    written = re.sub(r" (?:hyphen|dash) ", "-", written)
    return written if re.fullmatch(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}", written) else None


def _choose_spelling(match: re.Match[str]) -> str:
    """Return a name as spelled; where only accents differ, as it was written."""
    spelled = _join_letters(match["letters"])
    return match["name"] if _fold(match["name"]) == _fold(spelled) else spelled


def _fold(name: str) -> str:
    return "".join(char for char in normalize("NFKD", name.casefold().translate(_PLAIN)) if not combining(char))


def _join_letters(letters: str) -> str:
    return re.sub(r"[^\w]", "", letters).title()
