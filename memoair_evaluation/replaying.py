"""Ask the questions of past calls again, at their moment: of what is known now, and of a candidate."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import attrs

from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.engine import CaseQuestion, Engine
from memoair_evaluation.past_talk import order_events
from memoair_evaluation.replay import AskedContext, CalledTurn, ContextChange, compare_contexts
from memoair_protocol.timestamps import parse_timestamp
from memoair_runtime.preview import PreviewUser


@attrs.frozen
class ReplaySide:
    """One of the two states that a replay compares.

    Attributes:
        engine: The engine, with its documents.
        settings: The settings of the searches.
    """

    engine: Engine
    settings: RecallSettings = attrs.field(factory=RecallSettings)


@attrs.frozen
class ReplayedQuestion:
    """A question of a past call, asked twice.

    Attributes:
        first_id: The turn in which it was asked, as it was asked for.
        event_id: The last correction of that turn, or the same.
        session_id: The call.
        question: The question.
        before: The context of the present state.
        after: The context of the candidate.
        change: How much they differ, and in what.
    """

    first_id: str
    event_id: str
    session_id: str
    question: str = attrs.field(repr=False)
    before: str = attrs.field(repr=False)
    after: str = attrs.field(repr=False)
    change: ContextChange


def replay_questions(
    user: PreviewUser,
    event_ids: Collection[str],
    get_question: Callable[[Mapping[str, Any]], str],
    present: ReplaySide,
    candidate: ReplaySide,
) -> Iterator[ReplayedQuestion]:
    """Yield some questions of a caller, asked again, in the order in which they were asked.

    Each is asked of the turns that were before it, in its call and in others. Facts and profile are those that are
    given: what is known now. The memory of the caller is built once and grows from question to question.

    Args:
        user: What is known of the caller, with the events of all calls.
        event_ids: The turns whose questions are asked. One that is not among the events is left out.
        get_question: Returns the question of a turn's payload; empty if it asks none. Such a turn is left out.
        present: The present state.
        candidate: The other one.
    """
    facts = {fact["id"]: fact["text"] for fact in user.facts}
    turns: dict[str, CalledTurn] = {}
    known = PreviewUser(user.profile, (), user.facts)
    memory = present.engine.open_memory(known, present.settings)
    other_memory = candidate.engine.open_memory(known, candidate.settings)
    left = set(event_ids)
    for event in order_events(user.events):
        if not left:
            return
        content = event.content
        if event.first_id in left:
            left.remove(event.first_id)
            if text := get_question(content["payload"]):
                question = CaseQuestion(text, parse_timestamp(content["occurredAt"]), content["sessionId"])
                before, after = (
                    AskedContext.of(each.ask(question).contexts[0], facts, turns) for each in (memory, other_memory)
                )
                change = compare_contexts(before, after)
                yield ReplayedQuestion(
                    event.first_id, content["eventId"], content["sessionId"], text, before.text, after.text, change
                )
        turns[content["eventId"]] = CalledTurn(content["sessionId"], str(content["payload"].get("turnId") or ""))
        memory.apply_event(content)
        other_memory.apply_event(content)
