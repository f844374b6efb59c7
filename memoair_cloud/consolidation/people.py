"""Tell the people apart who call from one number, and whose facts are whose.

Two names are of one person if they share the first name, or if one has all words of the other ("Dana", "Dana
Whitlock"), in any spelling that sounds alike. Any other name is another person's, even if it is heard only once: a
greeting without a name costs less than one by the wrong name. A wrong name is corrected or deleted through the API.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs

from memoair_cloud.consolidation.records import (
    ANY_VALUE,
    CALLER_SUBJECT,
    NAME,
    NO_VALUE,
    OTHER_CALLER,
    UNNAMED_CALLER,
    UNNAMED_SUBJECT,
    Fact,
    FactKind,
)

# The groups of facts on a shared number: the index of a person, or one of these.
OWNER, UNNAMED = 0, -1
_MIN_SHORT_FORM_CHARS = 3
_SOUNDS = [(re.compile(pattern), sound) for pattern, sound in (("ph", "f"), ("(?<!^)h", ""), ("c(?!h)|q", "k"))]
_SOUNDS += [(re.compile(pattern), sound) for pattern, sound in (("kk+", "k"), ("y", "i"), (r"(.)\1", r"\1"))]
_SILENT_END = re.compile(r"(?<=..)e$")
# An application may pass a number, an id or an address instead of a name.
_NOT_A_NAME = re.compile(r"[\d@_/]|^\W*$")


def reads_as_person(name: str) -> bool:
    """Return whether what an application passes as the name of a user can be a person's."""
    return _NOT_A_NAME.search(name) is None


def is_same_person(one: str, other: str) -> bool:
    """Return whether two names are probably of one person."""
    first, second = _sounds(one), _sounds(other)
    if not first or not second:
        return False
    return set(first) <= set(second) or set(second) <= set(first) or _is_same_word(first[0], second[0])


def _is_same_word(one: str, other: str) -> bool:
    """Return whether first names are alike, or one is short for the other: "Dan" for "Daniel", not for "Dana"."""
    short, long = sorted((one, other), key=len)
    return one == other or (
        len(short) >= _MIN_SHORT_FORM_CHARS
        and long.startswith(short)
        and len(long) - len(short) > 1
        and not long.endswith("a")  # "Carl" and "Carla", "Dan" and "Daniela" are two people
    )


def _sounds(name: str) -> list[str]:
    plain = "".join(char for char in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(char))
    words = []
    for word in re.findall(r"[^\W_]+", plain):
        for pattern, sound in _SOUNDS:
            word = pattern.sub(sound, word)
        words.append(_SILENT_END.sub("", word))
    return words


@attrs.define
class Person:
    """A person who calls, or got the telephone handed.

    Attributes:
        names: The names that they have had; the last one is current. Empty for an owner without a known name.
        first_named_at: When they were first named; None for an owner who was not.
    """

    names: list[str] = attrs.field(factory=list)
    first_named_at: datetime | None = None

    def is_called(self, name: str) -> bool:
        """Return whether a name is one of theirs."""
        return any(is_same_person(known, name) for known in self.names)

    def add(self, name: str) -> None:
        """Add a name, unless it is part of the current one."""
        if not self.names or not set(_sounds(name)) < set(_sounds(self.names[-1])):
            self.names.append(name)


@attrs.define
class People:
    """The people who call from one number. The first owns the facts without another known speaker."""

    persons: list[Person] = attrs.field(factory=lambda: [Person()])

    @property
    def is_shared(self) -> bool:
        """Whether several people call."""
        return len(self.persons) > 1

    @property
    def names(self) -> list[str]:
        """The names of those who have one."""
        return [person.names[-1] for person in self.persons if person.names]

    def find(self, name: str) -> int | None:
        """Return the index of the person with a name; None if it is no one's."""
        matches = (index for index, person in enumerate(self.persons) if name and person.is_called(name))
        return next(matches, None)

    def group_of(self, fact: Fact) -> int:
        """Return whose a fact is: the index of a person, or `UNNAMED`."""
        if not self.is_shared or not _is_of_a_caller(fact):
            return OWNER
        if is_name_fact(fact):
            index = self.find(fact.value)
            return OWNER if index is None else index
        index = self.find(fact.speaker)
        if index is not None:
            return index
        shared_since = min(person.first_named_at for person in self.persons[1:] if person.first_named_at)
        return OWNER if fact.said_at < shared_since else UNNAMED


