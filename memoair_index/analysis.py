"""Text analysis: turn spoken text into the terms that are indexed and searched."""

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import Stemmer

from memoair_index.alternate_forms import alternate_forms
from memoair_index.folding import fold, soft_fold
from memoair_index.languages import ENGLISH, detect_language, stem
from memoair_index.misspellings import signature_of
from memoair_index.stop_word_names import asked_name_forms, name_forms

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
    im ive youre youve youll theyre theyve weve hes shes thats whats lets isnt arent wasnt werent dont
    doesnt didnt cant couldnt wont wouldnt shouldnt hasnt havent hadnt
    """.split()
)

# Counts the changes of how texts are analyzed. An index of an earlier version is analyzed again when it is next merged.
ANALYSIS_VERSION = 2

# No word of any language is longer; longer strings would only fill the cache.
_MAX_WORD_CHARS = 64

# Scripts that put no spaces between words, and Korean, which joins particles to them: Thai, Lao, Burmese, Khmer,
# Hiragana and Katakana, Han, Hangul. They are indexed by pairs of characters.
NO_SPACE_RUN = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)

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


def split_words(folded: str) -> list[str]:
    """Return the words of a folded text in order, stop words included.

    A text without spaces is one word, or several if it is long.
    """
    if folded.isascii():
        return [word[:_MAX_WORD_CHARS] for word in _ASCII_WORD.findall(folded)]
    words = []
    for word in _WORD.findall(folded):
        words.append(word[:_MAX_WORD_CHARS])
        if len(word) > _MAX_WORD_CHARS and NO_SPACE_RUN.search(word):
            words += [word[at : at + _MAX_WORD_CHARS] for at in range(_MAX_WORD_CHARS, len(word), _MAX_WORD_CHARS)]
    return words


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
    terms: list[str] = []
    for word in split_words(fold(text)):
        if not word.isascii():
            terms += _to_terms(word, ENGLISH)
        elif (term := _to_term(word)) is not None:  # as `_to_terms` does: a folded word of ASCII needs no more folding
            terms.append(term)
    return terms


def to_term_ids(folded_words: Iterable[str]) -> list[int]:
    """Return the 64-bit ids of the terms of some words, without stop words."""
    return [term_id for word in folded_words for term_id in _to_term_ids(word, ENGLISH)]


class DocumentTerms(NamedTuple):
    """The terms that a document is indexed under.

    Attributes:
        language: The language that the document is in.
        words: The ids of its words' terms in that language, in order.
        forms: The ids of the alternate forms of its numbers, codes, times and dates.
        signatures: The `memoair_index.misspellings.signature_of` its words' terms.
    """

    language: str
    words: list[int]
    forms: list[int]
    signatures: frozenset[int]


def document_terms(text: str, folded: str, folded_words: Sequence[str]) -> DocumentTerms:
    """Return the terms of a document."""
    language = detect_language(text, folded_words, STOP_WORDS)
    words = folded_words if language == ENGLISH else split_words(soft_fold(text))
    return DocumentTerms(
        language,
        [term_id for word in words for term_id in _to_term_ids(word, language)],
        [*_form_ids(folded, is_question=False), *map(stable_hash, name_forms(text, STOP_WORDS))],
        frozenset(signature for word in set(words) for signature in _to_signatures(word, language)),
    )


def query_terms(text: str, folded_words: Sequence[str], languages: Sequence[str]) -> list[tuple[int, ...]]:
    """Return for each word of a question the ids of its terms in the languages of the documents.

    A word that is a function word in the question's own language is left out. Alternate forms of numbers and the like
    count as words.
    """
    name_form_ids = map(stable_hash, asked_name_forms(text, folded_words, STOP_WORDS))
    forms: list[tuple[int, ...]] = [
        (form_id,) for form_id in (*_form_ids(fold(text), is_question=True), *name_form_ids)
    ]
    if not languages or tuple(languages) == (ENGLISH,):
        return [*((term_id,) for term_id in to_term_ids(folded_words)), *forms]
    own = languages[0] if len(languages) == 1 else detect_language(text, folded_words, STOP_WORDS, languages)
    terms: list[tuple[int, ...]] = []
    for word in split_words(soft_fold(text)):
        if not (ids := _to_term_ids(word, own)):
            continue
        if NO_SPACE_RUN.search(word):
            terms += [(term_id,) for term_id in ids]
            continue
        others = [term_id for other in languages if other != own for term_id in _to_term_ids(word, other)]
        terms.append(tuple(dict.fromkeys((*ids, *others))))
    return [*terms, *forms]


def utterance_terms(text: str, languages: Sequence[str]) -> tuple[int, ...]:
    """Return the ids of the terms of what was said before a question, without duplicates.

    They are of its words alone, in its own language: what it says in numbers hardly says what the talk is about, and to
    find their forms takes longer than all the rest.
    """
    words = split_words(fold(text))
    own = languages[0] if len(languages) == 1 else detect_language(text, words, STOP_WORDS, languages)
    if own != ENGLISH:
        words = split_words(soft_fold(text))
    return tuple(dict.fromkeys(term_id for word in words for term_id in _to_term_ids(word, own)))


def spell_terms(text: str, languages: Sequence[str]) -> dict[int, str]:
    """Return the terms of a question's words in some languages, by their ids."""
    words = {*split_words(fold(text)), *split_words(soft_fold(text))}
    terms = {term for word in words for language in languages or (ENGLISH,) for term in _to_terms(word, language)}
    return {stable_hash(term): term for term in terms}


def _form_ids(folded: str, *, is_question: bool) -> list[int]:
    return [stable_hash(form) for form in alternate_forms(folded, STOP_WORDS, is_question=is_question)]


def hash_once(text: str) -> int:
    """Return what `stable_hash` does, without keeping it: for texts that are seldom seen again."""
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")


@lru_cache(maxsize=1 << 16)
def stable_hash(text: str) -> int:
    """Return the 64-bit number that stands for a text in an index: the same on every machine, in every version."""
    return hash_once(text)


def _to_terms(word: str, language: str) -> tuple[str, ...]:
    """Return the terms of a word in a language: its stem, or pairs of characters where words are not separated."""
    if not word.isascii() and NO_SPACE_RUN.search(word):
        return tuple(term for part in _split_scripts(word) for term in _pairs_or_term(part, language))
    term = _to_term(fold(word)) if language == ENGLISH else stem(word, language)
    return () if term is None else (term,)


def _split_scripts(word: str) -> Iterator[str]:
    """Yield the runs of a word that are written without spaces, and what is between them."""
    end = 0
    for run in NO_SPACE_RUN.finditer(word):
        yield from filter(None, (word[end : run.start()], run[0]))
        end = run.end()
    yield from filter(None, (word[end:],))


def _pairs_or_term(part: str, language: str) -> tuple[str, ...]:
    if NO_SPACE_RUN.fullmatch(part):
        return tuple(map("".join, pairwise(part))) if len(part) > 1 else (part,)
    return _to_terms(part, language)


@lru_cache(maxsize=1 << 16)
def _to_term_ids(word: str, language: str) -> tuple[int, ...]:
    return tuple(map(hash_once, _to_terms(word, language)))


@lru_cache(maxsize=1 << 14)
def _to_signatures(word: str, language: str) -> tuple[int, ...]:
    signatures = map(signature_of, _to_terms(word, language))
    return tuple(signature for signature in signatures if signature is not None)
