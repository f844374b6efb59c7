"""Follow who speaks for the caller's side of a call: the caller, people who get the telephone, and others.

A transcript may label the speaker of a turn. Otherwise a speaker is known by what is said: "I'll put my wife on", "This
is Anna". What a person says who got the telephone and gives no name is not learned.
"""

from collections.abc import Iterable

import attrs

from memoair_cloud.consolidation.language import Language
from memoair_cloud.consolidation.names import is_name
from memoair_cloud.consolidation.people import is_name_fact, is_same_person, reads_as_person
from memoair_cloud.consolidation.records import (
    ANY_VALUE,
    CALLER_SUBJECT,
    NAME,
    OTHER_CALLER,
    OTHER_CALLER_TEXT,
    UNNAMED_CALLER,
    CallTurn,
    Fact,
    FactKind,
)


@attrs.define(eq=False)
class Voice:
    """One speaker of a call.

    Attributes:
        label: How the transcript labels them; empty if it does not.
        name: Their name; empty if unknown.
        is_other: Whether they are not the one who began the call.
        first_number: The number of their first turn.
        former_name: The name before one that they changed to; empty if they did not.
    """

    label: str = ""
    name: str = ""
    is_other: bool = False
    first_number: int = 0
    former_name: str = ""


@attrs.define
class CallVoices:
    """The speakers of a call.

    Attributes:
        language: The language of the call.
        current: Who speaks.
    """

    language: Language
    current: Voice = attrs.field(factory=Voice)
    _voices: list[Voice] = attrs.field(init=False)
    _caller: str = attrs.field(init=False, default="")  # the user's name
    _found: list[tuple[Fact, Voice, bool]] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        """Begin with the caller."""
        self._voices = [self.current]

    def follow(self, turn: CallTurn, text: str) -> bool:
        """Find out who speaks in a turn; return whether it may be learned from.

        Args:
            turn: The turn.
            text: Its text with contractions written out.
        """
        speech = self.language.speech
        if turn.speaker:
            self._follow_label(turn)
            return True
        if speech.came_back.search(text):
            self.current = self._voices[0]
        elif speech.handed_over.search(text):
            self._add(Voice(is_other=True, first_number=turn.number + 1))
            return False
        return True

    def add(self, facts: Iterable[Fact], turn: CallTurn, *, is_denial: bool = False) -> None:
        """Add what was learned from a turn of the current speaker. A name among it may say that it is another one."""
        facts = list(facts)
        for fact in facts:
            if not is_denial and is_name_fact(fact):
                self._name(fact, turn)
        self._found += [(fact, self.current, is_denial) for fact in facts]
        self._caller = turn.caller or self._caller

    def facts(self, *, are_denials: bool = False) -> tuple[Fact, ...]:
        """Return what was learned in the call, each with the name of its speaker."""
        kept = [
            _name_neutrally(_attribute(fact, voice), self._caller)
            for fact, voice, is_denial in self._found
            if is_denial == are_denials and (voice.name or not voice.is_other or fact.kind is FactKind.COMMITMENT)
        ]
        return tuple(dict.fromkeys(kept))

    def _add(self, voice: Voice) -> None:
        self._voices.append(voice)
        self.current = voice

    def _follow_label(self, turn: CallTurn) -> None:
        known = next((voice for voice in self._voices if voice.label == turn.speaker), None)
        if known is not None:
            self.current = known
            return
        if any(voice.label for voice in self._voices):
            self._add(Voice(turn.speaker, is_other=True, first_number=turn.number))
        else:
            self.current = self._voices[0]
            self.current.label = turn.speaker
        if reads_as_name := self._is_name(turn.speaker):
            self.current.name, self.current.is_other = turn.speaker, False
        if reads_as_name and not (turn.caller and is_same_person(turn.caller, turn.speaker)):
            self._found.append((self._make_name_fact(turn), self.current, False))

    def _is_name(self, label: str) -> bool:
        lists = self.language.lists
        is_known = any(word in lists.get("SPEAKER_LABEL", ()) for word in label.casefold().split())
        reads_as_label = is_known or label.isupper() or not reads_as_person(label)
        return not reads_as_label and is_name(label, lists, has_capitals=True)

    def _make_name_fact(self, turn: CallTurn) -> Fact:
        rule = next(rule for rule in self.language.rules if rule.attribute == NAME)
        return Fact(
            rule.kind,
            f"{rule.text.replace('<name>', turn.speaker)}.",
            CALLER_SUBJECT,
            NAME,
            turn.speaker,
            turn.event_id,
            turn.session_id,
            turn.number,
            turn.said_at,
        )

    def _name(self, fact: Fact, turn: CallTurn) -> None:
        voice, name = self.current, fact.value
        if voice.label and self._is_name(voice.label):
            return  # the transcript knows better
        if voice.name and (fact.corrects is not None or is_same_person(voice.name, name)):
            if fact.corrects == ANY_VALUE:
                voice.former_name = voice.name
            if fact.corrects is not None or len(name.split()) >= len(voice.name.split()):
                voice.name = name
            return
        known = next((other for other in self._voices if other.name and is_same_person(other.name, name)), None)
        if known is not None:
            self.current = known
        elif voice.name:
            self._add(Voice(name=name, is_other=True, first_number=turn.number))
        else:
            voice.name = name


def _attribute(fact: Fact, voice: Voice) -> Fact:
    """Return a fact with the name of its speaker."""
    if fact.kind is FactKind.COMMITMENT:
        return fact
    if is_name_fact(fact):
        if voice.is_other:
            text = OTHER_CALLER_TEXT.format(name=fact.value)
            return attrs.evolve(fact, attribute=OTHER_CALLER, text=text, is_one_of_many=True, corrects=None)
        return attrs.evolve(fact, speaker=voice.former_name or voice.name)
    return attrs.evolve(fact, speaker=voice.name)


def _name_neutrally(fact: Fact, caller: str) -> Fact:
    """Return a fact whose text does not call its speaker by the user's name, if the speaker has another one."""
    first = (caller.split() or [""])[0]
    if not first or not fact.speaker or is_same_person(fact.speaker, caller) or not fact.text.startswith(first):
        return fact
    return attrs.evolve(fact, text=f"{UNNAMED_CALLER}{fact.text[len(first) :]}")
