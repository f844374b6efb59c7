"""Turns that the model judges unfinished, turns without words, and backchannels."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.turns.user_start import ExternalUserTurnStartStrategy
from pipecat.turns.user_stop import ExternalUserTurnStopStrategy
from pipecat.turns.user_turn_completion_mixin import (
    USER_TURN_COMPLETE_MARKER,
    USER_TURN_INCOMPLETE_LONG_MARKER,
    USER_TURN_INCOMPLETE_SHORT_MARKER,
    UserTurnCompletionConfig,
)
from pipecat.turns.user_turn_strategies import FilterIncompleteUserTurnStrategies
from support.pipecat_calls import TIMEOUT_S, Pause, PipecatCall
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient
from memoair_voice.integration import is_fenced

ReadTurns = Callable[..., list[tuple[str, str]]]

pytestmark = pytest.mark.anyio


def strategies(**markers: Any) -> FilterIncompleteUserTurnStrategies:
    """Return turn strategies with which the model decides whether the caller has finished."""
    return FilterIncompleteUserTurnStrategies(
        start=[ExternalUserTurnStartStrategy()],
        stop=[ExternalUserTurnStopStrategy(timeout=0.01)],
        config=UserTurnCompletionConfig(**markers) if markers else None,
    )


def has_recall(request: list[Any]) -> bool:
    return any(is_fenced(message.get("content")) for message in request)


@pytest.mark.parametrize(
    ("markers", "custom"),
    [
        ((USER_TURN_INCOMPLETE_SHORT_MARKER, USER_TURN_COMPLETE_MARKER), {}),
        ((USER_TURN_INCOMPLETE_LONG_MARKER, USER_TURN_COMPLETE_MARKER), {}),
        (("WAIT", "DONE"), {"incomplete_short_marker": "WAIT", "complete_marker": "DONE"}),
    ],
    ids=["short", "long", "custom"],
)
async def test_both_halves_of_a_sentence_are_searched_and_saved(
    client: MemoAirVoiceClient,
    queries: list[str],
    saved_turns: ReadTurns,
    markers: tuple[str, str],
    custom: dict[str, str],
) -> None:
    incomplete, complete = markers
    await client.save_response(user_text="My boots are red.", assistant_text="Noted.", user_id="ada")
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
    async with PipecatCall(
        memory, [incomplete], [f"{complete} Red."], [f"{complete} Bye."], turn_strategies=strategies(**custom)
    ) as call:
        await call.say("Which colour are")
        await wait_until(lambda: any(message.get("content") == incomplete for message in call.context.messages))
        await call.say("my boots?")
        await wait_until(lambda: "Red." in call.heard_texts)
        await call.say("Goodbye.")
        await wait_until(lambda: "Bye." in call.heard_texts)
    assert queries == ["Which colour are", "Which colour are my boots?", "Goodbye."]
    assert has_recall(call.llm.requests[1])
    assert saved_turns()[1:] == [("Which colour are my boots?", "Red."), ("Goodbye.", "Bye.")]


async def test_a_sentence_goes_on_after_the_agent_has_encouraged_the_caller(
    client: MemoAirVoiceClient, queries: list[str], saved_turns: ReadTurns
) -> None:
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
    done = USER_TURN_COMPLETE_MARKER
    answers = [USER_TURN_INCOMPLETE_SHORT_MARKER], [f"{done} Go ahead."], [f"{done} Sure."], [f"{done} Yes."]
    async with PipecatCall(memory, *answers, turn_strategies=strategies(incomplete_short_timeout=0.01)) as call:
        await call.say("I want to return")
        await wait_until(lambda: "Go ahead." in call.heard_texts)
        await call.say("the blue boots.")
        await wait_until(lambda: "Sure." in call.heard_texts)
        await call.say("Can I?")
        await wait_until(lambda: "Yes." in call.heard_texts)
    assert queries == ["I want to return", "I want to return the blue boots.", "Can I?"]
    assert saved_turns() == [
        ("I want to return", "Go ahead."),
        ("the blue boots.", "Sure."),
        ("Can I?", "Yes."),
    ]


async def test_a_turn_without_words_repeats_no_search_and_keeps_the_recall(
    client: MemoAirVoiceClient, queries: list[str], saved_turns: ReadTurns
) -> None:
    from pipecat.frames.frames import ProposedUserStartedSpeakingFrame, ProposedUserStoppedSpeakingFrame  # since 1.9

    await client.save_response(user_text="My boots are red.", assistant_text="Noted.", user_id="ada")
    pause = Pause()
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
    answers = ["They are", pause], ["What did you say?"]
    async with PipecatCall(memory, *answers, user_turn_stop_timeout=0.05) as call:
        await call.say("Which colour are my boots?")
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await wait_until(lambda: call.pair.assistant().aggregation_string())
        # A cough: a turn starts, interrupts the agent, and ends without a transcript.
        await call.queue_frames(ProposedUserStartedSpeakingFrame(), ProposedUserStoppedSpeakingFrame())
        await wait_until(lambda: "What did you say?" in call.heard_texts)
    assert queries == ["Which colour are my boots?"]
    assert [has_recall(request) for request in call.llm.requests] == [True, True]
    assert saved_turns()[1:] == [("Which colour are my boots?", "They are"), ("", "What did you say?")]


async def test_a_backchannel_is_neither_searched_nor_saved(
    client: MemoAirVoiceClient, queries: list[str], saved_turns: ReadTurns
) -> None:
    from pipecat.frames.frames import UserBackchannelFrame

    pause = Pause()
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
    async with PipecatCall(memory, ["It takes", pause, " thirty days."]) as call:
        await call.say("How long?")
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await call.queue_frames(UserBackchannelFrame("mhm", "caller", "now"))
        pause.resume.set()
        await wait_until(lambda: call.heard_texts)
    assert queries == ["How long?"]
    assert saved_turns() == [("How long?", "It takes thirty days.")]
