"""Questions of past calls, asked again at their moment."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.engine import EngineDocuments, open_engine
from memoair_evaluation.past_talk import order_events
from memoair_evaluation.replaying import ReplayedQuestion, ReplaySide, replay_questions
from memoair_protocol.enums import LaneName
from memoair_runtime.preview import PreviewUser

_RETURNS = {"indexName": "returns", "id": "policy", "text": "Boots can be returned within 30 days.", "metadata": {}}
_NEW_RETURNS = {**_RETURNS, "id": "new-policy", "text": "Boots can be returned within 14 days."}


def _turn(event_id: str, said: str, session: str = "call", seq: int = 1, at: str = "10:00", **payload: Any) -> Any:
    return {
        "eventId": event_id,
        "type": "turn",
        "sessionId": session,
        "seq": seq,
        "occurredAt": f"2026-01-05T{at}:00Z",
        "payload": {"turnId": f"t-{event_id}", "userText": said, "assistantText": "", "metadata": {}, **payload},
    }


@contextmanager
def _sides(*documents: list[Any], **settings: Any) -> Iterator[tuple[ReplaySide, ReplaySide]]:
    with ExitStack() as stack:
        present, other = (
            stack.enter_context(open_engine(EngineDocuments(documents=documents[place]))) for place in (0, -1)
        )
        yield ReplaySide(present), ReplaySide(other, RecallSettings(**settings))


def _replay(user: PreviewUser, ids: list[str], *documents: list[Any], **settings: Any) -> list[ReplayedQuestion]:
    with _sides(*documents, **settings) as sides:
        return list(replay_questions(user, ids, lambda payload: payload["userText"], *sides))


def test_a_question_is_asked_of_what_was_said_before_it_and_of_the_facts_of_now() -> None:
    events = [
        _turn("before", "My boots are red.", at="10:00"),
        _turn("asked", "Can I return my boots?", seq=2, at="10:01"),
        _turn("after", "My boots are too small.", seq=3, at="10:02"),
        _turn("other-before", "I live in Bonn.", "earlier", at="09:00"),
        _turn("other-after", "My boots came from Mainz.", "later", at="11:00"),
    ]
    facts = [
        {"id": "f", "kind": "statement", "text": "Likes red boots", "subject": "", "saidAt": "2026-02-01T00:00:00Z"}
    ]

    (found,) = _replay(PreviewUser(None, events, facts), ["asked"], [_RETURNS])

    assert found.question == "Can I return my boots?"
    for text in ("My boots are red.", "Likes red boots", "within 30 days"):
        assert text in found.before
    for text in ("too small", "Mainz"):
        assert text not in found.before
    assert found.after == found.before
    assert not found.change.is_changed


def test_another_document_set_changes_the_context_and_says_which_documents() -> None:
    events = [_turn("a", "Can I return my boots?"), _turn("b", "Hello?", seq=2)]

    asked, _ = _replay(PreviewUser(None, events), ["a", "b"], [_RETURNS], [_NEW_RETURNS])

    change = asked.change.to_wire()
    assert change["appeared"] == [{"kind": "document", "document": "new-policy", "index": "returns"}]
    assert change["vanished"] == [{"kind": "document", "document": "policy", "index": "returns"}]
    assert change["change"] == 1.0


def test_other_settings_change_the_context() -> None:
    documents = [_RETURNS, {**_RETURNS, "id": "shop", "text": "Our shop in Bonn sells boots."}]

    (found,) = _replay(
        PreviewUser(None, [_turn("a", "Where are boots sold?")]), ["a"], documents, top_k={LaneName.ORG: 1}
    )

    assert [len(found.change.appeared), len(found.change.vanished)] == [0, 1]
    assert 0 < found.change.change < 1


def test_what_asks_nothing_or_is_unknown_is_left_out() -> None:
    assert _replay(PreviewUser(None, [_turn("a", "")]), ["a", "gone"], [_RETURNS]) == []


def test_a_replay_is_the_same_each_time_whatever_the_order_of_the_events() -> None:
    events = [
        _turn(f"{call}-{seq}", f"Question {seq} about boots in call {call}?", call, seq, f"10:{seq:02}")
        for call in ("x", "y")
        for seq in range(1, 8)
    ]
    ids = [event["eventId"] for event in events][::3]

    first = _replay(PreviewUser(None, events), ids, [_RETURNS], [_NEW_RETURNS])
    again = _replay(PreviewUser(None, events[::-1]), ids[::-1], [_RETURNS], [_NEW_RETURNS])

    assert first == again
    assert len(first) == len(ids)


def test_the_numbers_of_a_call_count_more_than_its_clock() -> None:
    events = [_turn("late", "c", seq=3, at="10:05"), _turn("first", "a", at="10:10"), _turn("second", "b", seq=2)]
    events.append(_turn("elsewhere", "d", "other", at="10:07"))
    assert [event.first_id for event in order_events(events)] == ["elsewhere", "first", "second", "late"]


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_corrected_turn_has_the_words_of_its_last_correction_at_its_own_place(is_reversed: bool) -> None:
    events = [
        _turn("a", "My boats are red."),
        _turn("b", "Hello?", seq=2),
        _turn("a2", "My coats are red.", seq=3, corrects="a"),
        _turn("a3", "My boots are red.", seq=4, corrects="a2"),
        _turn("lost", "Correction of what was dropped.", seq=5, corrects="gone"),
    ]
    ordered = order_events(events[::-1] if is_reversed else events)

    assert [event.first_id for event in ordered] == ["a", "b", "lost"]
    corrected = ordered[0].content
    assert (corrected["eventId"], corrected["seq"]) == ("a3", 1)
    assert corrected["payload"]["userText"] == "My boots are red."
    assert "corrects" not in corrected["payload"]


def test_events_that_correct_each_other_end_no_replay() -> None:
    events = [_turn("a", "One", corrects="b"), _turn("b", "Two", seq=2, corrects="a")]
    assert order_events(events) == []
