"""Languages: recognize the language of a text by its commonest words, and reduce its words to their stems.

Each document is indexed in its own language, so one index may hold documents in several. A question is searched in the
languages of the documents. Languages without a stemmer are indexed by whole words.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import Stemmer
from stop_words import get_stop_words

from memoair_index.folding import fold

ENGLISH = "english"
# The languages that are recognized, by script, the most spoken first. A text of a script without one is ENGLISH: its
# words are not stemmed then, since the stemmer leaves what is not ASCII alone.
_LANGUAGES_BY_SCRIPT = {
    "latin": (
        "spanish", "portuguese", "french", "german", "indonesian", "turkish", "vietnamese", "italian", "polish",
        "dutch", "romanian", "hungarian", "czech", "swedish", "catalan", "danish", "finnish", "norwegian", "slovak",
    ),
    "cyrillic": ("russian", "ukrainian", "bulgarian"),
    "arabic": ("arabic", "persian"),
    "greek": ("greek",),
    "devanagari": ("hindi",),
    "hebrew": ("hebrew",),
    "armenian": ("armenian",),
    "tamil": ("tamil",),
}  # fmt: skip
_SCRIPTS = (
    ("latin", re.compile("[a-z\u00df-\u024f\u1e00-\u1eff]")),
    ("cyrillic", re.compile("[\u0400-\u052f]")),
    ("arabic", re.compile("[\u0600-\u06ff\u0750-\u077f]")),
    ("greek", re.compile("[\u0370-\u03ff]")),
    ("devanagari", re.compile("[\u0900-\u097f]")),
    ("hebrew", re.compile("[\u0590-\u05ff]")),
    ("armenian", re.compile("[\u0530-\u058f]")),
    ("tamil", re.compile("[\u0b80-\u0bff]")),
)
# In these, an article or a pronoun is written together with the next word: l'hotel, dell'arte.
_ELIDING = frozenset(["french", "italian", "catalan"])
_MAX_ELIDED_CHARS = 5
# A text is in a language if at least so many of its words, and this share, are common words of the language. In a few
# words, one is enough if it is this share. Of real texts, a sixth or more are; but two in a long text may be chance.
_MIN_COMMON_WORDS = 2
_MIN_SHARE = 0.15
_MIN_SHARE_OF_SHORT = 0.25
# With more letters of this kind, a text is not English: then any of the common words will do.
_ACCENTED = re.compile("[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
_MIN_ACCENTED_SHARE = 0.015

# Words of other languages that in English are parts of words ("I've") or fillers.
_FRAGMENTS = frozenset("dont er im ll re um ve".split())

_lock = threading.Lock()
_stemmers: dict[str, Stemmer.Stemmer] = {}


@cache
def stop_words(language: str) -> frozenset[str]:
    """Return the function words of a language other than English, folded; empty if there is no list."""
    try:
        return frozenset(fold(word) for word in get_stop_words(language))
    except Exception:  # noqa: BLE001 - the package's own error class for a language that it does not know
        return frozenset()


@cache
def _languages_by_word(script: str, english: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
    """Return which languages of a script have a word among their common ones, without those that English has, too."""
    found: dict[str, tuple[str, ...]] = {}
    for language in _LANGUAGES_BY_SCRIPT[script]:
        for word in stop_words(language) - english:
            if len(word) > 1:  # initials are no words
                found[word] = (*found.get(word, ()), language)
    return found


def detect_language(
    text: str, words: Sequence[str], english: frozenset[str], among: Iterable[str] | None = None
) -> str:
    """Return the language of a text.

    Args:
        text: The text.
        words: Its folded words.
        english: The common words of English.
        among: The languages to choose from; None means all.
    """
    english = english - _FRAGMENTS
    english_count = sum(word in english for word in words)
    if 5 * english_count >= len(words) and text.isascii():
        return ENGLISH
    script = _script_of("".join(words[:200]))
    if script is None:
        return ENGLISH
    by_word = _languages_by_word(script, english)
    counts = Counter(language for word in words for language in by_word.get(word, ()))
    allowed = _LANGUAGES_BY_SCRIPT[script] if among is None else [*among]
    candidates = [language for language in _LANGUAGES_BY_SCRIPT[script] if language in allowed]
    best = max(candidates, key=lambda language: counts[language], default=ENGLISH)
    if script != "latin" or best == ENGLISH:
        return best
    distinct = set(words)  # a name may have a common word of another language, and be repeated
    found = sum(best in by_word.get(word, ()) for word in distinct)
    is_enough = found >= max(_MIN_COMMON_WORDS, _MIN_SHARE * len(distinct))
    is_enough = is_enough or found >= _MIN_SHARE_OF_SHORT * len(distinct)
    english_words = distinct & english
    if len(_ACCENTED.findall(text)) > _MIN_ACCENTED_SHARE * len(text):
        is_enough = True
        english_words -= stop_words(best)
    return best if is_enough and found > len(english_words) else ENGLISH


def stem(word: str, language: str) -> str | None:
    """Return the stem of a lower-case word, accents included; None for a function word of the language."""
    if language in _ELIDING:
        before, apostrophe, after = word.rpartition("'")
        if apostrophe and len(before) <= _MAX_ELIDED_CHARS and after:
            word = after
    word = word.replace("'", "")
    if fold(word) in stop_words(language):
        return None
    with _lock:  # a stemmer has one working buffer, which is not per thread
        stemmer = _stemmers.get(language)
        if stemmer is None:
            if language not in Stemmer.algorithms():
                return fold(word)
            stemmer = _stemmers[language] = Stemmer.Stemmer(language, 0)
        stemmed = str(stemmer.stemWord(word))
    return fold(stemmed)


def _script_of(text: str) -> str | None:
    """Return the script of most letters of a folded text; None if it is in another, or in none."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS}
    best = max(counts, key=lambda name: counts[name])
    return best if 2 * counts[best] > sum(map(str.isalpha, text)) else None
