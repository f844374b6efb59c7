"""Corrections of what was just said: "Wednesday, no, Thursday", "not nuts, peanuts", "Did I say cat? I meant dog"."""

import difflib
import re
from collections.abc import Callable, Mapping

import attrs

from memoair_cloud.consolidation.date_expressions import find_time_expression

WordLists = Mapping[str, Mapping[str, str]]
NO_LISTS: WordLists = {}
# The lists of which one word can replace another.
_EXCHANGEABLE = (
    "ALLERGEN",
    "MEDICINE",
    "FOOD",
    "DIET",
    "JOB",
    "SEVERAL",
    "LANGUAGE",
    "PAYMENT",
    "SEAT",
    "CHANNEL",
    "KIN",
)
_WORDS = re.compile(r"(?:an? |the |to |in )?([a-z-]+(?: [a-z-]+)?)", re.IGNORECASE)

_RESTATEMENT = r"(?:make (?:it|that)|i said|i meant?(?: to say)?|it's|that's|it is|it should be|that should be|it was)"
_CORRECTION_MARKER = re.compile(
    rf"(?:^|[\s,.;-]+)(?:(?:no[,.]? )*(?:wait(?:[,.]? wait)*|hang on|hold on|sorry|actually)[,.]? (?:no"
    rf"|sorry)\b(?:[,.]? (?:wait|sorry|actually))*"
    rf"|(?:no[,.]? )+(?:wait(?:[,.]? wait)*|hang on|hold on|sorry|actually)\b(?:[,.]? (?:sorry|no))*"
    rf"|scratch that|correction|i tell a lie|(?:ah|oh|er),? no(?=,)"
    rf"|i misspoke|my mistake|or rather|i meant?(?: to say)?(?=[,\s])"
    rf"|(?:no|sorry|wait)(?=[,.]? {_RESTATEMENT}\b)|(?:actually[,.]? )?(?=make (?:it|that)\b)|(?<=[,.]\s)no(?=,)"
    rf"|^no(?=,)|^sorry(?=,)"
    rf"|(?<=[,.]\s)sorry(?=,)|(?<=\.\.\.\s)no(?=,))[\s,.:-]*(?P<again>{_RESTATEMENT}\b[\s,]*)?",
    re.IGNORECASE,
)
_MIN_PHONE_DIGITS = 7
_MIN_SIMILARITY = 0.6  # of a word of a name and its correction: "Lund" and "Lind"
_MAX_OWN_CORRECTIONS = 6
_CLAUSE_START = re.compile(r"(?:i|i'm|i've|i'll|my|we|we're|we've|it's my)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\+?\d[\d ().-]*\d|\d")
_ADDRESS = re.compile(r"\d+\w? [A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
_NAME = re.compile(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2}")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_NOT_NAMES = re.compile(
    r"I\b|I'|My\b|The\b|It\b|We\b|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|January|February|March|April|May\b"
    r"|June|July|August"
    r"|September|October|November|December"
)
# "Did I say cat? I meant dog." and "Well, not nuts, peanuts." name what they replace.
_ASKED_BACK = re.compile(
    r"\bdid i (?:just )?say (?P<old>[\w' -]{1,40})\?\s+"
    r"(?:(?:no|sorry|well)[,.]? )*(?:i mean|i meant|it is|it's|i should have said) "
    r"(?P<new>[\w' -]{1,40})(?=[.!]|$)",
    re.IGNORECASE,
)
_MARKED_AFTER = re.compile(
    r"(?P<before>[.!?]\s+)(?P<piece>[\w'@.+-]+(?: [\w'-]+){0,2}), (?:i mean|i meant|rather|sorry)(?P<end>[.!]|$)",
    re.IGNORECASE,
)
_NOT_BUT = re.compile(
    r"(?:^|,\s*)(?:(?:well|no|sorry|wait|i mean|actually|i meant)\b[,.]?\s*)*"
    r"not (?:the |an? |in |to |on )?(?P<old>[\w'-]+(?: [\w'-]+){0,2}),"
    r" (?:but )?(?:the |an? |in |to |on )?(?P<new>[\w'-]+(?: [\w'-]+){0,2})[\s.!]*$",
    re.IGNORECASE,
)


