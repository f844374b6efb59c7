"""Numbers over several turns: the parts of one, answers to questions, and turns that come again."""

import re

import pytest

from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync.redaction import redact, redactor

CALL = ("ada", "call-1")


def turn(turn_id: str, user_text: str, assistant_text: str = "Go on.") -> Turn:
    return Turn(turn_id, user_text, assistant_text, [], {})


def say(*texts: str) -> list[str]:
    """Return what is saved of what a caller says in the turns of a call."""
    redaction = Redaction(redact)
    return [redaction.redact_turn(turn(str(place), text), CALL).user_text for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("said", "saved"),
    [
        (["My card is 4242 4242", "4242 4242"], ["My card is [card number]", "[card number]"]),
        (["It's 4242 4242 4242", "and 4242."], ["It's [card number]", "[card number]."]),
        (["My card is 4242", "4242", "4242", "4242"], ["My card is 4242", *["[card number]"] * 3]),
        (["call me at 415", "555 0123, please"], ["call me at 415", "[phone number], please"]),
        (["null eins sieben eins", "eins zwei drei vier fünf sechs"], ["null eins sieben eins", "[phone number]"]),
        (["DE89 3704 0044", "0532 0130 00"], ["DE89 3704 0044", "[IBAN]"]),
        (["My order is 48213377", "it came on 12 March"], None),
        (["I was there in 2019", "2020 and 2021"], None),
        (["It costs 499", "and 1299 with the frame"], None),
        (["room 4242", "no, wait", "order 4242"], None),
        (["I paid by card. The order is 48213377", "thanks"], None),
        (["the card ends in 4242", "4242"], None),
    ],
)
def test_the_parts_of_a_number_in_several_turns_are_redacted(said: list[str], saved: list[str] | None) -> None:
    assert say(*said) == (said if saved is None else saved)


def test_of_a_whole_call_the_first_part_is_redacted_too() -> None:
    turns = [turn("1", "call me at 415"), turn("2", "555 0123"), turn("3", "thanks")]
    redacted = [each.user_text for each in Redaction(redact).redact_call(turns)]
    assert redacted == ["call me at [phone number]", "[phone number]", "thanks"]


def test_an_answer_to_a_question_for_a_number_is_redacted() -> None:
    redaction = Redaction(redact)
    talk = [
        ("Hello.", "What's your phone number?", "Hello."),
        ("41234567", "And your date of birth?", "[phone number]"),
        ("12 March 1984", "The security code?", "[date of birth]"),
        ("it's 123", "What is your order number?", "it's [security code]"),
        ("48213377", "Thank you.", "48213377"),
    ]
    for place, (said, answered, saved) in enumerate(talk):
        assert redaction.redact_turn(turn(str(place), said, answered), CALL).user_text == saved


def test_a_turn_that_is_saved_again_is_redacted_as_before() -> None:
    redaction = Redaction(redact)
    first, second = turn("1", "My card is 4242 4242"), turn("2", "4242 4242")
    saved = [redaction.redact_turn(each, CALL) for each in (first, second)]
    assert [redaction.redact_turn(each, CALL) for each in (second, first, second)] == [saved[1], saved[0], saved[1]]


def test_other_calls_and_erased_users_do_not_matter() -> None:
    redaction = Redaction(redact)
    redaction.redact_turn(turn("1", "call me at 415"), CALL)
    assert redaction.redact_turn(turn("2", "555 0123"), ("ada", "call-2")).user_text == "555 0123"
    assert redaction.redact_turn(turn("2", "555 0123"), ("bob", "call-1")).user_text == "555 0123"
    redaction.forget("ada")
    assert redaction.redact_turn(turn("2", "555 0123"), CALL).user_text == "555 0123"
    assert "415" not in repr(redaction)


def test_only_chosen_kinds_are_redacted_over_turns() -> None:
    redaction = Redaction(redactor("card"))
    redaction.redact_turn(turn("1", "call me at 415"), CALL)
    assert redaction.redact_turn(turn("2", "555 0123"), CALL).user_text == "555 0123"


def test_a_hook_that_knows_only_digits_removes_number_words_too() -> None:
    seen: list[str] = []

    def hook(text: str) -> str:
        seen.append(text)
        return re.sub(r"\d{7,}", "<gone>", text)

    def save(text: str) -> str:
        return Redaction(hook).redact_turn(turn("1", text, text), CALL).user_text

    assert save("Call four one five, five five five, oh one two three, thanks.") == "Call <gone>, thanks."
    assert save("null eins sieben eins zwölf vierunddreißig fünf") == "<gone>"
    assert save("It is 41555501234 or four.") == "It is <gone> or four."
    seen.clear()
    assert save("I have two dogs and one cat, three in all.") == "I have two dogs and one cat, three in all."
    assert len(set(seen)) == 1, "nothing is looked at twice without need"


def test_what_the_agent_reads_back_in_two_turns_is_redacted() -> None:
    redaction = Redaction(redact)
    redaction.redact_turn(turn("1", "yes", "So your card is 4242 4242"), CALL)
    assert redaction.redact_turn(turn("2", "yes", "4242 4242."), CALL).assistant_text == "[card number]."
