"""Turns assembled from the pieces of a conversation."""

from typing import Any

from memoair_voice.integration import AssembledTurn, TurnAssembler


def turn_fields(turn: AssembledTurn) -> tuple[Any, ...]:
    tools = tuple(call["name"] for call in turn.tool_calls)
    return (turn.user_text, turn.assistant_text, turn.is_interrupted, tools)


class RecordingAssembler(TurnAssembler):
    """An assembler whose methods return the turns that they complete."""

    def __init__(self, *, saves_unanswered: bool = False) -> None:
        self.turns: list[AssembledTurn] = []
        super().__init__(self.turns.append, saves_unanswered=saves_unanswered)

    def take_turns(self) -> list[tuple[Any, ...]]:
        turns = [turn_fields(turn) for turn in self.turns]
        self.turns.clear()
        return turns

    def take_turn(self) -> tuple[Any, ...] | None:
        turns = self.take_turns()
        assert len(turns) <= 1
        return turns[0] if turns else None

    def say(self, text: str) -> tuple[Any, ...] | None:
        self.on_user_text(text)
        return self.take_turn()

    def stop_answer(self, text: str, *, interrupted: bool = False) -> tuple[Any, ...] | None:
        self.on_answer_stopped(text, interrupted=interrupted)
        return self.take_turn()

    def finish(self) -> list[tuple[Any, ...]]:
        self.flush()
        return self.take_turns()


def answer_turn(assembler: RecordingAssembler, text: str, *, interrupted: bool = False) -> tuple[Any, ...] | None:
    assembler.on_answer_started()
    return assembler.stop_answer(text, interrupted=interrupted)


def test_a_question_and_its_answer_are_a_turn() -> None:
    assembler = RecordingAssembler()
    assert assembler.say("Boots?") is None
    assert answer_turn(assembler, "Red ones.") == ("Boots?", "Red ones.", False, ())
    assert assembler.finish() == []


def test_words_during_an_answer_belong_to_the_next_turn() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Boots?")
    assembler.on_answer_started()
    assembler.on_user_text("In blue?")
    assert assembler.stop_answer("Red ones.") == ("Boots?", "Red ones.", False, ())
    assert answer_turn(assembler, "Also.") == ("In blue?", "Also.", False, ())


def test_unanswered_words_are_joined_with_the_next_ones() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("I want")
    assert answer_turn(assembler, "", interrupted=True) is None
    assembler.on_user_text("my boots")
    assembler.on_user_text("back")
    assert answer_turn(assembler, "Sure.") == ("I want my boots back", "Sure.", False, ())


def test_an_interrupted_answer_ends_the_turn_with_the_heard_text() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Boots?")
    assert answer_turn(assembler, "We have", interrupted=True) == ("Boots?", "We have", True, ())


def test_a_cut_off_answer_is_interrupted_even_if_it_stops_normally() -> None:
    assembler = RecordingAssembler()
    assembler.on_answer_interrupted()  # no answer is in progress
    assert answer_turn(assembler, "Hello.") == ("", "Hello.", False, ())
    assembler.on_answer_started()
    assembler.on_answer_interrupted()
    assert assembler.stop_answer("We have") == ("", "We have", True, ())
    assert answer_turn(assembler, "Red ones.") == ("", "Red ones.", False, ())


def test_an_answer_around_tool_calls_is_one_turn() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Where is it?")
    assembler.on_answer_started()
    assembler.on_tool_called("find", "1")
    assembler.on_tool_called("track", "2")
    assert assembler.stop_answer("Let me look.") is None
    assembler.on_tool_result("1")
    assert answer_turn(assembler, "One moment.") is None  # a filler while the other tool runs
    assembler.on_tool_result("2")
    assert answer_turn(assembler, "Nearly.") is None  # another filler: the model has not answered with the results yet
    assembler.on_model_started()
    answer = "Let me look. One moment. Nearly. In Leeds."
    assert answer_turn(assembler, "In Leeds.") == ("Where is it?", answer, False, ("find", "track"))


def test_a_tool_that_finishes_before_the_answer_keeps_the_turn_open() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Where is it?")
    assembler.on_answer_started()
    assembler.on_model_started()
    assembler.on_tool_called("find", "1")
    assembler.on_tool_result("1")
    assert assembler.stop_answer("Let me look.") is None
    assembler.on_model_started()
    assert answer_turn(assembler, "In Leeds.") == ("Where is it?", "Let me look. In Leeds.", False, ("find",))


def test_a_detached_tool_does_not_delay_the_turn() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Order it.")
    assembler.on_tool_called("order", "1")
    assembler.on_tool_detached("1")
    assembler.on_tool_result("1")
    assert answer_turn(assembler, "I will.") == ("Order it.", "I will.", False, ("order",))


def test_an_answer_that_does_not_continue_ends_when_the_caller_speaks_again() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Where is it?")
    assembler.on_tool_called("find", "1")
    assert answer_turn(assembler, "Let me look.") is None
    assert assembler.say("Never mind.") == ("Where is it?", "Let me look.", False, ("find",))
    assert answer_turn(assembler, "Good.") == ("Never mind.", "Good.", False, ())


def test_a_tool_call_without_text_leaves_the_question_to_the_next_turn() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Where is it?")
    assembler.on_tool_called("find", "1")
    assert answer_turn(assembler, "") is None
    assert assembler.say("Hello?") is None
    assert answer_turn(assembler, "In Leeds.") == ("Where is it? Hello?", "In Leeds.", False, ())


def test_a_greeting_is_a_turn_of_the_agent() -> None:
    assembler = RecordingAssembler()
    assert answer_turn(assembler, "Hello, this is Juno.") == ("", "Hello, this is Juno.", False, ())


def test_flush_completes_the_unfinished_turns() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Where is it?")
    assembler.on_tool_called("find", "1")
    answer_turn(assembler, "Let me look.")
    assembler.on_answer_started()
    assembler.on_user_text("Goodbye.")
    assert assembler.finish() == [
        ("Where is it?", "Let me look.", False, ("find",)),
        ("Goodbye.", "", False, ()),
    ]
    assert assembler.finish() == []


def test_a_turn_starts_with_the_callers_first_words() -> None:
    assembler = RecordingAssembler()
    assembler.on_user_text("Boots?")
    assembler.on_user_text("Red ones?")
    first = assembler._waiting[0].said_at
    assembler.on_answer_started()
    assembler.on_answer_stopped("", interrupted=True)
    assembler.on_user_text("Well?")
    assembler.on_answer_started()
    assembler.on_answer_stopped("Yes.", interrupted=False)
    [turn] = assembler.turns
    assert turn.started_at == first