@attrs.frozen
class SpokenCorrection:
    """A correction of something said before this turn: its piece replaces a piece of the same type."""

    piece_type: str
    piece: str


def join_asked_back(text: str) -> str:
    """Return a text whose corrections come first: "Did I say cat? I meant dog." is "not cat, dog"."""
    text = _ASKED_BACK.sub(lambda match: f"Well, not {match['old']}, {match['new']}", text)
    return _MARKED_AFTER.sub(r"\g<before>Sorry, \g<piece>\g<end>", text)


def correct_sentence(
    sentence: str, before: str | None, lists: WordLists = NO_LISTS
) -> tuple[str | None, SpokenCorrection | None]:
    """Return what becomes of the sentence before, if a sentence corrects it, and the piece that it corrects.

    Args:
        sentence: The sentence that may correct another.
        before: The sentence before it in the turn; None if it is the first.
        lists: The lists of words of the language.

    Returns:
        The corrected sentence, None if nothing was corrected; and the piece for an earlier turn, None if the
        sentence corrects nothing.
    """
    if (named := _NOT_BUT.match(sentence)) and before is not None:
        return _replace_words(before, named["old"], named["new"]), None
    marker = _CORRECTION_MARKER.match(sentence)
    found = _find_correction_piece(sentence[marker.end() :], lists) if marker else None
    if found is None:
        return None, None
    piece_type, piece, _ = found
    return before and _replace_piece(before, piece_type, piece, lists), SpokenCorrection(piece_type, piece)


def strip_marker(sentence: str) -> str:
    """Return a sentence without the words that announce a correction."""
    marker = _CORRECTION_MARKER.match(sentence)
    return sentence[marker.start("again") if marker["again"] else marker.end() :] if marker else sentence


def apply_correction(sentence: str, correction: SpokenCorrection, lists: WordLists = NO_LISTS) -> str | None:
    """Return a sentence with the corrected piece; None if the sentence has no piece of that type."""
    return _replace_piece(sentence, correction.piece_type, correction.piece, lists)


def apply_own_corrections(sentence: str, lists: WordLists = NO_LISTS) -> str:
    """Return a sentence after its own corrections; empty if it is unclear what they correct."""
    for _ in range(_MAX_OWN_CORRECTIONS):
        named = _NOT_BUT.search(sentence)
        if (
            named
            and named.start()
            and (corrected := _replace_words(sentence[: named.start()], named["old"], named["new"]))
        ):
            return corrected
        marker = next((match for match in _CORRECTION_MARKER.finditer(sentence) if match.start()), None)
        if not marker:
            return sentence
        before, after = sentence[: marker.start()], sentence[marker.end() :]
        found = _find_correction_piece(after, lists)
        if found and (corrected := _replace_piece(before, found[0], found[1], lists)):
            sentence = corrected + after[found[2] :]
        else:
            sentence = after if _CLAUSE_START.match(after) else ""
    return ""


def _find_correction_piece(text: str, lists: WordLists) -> tuple[str, str, int] | None:
    """Return the piece that a correction begins with: its type, its text, and where it ends."""
    finders: tuple[tuple[str, Callable[[str], re.Match[str] | None]], ...] = (
        ("mail", _EMAIL.match),
        ("time", _match_time),
        ("address", _ADDRESS.match),
        ("number", _NUMBER.match),
        ("word", lambda text: _match_word(text, lists)),
        ("name", _match_name),
    )
    for piece_type, find in finders:
        found = find(text)
        if found and re.match(
            r"(?:\s+with an? \w\b)?(?:,?\s+(?:please|instead|then|actually|sorry)\b)?\s*(?:[,.!?]|$)",
            text[found.end() :],
        ):
            return piece_type, found[0].strip(), found.end()
    return None


