"""Calls: each has an id of its own and ends with its session; who calls; the client; and what is wrong with them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import JobContext, JobExecutorType, JobProcess
from livekit.agents.job import JobAcceptArguments, RunningJobInfo, _JobContextVar
from livekit.protocol import agent as agent_proto
from livekit.protocol import models
from support.clients import client_arguments, logged
from support.livekit_calls import ScriptedSTT, open_call, supported_options
from support.scripted_cloud import KEY, ScriptedCloud
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def job(job_id: str, room: str = "call-ada") -> AsyncIterator[JobContext]:
    """Run a job as a worker makes it, with a room that is never connected."""
    info = RunningJobInfo(
        accept_arguments=JobAcceptArguments(name="", identity="", metadata=""),
        job=agent_proto.Job(id=job_id, room=models.Room(name=room)),
        url="ws://127.0.0.1:1",
        token="",
        worker_id="AW_test",
        **supported_options(RunningJobInfo, fake_job=True),
    )
    context = JobContext(
        proc=JobProcess(
            **supported_options(JobProcess, executor_type=JobExecutorType.THREAD, user_arguments=None, http_proxy=None)
        ),
        info=info,
        room=rtc.Room(),
        on_connect=lambda: None,
        on_shutdown=lambda _: None,
        inference_executor=None,  # type: ignore[arg-type]
    )
    token = _JobContextVar.set(context)
    try:
        yield context
        reason = [""] if hasattr(context, "_on_cleanup") else []  # 1.0 passes none
        await asyncio.gather(*(callback(*reason) for callback in context._shutdown_callbacks))
    finally:
        _JobContextVar.reset(token)
        if hasattr(context, "_on_cleanup"):  # not in 1.0
            await context._on_cleanup()


def calls_of(storage_root: Path, user_id: str = "ada") -> dict[str, list[str]]:
    """Return the types of the events of each call, by its id."""
    calls: dict[str, list[str]] = {}
    for event in logged(storage_root, user_id):
        calls.setdefault(event["sessionId"], []).append(event["type"])
    return calls


async def test_a_call_is_named_by_room_and_job_and_ends_with_the_session(new_agent: Any, storage_root: Path) -> None:
    for job_id, text in (("AJ_1", "My boots are red."), ("AJ_2", "What colour are my boots?")):
        async with job(job_id):  # the caller rings back in the same room: another call
            agent = new_agent()
            async with open_call(agent) as call:
                request = await call.say(text)
    ended = ["session_start", "turn", "session_end"]
    assert calls_of(storage_root) == {"livekit:call-ada:AJ_1": ended, "livekit:call-ada:AJ_2": ended}
    assert "## working" not in request[-2][1]
    assert "My boots are red." in request[-2][1].partition("## permanent")[2]


async def test_sessions_without_a_job_are_calls_of_their_own(new_agent: Any, storage_root: Path) -> None:
    for _ in range(2):
        agent = new_agent()
        async with open_call(agent) as call:
            await call.say("Hello.")
        await agent.on_exit()
    assert list(calls_of(storage_root).values()) == [["session_start", "turn", "session_end"]] * 2


async def test_name_and_metadata_of_the_caller_are_kept(new_agent: Any, storage_root: Path) -> None:
    agent = new_agent(name="Ada Lovelace", metadata={"plan": "premium"})
    async with open_call(agent) as call:
        request = await call.say("Who am I?")
    await agent.on_exit()
    assert "Ada Lovelace" in request[-2][1]
    [start] = logged(storage_root, "ada", "session_start")
    user = start["payload"]["user"]
    assert (user["id"], user["name"], user["metadata"]) == ("ada", "Ada Lovelace", {"plan": "premium"})


async def test_agents_share_the_client_of_the_application(
    new_agent: Any, storage_root: Path, anyio_backend: str, nothing_left_behind: None
) -> None:
    own = dict.fromkeys(("api_key", "project_id", "agent_id", "storage_root"))
    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        agents = [new_agent(client=client, user_id=user_id, **own) for user_id in ("ada", "bob")]
        for agent in agents:
            async with open_call(agent) as call:
                await call.say("Hello.")
            await agent.on_exit()
        assert agents[0]._memoair_closing_memory._reference.client is client
        assert "Hello" in (await client.search_memory("Hello", user_id="ada")).contextText  # it is still open
    for user_id in ("ada", "bob"):  # whether the search left a call of its own depends on its time
        [events] = [events for events in calls_of(storage_root, user_id).values() if "turn" in events]
        assert events[-1] == "session_end"


def test_a_client_contradicts_arguments_that_it_has(storage_root: Path, agent_arguments: dict[str, Any]) -> None:
    from memoair_livekit import MemoAirLiveKitAgent

    client = MemoAirVoiceClient(**client_arguments(storage_root))
    with pytest.raises(ValueError, match="api_key, project_id, agent_id, storage_root cannot be combined with client="):
        MemoAirLiveKitAgent(**agent_arguments, client=client)
    with pytest.raises(TypeError, match="client must be"):
        MemoAirLiveKitAgent(client="client", user_id="ada")  # type: ignore[arg-type]


async def test_an_agent_for_documents_needs_no_user(new_agent: Any, tmp_path: Path) -> None:
    documents = tmp_path / "org.jsonl"
    documents.write_text('{"id": "returns", "text": "Boots can be returned within thirty days."}\n', encoding="utf-8")
    agent = new_agent(user_id=None, org_only=True, org_file=str(documents))
    async with open_call(agent) as call:
        request = await call.say("How long can I return my boots?")
    await agent.on_exit()
    assert "thirty days" in request[-2][1]


# The first turn


async def test_the_first_turn_waits_for_the_memory(new_agent: Any, gated_runtime: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("My boots are red.")
    await agent.on_exit()

    agent = new_agent(search_timeout_ms=500, start_timeout_ms=60_000, runtime_binary=gated_runtime.program)
    async with open_call(agent) as call:
        call.stt.emit_turn("What colour are my boots?")
        await asyncio.sleep(0.7)  # longer than a search
        assert not call.llm.requests
        gated_runtime.switch.touch()
        await wait_until(lambda: call.llm.requests)
        [request] = call.llm.requests
    await agent.on_exit()
    assert "My boots are red." in request[-2][1]


async def test_the_first_turn_does_not_wait_longer_than_its_time(new_agent: Any, gated_runtime: Any) -> None:
    agent = new_agent(search_timeout_ms=100, start_timeout_ms=200, runtime_binary=gated_runtime.program)
    async with open_call(agent) as call:
        request = await call.say("Hello?")
        assert not gated_runtime.switch.exists()
        gated_runtime.switch.touch()
    await agent.on_exit()
    assert [role for role, _ in request] == ["system", "user"]


# The recognizer


async def test_names_of_the_caller_are_handed_to_the_recognizer(
    new_agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("My dog is called Rex and I live in Ashby Magna.")
    await agent.on_exit()

    applied: list[list[str]] = []
    monkeypatch.setattr(ScriptedSTT, "_update_session_keyterms", lambda _, terms: applied.append(terms))
    for options, expected in (
        ({}, {"Ada Lovelace", "Ada", "Lovelace", "Rex", "Ashby Magna"}),
        ({"key_terms": False}, set()),
    ):
        applied.clear()
        agent = new_agent(name="Ada Lovelace", **options)
        async with open_call(agent) as call:
            await wait_until(lambda agent=agent: agent._memoair_start_task and agent._memoair_start_task.done())  # type: ignore[misc]
            assert set(call.session.keyterms) == expected
        await agent.on_exit()
        assert bool(applied) == bool(expected)


# The cloud


async def test_a_rejected_identity_is_named_once_in_the_log(
    new_agent: Any, caplog: pytest.LogCaptureFixture, nothing_left_behind: None
) -> None:
    caplog.set_level(logging.ERROR, "memoair_voice")

    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "memoair_voice"]

    with ScriptedCloud() as cloud:
        agent = new_agent(cloud_base_url=cloud.url)
        async with open_call(agent) as call:
            for _ in range(100):  # a search tells as soon as the runtime has reached the cloud
                await call.say("My secret is 4711.")
                if errors():
                    break
            await call.say("And 4712.")
        await agent.on_exit()
    [error] = errors()
    assert "action=cloud_rejects part=key" in error
    assert "4711" not in error


async def test_the_end_of_a_call_reaches_the_cloud(new_agent: Any, nothing_left_behind: None) -> None:
    with ScriptedCloud() as cloud:
        async with job("AJ_9"):
            agent = new_agent(cloud_base_url=cloud.url, api_key=KEY)
            async with open_call(agent) as call:
                await call.say("My boots are red.")
        # The job has ended.
        events = cloud.accepted_events("ada")
    assert [event["type"] for event in events] == ["session_start", "turn", "session_end"]
    assert {event["sessionId"] for event in events} == {"livekit:call-ada:AJ_9"}
