"""Redaction of cases that are copied from callers."""

import json
from typing import Any

import pytest

from memoair_evaluation.case import RecallCase, case_to_wire, parse_case
from memoair_evaluation.engine import EngineDocuments, open_engine
from memoair_evaluation.redaction import redact_case
from memoair_redaction import Redactor

CARD, PHONE = "4111 1111 1111 1111", "+44 20 7946 0018"


def make_case(**more: Any) -> RecallCase:
    return parse_case({"id": "a", "question": "Is it paid?", **more})


def test_numbers_and_addresses_are_removed_wherever_they_are() -> None:
    case = make_case(
        question=f"Is it paid with {CARD}?",
        given={
            "profile": {"name": "Mara", "metadata": {"phone": PHONE}},
            "facts": [f"The card is {CARD}."],
            "turns": [{"user": "Hello.", "assistant": f"Is {CARD} right?", "metadata": {"from": PHONE}}],
        },
        talk=[{"user": f"My card is {CARD}."}],
        must=[{"text": CARD}, {"fact": f"card is {CARD}"}],
        expectedAnswer=f"Yes, with {CARD}.",
        filter={"from": {"$in": [PHONE]}},
        notes=f"Ask {PHONE} or mara@example.com.",
    )
    redacted = redact_case(case)
    text = json.dumps(case_to_wire(redacted))
    for secret in (CARD, PHONE, "mara@example.com"):
        assert secret not in text
    assert "Mara" in text
    assert parse_case(case_to_wire(redacted)) == redacted
    assert redact_case(redacted) == redacted


def test_a_number_that_was_said_in_parts_is_found_also_in_the_question() -> None:
    case = make_case(
        question="1111 1111, is that right?",
        talk=[{"user": "It is 4111 1111.", "assistant": "And the rest of the card?"}],
    )
    redacted = redact_case(case)
    assert not {"4111", "1111"} & {word.strip(",.") for turn in redacted.talk for word in turn.user.split()}
    assert "1111" not in redacted.question


@pytest.mark.parametrize("said", ["48213779", "4821 3779", "four eight two one three seven seven nine"])
def test_a_number_that_was_asked_for_is_removed_also_where_nothing_names_it(said: str) -> None:
    case = make_case(
        given={
            "facts": ["It was 48213779 then."],
            "turns": [
                {"user": "Hello.", "assistant": "What is the security code on your card?"},
                {"user": f"It is {said}.", "assistant": "Noted."},
                {"user": "So 48213779 it is.", "metadata": {"heard": ["48213779"]}, "sessionId": "later"},
            ],
        },
        must=[{"text": "48213779"}, {"fact": "was 48213779 then"}],
        mustNot=[{"text": said}],
        expectedAnswer="48213779.",
        notes="48213779",
        filter={"code": "48213779"},
    )
    redacted = redact_case(case)
    text = json.dumps(case_to_wire(redacted))
    assert said not in text
    assert "48213779" not in text
    assert redacted.must[0] == redacted.must_not[0]
    assert redacted.given is not None
    assert str(redacted.must[0].text) in redacted.given.turns[1].user
    assert str(redacted.must[1].fact) in redacted.given.facts[0].text


def test_the_parts_of_a_number_are_removed_from_the_phrases() -> None:
    case = make_case(
        question="1111 1111, is that right?",
        talk=[{"user": "It is 4111 1111.", "assistant": "And the rest of the card?"}],
        must=[{"text": "1111 1111, is that right"}],
        expectedAnswer="1111 1111 is right. It takes 11 days.",
    )
    redacted = redact_case(case)
    assert str(redacted.must[0].text) in redacted.question
    assert redacted.expected_answer == "[card number] is right. It takes 11 days."


def test_calls_do_not_continue_each_other() -> None:
    turns = [
        {"user": "It is 4111 1111.", "assistant": "Go on.", "sessionId": "a"},
        {"user": "We are 1111 1111 people.", "assistant": "Fine.", "sessionId": "b"},
    ]
    given = redact_case(make_case(given={"turns": turns})).given
    assert given is not None
    assert given.turns[1].user == "We are 1111 1111 people."


def test_ids_that_are_numbers_get_other_names_the_same_everywhere() -> None:
    turns = [
        {"user": "My boots are red.", "sessionId": PHONE, "turnId": CARD},
        {"user": "I live in Bern.", "sessionId": "call-1", "turnId": "t"},
    ]
    must = [{"turn": CARD, "session": PHONE}, {"turn": "t", "session": "call-1"}]
    redacted = redact_case(make_case(given={"turns": turns}, must=must))
    assert PHONE not in json.dumps(case_to_wire(redacted))
    assert redacted.given is not None
    assert len({turn.session_id for turn in redacted.given.turns}) == 2
    with open_engine(EngineDocuments()) as engine:
        assert engine.run_case(redacted).scores.found == (0, 1)


def test_what_has_nothing_to_remove_stays_the_same() -> None:
    turns = [{"user": "My boots are red.", "assistant": "Noted.", "sessionId": "s1", "turnId": "t1"}]
    case = make_case(given={"turns": turns, "facts": ["likes 2 dogs"]}, must=[{"turn": "t1"}], filter={"year": 2026})
    assert redact_case(case) == case


def test_the_kinds_can_be_chosen() -> None:
    case = make_case(notes="mara@example.com")
    assert redact_case(case, Redactor(["card"])) == case


@pytest.mark.parametrize("id_", ["a", PHONE])
def test_the_id_of_the_case_stays(id_: str) -> None:
    assert redact_case(parse_case({"id": id_, "question": "?"})).id == id_
