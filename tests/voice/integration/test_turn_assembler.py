"""Turns put together of what is heard piece by piece: one machine for all frameworks."""

from typing import Any

from memoair_voice.integration import AssembledTurn, TurnAssembler


def told(turn: AssembledTurn) -> tuple[Any, ...]:
    tools = tuple(call["name"] for call in turn.tool_calls)
    return (turn.user_text, turn.assistant_text, turn.is_interrupted, tools)


class Conversation(TurnAssembler):
    """Returns of each event the turn that it completes."""

    def __init__(self, *, saves_unanswered: bool = False) -> None:
        self.turns: list[AssembledTurn] = []
        super().__init__(self.turns.append, saves_unanswered=saves_unanswered)

    def completed(self) -> list[tuple[Any, ...]]:
        turns = [told(turn) for turn in self.turns]
        self.turns.clear()
        return turns

    def one(self) -> tuple[Any, ...] | None:
        turns = self.completed()
        assert len(turns) <= 1
        return turns[0] if turns else None

    def says(self, text: str) -> tuple[Any, ...] | None:
        self.on_user_text(text)
        return self.one()

    def stops(self, text: str, *, interrupted: bool = False) -> tuple[Any, ...] | None:
        self.on_answer_stopped(text, interrupted=interrupted)
        return self.one()

    def ends(self) -> list[tuple[Any, ...]]:
        self.flush()
        return self.completed()


def answered(conversation: Conversation, text: str, *, interrupted: bool = False) -> tuple[Any, ...] | None:
    conversation.on_answer_started()
    return conversation.stops(text, interrupted=interrupted)


def test_a_question_and_its_answer_are_a_turn() -> None:
    conversation = Conversation()
    assert conversation.says("Boots?") is None
    assert answered(conversation, "Red ones.") == ("Boots?", "Red ones.", False, ())
    assert conversation.ends() == []


def test_what_is_said_while_the_agent_speaks_belongs_to_the_next_turn() -> None:
    conversation = Conversation()
    conversation.on_user_text("Boots?")
    conversation.on_answer_started()
    conversation.on_user_text("In blue?")
    assert conversation.stops("Red ones.") == ("Boots?", "Red ones.", False, ())
    assert answered(conversation, "Also.") == ("In blue?", "Also.", False, ())


def test_words_that_nobody_answered_come_with_the_next_ones() -> None:
    conversation = Conversation()
    conversation.on_user_text("I want")
    assert answered(conversation, "", interrupted=True) is None
    conversation.on_user_text("my boots")
    conversation.on_user_text("back")
    assert answered(conversation, "Sure.") == ("I want my boots back", "Sure.", False, ())


def test_an_interrupted_answer_is_kept_as_far_as_it_was_heard() -> None:
    conversation = Conversation()
    conversation.on_user_text("Boots?")
    assert answered(conversation, "We have", interrupted=True) == ("Boots?", "We have", True, ())


def test_an_answer_that_was_cut_off_is_interrupted_also_if_it_is_closed_as_a_whole() -> None:
    conversation = Conversation()
    conversation.on_answer_interrupted()  # nobody speaks
    assert answered(conversation, "Hello.") == ("", "Hello.", False, ())
    conversation.on_answer_started()
    conversation.on_answer_interrupted()
    assert conversation.stops("We have") == ("", "We have", True, ())
    assert answered(conversation, "Red ones.") == ("", "Red ones.", False, ())


def test_an_answer_around_tool_calls_is_one_turn() -> None:
    conversation = Conversation()
    conversation.on_user_text("Where is it?")
    conversation.on_answer_started()
    conversation.on_tool_called("find", "1")
    conversation.on_tool_called("track", "2")
    assert conversation.stops("Let me look.") is None
    conversation.on_tool_result("1")
    assert answered(conversation, "One moment.") is None  # a filler, while the other tool runs
    conversation.on_tool_result("2")
    assert answered(conversation, "Nearly.") is None  # a filler again: the model has not spoken of the results
    conversation.on_model_started()
    whole = "Let me look. One moment. Nearly. In Leeds."
    assert answered(conversation, "In Leeds.") == ("Where is it?", whole, False, ("find", "track"))


def test_a_tool_that_is_faster_than_the_answer_around_it_keeps_the_turn_open() -> None:
    conversation = Conversation()
    conversation.on_user_text("Where is it?")
    conversation.on_answer_started()
    conversation.on_model_started()
    conversation.on_tool_called("find", "1")
    conversation.on_tool_result("1")
    assert conversation.stops("Let me look.") is None
    conversation.on_model_started()
    assert answered(conversation, "In Leeds.") == ("Where is it?", "Let me look. In Leeds.", False, ("find",))


def test_a_tool_that_nobody_waits_for_holds_nothing_up() -> None:
    conversation = Conversation()
    conversation.on_user_text("Order it.")
    conversation.on_tool_called("order", "1")
    conversation.on_tool_detached("1")
    conversation.on_tool_result("1")
    assert answered(conversation, "I will.") == ("Order it.", "I will.", False, ("order",))


def test_an_answer_that_will_not_go_on_is_kept_when_the_caller_speaks_again() -> None:
    conversation = Conversation()
    conversation.on_user_text("Where is it?")
    conversation.on_tool_called("find", "1")
    assert answered(conversation, "Let me look.") is None
    assert conversation.says("Never mind.") == ("Where is it?", "Let me look.", False, ("find",))
    assert answered(conversation, "Good.") == ("Never mind.", "Good.", False, ())


def test_a_tool_call_without_a_word_leaves_the_question_to_the_next_turn() -> None:
    conversation = Conversation()
    conversation.on_user_text("Where is it?")
    conversation.on_tool_called("find", "1")
    assert answered(conversation, "") is None
    assert conversation.says("Hello?") is None
    assert answered(conversation, "In Leeds.") == ("Where is it? Hello?", "In Leeds.", False, ())


def test_a_greeting_is_a_turn_of_the_agent() -> None:
    conversation = Conversation()
    assert answered(conversation, "Hello, this is Juno.") == ("", "Hello, this is Juno.", False, ())


def test_what_is_left_at_the_end_is_told() -> None:
    conversation = Conversation()
    conversation.on_user_text("Where is it?")
    conversation.on_tool_called("find", "1")
    answered(conversation, "Let me look.")
    conversation.on_answer_started()
    conversation.on_user_text("Goodbye.")
    assert conversation.ends() == [
        ("Where is it?", "Let me look.", False, ("find",)),
        ("Goodbye.", "", False, ()),
    ]
    assert conversation.ends() == []


def test_a_turn_began_when_the_caller_did() -> None:
    conversation = Conversation()
    conversation.on_user_text("Boots?")
    conversation.on_user_text("Red ones?")
    first = conversation._waiting[0].said_at
    conversation.on_answer_started()
    conversation.on_answer_stopped("", interrupted=True)
    conversation.on_user_text("Well?")
    conversation.on_answer_started()
    conversation.on_answer_stopped("Yes.", interrupted=False)
    [turn] = conversation.turns
    assert turn.started_at == first
