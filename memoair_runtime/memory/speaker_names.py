"""The names of caller and agent, by which a question about one of them is recognized.

A session may state the names. Otherwise they are taken from how the two greet each other ("Hi Dana", "thanks, Juno"),
which names the other side. Case is ignored, because speech recognizers omit capitals.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import lru_cache

import attrs
import msgspec

from memoair_index.analysis import STOP_WORDS, split_words
from memoair_index.folding import fold

CALLER, AGENT = "caller", "agent"
_OTHER_SIDE = {CALLER: AGENT, AGENT: CALLER}

_GREETED_NAME = re.compile(
    r"\b(?:hey|hi|hello|thanks|thank you|bye|goodbye|good (?:morning|afternoon|evening|night)|sorry|congrats"
    r"|congratulations)[,!. ]+([^\W\d_]{2,30})\b"
)
# A word counts as a name once it follows greetings this often, and in this share of all its uses. A word of a stated
# name does not count if it is used this often, but rarely after greetings: "Price" in "Robin Price".
_MIN_GREETINGS = 3
_MIN_GREETING_SHARE = 0.2
_FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|im|ive|my|me|mine|myself)\b")
_POSSESSIVE = re.compile(r"'s?$")


@attrs.frozen
class SpeakerReference:
    """The side that a question is about.

    Attributes:
        side: `CALLER` or `AGENT`; None if the question is about neither or both.
        by_name: Whether it says a name; else the caller says "I".
    """

    side: str | None = None
    by_name: bool = True


_REFERENCE_BY_NAME = {side: SpeakerReference(side) for side in _OTHER_SIDE}
_CALLER_IN_FIRST_PERSON = SpeakerReference(CALLER, by_name=False)
_NO_REFERENCE = SpeakerReference()


@lru_cache(maxsize=16)
def _parse_question(question: str) -> tuple[frozenset[str], bool]:
    """Return the words of a question, and whether it says "I". Cached, because all lanes of a search ask it."""
    folded = fold(question)
    return frozenset(_POSSESSIVE.sub("", word) for word in split_words(folded)), bool(_FIRST_PERSON.search(folded))


class SpeakerNamesRecord(msgspec.Struct, frozen=True):
    """The names as stored with an index file, by side. ``greeted`` counts how often each was greeted."""

    stated: dict[str, list[str]] = msgspec.field(name="told")
    greeted: dict[str, dict[str, int]] = msgspec.field(name="heard")


class SpeakerNames:
    """The names of the two sides. Not thread-safe: the memory locks.

    Args:
        frequency: Returns how many utterances contain a word.
    """

    def __init__(self, frequency: Callable[[str], int]) -> None:
        self._frequency = frequency
        self._stated: defaultdict[str, set[str]] = defaultdict(set)
        self._greeted: defaultdict[str, Counter[str]] = defaultdict(Counter)  # the names by which each side was greeted
        self._cache: dict[str, frozenset[str]] = {}  # until something is added

    def add_stated_name(self, side: str, name: str) -> None:
        """Add the name of a side as stated by an application."""
        self._stated[side] |= {word for word in split_words(fold(name)) if word not in STOP_WORDS}
        self._cache.clear()

    def add_utterance(self, side: str, text: str) -> None:
        """Add what a side said: it may greet the other side by name."""
        self._cache.clear()  # even without a greeting: a word may now be too common for a name
        for word in _GREETED_NAME.findall(fold(text)):
            if word not in STOP_WORDS:
                self._greeted[_OTHER_SIDE[side]][word] += 1

    def names_of(self, side: str) -> frozenset[str]:
        """Return the words by which a side is known."""
        names = self._cache.get(side)
        if names is None:
            names = self._cache[side] = self._compute_names(side)
        return names

    def all_names(self) -> frozenset[str]:
        """Return the words by which either side is known."""
        names = self._cache.get("")
        if names is None:
            names = self._cache[""] = self.names_of(CALLER) | self.names_of(AGENT)
        return names

    def find_reference(self, question: str) -> SpeakerReference:
        """Return which side a question is about."""
        question_words, is_first_person = _parse_question(question)
        named_sides = [side for side in _OTHER_SIDE if not question_words.isdisjoint(self.names_of(side))]
        if len(named_sides) == 1:
            return _REFERENCE_BY_NAME[named_sides[0]]
        return _CALLER_IN_FIRST_PERSON if not named_sides and is_first_person else _NO_REFERENCE

    def to_record(self) -> "SpeakerNamesRecord":
        """Return what has been added, to be stored with an index file."""
        return SpeakerNamesRecord(
            {side: sorted(names) for side, names in self._stated.items()},
            {side: dict(counts) for side, counts in self._greeted.items()},
        )

    def add_record(self, record: "SpeakerNamesRecord") -> None:
        """Add what an index file holds."""
        for side, names in record.stated.items():
            self._stated[side].update(names)
        for side, counts in record.greeted.items():
            self._greeted[side].update(counts)
        self._cache.clear()

    def _compute_names(self, side: str) -> frozenset[str]:
        return frozenset(
            word
            for word in {*self._stated[side], *self._greeted[side]}
            if self._is_name(word, self._greeted[side][word], is_stated=word in self._stated[side])
        )

    def _is_name(self, word: str, greetings: int, *, is_stated: bool) -> bool:
        frequency = self._frequency(word)
        if is_stated and frequency < _MIN_GREETINGS:
            return True
        return greetings >= _MIN_GREETING_SHARE * frequency and (is_stated or greetings >= _MIN_GREETINGS)
