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

from memoair_index.analysis import STOP_WORDS, fold, words

CALLER, AGENT = "caller", "agent"
_OTHER_SIDE = {CALLER: AGENT, AGENT: CALLER}

_GREETED_NAME = re.compile(
    r"\b(?:hey|hi|hello|thanks|thank you|bye|goodbye|good (?:morning|afternoon|evening|night)|sorry|congrats"
    r"|congratulations)[,!. ]+([^\W\d_]{2,30})\b"
)
# A word is a name once it was heard so often behind a greeting, and if that is so great a share of all its uses. One
# that was told to be a name is none if it is said so often, and hardly ever behind a greeting: "Robin Price".
_MIN_GREETINGS = 3
_MIN_GREETING_SHARE = 0.2
_FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|im|ive|my|me|mine|myself)\b")
_POSSESSIVE = re.compile(r"'s?$")


@attrs.frozen
class SpeakerReference:
    """Whom a question asks about: one of the sides, by name or because the caller says "I"; or nobody in particular."""

    side: str | None = None
    by_name: bool = True


_REFERENCE_BY_NAME = {side: SpeakerReference(side) for side in _OTHER_SIDE}
_CALLER_IN_FIRST_PERSON = SpeakerReference(CALLER, by_name=False)
_NO_REFERENCE = SpeakerReference()


@lru_cache(maxsize=16)
def _parse_question(question: str) -> tuple[frozenset[str], bool]:
    """The words of a question, and whether "I" is among them. The lanes of one search ask the same."""
    folded = fold(question)
    return frozenset(_POSSESSIVE.sub("", word) for word in words(folded)), bool(_FIRST_PERSON.search(folded))


class SpeakerNamesRecord(msgspec.Struct, frozen=True):
    """What was told and heard of names, by side."""

    stated: dict[str, list[str]] = msgspec.field(name="told")
    greeted: dict[str, dict[str, int]] = msgspec.field(name="heard")


class SpeakerNames:
    """The names of the two sides. Not thread-safe: the memory locks.

    ``frequency`` tells how many utterances hold a word.
    """

    def __init__(self, frequency: Callable[[str], int]) -> None:
        self._frequency = frequency
        self._stated: defaultdict[str, set[str]] = defaultdict(set)
        self._greeted: defaultdict[str, Counter[str]] = defaultdict(Counter)  # what each side was addressed with
        self._cache: dict[str, frozenset[str]] = {}  # until one of them is told or heard again

    def add_stated_name(self, side: str, name: str) -> None:
        """Take in how a side is called, as an agent said it."""
        self._stated[side] |= {word for word in words(fold(name)) if word not in STOP_WORDS}
        self._cache.clear()

    def add_utterance(self, side: str, text: str) -> None:
        """Listen to what a side says for how it addresses the other."""
        self._cache.clear()  # a word may also have become too common to be a name
        for word in _GREETED_NAME.findall(fold(text)):
            if word not in STOP_WORDS:
                self._greeted[_OTHER_SIDE[side]][word] += 1

    def names_of(self, side: str) -> frozenset[str]:
        """The words by which a side is known to be called."""
        names = self._cache.get(side)
        if names is None:
            names = self._cache[side] = self._compute_names(side)
        return names

    def all_names(self) -> frozenset[str]:
        """The words by which any side is known to be called."""
        names = self._cache.get("")
        if names is None:
            names = self._cache[""] = self.names_of(CALLER) | self.names_of(AGENT)
        return names

    def find_reference(self, question: str) -> SpeakerReference:
        """Whom a question asks about."""
        question_words, is_first_person = _parse_question(question)
        named_sides = [side for side in _OTHER_SIDE if not question_words.isdisjoint(self.names_of(side))]
        if len(named_sides) == 1:
            return _REFERENCE_BY_NAME[named_sides[0]]
        return _CALLER_IN_FIRST_PERSON if not named_sides and is_first_person else _NO_REFERENCE

    def to_record(self) -> "SpeakerNamesRecord":
        """What was told and heard, to be kept with an index file."""
        return SpeakerNamesRecord(
            {side: sorted(told) for side, told in self._stated.items()},
            {side: dict(counts) for side, counts in self._greeted.items()},
        )

    def add_record(self, record: "SpeakerNamesRecord") -> None:
        """Take in what an index file kept."""
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
