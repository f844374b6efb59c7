"""Misspellings: the words that differ by one letter from a word that no document has.

An index holds words as numbers only, so a word's variants are made and looked up. The first letter is taken to be
right, unless it was swapped with the second: slips are rare there, and it rules out most words that were not meant.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import hash_once

# Shorter words are within one letter of too many others.
MIN_WORD_CHARS = 5
_MAX_WORD_CHARS = 24
_ALPHABETS = ("abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстуфхцчшщъыьэюя", "αβγδεζηθικλμνξοπρσςτυφχψω")


@lru_cache(maxsize=1_024)
def misspelling_ids(term: str) -> NDArray[np.uint64]:
    """Return the ids of the terms that differ from a term by one letter lost, added, replaced or swapped."""
    alphabet = next((letters for letters in _ALPHABETS if term[:1] in letters), "")
    if not (MIN_WORD_CHARS <= len(term) <= _MAX_WORD_CHARS and term.isalpha() and alphabet):
        return np.zeros(0, np.uint64)
    variants = {term[:at] + term[at + 1] + term[at] + term[at + 2 :] for at in range(len(term) - 1)}
    variants |= {term[:at] + term[at + 1 :] for at in range(1, len(term))}
    for letter in alphabet:
        variants |= {term[:at] + letter + term[at + 1 :] for at in range(1, len(term))}
        variants |= {term[:at] + letter + term[at:] for at in range(1, len(term) + 1)}
    variants.discard(term)
    return np.array([hash_once(variant) for variant in sorted(variants)], np.uint64)
