"""Text analysis: turn spoken text into the terms that are indexed and searched."""

import re
import threading
import unicodedata
from functools import lru_cache
from hashlib import blake2b

import Stemmer

# The Unicode blocks with combining marks: vowels in many scripts, accents in some. Python's `\w` does not match them.
_MARK_BLOCKS = (
    (0x300, 0x1E00),
    (0x20D0, 0x2100),
    (0x2CE0, 0x2E00),
    (0x3000, 0x3100),
    (0xA600, 0xAC00),
    (0xFB00, 0xFE30),
)
_MARKS = "".join(
    chr(code)
    for first, end in (*_MARK_BLOCKS, (0x10A00, 0x11FFF), (0x16A00, 0x17000), (0x1D100, 0x1D250), (0x1E000, 0x1E950))
    for code in range(first, end)
    if unicodedata.category(chr(code)).startswith("M")
)
# A word is a run of letters and digits of any script, with inner apostrophes and, in numbers, inner points and commas.
_LETTERS = rf"[^\W_](?:[^\W_]|[{_MARKS}])*"
_WORD = re.compile(rf"\d+(?:[.,:]\d+)+|{_LETTERS}(?:'{_LETTERS})*")
# The same for ASCII text, in an eighth of the time.
_ASCII_WORD = re.compile(r"\d+(?:[.,:]\d+)+|[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*")
# Accents of Latin, Greek and Cyrillic are removed, because people often leave them out.
_ACCENTS = re.compile("[\u0300-\u036f]")
_APOSTROPHES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{MODIFIER LETTER APOSTROPHE}": "'"})

# Function words, and fillers that carry no meaning on the telephone. On LoCoMo a list of this size, instead of the
# usual 33 words, finds six more of a hundred evidence turns.
STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing don down during each few for from further had has have having he her here hers herself
    him himself his how i if in into is it its itself just ll me more most my myself no nor not now o of off on once
    only or other our ours ourselves out over own re s same shall she should so some such t than that the their theirs
    them themselves then there these they this those through to too under until up ve very was we were what when where
    which while who whom why will with would you your yours yourself yourselves
    ah eh er erm hello hey hi hmm huh mhm mm oh ok okay please thank thanks uh um yeah yep yes
    im ive ill id youre youve youll theyre theyve weve hes shes thats whats lets isnt arent wasnt werent dont
    doesnt didnt cant couldnt wont wouldnt shouldnt hasnt havent hadnt
    """.split()
)

# No word of any language is longer; longer strings would only fill the cache.
_MAX_WORD_CHARS = 64

_stemmer_lock = threading.Lock()
_stemmer = Stemmer.Stemmer("english", 0)


@lru_cache(maxsize=1 << 16)
def _to_term(word: str) -> str | None:
    """Return the term that a lower-case word is indexed under, or None for a stop word."""
    bare = word.removesuffix("'s")
    if word.replace("'", "") in STOP_WORDS or bare in STOP_WORDS:
        return None
    bare = bare.replace("'", "")
    if not bare.isascii() or not bare.isalpha():
        return bare  # words of other languages and numbers are not stemmed
    with _stemmer_lock:  # a Stemmer has one working buffer, which is not per thread
        return str(_stemmer.stemWord(bare))


def fold(text: str) -> str:
    """Return a text in the form in which words are compared: lower case, no accents, one form for each character."""
    if text.isascii():
        return text.lower()
    # Normalized twice, because decomposing can change the case of a character, and folding can make it decomposable.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", folded)).translate(_APOSTROPHES)


def split_words(folded: str) -> list[str]:
    """Return the words of a folded text in order, stop words included."""
    words = (_ASCII_WORD if folded.isascii() else _WORD).findall(folded)
    return [word[:_MAX_WORD_CHARS] for word in words]


def extract_terms(text: str) -> list[str]:
    """Split a text into its terms.

    Case, accents, width variants and ligatures are ignored. English words are stemmed; words of other scripts stay as
    they are. Never fails, whatever the text holds. Thread-safe.

    Args:
        text: Any text.

    Returns:
        The terms in order, without stop words.

    Example:
        >>> extract_terms("The boots were returned")
        ['boot', 'return']
    """
    return [term for word in split_words(fold(text)) if (term := _to_term(word)) is not None]


def to_term_ids(folded_words: list[str]) -> list[int]:
    """Return the 64-bit ids of the terms of some words, without stop words."""
    return [term_id for word in folded_words if (term_id := _to_term_id(word)) is not None]


@lru_cache(maxsize=1 << 16)
def stable_hash(text: str) -> int:
    """Return the 64-bit number that stands for a text in an index: the same on every machine, in every version."""
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")


@lru_cache(maxsize=1 << 16)
def _to_term_id(word: str) -> int | None:
    term = _to_term(word)
    return None if term is None else stable_hash(term)
