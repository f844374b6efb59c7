"""Turns put together of what is heard piece by piece."""

from typing import Any

from memoair_pipecat._turn_assembler import PipecatTurn, PipecatTurnAssembler


def told(turn: PipecatTurn | None) -> tuple[Any, ...] | None:
    return None if turn is None else (turn.user_text, turn.assistant_text, turn.is_interrupted, turn.tool_names)


def answered(conversation: PipecatTurnAssembler, text: str, *, interrupted: bool = False) -> tuple[Any, ...] | None:
    conversation.on_answer_started()
    return told(conversation.on_answer_stopped(text, interrupted=interrupted))


def test_a_question_and_its_answer_are_a_turn() -> None:
    conversation = PipecatTurnAssembler()
    assert conversation.on_user_text("Boots?") is None
    assert answered(conversation, "Red ones.") == ("Boots?", "Red ones.", False, ())
    assert conversation.flush() == []


def test_what_is_said_while_the_agent_speaks_belongs_to_the_next_turn() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Boots?")
    conversation.on_answer_started()
    conversation.on_user_text("In blue?")
    assert told(conversation.on_answer_stopped("Red ones.", interrupted=False)) == ("Boots?", "Red ones.", False, ())
    assert answered(conversation, "Also.") == ("In blue?", "Also.", False, ())


def test_words_that_nobody_answered_come_with_the_next_ones() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("I want")
    assert answered(conversation, "", interrupted=True) is None
    conversation.on_user_text("my boots")
    conversation.on_user_text("back")
    assert answered(conversation, "Sure.") == ("I want my boots back", "Sure.", False, ())


def test_an_interrupted_answer_is_kept_as_far_as_it_was_heard() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Boots?")
    assert answered(conversation, "We have", interrupted=True) == ("Boots?", "We have", True, ())


def test_an_answer_that_was_cut_off_is_interrupted_also_if_it_is_closed_as_a_whole() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_answer_interrupted()  # nobody speaks
    assert answered(conversation, "Hello.") == ("", "Hello.", False, ())
    conversation.on_answer_started()
    conversation.on_answer_interrupted()
    assert told(conversation.on_answer_stopped("We have", interrupted=False)) == ("", "We have", True, ())
    assert answered(conversation, "Red ones.") == ("", "Red ones.", False, ())


def test_an_answer_around_tool_calls_is_one_turn() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Where is it?")
    conversation.on_answer_started()
    conversation.on_tool_called("1", "find")
    conversation.on_tool_called("2", "track")
    assert conversation.on_answer_stopped("Let me look.", interrupted=False) is None
    conversation.on_tool_result("1")
    assert answered(conversation, "One moment.") is None  # a filler, while the other tool runs
    conversation.on_tool_result("2")
    assert answered(conversation, "Nearly.") is None  # a filler again: the model has not spoken of the results
    conversation.on_model_started()
    whole = "Let me look. One moment. Nearly. In Leeds."
    assert answered(conversation, "In Leeds.") == ("Where is it?", whole, False, ("find", "track"))


def test_a_tool_that_is_faster_than_the_answer_around_it_keeps_the_turn_open() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Where is it?")
    conversation.on_answer_started()
    conversation.on_model_started()
    conversation.on_tool_called("1", "find")
    conversation.on_tool_result("1")
    assert conversation.on_answer_stopped("Let me look.", interrupted=False) is None
    conversation.on_model_started()
    assert answered(conversation, "In Leeds.") == ("Where is it?", "Let me look. In Leeds.", False, ("find",))


def test_a_tool_that_nobody_waits_for_holds_nothing_up() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Order it.")
    conversation.on_tool_called("1", "order")
    conversation.on_tool_detached("1")
    conversation.on_tool_result("1")
    assert answered(conversation, "I will.") == ("Order it.", "I will.", False, ("order",))


def test_an_answer_that_will_not_go_on_is_kept_when_the_caller_speaks_again() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Where is it?")
    conversation.on_tool_called("1", "find")
    assert answered(conversation, "Let me look.") is None
    assert told(conversation.on_user_text("Never mind.")) == ("Where is it?", "Let me look.", False, ("find",))
    assert answered(conversation, "Good.") == ("Never mind.", "Good.", False, ())


def test_a_tool_call_without_a_word_leaves_the_question_to_the_next_turn() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Where is it?")
    conversation.on_tool_called("1", "find")
    assert answered(conversation, "") is None
    assert conversation.on_user_text("Hello?") is None
    assert answered(conversation, "In Leeds.") == ("Where is it? Hello?", "In Leeds.", False, ())


def test_a_greeting_is_a_turn_of_the_agent() -> None:
    conversation = PipecatTurnAssembler()
    assert answered(conversation, "Hello, this is Juno.") == ("", "Hello, this is Juno.", False, ())


def test_what_is_left_at_the_end_is_told() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Where is it?")
    conversation.on_tool_called("1", "find")
    answered(conversation, "Let me look.")
    conversation.on_answer_started()
    conversation.on_user_text("Goodbye.")
    assert [told(turn) for turn in conversation.flush()] == [
        ("Where is it?", "Let me look.", False, ("find",)),
        ("Goodbye.", "", False, ()),
    ]
    assert conversation.flush() == []


def test_a_turn_began_when_the_caller_did() -> None:
    conversation = PipecatTurnAssembler()
    conversation.on_user_text("Boots?")
    conversation.on_user_text("Red ones?")
    first = conversation._unanswered_since
    conversation.on_answer_started()
    conversation.on_answer_stopped("", interrupted=True)
    conversation.on_user_text("Well?")
    turn = conversation.on_answer_started() or conversation.on_answer_stopped("Yes.", interrupted=False)
    assert turn is not None
    assert turn.started_at == first
