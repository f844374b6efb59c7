"""Apply the rules of a language to a clause."""

import re
from collections.abc import Iterator, Mapping
from datetime import date

import attrs

from memoair_cloud.consolidation.date_expressions import DateRange, format_day, remove_time
from memoair_cloud.consolidation.language import ENGLISH, Expression, FactRule, Language
from memoair_cloud.consolidation.records import CALLER_SUBJECT, NO_VALUE, CallTurn, Fact
from memoair_cloud.consolidation.slots import READERS, SlotContext
from memoair_cloud.consolidation.words import normalize_key, to_third_person

# Who a call is from is said in its first turns.
_FIRST_TURNS = 2
_YES, _NO = "yes", "no"
_SLOT = re.compile(r"<([\w']+)>")


@attrs.frozen
class Statement:
    """One clause that the caller said, with its context.

    Attributes:
        clause: The clause, its contractions written out.
        turn: The turn that contains it.
        agent_before: What the agent said in the previous turn.
        caller_before: What the caller said in the previous turn.
        has_capitals: Whether the turn's text has capitals, so that a name can be recognized by them.
        position: The position of the turn among those of its speaker, from 0.
    """

    clause: str
    turn: CallTurn
    agent_before: str = ""
    caller_before: str = ""
    has_capitals: bool = True
    position: int = 0

    @property
    def today(self) -> date:
        """The day on which the statement was made."""
        return self.turn.said_at.date()


@attrs.frozen
class RuleFinding:
    """A fact that a rule found, or that one does not hold.

    Attributes:
        fact: The fact; for a denial the one that closes what was denied.
        is_denial: Whether it only denies: it counts if what it denies was said before in the call.
    """

    fact: Fact
    is_denial: bool = False


def apply_rules(language: Language, statement: Statement) -> Iterator[RuleFinding]:
    """Return what the rules find in a statement."""
    for rule in language.rules:
        yield from _apply_rule(rule, statement, language)


def _apply_rule(rule: FactRule, statement: Statement, language: Language) -> Iterator[RuleFinding]:
    if rule.first and statement.position >= _FIRST_TURNS:
        return
    dates = None
    clause = statement.clause
    if rule.when in ("future", "past", "maybe"):
        dates = language.days.find_range(clause, statement.today, is_past=rule.when == "past")
        if dates is None and rule.when != "maybe" and not rule.ends:
            return
        clause = remove_time(clause, dates)
    elif rule.when == "never" and language.days.find_range(clause, statement.today, is_past=True):
        return
    application = _Application(rule, statement, language, dates)
    if dates is not None or rule.when not in ("future", "past"):
        found = list(application.find(rule.says, clause))
        if not found and rule.answers and (asked := application.find_question()) is not None:
            found = list(application.find(rule.answers, clause, asked))
        if found:
            yield from (RuleFinding(application.make_fact(slots)) for slots in found)
            return
    ends = list(application.find(rule.ends, clause))
    yield from (RuleFinding(application.make_end(slots)) for slots in ends)
    denials = [] if ends else list(application.find(rule.denies, clause))
    yield from (RuleFinding(application.make_end(slots), is_denial=True) for slots in denials)
    if rule.ended and not ends and not denials and (denied := language.find_denied(clause)):
        for slots in application.find(rule.says, denied.clause):
            yield RuleFinding(application.make_end(slots), is_denial=not denied.held_before)