def find_people(facts: Iterable[Fact], known_name: str = "") -> People:
    """Return the people who are named by facts in the order in which they were said.

    Args:
        facts: The facts of one user.
        known_name: The name that an application passed; empty if none.
    """
    people = People()
    if known_name and reads_as_person(known_name):
        people.persons[OWNER].names.append(known_name)
    for fact in facts:
        if fact.subject != CALLER_SUBJECT:
            continue
        if fact.attribute == OTHER_CALLER and fact.value != NO_VALUE:
            _add_person(people, fact, is_other=True)
        elif fact.attribute == NAME:
            _add_name(people, fact)
    return people


def _add_name(people: People, fact: Fact) -> None:
    if not is_name_fact(fact):  # "My name is no longer White" ends a name
        ended = people.find(fact.corrects or "")
        if ended == OWNER:
            people.persons[OWNER].names.clear()
        elif ended is not None:
            del people.persons[ended]
        return
    former = [*(fact.absorbs or ()), *([fact.corrects] if fact.corrects else [])]
    if fact.corrects == ANY_VALUE:
        known = people.find(fact.speaker)
        if known is None and not people.is_shared:
            known = OWNER
    else:
        known = next((index for name in former if (index := people.find(name)) is not None), None)
    if known is None:
        _add_person(people, fact, is_other=False)
    else:
        people.persons[known].names.append(fact.value)
        _join_namesakes(people, known)
    if (index := people.find(fact.value)) is not None:  # facts whose speaker had the former name are of this person
        people.persons[index].names[:0] = [name for name in former if name != ANY_VALUE]


def _join_namesakes(people: People, changed: int) -> None:
    """Join a person with one who already has their new name: a correction by hand says that they are the same."""
    person = people.persons[changed]
    for index, other in enumerate(people.persons):
        if index != changed and other.is_called(person.names[-1]):
            first, second = sorted((index, changed))
            people.persons[first].names = [*other.names, *person.names]
            del people.persons[second]
            return


def _add_person(people: People, fact: Fact, *, is_other: bool) -> None:
    known = people.find(fact.value)
    if known is not None:
        people.persons[known].add(fact.value)
    elif is_other or people.persons[OWNER].names:
        people.persons.append(Person([fact.value], fact.said_at))
    else:
        people.persons[OWNER] = Person([fact.value], fact.said_at)


def is_name_fact(fact: Fact) -> bool:
    """Return whether a fact gives the name of a caller."""
    is_name = fact.attribute == NAME and fact.subject == CALLER_SUBJECT
    return is_name and not fact.is_denial and fact.value != NO_VALUE and not (fact.is_one_of_many and fact.corrects)


def unmark(fact: Fact) -> Fact:
    """Return a fact as it was extracted, without what `mark` has added."""
    text = fact.text
    if fact.speaker and text.startswith(fact.speaker) and not is_name_fact(fact):
        text = f"{UNNAMED_CALLER}{text[len(fact.speaker) :]}"
    return attrs.evolve(fact, subject=fact.own_subject, text=text)


def mark(facts: Sequence[Fact], people: People, known_name: str = "") -> tuple[Fact, ...]:
    """Return facts with their speaker, where several people call."""
    return tuple(_mark(fact, people, known_name) for fact in facts)


def _mark(fact: Fact, people: People, known_name: str) -> Fact:
    if fact.speaker and people.find(fact.speaker) is None:  # the name was deleted
        fact = attrs.evolve(fact, speaker="")
    if not people.is_shared or not _is_of_a_caller(fact) or fact.attribute in (NAME, OTHER_CALLER):
        return fact
    group = people.group_of(fact)
    is_named = group != UNNAMED and people.find(fact.speaker) is not None
    name = people.persons[group].names[-1] if is_named else UNNAMED_CALLER
    assumed = (known_name.split() or [UNNAMED_CALLER])[0]
    prefix = next((prefix for prefix in (UNNAMED_CALLER, assumed) if fact.text.startswith(prefix)), "")
    text = f"{name}{fact.text[len(prefix) :]}" if prefix and (is_named or group == UNNAMED) else fact.text
    subject = name if is_named and group != OWNER else UNNAMED_SUBJECT if group == UNNAMED else fact.subject
    return attrs.evolve(fact, text=text, subject=subject, speaker=name if is_named else "")


def _is_of_a_caller(fact: Fact) -> bool:
    return fact.own_subject == CALLER_SUBJECT and fact.kind is not FactKind.COMMITMENT
