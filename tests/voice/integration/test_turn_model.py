"""The turn assembler against any order of events: no word is lost, saved twice or mixed into another turn."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_voice.integration import AssembledTurn, TurnAssembler, TurnEvent, TurnState

CALL_IDS = st.sampled_from(["a", "b"])
STEPS = st.one_of(
    st.tuples(st.just("user")),
    st.tuples(st.just("start")),
    st.tuples(st.just("cut")),
    st.tuples(st.just("stop"), st.booleans(), st.booleans(), st.booleans()),
    st.tuples(st.just("idle")),
    st.tuples(st.just("tool"), st.none() | CALL_IDS),
    st.tuples(st.just("result"), CALL_IDS),
    st.tuples(st.just("detach"), CALL_IDS),
    st.tuples(st.just("model")),
    st.tuples(st.just("flush")),
)


class Model:
    """Plays steps and remembers when each word was said or heard."""

    def __init__(self, *, saves_unanswered: bool) -> None:
        self.turns: list[AssembledTurn] = []
        self.assembler = TurnAssembler(self.turns.append, saves_unanswered=saves_unanswered)
        self.now = 0
        self.said: dict[str, int] = {}  # the caller's words, and when
        self.said_during_answer: set[str] = set()
        self.heard: dict[str, tuple[int, int, bool]] = {}  # parts of answers: their start, their end, whether cut off
        self.tools: list[str] = []
        self.began_at: int | None = None
        self.is_cut = False

    def play(self, name: str, *details: Any) -> None:
        self.now += 1
        getattr(self, f"_{name}")(*details)

    def _user(self) -> None:
        text = f"said{self.now}"
        self.said[text] = self.now
        if self.began_at is not None:
            self.said_during_answer.add(text)
        self.assembler.on_user_text(text, item_id=text)
        self.assembler.on_user_text(text, item_id=text)  # a framework may report an item twice

    def _start(self) -> None:
        self.began_at, self.is_cut = self.now, False
        self.assembler.on_answer_started()

    def _cut(self) -> None:
        self.is_cut = self.began_at is not None
        self.assembler.on_answer_interrupted()

    def _stop(self, is_heard: bool, interrupted: bool, may_continue: bool) -> None:
        text = f"heard{self.now}" if is_heard else ""
        if is_heard:
            began_at = self.now if self.began_at is None else self.began_at
            self.heard[text] = (began_at, self.now, interrupted or self.is_cut)
        self.began_at, self.is_cut = None, False
        self.assembler.on_answer_stopped(text, interrupted=interrupted, may_continue=may_continue)

    def _idle(self) -> None:
        self.assembler.on_agent_idle()

    def _tool(self, call_id: str | None) -> None:
        self.tools.append(f"tool{self.now}")
        self.assembler.on_tool_called(self.tools[-1], call_id)

    def _result(self, call_id: str) -> None:
        self.assembler.on_tool_result(call_id)

    def _detach(self, call_id: str) -> None:
        self.assembler.on_tool_detached(call_id)

    def _model(self) -> None:
        self.assembler.on_model_started()

    def _flush(self) -> None:
        self.began_at, self.is_cut = None, False
        self.assembler.flush()


@given(steps=st.lists(STEPS, max_size=40), saves_unanswered=st.booleans())
def test_no_word_is_lost_saved_twice_or_mixed_into_another_turn(
    steps: list[tuple[Any, ...]], saves_unanswered: bool
) -> None:
    model = Model(saves_unanswered=saves_unanswered)
    for step in steps:
        model.play(*step)
    model.play("flush")

    turns = [(turn.user_text.split(), turn.assistant_text.split(), turn) for turn in model.turns]
    assert [word for said, _, _ in turns for word in said] == list(model.said), "each once, in the order of the call"
    assert [part for _, heard, _ in turns for part in heard] == list(model.heard)
    tools = [call["name"] for _, _, turn in turns for call in turn.tool_calls]
    assert tools == sorted(set(tools), key=model.tools.index)
    for said, heard, turn in turns:
        assert said or heard
        parts = [model.heard[part] for part in heard]
        for word in said:
            if not heard:
                continue
            assert model.said[word] < parts[-1][1], "an answer is to what was said before its end"
            if word not in model.said_during_answer:
                assert model.said[word] < parts[0][1], "who speaks between answers begins a turn"
            assert model.said[word] <= max(began_at for began_at, _, _ in parts), "or during it, to the next part"
        assert not any(is_cut for _, _, is_cut in parts[:-1]), "nothing follows what was cut off"
        if heard and parts[-1][2]:
            assert turn.is_interrupted
        if saves_unanswered and not model.said_during_answer:
            assert len(said) <= 1
    assert model.assembler.is_open is False


@given(steps=st.lists(STEPS, max_size=40), saves_unanswered=st.booleans())
def test_only_an_idle_assembler_holds_nothing(steps: list[tuple[Any, ...]], saves_unanswered: bool) -> None:
    model = Model(saves_unanswered=saves_unanswered)
    for step in steps:
        model.play(*step)
        saved = " ".join(f"{turn.user_text} {turn.assistant_text}" for turn in model.turns).split()
        held = [text for text in (*model.said, *model.heard) if text not in saved]
        assert not held or model.assembler.is_open


@pytest.mark.parametrize("state", TurnState)
def test_words_that_are_said_in_any_state_are_kept(state: TurnState) -> None:
    turns: list[AssembledTurn] = []
    assembler = TurnAssembler(turns.append)
    prepare = {
        TurnState.IDLE: lambda: None,
        TurnState.USER_SPEAKING: lambda: assembler.on_user_text("Well."),
        TurnState.ASSISTANT_SPEAKING: assembler.on_answer_started,
        TurnState.INTERRUPTED: lambda: (assembler.on_answer_started(), assembler.on_answer_interrupted()),
        TurnState.TOOL_PENDING: lambda: assembler.on_answer_stopped(
            "Let me look.", interrupted=False, may_continue=True
        ),
    }
    prepare[state]()
    assert assembler._state is state
    assembler.on_user_text("Boots?")
    assembler.flush()
    assert "Boots?" in turns[-1].user_text
    assert state in TurnAssembler.TRANSITIONS[TurnEvent.USER_SPOKE]
