"""The tool for language models; ``tests/adapters`` tests it in the formats of the frameworks."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, MemoryToolSync, SearchResult


@pytest.fixture
def memory_with_turn(memory: MemoAirVoiceMemorySync) -> MemoAirVoiceMemorySync:
    """Return a memory with a turn."""
    memory.start_session({"user": {"name": "Dana"}})
    memory.after_turn("the boots are red", "", "t1", timeout_s=10.0)
    return memory


def test_the_tool_returns_the_composed_text_and_keeps_the_trace(memory_with_turn: MemoAirVoiceMemorySync) -> None:
    tool = memory_with_turn.search_memory_tool(search_memory_timeout_ms=10_000)
    assert isinstance(tool, MemoryToolSync)
    assert (tool.name, tool.last_trace) == ("search_memory", None)

    assert "the boots are red" in tool("what colour are the boots?")
    assert tool.last_trace is not None
    assert set(tool.last_trace["lanes"]) == {"profile", "working", "permanent", "org"}


def test_the_tool_passes_the_intent() -> None:
    asked: list[tuple[str, str]] = []

    def search(query: str, intent: str) -> SearchResult:
        asked.append((query, intent))
        return SearchResult("found", None, [], [], [], [], {"degraded": False})

    tool = MemoryToolSync(search)
    assert tool("boots") == "found"
    assert tool("boots", intent="earlier_in_call") == "found"
    assert tool("boots", intent=None) == "found"  # type: ignore[arg-type] # as models write omitted arguments
    assert asked == [
        ("boots", "answer_current_user"),
        ("boots", "earlier_in_call"),
        ("boots", "answer_current_user"),
    ]


def test_the_tool_searches_within_its_timeout(memory_with_turn: MemoAirVoiceMemorySync) -> None:
    tool = memory_with_turn.search_memory_tool(search_memory_timeout_ms=10_000)
    tool("boots")
    assert tool.last_trace is not None
    assert 5_000 < tool.last_trace["deadlineMs"] <= 10_000

    default = memory_with_turn.search_memory_tool()

    def finds() -> bool:
        with suppress(MemoAirVoiceMemoryError):  # a quarter of a second may not be enough this time
            default("boots")
        return default.last_trace is not None

    eventually(finds)
    assert default.last_trace is not None
    assert default.last_trace["deadlineMs"] <= 250


def test_a_tool_that_fails_raises_and_clears_its_trace(memory_with_turn: MemoAirVoiceMemorySync) -> None:
    tool = memory_with_turn.search_memory_tool(search_memory_timeout_ms=10_000)
    tool("boots")
    memory_with_turn.close()

    with pytest.raises(MemoAirVoiceMemoryError):
        tool("boots")
    assert tool.last_trace is None


def test_a_tool_rejects_a_query_that_is_not_a_text(memory: MemoAirVoiceMemorySync) -> None:
    with pytest.raises(TypeError):
        memory.search_memory_tool()(42)  # type: ignore[arg-type]
    assert memory.runtime_pid is None


def test_an_invalid_timeout_of_a_tool_is_rejected_when_it_is_created(memory: MemoAirVoiceMemorySync) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        memory.search_memory_tool(search_memory_timeout_ms=0)


def test_an_org_only_tool_searches_only_documents(
    new_memory: Callable[..., MemoAirVoiceMemorySync], org_file: Path
) -> None:
    tool = new_memory(org_only=True, org_file=str(org_file)).search_memory_tool(search_memory_timeout_ms=10_000)
    found = tool("How long are returns accepted?")

    assert "within 30 days" in found
    assert [line for line in found.splitlines() if line.startswith("## ")] == ["## org"]
    assert tool.last_trace is not None
    statuses = {name: lane["status"] for name, lane in tool.last_trace["lanes"].items()}
    assert statuses == {"profile": "skipped", "working": "skipped", "permanent": "skipped", "org": "ok"}