@attrs.frozen
class _Application:
    """A rule that is applied to a statement."""

    rule: FactRule
    statement: Statement
    language: Language
    dates: DateRange | None

    def find(
        self, expressions: tuple[Expression, ...], clause: str, asked: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, str]]:
        """Return the values of the slots of the first expression that matches; several if a slot has several."""
        for expression in expressions:
            match = expression.pattern.fullmatch(clause)
            if match is None:
                continue
            readings = self._read(expression.slots(match), {**self.rule.defaults, **(asked or {})})
            if readings:
                yield from readings
                return

    def find_question(self) -> dict[str, str] | None:
        """Return what the agent's last question says about the answer; None if it does not ask for it."""
        before, rule = self.statement.agent_before.rstrip(), self.rule
        question = before[max(before.rfind(sign, 0, len(before) - 1) for sign in ".!?") + 1 :]
        if self.language.speech.confirm.match(question):
            question = before
        if not before.endswith("?") or rule.asked is None or (rule.not_asked and rule.not_asked.search(question)):
            return None
        asked = rule.asked.search(question)
        if asked is None:
            return None
        slots = {
            group.partition("_")[2]: self.language.lists[slot_type].get(asked[group].lower(), asked[group])
            for group, slot_type in rule.asked_slots.items()
            if asked[group] is not None
        }
        if rule.context and rule.context not in slots:
            slots |= self._infer_from_context(before)
            if rule.context not in slots and rule.context not in rule.defaults:
                return None
        return slots

    def _infer_from_context(self, before: str) -> dict[str, str]:
        """Return what question and caller last spoke of, if it is one thing: "your daughter ... What's her name?"."""
        words = self.language.lists[self.rule.context.upper()]
        possessed = rf"\b(?:my|our|your) (?:\w+ )??({'|'.join(sorted(map(re.escape, words), key=len, reverse=True))})\b"
        mentioned = re.findall(possessed, f"{self.statement.caller_before} {before}", re.IGNORECASE)
        things = {words[thing.lower()] for thing in mentioned}
        return {self.rule.context: things.pop()} if len(things) == 1 else {}

    def _read(self, slots: Mapping[str, tuple[str, str]], given: Mapping[str, str]) -> list[dict[str, str]]:
        readings: list[dict[str, str]] = [dict(given)]
        context = SlotContext(self.statement.turn, self.statement.has_capitals, self.language.lists)
        for name, (slot_type, text) in slots.items():
            values = self._read_slot(slot_type, text, context)
            readings = [{**reading, name: value} for reading in readings for value in values]
        return readings

    def _read_slot(self, slot_type: str, text: str, context: SlotContext) -> tuple[str, ...]:
        if slot_type in self.language.lists:
            words = self.language.lists[slot_type]
            return (words.get(re.sub(r"\s+", " ", text.strip().lower()), text),)
        return READERS[self.language.reads.get(slot_type, slot_type)](text, context)

    def make_fact(self, slots: Mapping[str, str]) -> Fact:
        """Create the fact that the slots say."""
        rule = self.rule
        is_many = rule.many and not (rule.single_list and slots.get("kin") in self.language.lists[rule.single_list])
        value = self._fill(rule.value, slots, raw=True)
        if rule.when == "maybe" and self.dates:
            value = self.dates.description
        text = rule.text if rule.when != "maybe" or not self.dates else f"{rule.text} <days>"
        return self._fact(text, slots, value, is_many=is_many)

    def make_end(self, slots: Mapping[str, str]) -> Fact:
        """Create the fact that closes what the slots say."""
        rule = self.rule
        opened = self._fill(rule.value, slots, raw=True) if "<days>" not in rule.value else ""
        if rule.value == _YES:
            return self._fact(rule.ended, slots, _NO)
        if not opened:
            return self._fact(rule.ended, slots, NO_VALUE)
        fact = self._fact(rule.ended, slots, f"not {opened}", is_many=True)
        return attrs.evolve(fact, corrects=opened)

    def _fact(self, text: str, slots: Mapping[str, str], value: str, *, is_many: bool = False) -> Fact:
        turn, rule, dates = self.statement.turn, self.rule, self.dates
        sentence = self._fill(text, slots).strip(" .,")
        subject = rule.subject if rule.subject == CALLER_SUBJECT else self._fill(rule.subject, slots).strip()
        return Fact(
            kind=rule.kind,
            text=f"{sentence}.",
            subject=subject,
            attribute=self._fill(rule.attribute, slots, is_key=True),
            value=value,
            event_id=turn.event_id,
            session_id=turn.session_id,
            number=turn.number,
            said_at=turn.said_at,
            holds_from=dates.first if dates else None,
            holds_until=dates.last if dates else None,
            is_one_of_many=is_many,
        )

    def _fill(self, template: str, slots: Mapping[str, str], *, is_key: bool = False, raw: bool = False) -> str:
        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if name in slots:
                if is_key:
                    return self._key(name, slots[name])
                if raw or name in _NEVER_REWRITTEN:
                    return slots[name]
                if self.language.name != ENGLISH:
                    return self.language.shown.get(slots[name], slots[name])
                return to_third_person(slots[name])
            return self._context_word(name, slots, is_same_everywhere=is_key or raw)

        return re.sub(r" {2,}", " ", _SLOT.sub(replace, template))

    def _key(self, name: str, value: str) -> str:
        """Return a slot's value as part of an attribute. A "nut allergy" is one to nuts."""
        key = value if name == "language" else normalize_key(value)
        return f"{key}s" if self.rule.attribute.startswith("allergy") and self._is_allergen(f"{key}s") else key

    def _is_allergen(self, word: str) -> bool:
        return word in self.language.lists["ALLERGEN"]

    def _context_word(self, name: str, slots: Mapping[str, str], *, is_same_everywhere: bool) -> str:
        turn = self.statement.turn
        caller = turn.caller.split()[0] if turn.caller.split() else self.language.forms.caller
        if name == "caller":
            return caller
        if name == "caller's":
            return f"{caller}'s"
        if name == "days":
            if self.dates is None:
                return ""
            return self.dates.description if is_same_everywhere else self.language.days.describe(self.dates)
        if name == "today":
            return format_day(self.statement.today)
        if name == "weekday_today":
            today = self.statement.today
            return DateRange(0, 0, today, today).description.removeprefix("on ")
        if name == "a":
            return "an" if slots["seat"][0] in "aeiou" else "a"
        if name == "counted_plural":
            counted = slots["counted"]
            plural = counted if counted.endswith("children") else f"{counted.rstrip('s')}s"
            return {"child": "children", "puppy": "puppies", "baby": "babies"}.get(counted, plural)
        if name == "a_channel":
            channel = slots["channel"]
            return channel if channel == "whatsapp" else f"{'an' if channel[0] == 'e' else 'a'} {channel}"
        raise KeyError(name)


# These are names and numbers, in which "my" and "I" are no pronouns.
_NEVER_REWRITTEN = frozenset({"name", "place", "employer", "phone", "email", "address", "kin", "article"})
