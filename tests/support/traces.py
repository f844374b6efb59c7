"""Recorded event traces of LiveKit and Pipecat: what the frameworks report in which order, and the turns it makes.

With ``MEMOAIR_RECORD_TRACES=1`` in the environment, the scripted calls of ``tests/integrations`` record their traces
again, into ``tests/fixtures/traces``. Record after an upgrade of a framework, and read the differences.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from memoair_voice.integration import AssembledTurn, TurnWriter

TRACES = Path(__file__).parents[1] / "fixtures" / "traces"
# Read when the tests are collected: they themselves see no variables of ours.
_IS_RECORDING = os.environ.get("MEMOAIR_RECORD_TRACES") == "1"
# The tests whose calls are recorded, and the names of their traces.
_LIVEKIT_CALLS = {
    "test_both_sides_are_kept_without_any_wiring": "normal_turns",
    "test_several_turns_in_a_row_are_all_kept": "interrupted_before_speech",
    "test_an_interrupted_answer_is_kept_as_far_as_it_was_heard": "interrupted_within_speech",
    "test_an_answer_that_was_heard_to_its_end_is_not_interrupted_by_the_next_words": "interrupted_after_speech",
    "test_an_answer_in_parts_around_a_tool_call_is_one_turn": "tool_call",
    "test_who_goes_on_speaking_is_recalled_for_anew": "false_start",
    "test_noise_without_words_is_no_turn": "empty_transcripts",
    "test_who_hangs_up_in_the_middle_of_an_answer_is_kept": "hang_up_within_speech",
    "test_who_hangs_up_before_an_answer_is_kept": "hang_up_before_speech",
    "test_the_last_words_of_who_hangs_up_while_speaking_are_kept": "hang_up_while_speaking",
    "test_typed_input_is_recalled_for_and_kept[by_run]": "text_input",
    "test_what_the_agent_says_by_itself_is_kept": "greeting",
}
_PIPECAT_CALLS = {
    "test_a_caller_is_remembered_in_his_next_call": "normal_turns",
    "test_several_turns_of_the_caller_in_a_row_are_all_kept": "interrupted_before_speech",
    "test_an_interrupted_answer_is_kept_as_far_as_it_was_heard": "interrupted_within_speech",
    "test_an_answer_that_was_heard_to_its_end_is_not_interrupted_by_the_next_words": "interrupted_after_speech",
    "test_an_answer_is_given_with_what_was_recalled_also_after_a_tool": "tool_call",
    "test_a_tool_that_is_called_without_a_word_is_part_of_the_turn": "silent_tool_calls",
    "test_an_answer_that_was_begun_before_the_caller_had_ended_is_kept_with_what_he_said": "false_start",
    "test_noise_without_words_is_no_turn": "empty_transcripts",
    "test_what_is_heard_when_the_caller_hangs_up_is_kept": "hang_up_within_speech",
    "test_a_call_of_one_sentence_that_is_hung_up_at_once_is_kept": "hang_up_before_speech",
    "test_the_last_words_are_kept_however_the_call_ends[hang_up]": "hang_up_while_speaking",
    "test_what_is_typed_is_recalled_for_and_kept_also_while_the_agent_speaks": "text_input",
    "test_the_agents_greeting_is_kept_and_what_it_was_told_to_do_is_not": "greeting",
    "test_what_is_said_to_a_model_that_hears_by_itself_is_kept": "realtime_model",
}


def describe_turn(turn: AssembledTurn) -> dict[str, Any]:
    """Return a turn as the traces list it."""
    return {
        "user": turn.user_text,
        "assistant": turn.assistant_text,
        "interrupted": turn.is_interrupted,
        "tools": [call["name"] for call in turn.tool_calls],
    }


class Recorder:
    """Collects the events of one test's last call, and its turns; ids are numbered in the order of their appearance."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._turns: list[dict[str, Any]] = []
        self._ids: dict[str, str] = {}

    def start_call(self) -> None:
        """Forget the calls before: they only prepare the one that is recorded."""
        self.__init__()  # type: ignore[misc]

    def add_event(self, event: str, **details: Any) -> None:
        self._events.append({"event": event, **details})

    def add_turn(self, turn: AssembledTurn) -> None:
        self._turns.append(describe_turn(turn))

    def number_id(self, item_id: str) -> str:
        return self._ids.setdefault(item_id, f"id_{len(self._ids) + 1}")

    def write(self, framework: str, version: str, name: str) -> None:
        path = TRACES / framework / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        events, turns = (",\n  ".join(map(json.dumps, rows)) for rows in (self._events, self._turns))
        head = json.dumps({"framework": framework, "version": version})[:-1]
        path.write_text(f'{head},\n "events": [\n  {events}\n ],\n "turns": [\n  {turns}\n ]\n}}\n', encoding="utf-8")


