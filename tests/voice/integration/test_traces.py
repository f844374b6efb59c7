"""The recorded event traces of LiveKit and Pipecat, replayed without either: the same turns come of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.traces import TRACES, describe_turn

from memoair_voice.integration import AssembledTurn, TurnAssembler

Event = dict[str, Any]
PATHS = sorted(TRACES.glob("*/*.json"))


def replay_livekit(assembler: TurnAssembler, event: Event) -> None:
    match event["event"]:
        case "conversation_item_added" if event["role"] == "user":
            assembler.on_user_text(event["text"].strip(), item_id=event["id"])
        case "conversation_item_added":
            assembler.on_answer_stopped(
                event["text"].strip(), interrupted=event["interrupted"], may_continue=True, item_id=event["id"]
            )
        case "function_tools_executed":
            for name in event["tools"]:
                assembler.on_tool_called(name)
        case "agent_state_changed" if event["new_state"] not in ("thinking", "speaking"):
            assembler.on_agent_idle()
        case "close":
            assembler.flush()


def replay_pipecat(assembler: TurnAssembler, event: Event) -> None:
    match event["event"]:
        case "user_message":
            heard_late = assembler.is_agent_initiated  # by a realtime model, which reports it with its answer
            assembler.on_user_text(event["text"])
            if heard_late:
                assembler.on_answer_started()
        case "LLMFullResponseStartFrame":
            assembler.on_model_started()
        case "on_assistant_turn_started":
            assembler.on_answer_started()
        case "on_assistant_turn_stopped":
            assembler.on_answer_stopped(event["text"].strip(), interrupted=event["interrupted"])
        case "InterruptionFrame" | "CancelFrame":
            assembler.on_answer_interrupted()
        case "FunctionCallsStartedFrame":
            for call_id, name in event["calls"]:
                assembler.on_tool_called(name, call_id)
        case "FunctionCallResultFrame":
            assembler.on_tool_result(event["id"])
        case "FunctionCallCancelFrame":
            assembler.on_tool_detached(event["id"])
        case "FunctionCallInProgressFrame":
            if not event["cancel_on_interruption"]:
                assembler.on_tool_detached(event["id"])
        case "cleanup":
            assembler.flush()


REPLAYS: dict[str, Callable[[TurnAssembler, Event], None]] = {"livekit": replay_livekit, "pipecat": replay_pipecat}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_call_is_assembled_into_the_turns_that_were_saved(path: Path) -> None:
    trace, turns = json.loads(path.read_text(encoding="utf-8")), list[AssembledTurn]()
    assembler = TurnAssembler(turns.append, saves_unanswered=trace["framework"] == "livekit")
    for event in trace["events"]:
        REPLAYS[trace["framework"]](assembler, event)

    assert [describe_turn(turn) for turn in turns] == trace["turns"]
    assert not assembler.is_open


def test_each_framework_has_a_trace_of_each_course_of_a_call() -> None:
    names = {framework: {path.stem for path in PATHS if path.parent.name == framework} for framework in REPLAYS}
    courses = {
        "normal_turns",
        *("interrupted_before_speech", "interrupted_within_speech", "interrupted_after_speech"),
        *("tool_call", "false_start", "empty_transcripts", "text_input", "greeting"),
        *("hang_up_before_speech", "hang_up_within_speech", "hang_up_while_speaking"),
    }
    assert all(found >= courses for found in names.values())
