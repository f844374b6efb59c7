"""Misspellings: the words that differ by one letter from a word that no document has.

An index holds words as numbers only. It keeps a *signature* of each beside them: its first letter, its length, and the
set of its letters. Of the hundreds of words that differ from a word by one letter, only those with the signature of a
word in the index are spelled out and looked up: a dozen as a rule.

The first letter is taken to be right, unless it was swapped with the second: slips are rare there, and it rules out
most words that were not meant.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import attrs
import numpy as np
from numpy.typing import NDArray

# Shorter words are within one letter of too many others.
MIN_WORD_CHARS = 5
_MAX_WORD_CHARS = 24
_ALPHABETS = ("abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстуфхцчшщъыьэюя", "αβγδεζηθικλμνξοπρσςτυφχψω")
# The letters of an alphabet have different bits.
_LETTER_BITS = 32
_LENGTH_SHIFT, _FIRST_SHIFT = 32, 40

Signatures = NDArray[np.uint64]
NO_SIGNATURES: Signatures = np.zeros(0, np.uint64)


class SignatureSet:
    """The signatures of the words of an index: those in a file, and those added since. Not thread-safe.

    The signatures of removed documents stay until the index is analyzed again: they only cost time.
    """

    def __init__(self, base: Signatures) -> None:
        """Start with the signatures of a file, sorted."""
        self._base = base
        self._added: set[int] = set()

    def update(self, signatures: Iterable[int]) -> None:
        """Add some signatures."""
        self._added.update(signatures)

    def select(self, signatures: Signatures) -> NDArray[np.bool_]:
        """Return which of some signatures are in the set."""
        base = self._base
        is_known = np.zeros(len(signatures), np.bool_)
        if len(base):
            is_known = base[np.minimum(base.searchsorted(signatures), len(base) - 1)] == signatures
        if self._added:
            is_known |= np.fromiter(map(self._added.__contains__, signatures.tolist()), np.bool_, len(signatures))
        return is_known

    def to_array(self) -> Signatures:
        """Return all signatures, sorted."""
        added = np.fromiter(self._added, np.uint64, len(self._added))
        return np.union1d(self._base, added) if len(added) else self._base


def signature_of(term: str) -> int | None:
    """Return the signature of a term; None for one that is no misspelling of any."""
    # One letter more or less than a word that is searched for.
    if not (MIN_WORD_CHARS - 1 <= len(term) <= _MAX_WORD_CHARS + 1) or not term.isalpha() or not _alphabet_of(term):
        return None
    return _signature(term[0], term)


def misspellings(term: str, signatures: SignatureSet) -> list[str]:
    """Return the terms that differ from a term by one letter lost, added, replaced or swapped.

    Args:
        term: The term.
        signatures: Leaves out terms whose signature is not in this set.
    """
    changes = _changes_of(term)
    if changes is None:
        return []
    found: dict[str, None] = {}
    for place in np.flatnonzero(signatures.select(changes.signatures)).tolist():
        found.update(dict.fromkeys(changes.apply(place)))
    found.pop(term, None)
    return sorted(found)


@attrs.frozen
class _Changes:
    """The changes of a term by one letter.

    Attributes:
        term: The term.
        before: The letters that can be lost or replaced, and "" for an added one.
        after: What each can become: "" for a lost one, and the letters of the alphabet.
        signatures: The signature of what each change results in: those in ``after`` for each in ``before``, then those
            of swapped letters, without and with the first one.
    """

    term: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    signatures: Signatures

    def apply(self, place: int) -> Iterator[str]:
        """Yield what a change, given by its place in ``signatures``, makes of the term, wherever it is possible."""
        term = self.term
        row, column = divmod(place, len(self.after))
        if row == len(self.before):
            for at in range(1, len(term) - 1) if column == 0 else (0,):
                yield term[:at] + term[at + 1] + term[at] + term[at + 2 :]
            return
        before, after = self.before[row], self.after[column]
        for at in range(1, len(term) + (not before)):
            if not before or term[at] == before:
                yield term[:at] + after + term[at + len(before) :]


@lru_cache(maxsize=1_024)
def _changes_of(term: str) -> _Changes | None:
    alphabet = _alphabet_of(term)
    if not (MIN_WORD_CHARS <= len(term) <= _MAX_WORD_CHARS and term.isalpha() and alphabet):
        return None
    before = (*dict.fromkeys(term[1:]), "")
    rests = [_signature(term[0], term[0] + term[1:].replace(letter, "", 1) if letter else term) for letter in before]
    bits, lengths = _added_by(alphabet)
    changed = (np.array(rests, np.uint64)[:, None] | bits) + lengths
    swapped = np.array([_signature(term[0], term), _signature(term[1], term)], np.uint64)
    return _Changes(term, before, ("", *alphabet), np.concatenate([changed.ravel(), swapped]))


@lru_cache(maxsize=8)
def _added_by(alphabet: str) -> tuple[Signatures, Signatures]:
    """Return which bits no letter, and each letter of an alphabet, add to a signature, and what to its length."""
    bits = [0, *(_signature_bit(letter) for letter in alphabet)]
    return np.array(bits, np.uint64), np.array([0, *[1 << _LENGTH_SHIFT] * len(alphabet)], np.uint64)


def _alphabet_of(term: str) -> str:
    return next((letters for letters in _ALPHABETS if term[:1] in letters), "")


def _signature(first: str, letters: str) -> int:
    signature = ord(first) << _FIRST_SHIFT | len(letters) << _LENGTH_SHIFT
    for letter in {*letters}:
        signature |= _signature_bit(letter)
    return signature


def _signature_bit(letter: str) -> int:
    return 1 << ord(letter) % _LETTER_BITS
