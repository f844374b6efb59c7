"""Tell whether a text reads as a person's name, in any script."""

import re
from collections.abc import Mapping

from memoair_index.analysis import STOP_WORDS
from memoair_protocol.names import is_role_name

_MAX_WORDS = 6
_MAX_LOWERCASE_WORDS = 3
_SPELLED = re.compile(r"(?:[^\W_]-){2,}[^\W_]")
_NAME_WORD = re.compile(r"[^\W\d_](?:[\w'\u2019-]*[^\W_]|\.)?")


def is_name(
    text: str, lists: Mapping[str, Mapping[str, str]], *, has_capitals: bool, is_announced: bool = False
) -> bool:
    """Return whether a text reads as a name.

    Args:
        text: The text.
        lists: The lists of words of the language.
        has_capitals: Whether the text around it has capitals. In a transcript without any, as some recognizers write
            them, a name is in lower case.
        is_announced: Whether the words before it leave no doubt that a name follows ("my name is ..."). Then a first
            word that is also a common word is accepted before another one: "An Nguyen", "Will Young".
    """
    words = text.split()
    if is_role_name(text):  # "My name is System" gives no one the word of the system
        return False
    if any(_SPELLED.fullmatch(word) for word in words):
        return False
    if not words or len(words) > _MAX_WORDS or text.casefold() in lists["INVENTED"]:
        return False
    common = lists["NOT_A_NAME"]
    if not has_capitals and text.islower():
        is_free = not any(
            word in STOP_WORDS or word in common or word in lists.get("FUNCTION_WORD", ()) for word in words
        )
        fits = all(re.fullmatch(r"[^\W\d_][\w'-]{1,20}", word) for word in words)
        return is_announced and is_free and fits and len(words) <= _MAX_LOWERCASE_WORDS
    if not all(_is_part(word, lists["PARTICLE"]) for word in words) or not _begins_a_name(words[-1]):
        return False
    # A particle between two names is no common word: "von der Heide".
    particles = {n for n, word in enumerate(words[1:-1], 1) if word.islower() and word in lists["PARTICLE"]}
    particles |= {0} if len(words) > 1 and words[0].islower() and words[0] in lists["PARTICLE"] else set()
    known = [word.casefold() in common and n not in particles for n, word in enumerate(words)]
    if is_announced and len(words) > 1:
        return not all(known) and not known[-1]
    return not any(known) and not _is_adverb(words) and text.casefold() not in lists["JOB"]


def _is_part(word: str, particles: Mapping[str, str]) -> bool:
    if word.casefold() in particles:
        return True
    prefix, hyphen, rest = word.partition("-")
    if hyphen and prefix.casefold() in particles:  # "al-Sayed"
        word = rest
    return _NAME_WORD.fullmatch(word) is not None and _begins_a_name(word)


def _begins_a_name(word: str) -> bool:
    """Return whether a word begins with a capital, or is of a script that has none."""
    first = word[0]
    if "-" in word and first.islower():
        first = word.partition("-")[2][:1] or first
    if first == "'":
        return True
    return first.isupper() or first.lower() == first.upper()


def _is_adverb(words: list[str]) -> bool:
    """Return whether a single word is rather an adverb: "Certainly"; names such as "Emily" are short."""
    max_name_chars = 8  # "Beverly", "Kimberly"
    return len(words) == 1 and words[0].endswith("ly") and len(words[0]) > max_name_chars