def _record_turns(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    add = TurnWriter.add

    def add_and_note(writer: TurnWriter, turn: AssembledTurn) -> None:
        recorder.add_turn(turn)
        add(writer, turn)

    monkeypatch.setattr(TurnWriter, "add", add_and_note)


@contextmanager
def record_livekit(test_name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Record what a LiveKit session reports during a test."""
    name = _LIVEKIT_CALLS.get(test_name)
    if not _IS_RECORDING or name is None:
        yield
        return
    import livekit.agents

    recorder, emit = Recorder(), livekit.agents.AgentSession.emit
    monkeypatch.setattr(livekit.agents.AgentSession, "emit", lambda session, event, arg: _emit(session, event, arg))
    _record_turns(recorder, monkeypatch)

    def _emit(session: Any, event: str, arg: Any) -> None:
        if event == "agent_state_changed":
            if arg.old_state == "initializing":
                recorder.start_call()
            recorder.add_event(event, new_state=arg.new_state)
        elif event == "user_input_transcribed":
            recorder.add_event(event, is_final=arg.is_final, transcript=arg.transcript)
        elif event == "conversation_item_added" and arg.item.type == "message":
            item = arg.item
            text, item_id = item.text_content, recorder.number_id(item.id)
            recorder.add_event(event, id=item_id, role=item.role, text=text, interrupted=item.interrupted)
        elif event == "function_tools_executed":
            recorder.add_event(event, tools=[call.name for call in arg.function_calls])
        elif event == "close":
            recorder.add_event(event)
        emit(session, event, arg)

    yield
    recorder.write("livekit", livekit.agents.__version__, name)


@contextmanager
def record_pipecat(test_name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Record what a Pipecat pipeline reports during a test: frames at the assistant's aggregator, its own events, the
    words of the caller where they appear in the context, interruptions at our processor, and the end.
    """
    name = _PIPECAT_CALLS.get(test_name)
    if not _IS_RECORDING or name is None:
        yield
        return
    from importlib.metadata import version

    from memoair_pipecat import MemoAirMemoryProcessor as Processor
    from memoair_pipecat._context import UserMessageTracker
    from pipecat.frames import frames

    recorder = Recorder()

    def watch(owner: type, method: str, note: Any, *, after: bool = False) -> None:
        original = getattr(owner, method)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not after:
                note(self, *args, **kwargs)
            result = original(self, *args, **kwargs)
            if after:
                note(self, *args, **kwargs)
            return result

        monkeypatch.setattr(owner, method, call)

    def note_frame(_: Any, __: Any, frame: Any) -> None:
        event = type(frame).__name__
        if isinstance(frame, frames.LLMFullResponseStartFrame):
            recorder.add_event(event)
        elif isinstance(frame, frames.FunctionCallsStartedFrame):
            calls = [[recorder.number_id(call.tool_call_id), call.function_name] for call in frame.function_calls]
            recorder.add_event(event, calls=calls)
        elif isinstance(frame, frames.FunctionCallResultFrame | frames.FunctionCallCancelFrame):
            recorder.add_event(event, id=recorder.number_id(frame.tool_call_id))
        elif isinstance(frame, frames.FunctionCallInProgressFrame):
            can_cancel = frame.cancel_on_interruption
            recorder.add_event(event, id=recorder.number_id(frame.tool_call_id), cancel_on_interruption=can_cancel)

    def note_stop(_: Any, __: Any, message: Any) -> None:
        recorder.add_event("on_assistant_turn_stopped", text=message.content, interrupted=bool(message.interrupted))

    def note_processed(_: Any, frame: Any, __: Any) -> None:
        if isinstance(frame, frames.InterruptionFrame | frames.CancelFrame):
            recorder.add_event(type(frame).__name__)

    read = UserMessageTracker.read_new_texts

    def read_and_note(tracker: Any, context: Any) -> list[str]:
        texts = read(tracker, context)
        for text in texts:
            recorder.add_event("user_message", text=text)
        return texts

    async def setup(self: Any, arg: Any) -> None:
        recorder.start_call()
        await original_setup(self, arg)

    original_setup = Processor.setup
    monkeypatch.setattr(Processor, "setup", setup)
    monkeypatch.setattr(UserMessageTracker, "read_new_texts", read_and_note)
    watch(Processor, "_on_aggregator_frame", note_frame)
    watch(Processor, "_on_answer_started", lambda *_: recorder.add_event("on_assistant_turn_started"))
    watch(Processor, "_on_answer_stopped", note_stop, after=True)  # it reads the caller's words first
    watch(Processor, "process_frame", note_processed)
    _record_turns(recorder, monkeypatch)
    yield
    recorder.add_event("cleanup")
    recorder.write("pipecat", version("pipecat-ai"), name)
