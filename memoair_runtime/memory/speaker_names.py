"""By which names caller and agent are called, so that a question about one of them is known as such.

A session may say who they are; where it does not, they call each other by name ("Hi Dana", "thanks, Juno"), which
names the one who is spoken to. Read without capitals, which speech recognisers leave out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import lru_cache

import attrs
import msgspec

from memoair_index.analysis import STOP_WORDS, fold, split_words

CALLER, AGENT = "caller", "agent"
_OTHER = {CALLER: AGENT, AGENT: CALLER}

_ADDRESSED = re.compile(
    r"\b(?:hey|hi|hello|thanks|thank you|bye|goodbye|good (?:morning|afternoon|evening|night)|sorry|congrats"
    r"|congratulations)[,!. ]+([^\W\d_]{2,30})\b"
)
# A word is a name once it was heard so often behind a greeting, and if that is so great a share of all its uses. One
# that was told to be a name is none if it is said so often, and hardly ever behind a greeting: "Robin Price".
_LEAST_HEARD = 3
_LEAST_SHARE = 0.2
_MYSELF = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|im|ive|my|me|mine|myself)\b")
_POSSESSIVE = re.compile(r"'s?$")


@attrs.frozen
class Addressee:
    """Whom a question asks about: one of the sides, by name or because the caller says "I"; or nobody in particular."""

    side: str | None = None
    by_name: bool = True


_BY_NAME = {side: Addressee(side) for side in _OTHER}
_HIMSELF = Addressee(CALLER, by_name=False)
_NOBODY = Addressee()


@lru_cache(maxsize=16)
def _read(question: str) -> tuple[frozenset[str], bool]:
    """The words of a question, and whether "I" is among them. The lanes of one search ask the same."""
    folded = fold(question)
    return frozenset(_POSSESSIVE.sub("", word) for word in split_words(folded)), bool(_MYSELF.search(folded))


class SpeakerNamesRecord(msgspec.Struct, frozen=True):
    """What was told and heard of names, by side."""

    told: dict[str, list[str]]
    heard: dict[str, dict[str, int]]


class SpeakerNames:
    """The names of the two sides. Not thread-safe: the memory locks.

    ``frequency`` tells how many utterances hold a word.
    """

    def __init__(self, frequency: Callable[[str], int]) -> None:
        self._frequency = frequency
        self._told: defaultdict[str, set[str]] = defaultdict(set)
        self._heard: defaultdict[str, Counter[str]] = defaultdict(Counter)  # what each side was addressed with
        self._known: dict[str, frozenset[str]] = {}  # until one of them is told or heard again

    def tell(self, side: str, name: str) -> None:
        """Take in how a side is called, as an agent said it."""
        self._told[side] |= {word for word in split_words(fold(name)) if word not in STOP_WORDS}
        self._known.clear()

    def hear(self, side: str, text: str) -> None:
        """Listen to what a side says for how it addresses the other."""
        self._known.clear()  # a word may also have become too common to be a name
        for word in _ADDRESSED.findall(fold(text)):
            if word not in STOP_WORDS:
                self._heard[_OTHER[side]][word] += 1

    def of(self, side: str) -> frozenset[str]:
        """The words by which a side is known to be called."""
        known = self._known.get(side)
        if known is None:
            known = self._known[side] = self._find(side)
        return known

    def all(self) -> frozenset[str]:
        """The words by which any side is known to be called."""
        known = self._known.get("")
        if known is None:
            known = self._known[""] = self.of(CALLER) | self.of(AGENT)
        return known

    def meant(self, question: str) -> Addressee:
        """Whom a question asks about."""
        spoken, says_i = _read(question)
        named = [side for side in _OTHER if not spoken.isdisjoint(self.of(side))]
        if len(named) == 1:
            return _BY_NAME[named[0]]
        return _HIMSELF if not named and says_i else _NOBODY

    def to_note(self) -> "SpeakerNamesRecord":
        """What was told and heard, to be kept with an index file."""
        return SpeakerNamesRecord(
            {side: sorted(told) for side, told in self._told.items()},
            {side: dict(counts) for side, counts in self._heard.items()},
        )

    def from_note(self, note: "SpeakerNamesRecord") -> None:
        """Take in what an index file kept."""
        for side, told in note.told.items():
            self._told[side].update(told)
        for side, counts in note.heard.items():
            self._heard[side].update(counts)
        self._known.clear()

    def _find(self, side: str) -> frozenset[str]:
        return frozenset(
            word
            for word in {*self._told[side], *self._heard[side]}
            if self._is_name(word, self._heard[side][word], is_told=word in self._told[side])
        )

    def _is_name(self, word: str, times: int, *, is_told: bool) -> bool:
        frequency = self._frequency(word)
        if is_told and frequency < _LEAST_HEARD:
            return True
        return times >= _LEAST_SHARE * frequency and (is_told or times >= _LEAST_HEARD)
