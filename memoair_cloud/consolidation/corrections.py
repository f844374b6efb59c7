"""Corrections of what was just said: "Wednesday, no, Thursday", "not nuts, peanuts", "Did I say cat? I meant dog"."""

import difflib
import re
from collections.abc import Callable

import attrs

from memoair_cloud.consolidation.language import Language

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
_MIN_PHONE_DIGITS = 7
_MIN_SIMILARITY = 0.6  # of a word of a name and its correction: "Lund" and "Lind"
_MAX_OWN_CORRECTIONS = 6
_NUMBER = re.compile(r"\+?\d[\d ().-]*\d|\d")
_ADDRESS = re.compile(r"\d+\w? [A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
_NAME = re.compile(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2}")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


@attrs.frozen
class SpokenCorrection:
    """A correction of something said before this turn: its piece replaces a piece of the same type."""

    piece_type: str
    piece: str


def correct_sentence(
    sentence: str, before: str | None, language: Language
) -> tuple[str | None, SpokenCorrection | None]:
    """Return what becomes of the sentence before, if a sentence corrects it, and the piece that it corrects.

    Args:
        sentence: The sentence that may correct another.
        before: The sentence before it in the turn; None if it is the first.
        language: The language.

    Returns:
        The corrected sentence, None if nothing was corrected; and the piece for an earlier turn, None if the
        sentence corrects nothing.
    """
    if (named := language.forms.not_but.match(sentence)) and before is not None:
        return _replace_words(before, named["old"], named["new"]), None
    marker = language.forms.correction.match(sentence)
    found = _find_correction_piece(sentence[marker.end() :], language) if marker else None
    if found is None:
        return None, None
    piece_type, piece, _ = found
    return before and _replace_piece(before, piece_type, piece, language), SpokenCorrection(piece_type, piece)


def strip_marker(sentence: str, language: Language) -> str:
    """Return a sentence without the words that announce a correction."""
    marker = language.forms.correction.match(sentence)
    return sentence[marker.start("again") if marker["again"] else marker.end() :] if marker else sentence


def apply_correction(sentence: str, correction: SpokenCorrection, language: Language) -> str | None:
    """Return a sentence with the corrected piece; None if the sentence has no piece of that type."""
    return _replace_piece(sentence, correction.piece_type, correction.piece, language)


def apply_own_corrections(sentence: str, language: Language) -> str:
    """Return a sentence after its own corrections; empty if it is unclear what they correct."""
    for _ in range(_MAX_OWN_CORRECTIONS):
        named = language.forms.not_but.search(sentence)
        if (
            named
            and named.start()
            and (corrected := _replace_words(sentence[: named.start()], named["old"], named["new"]))
        ):
            return corrected
        marker = next((match for match in language.forms.correction.finditer(sentence) if match.start()), None)
        if not marker:
            return sentence
        before, after = sentence[: marker.start()], sentence[marker.end() :]
        found = _find_correction_piece(after, language)
        if found and (corrected := _replace_piece(before, found[0], found[1], language)):
            sentence = corrected + after[found[2] :]
        else:
            sentence = after if language.forms.correction_clause.match(after) else ""
    return ""


def _find_correction_piece(text: str, language: Language) -> tuple[str, str, int] | None:
    """Return the piece that a correction begins with: its type, its text, and where it ends."""
    finders: tuple[tuple[str, Callable[[str], re.Match[str] | None]], ...] = (
        ("mail", _EMAIL.match),
        ("time", lambda text: _match_time(text, language)),
        ("address", _ADDRESS.match),
        ("number", _NUMBER.match),
        ("word", lambda text: _match_word(text, language)),
        ("name", lambda text: _match_name(text, language)),
    )
    for piece_type, find in finders:
        found = find(text)
        if found and re.match(r"\s*(?:[,.!?]|$)", _drop_after_correction(text[found.end() :], language)):
            return piece_type, found[0].strip(), found.end()
    return None


def _drop_after_correction(text: str, language: Language) -> str:
    after = language.forms.after_correction.match(text)
    return text[after.end() :] if after else text


def _replace_words(sentence: str, old: str, new: str) -> str | None:
    """Return a sentence with words that it contains replaced; None if it does not contain them."""
    found = list(re.finditer(rf"\b{re.escape(old)}\b", sentence, re.IGNORECASE))
    return f"{sentence[: found[-1].start()]}{new}{sentence[found[-1].end() :]}" if found else None


def _match_time(text: str, language: Language) -> re.Match[str] | None:
    found = language.days.find_expression(text)
    return found if found and not found.start() else None


def _match_name(text: str, language: Language) -> re.Match[str] | None:
    preposition = language.forms.name_preposition.match(text)
    found = _NAME.match(text, preposition.end() if preposition else 0)
    return None if found and language.forms.not_a_corrected_name.match(found[0]) else found


def _match_word(text: str, language: Language) -> re.Match[str] | None:
    """Match a word that can replace another one."""
    found = language.forms.word.match(text)
    if found and any(found[1].lower() in language.lists.get(name, ()) for name in _EXCHANGEABLE):
        return found
    return None


def _replace_from_list(sentence: str, piece: str, language: Language) -> str | None:
    """Return a sentence whose last word of the same list is replaced; None if it has none."""
    word = language.forms.word.match(piece)
    for name in _EXCHANGEABLE:
        words = language.lists.get(name, {})
        if word and word[1].lower() in words:
            alternatives = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
            found = list(re.finditer(rf"\b(?:{alternatives})\b", sentence, re.IGNORECASE))
            if found:
                return f"{sentence[: found[-1].start()]}{word[1]}{sentence[found[-1].end() :]}"
    return None


def _replace_piece(sentence: str, piece_type: str, piece: str, language: Language) -> str | None:
    if piece_type == "word":
        return _replace_from_list(sentence, piece, language)
    pattern = {"mail": _EMAIL, "number": _NUMBER, "name": _NAME, "address": _ADDRESS}.get(piece_type)
    if pattern:
        matches = [
            match
            for match in pattern.finditer(sentence)
            if piece_type != "name" or not language.forms.not_a_corrected_name.match(match[0])
        ]
        if piece_type == "name":
            matches = [match for match in matches if match.start()]
    else:
        # Replace the last time of the sentence; "Thursday" takes the preposition of "on Wednesday".
        spans = []
        offset = 0
        while time := language.days.find_expression(sentence[offset:]):
            spans.append((offset + time.start(), offset + time.end()))
            offset += time.end()
        if not spans:
            return None
        start, end = spans[-1]
        preposition = language.forms.day_preposition.match(sentence[start:end])
        has_own = language.forms.day_own_preposition.match(piece)
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
