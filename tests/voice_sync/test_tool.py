"""The tool that a language model is given, by itself; ``tests/adapters`` has it in the shapes of the frameworks."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, MemoryToolSync, SearchResult


@pytest.fixture
def talking(memory: MemoAirVoiceMemorySync) -> MemoAirVoiceMemorySync:
    """A memory in which something was said."""
    memory.start_session({"user": {"name": "Dana"}})
    memory.after_turn("the boots are red", "", "t1", timeout_s=10.0)
    return memory


def test_the_tool_returns_the_composed_text_and_keeps_the_trace(talking: MemoAirVoiceMemorySync) -> None:
    tool = talking.search_memory_tool(search_memory_timeout_ms=10_000)
    assert isinstance(tool, MemoryToolSync)
    assert (tool.name, tool.last_trace) == ("search_memory", None)

    assert "the boots are red" in tool("what colour are the boots?")
    assert tool.last_trace is not None
    assert set(tool.last_trace["lanes"]) == {"profile", "working", "permanent", "org"}


def test_the_tool_passes_the_intent_on() -> None:
    asked: list[tuple[str, str]] = []

    def search(query: str, intent: str) -> SearchResult:
        asked.append((query, intent))
        return SearchResult("found", None, [], [], [], [], {"degraded": False})

    tool = MemoryToolSync(search)
    assert tool("boots") == "found"
    assert tool("boots", intent="earlier_in_call") == "found"
    assert tool("boots", intent=None) == "found"  # type: ignore[arg-type] # as models write what they leave out
    assert asked == [
        ("boots", "answer_current_user"),
        ("boots", "earlier_in_call"),
        ("boots", "answer_current_user"),
    ]


def test_the_tool_searches_within_the_time_that_it_was_made_with(talking: MemoAirVoiceMemorySync) -> None:
    tool = talking.search_memory_tool(search_memory_timeout_ms=10_000)
    tool("boots")
    assert tool.last_trace is not None
    assert 5_000 < tool.last_trace["deadlineMs"] <= 10_000

    default = talking.search_memory_tool()

    def finds() -> bool:
        with suppress(MemoAirVoiceMemoryError):  # a quarter of a second may not be enough this time
            default("boots")
        return default.last_trace is not None

    eventually(finds)
    assert default.last_trace is not None
    assert default.last_trace["deadlineMs"] <= 250


def test_a_tool_of_a_memory_that_fails_says_so_and_keeps_no_old_trace(talking: MemoAirVoiceMemorySync) -> None:
    tool = talking.search_memory_tool(search_memory_timeout_ms=10_000)
    tool("boots")
    talking.close()

    with pytest.raises(MemoAirVoiceMemoryError):
        tool("boots")
    assert tool.last_trace is None


def test_a_tool_refuses_a_query_that_is_no_text(memory: MemoAirVoiceMemorySync) -> None:
    with pytest.raises(TypeError):
        memory.search_memory_tool()(42)  # type: ignore[arg-type]
    assert memory.runtime_pid is None


def test_a_time_out_for_the_tool_that_can_not_be_is_refused_when_it_is_made(memory: MemoAirVoiceMemorySync) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        memory.search_memory_tool(search_memory_timeout_ms=0)


def test_a_tool_of_the_organisation_alone_searches_its_documents_alone(
    new_memory: Callable[..., MemoAirVoiceMemorySync], org_file: Path
) -> None:
    tool = new_memory(org_only=True, org_file=str(org_file)).search_memory_tool(search_memory_timeout_ms=10_000)
    found = tool("How long are returns accepted?")

    assert "within 30 days" in found
    assert [line for line in found.splitlines() if line.startswith("## ")] == ["## org"]
    assert tool.last_trace is not None
    statuses = {name: lane["status"] for name, lane in tool.last_trace["lanes"].items()}
    assert statuses == {"profile": "skipped", "working": "skipped", "permanent": "skipped", "org": "ok"}
