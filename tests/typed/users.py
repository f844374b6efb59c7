"""Correct uses of the SDK, which are type-checked and never run.

``assert_type`` checks the results: no call may return Any where a type is known.
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

from memoair_transcripts import Rejection, TranscriptOptions, TranscriptTurn, read_transcript
from memoair_voice import MemoAirVoiceAgent as AsyncAgent
from memoair_voice import (
    MemoAirVoiceClient,
    MemoAirVoiceMemory,
    MemoryTool,
    VoiceSession,
)
from memoair_voice_sync import (
    IndexBuildResult,
    IndexLoadResult,
    MemoAirVoiceAgent,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    MemoryToolSync,
    Prompt,
    SearchResult,
    VoiceSessionSync,
    __version__,
)

Caller = dict[str, str]
CALLER = {"id": "caller_42", "name": "Alex", "metadata": {"plan": "premium"}}


# The client for threads.


def client_sync(folder: Path) -> MemoAirVoiceClientSync:
    return MemoAirVoiceClientSync(
        api_key="memoair_pk_local",
        project_id="proj_acme",
        agent_id="agent_returns",
        cloud_base_url=None,
        max_concurrent_users=64,
        runtime_idle_ttl_s=300,
        runtime_port_range=(7878, 7977),
        storage_root=str(folder),
        runtime_memory_limit_mb=512,
        org_file=str(folder / "faq.jsonl"),
    )


def answer(client: MemoAirVoiceClientSync, caller: Caller, said: str) -> str:
    assert_type(client.load_index(user=caller), IndexLoadResult)
    recall = client.search_memory(
        said,
        user=caller,
        lanes=["permanent", "org"],
        intent="summarise_recent",
        top_k={"permanent": 6},
        timeout_ms=250,
        filter={"topic": {"$in": ["returns", "shipping"]}},
    )
    assert_type(recall, SearchResult)
    assert_type(recall.contextText, str)
    assert_type(recall.profile, dict[str, Any] | None)
    assert_type(recall.permanent, list[dict[str, Any]])
    saved = client.save_response(
        user_text=said,
        assistant_text="Thirty days.",
        user_id="caller_42",
        turn_id="turn-1",
        tool_calls=[{"name": "search_memory", "latencyMs": 8.8}],
        metadata={"interrupted": False},
    )
    assert_type(saved, str | None)
    return recall.contextText + str(asdict(recall))


def session_sync(client: MemoAirVoiceClientSync) -> None:
    with client.session(user=CALLER) as call:
        assert_type(call, VoiceSessionSync)
        assert_type(call.session_id, str)
        assert_type(call.search_memory("and the boots?", timeout_ms=100.5), SearchResult)
        assert_type(call.save_response(user_text="and the boots?", assistant_text="In Leeds."), str | None)
    pinned = client.session(user_id="caller_42", session_id="CA1", metadata={"room": "r1"})
    assert_type(pinned.open(), None)
    assert_type(client.search_memory("boots", user=CALLER, session_id="CA1"), SearchResult)
    assert_type(client.end_call(user=CALLER, session_id="CA1", reason="hung up"), None)
    assert_type(pinned.search_memory_tool()("which boots?"), str)
    assert_type(client.search_memory_tool(user=CALLER, search_memory_timeout_ms=400), MemoryToolSync)
    pinned.close()
    assert_type(client.stats(), dict[str, Any])
    assert_type(client.close(), None)


def cloud_sync(client: MemoAirVoiceClientSync) -> None:
    documents = [{"id": "returns", "text": "Thirty days.", "metadata": {"topic": "returns"}}]
    built = client.create_index("faq", documents, metadata={"source": "handbook"})
    assert_type(built, IndexBuildResult)
    assert_type((built.index_name, built.chunk_count, built.version), tuple[str, int, int | None])
    for index in client.list_indexes():
        assert_type(index, dict[str, Any])
    assert_type(client.get_index("faq"), dict[str, Any])
    assert_type(client.delete_document("faq", "returns"), dict[str, Any])
    assert_type(client.delete_index("faq"), dict[str, Any])
    for memory in client.list_memories(user=CALLER, history=True):
        updated = client.update_memory(
            memory["memoryId"], user_id="caller_42", text="likes tea", holds_until="2026-12-31"
        )
        assert_type(updated, dict[str, Any])
        assert_type(client.memory_history(memory["memoryId"], user=CALLER), list[dict[str, Any]])
        assert_type(client.delete_memory(memory["memoryId"], user=CALLER), dict[str, Any])
    assert_type(client.forget_user(user=CALLER, timeout_s=20), dict[str, Any])


def prompt_sync(client: MemoAirVoiceClientSync, memory: MemoAirVoiceMemorySync) -> None:
    prompt = client.prompt(label="production", shop="Acme", orders=3, timeout_ms=500, default="Be kind.")
    assert_type(prompt, Prompt)
    assert_type((prompt.text, prompt.version, prompt.is_stale), tuple[str, int | None, bool])
    assert_type(client.prompt("staging", values={"label": "x"}), Prompt)
    client.session(user=CALLER, prompt=prompt).close()
    client.load_index(user=CALLER, session_id="CA1", prompt=memory.prompt(version=3))
    memory.start_session(prompt=prompt)
    assert_type(client.report_outcome("CA1", "resolved", user_id="caller_42", score=1), None)


# The client for asyncio and trio.


async def client_async(said: str) -> None:
    async with MemoAirVoiceClient(
        api_key="memoair_pk_local",
        project_id="proj_acme",
        agent_id="agent_returns",
        cloud_base_url="http://127.0.0.1:8080",
    ) as client:
        assert_type(client, MemoAirVoiceClient)
        assert_type(await client.load_index(user=CALLER, timeout_s=3), IndexLoadResult)
        assert_type(await client.search_memory(said, user=CALLER, lanes=("org",)), SearchResult)
        kept = await client.save_response(user_text=said, assistant_text="Noted.", user=CALLER)
        assert_type(kept, str | None)
        prompt = await client.prompt(shop="Acme", orders=3)
        assert_type(prompt, Prompt)
        assert_type(await client.report_outcome("CA1", "resolved"), None)
        async with await client.session(user={"id": "caller_42", "name": "Alex"}, prompt=prompt) as call:
            assert_type(call, VoiceSession)
            assert_type(await call.search_memory("which boots?"), SearchResult)
            assert_type(await call.search_memory_tool()("which boots?"), str)
            assert_type(await call.save_response(user_text="a", assistant_text="b"), str | None)
        assert_type(await client.create_index("faq", [{"id": "1", "text": "x"}]), IndexBuildResult)
        assert_type(await client.list_indexes(), list[dict[str, Any]])
        assert_type(await client.list_memories(user_id="caller_42"), list[dict[str, Any]])
        assert_type(await client.forget_user(user=CALLER), dict[str, Any])
        assert_type(await client.stats(), dict[str, Any])
    await client.aclose()


# The agent, from the environment.


def agents() -> None:
    agent = MemoAirVoiceAgent.from_env(project_id="proj_acme")
    assert_type(agent, MemoAirVoiceAgent)
    assert_type((agent.agent_id, agent.user_id, agent.org_only), tuple[str, str | None, bool])
    assert_type(agent.headers(), dict[str, str])
    with agent.client(max_concurrent_users=64) as client:
        assert_type(client, MemoAirVoiceClientSync)
    named = AsyncAgent(api_key="memoair_pk_local", project_id="proj_acme", agent_id="agent_returns")
    assert_type(named.client(), MemoAirVoiceClient)


# The memory of one user, and the tool for language models.


def memory_sync() -> None:
    with MemoAirVoiceMemorySync(
        project_id="proj_acme",
        user_id="caller_42",
        runtime_url="http://127.0.0.1:0",
        satham={"variant": "default"},
        session_id="call-7",
    ) as memory:
        assert_type(memory.session_id, str)
        assert_type(memory.runtime_pid, int | None)
        assert_type(memory.runtime_url(2.5), str)
        assert_type(memory.start_session({"user": CALLER, "assistantName": "Juno"}), dict[str, Any])
        assert_type(memory.search_memory("boots", explain=True).trace, dict[str, Any])
        assert_type(memory.after_turn("boots?", "Thirty days.", turn_id="turn-1", timeout_s=1), str | None)
        assert_type(memory.flush(1.0), bool)
        assert_type(memory.end_session("hangup"), dict[str, Any])
        tool = memory.search_memory_tool(search_memory_timeout_ms=400)
        assert_type(tool, MemoryToolSync)
        assert_type(tool("boots", intent="earlier_in_call"), str)
        assert_type(tool.last_trace, dict[str, Any] | None)
        assert_type((tool.name, tool.schema()), tuple[str, dict[str, Any]])
        assert_type(tool.schema("responses", strict=True), dict[str, Any])
        assert_type(tool.schema("realtime"), dict[str, Any])
        assert_type(memory.to_openai_function(), dict[str, Any])
        assert_type(memory.to_pipecat_tool(), dict[str, Any])


async def memory_async() -> None:
    async with MemoAirVoiceMemory(project_id="proj_acme", user_id="caller_42", auto_start_runtime=False) as memory:
        assert_type(memory, MemoAirVoiceMemory)
        assert_type(await memory.start_session(), dict[str, Any])
        assert_type(await memory.search_memory("boots", top_k={"org": 2}), SearchResult)
        assert_type(await memory.after_turn("boots?", "Thirty days.", "turn-1"), str | None)
        assert_type(await memory.flush(), bool)
        tool = memory.search_memory_tool()
        assert_type(tool, MemoryTool)
        assert_type(await tool("boots"), str)
        assert_type(tool.schema(), dict[str, Any])


# Errors, transcripts, imports.


def errors(client: MemoAirVoiceClientSync) -> str:
    try:
        client.load_index(user_id="caller_42")
    except MemoAirVoiceMemoryError as error:
        assert_type((error.code, error.message), tuple[str, str])
        assert_type(error.status_code, int | None)
        assert_type(error.details, dict[str, Any])
        return error.code
    raise MemoAirVoiceMemoryError("pool.closed", __version__)


def turns_of(path: Path) -> Iterator[TranscriptTurn]:
    with path.open("rb") as stream:
        for item in read_transcript(stream, path.name, TranscriptOptions(user_id="caller_42"), format="text"):
            if isinstance(item, Rejection):
                assert_type((item.file, item.line, item.reason), tuple[str, int, str])
            else:
                assert_type(item, TranscriptTurn)
                assert_type(item.occurred_at, datetime | None)
                yield item


def import_sync(client: MemoAirVoiceClientSync, path: Path) -> list[str]:
    turns = [
        {"turn_id": turn.turn_id, "user_text": turn.user_text, "assistant_text": turn.assistant_text}
        for turn in turns_of(path)
    ]
    return client.import_call("call-7", turns, user=CALLER, metadata={"source": path.name}, timeout_s=30)


async def import_async(client: MemoAirVoiceClient) -> None:
    events = await client.import_call("call-7", [{"user_text": "a", "assistant_text": "b"}], user_id="caller_42")
    assert_type(events, list[str])
