"""Calls: each pipeline is one, with the platform's id if there is one, and ends with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from memoair_pipecat._call_id import find_call_id
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.serializers.telnyx import TelnyxFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.base_transport import TransportParams
from support.clients import client_arguments, logged
from support.pipecat_calls import PipecatCall
from support.scripted_cloud import KEY, ScriptedCloud
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient
from memoair_voice.integration import is_fenced

pytestmark = pytest.mark.anyio

ENDED_CALL = ["session_start", "turn", "session_end"]


class Telephone(IdentityFilter):
    """Stands for the input of a telephone transport, which holds its serializer in its parameters."""

    def __init__(self, serializer: Any) -> None:
        super().__init__()
        self._params = TransportParams()
        object.__setattr__(self._params, "__dict__", {**self._params.__dict__, "serializer": serializer})


def calls_of(storage_root: Path) -> dict[str, list[str]]:
    """Return the types of the events of each call, by its id."""
    calls: dict[str, list[str]] = {}
    for event in logged(storage_root, "ada"):
        calls.setdefault(event["sessionId"], []).append(event["type"])
    return calls


@pytest.mark.parametrize("ending", ["end", "hang_up", "cancel_with_frame"])
async def test_a_call_ends_with_its_pipeline(client: MemoAirVoiceClient, storage_root: Path, ending: str) -> None:
    for session_id in ("CA1", None, None):  # the caller rings back: another call
        memory = MemoAirMemoryProcessor(client=client, user_id="ada", session_id=session_id)
        async with PipecatCall(memory) as call:
            await call.say_and_wait("My boots are red.")
            await getattr(call, ending)()
    calls = calls_of(storage_root)
    assert calls.pop("CA1") == ENDED_CALL
    assert list(calls.values()) == [ENDED_CALL, ENDED_CALL]


async def test_a_call_that_has_ended_leaves_its_place(storage_root: Path, nothing_left_behind: None) -> None:
    async with MemoAirVoiceClient(**client_arguments(storage_root, max_concurrent_users=1)) as client:
        for user_id in ("ada", "eve"):
            memory = MemoAirMemoryProcessor(client=client, user_id=user_id)
            async with PipecatCall(memory) as call:
                await call.say_and_wait("Hello.")
        await client.load_index(user_id="bob")
    assert list(calls_of(storage_root).values()) == [ENDED_CALL]


async def test_what_was_said_in_the_call_before_is_not_said_in_this_one(client: MemoAirVoiceClient) -> None:
    for text in ("My boots are red.", "Which colour are my boots?"):
        memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
        async with PipecatCall(memory) as call:
            await call.say_and_wait(text)
    [recall] = [message["content"] for message in call.llm.requests[0] if is_fenced(message.get("content"))]
    assert "## working" not in recall
    assert "My boots are red." in recall.partition("## permanent")[2]


@pytest.mark.parametrize(
    "make_serializer",
    [
        lambda: TwilioFrameSerializer(
            "MZ1", call_sid="CA1", params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
        ),
        lambda: TelnyxFrameSerializer(
            "s1", "PCMU", "PCMU", call_control_id="CA1", params=TelnyxFrameSerializer.InputParams(auto_hang_up=False)
        ),
        lambda: PlivoFrameSerializer("s1", call_id="CA1", params=PlivoFrameSerializer.InputParams(auto_hang_up=False)),
        lambda: ExotelFrameSerializer("s1", call_sid="CA1"),
    ],
    ids=["twilio", "telnyx", "plivo", "exotel"],
)
async def test_a_call_has_the_id_of_the_telephone_platform(
    client: MemoAirVoiceClient, storage_root: Path, make_serializer: Callable[[], Any]
) -> None:
    telephone = Telephone(make_serializer())
    memory = MemoAirMemoryProcessor(client=client, user_id="ada")
    async with PipecatCall(memory, after_llm=[telephone]) as call:
        await call.say_and_wait("Hello.")
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", session_id="my-id")
    async with PipecatCall(memory, after_llm=[telephone]) as call:
        await call.say_and_wait("Hello.")
    assert calls_of(storage_root) == {"CA1": ENDED_CALL, "my-id": ENDED_CALL}


def test_a_websocket_transport_has_its_serializer_where_it_is_looked_for() -> None:
    from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport

    class Socket:
        client_state = None

    params = FastAPIWebsocketParams(serializer=ExotelFrameSerializer("s1", call_sid="CA1"))
    transport = FastAPIWebsocketTransport(Socket(), params)  # type: ignore[arg-type]
    assert find_call_id([IdentityFilter(), transport.input()]) == "CA1"
    assert find_call_id([IdentityFilter()]) is None


async def test_the_end_of_a_call_reaches_the_cloud(storage_root: Path, nothing_left_behind: None) -> None:
    with ScriptedCloud() as cloud:
        arguments = {**client_arguments(storage_root), "cloud_base_url": cloud.url, "api_key": KEY}
        async with MemoAirVoiceClient(**arguments) as client:
            memory = MemoAirMemoryProcessor(client=client, user_id="ada", session_id="CA1")
            async with PipecatCall(memory) as call:
                await call.say_and_wait("My boots are red.")
            # At once, and not when the client is closed.
            await wait_until(lambda: [event["type"] for event in cloud.accepted_events("ada")] == ENDED_CALL)
