"""Redact cases that are copied from callers: numbers and addresses, in what was said, what is known, and ids."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from memoair_evaluation.case_records import Expectation, Given, GivenTurn, RecallCase
from memoair_evaluation.removed_numbers import RemovedNumbers
from memoair_redaction import KINDS, Redactor
from memoair_redaction.findings import replace_findings

# All kinds: a suite lives longer than the calls that it is copied from.
_DEFAULT = Redactor(KINDS)
_MAX_QUESTION_CHARS = 400


def redact_case(case: RecallCase, redact: Redactor = _DEFAULT) -> RecallCase:
    """Return a case without numbers and addresses of people. Thread-safe.

    A number that was spoken in parts, or that the agent has asked for, is found as in a call. It is then removed
    everywhere in the case, so phrases in ``must`` and ``mustNot`` still match. (Parts of less than three digits are
    only removed from what was said.) Ids of calls and turns that are a number get another name,
    the same everywhere in the case. The id of the case and its tags stay: they are not the caller's.

    Args:
        case: The case. It is not changed.
        redact: What to redact; by default all kinds that are known.
    """
    given = case.given or Given()
    sessions = _rename_ids([turn.session_id for turn in given.turns], "call", redact)
    turn_ids = _rename_ids([turn.turn_id for turn in (*given.turns, *case.talk)], "turn", redact)
    removed = RemovedNumbers()
    turns = [
        attrs.evolve(turn, session_id=sessions(turn.session_id), turn_id=turn_ids(turn.turn_id))
        for turn in _redact_calls(given.turns, redact, removed)
    ]
    # The question continues the talk: it may be the rest of a number.
    talk = _redact_talk([*case.talk, GivenTurn(case.question)], redact, removed)

    def redact_text(text: str) -> str:
        return removed.replace(redact(text))

    def redact_optional(text: str | None) -> str | None:
        return None if text is None else redact_text(text)

    def redact_again(turn: GivenTurn) -> GivenTurn:
        return attrs.evolve(
            turn,
            user=removed.replace(turn.user),
            assistant=removed.replace(turn.assistant),
            metadata=removed.replace_in_value(dict(turn.metadata)),
        )

    def redact_expectations(items: Sequence[Expectation]) -> tuple[Expectation, ...]:
        return tuple(
            attrs.evolve(
                item,
                fact=redact_optional(item.fact),
                text=redact_optional(item.text),
                turn=None if item.turn is None else turn_ids(item.turn),
                session=None if item.session is None else sessions(item.session),
            )
            for item in items
        )

    talk = [redact_again(turn) for turn in talk]
    facts = [attrs.evolve(fact, text=redact_text(fact.text), subject=redact_text(fact.subject)) for fact in given.facts]
    profile = removed.replace_in_value(redact.redact_value(dict(given.profile)))
    redacted = Given(profile, tuple(facts), tuple(redact_again(turn) for turn in turns))
    return attrs.evolve(
        case,
        question=talk[-1].user,
        given=None if case.given is None else redacted,
        talk=tuple(attrs.evolve(turn, turn_id=turn_ids(turn.turn_id)) for turn in talk[:-1]),
        must=redact_expectations(case.must),
        must_not=redact_expectations(case.must_not),
        expected_answer=redact_text(case.expected_answer),
        filter=None if case.filter is None else removed.replace_in_value(_redact_filter(case.filter, redact)),
        notes=redact_text(case.notes),
    )


def _redact_calls(turns: Sequence[GivenTurn], redact: Redactor, removed: RemovedNumbers) -> list[GivenTurn]:
    """Return the turns of several calls, in their order, each call redacted as one talk."""
    calls: defaultdict[str, list[GivenTurn]] = defaultdict(list)
    for turn in turns:
        calls[turn.session_id].append(turn)
    redacted = {session_id: iter(_redact_talk(call, redact, removed)) for session_id, call in calls.items()}
    return [next(redacted[turn.session_id]) for turn in turns]


def _redact_talk(turns: Sequence[GivenTurn], redact: Redactor, removed: RemovedNumbers) -> list[GivenTurn]:
    """Return the turns of a call redacted, and note what was removed."""
    redacted = []
    user_tail = assistant_tail = question = ""
    for turn, following in zip(turns, [*turns[1:], None], strict=True):
        after = "" if following is None else following.user
        found_in_user = redact.find_said(turn.user, user_tail, question, after)
        found_in_answer = redact.find_said(turn.assistant, assistant_tail)
        removed.add(turn.user, found_in_user)
        removed.add(turn.assistant, found_in_answer)
        redacted.append(
            attrs.evolve(
                turn,
                user=replace_findings(turn.user, found_in_user),
                assistant=replace_findings(turn.assistant, found_in_answer),
                metadata=redact.redact_value(dict(turn.metadata)),
            )
        )
        user_tail, assistant_tail = redact.tail(user_tail, turn.user), redact.tail(assistant_tail, turn.assistant)
        question = turn.assistant[-_MAX_QUESTION_CHARS:]
    return redacted


def _rename_ids(ids: Sequence[str], name: str, redact: Redactor) -> Callable[[str], str]:
    """Return the function that returns the new id for an id, or the same if it has nothing to redact."""
    names = {id_: f"{name}-{number}" for number, id_ in enumerate(dict.fromkeys(ids), 1) if redact(id_) != id_}
    taken = set(ids)
    while taken & set(names.values()):  # one of the other ids has such a name
        names = {id_: f"redacted-{new_name}" for id_, new_name in names.items()}
    return lambda id_: names.get(id_, id_)


def _redact_filter(filter_: Mapping[str, Any], redact: Redactor) -> dict[str, Any]:
    """Return a condition with its texts redacted; its operators stay as they are, so that it stays valid."""

    def redact_operand(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: redact_operand(part) for name, part in value.items()}
        if isinstance(value, list):
            return [redact_operand(part) for part in value]
        return redact(value) if isinstance(value, str) else value

    return {name: redact_operand(value) for name, value in filter_.items()}