def _replace_words(sentence: str, old: str, new: str) -> str | None:
    """Return a sentence with words that it contains replaced; None if it does not contain them."""
    found = list(re.finditer(rf"\b{re.escape(old)}\b", sentence, re.IGNORECASE))
    return f"{sentence[: found[-1].start()]}{new}{sentence[found[-1].end() :]}" if found else None


def _match_time(text: str) -> re.Match[str] | None:
    found = find_time_expression(text)
    return found if found and not found.start() else None


def _match_name(text: str) -> re.Match[str] | None:
    preposition = re.match(r"(?:to|in|at|with|for) ", text)
    found = _NAME.match(text, preposition.end() if preposition else 0)
    return None if found and _NOT_NAMES.match(found[0]) else found


def _match_word(text: str, lists: WordLists) -> re.Match[str] | None:
    """Match a word that can replace another one."""
    found = _WORDS.match(text)
    if found and any(found[1].lower() in lists.get(name, ()) for name in _EXCHANGEABLE):
        return found
    return None


def _replace_from_list(sentence: str, piece: str, lists: WordLists) -> str | None:
    """Return a sentence whose last word of the same list is replaced; None if it has none."""
    word = _WORDS.match(piece)
    for name in _EXCHANGEABLE:
        words = lists.get(name, {})
        if word and word[1].lower() in words:
            alternatives = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
            found = list(re.finditer(rf"\b(?:{alternatives})\b", sentence, re.IGNORECASE))
            if found:
                return f"{sentence[: found[-1].start()]}{word[1]}{sentence[found[-1].end() :]}"
    return None


def _replace_piece(sentence: str, piece_type: str, piece: str, lists: WordLists) -> str | None:
    if piece_type == "word":
        return _replace_from_list(sentence, piece, lists)
    pattern = {"mail": _EMAIL, "number": _NUMBER, "name": _NAME, "address": _ADDRESS}.get(piece_type)
    if pattern:
        matches = [
            match for match in pattern.finditer(sentence) if piece_type != "name" or not _NOT_NAMES.match(match[0])
        ]
        if piece_type == "name":
            matches = [match for match in matches if match.start()]
    else:
        # Replace the last time of the sentence; "Thursday" takes the preposition of "on Wednesday".
        spans = []
        offset = 0
        while time := find_time_expression(sentence[offset:]):
            spans.append((offset + time.start(), offset + time.end()))
            offset += time.end()
        if not spans:
            return None
        start, end = spans[-1]
        preposition = re.match(r"(?:on|by|for|until|till|before|since|from)\s+", sentence[start:end], re.IGNORECASE)
        has_own = re.match(
            r"(?:on|by|for|until|till|before|since|from|in|next|last|tomorrow|today)\b", piece, re.IGNORECASE
        )
        added = preposition[0] if preposition and not has_own else ""
        return f"{sentence[:start]}{added}{piece}{sentence[end:]}"
    if not matches:
        return None
    if piece_type == "number":
        piece = _complete_number(matches[-1][0], piece)
    elif piece_type == "name":
        piece = _complete_name(matches[-1][0], piece)
    return f"{sentence[: matches[-1].start()]}{piece}{sentence[matches[-1].end() :]}"


def _complete_name(old: str, piece: str) -> str:
    """Return a name of which one word was said again: "Dana Lund, sorry, Lind"."""
    words = old.split()
    alike = difflib.get_close_matches(piece, words, n=1, cutoff=_MIN_SIMILARITY)
    if len(words) == 1 or " " in piece or not alike:
        return piece
    return " ".join(piece if word == alike[0] else word for word in words)


def _complete_number(old: str, piece: str) -> str:
    """Return a number whose last digits were said again: "555-0142, no, 0143"."""
    digits, new = re.sub(r"\D", "", old), re.sub(r"\D", "", piece)
    if len(digits) < _MIN_PHONE_DIGITS or len(new) >= len(digits):
        return piece
    end, left = len(old), len(new)
    while left:
        end -= 1
        left -= old[end].isdigit()
    return old[:end] + new
