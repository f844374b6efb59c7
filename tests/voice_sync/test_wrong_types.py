"""A wrong type for each parameter of each public method: the error names it, and nothing is started."""

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import API_KEY, client_arguments

from memoair_voice_sync import (
    MemoAirVoiceAgent,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemorySync,
    MemoryToolSync,
    RuntimePool,
    VoiceSessionSync,
)

# Valid arguments, so that only the parameter under test is wrong.
_VALID_ARGUMENTS: dict[str, Any] = {
    "query": "boots",
    "query_so_far": "boots",
    "user_text": "hello",
    "assistant_text": "hello",
    "turn_id": "t1",
    "session_id": "s1",
    "turns": [],
    "name": "faq",
    "documents": [{"id": "returns", "text": "Thirty days."}],
    "document_id": "returns",
    "memory_id": "mem_1",
    "user": {"id": "ada"},
    "path": "user.json",
    "reason": "case 12",
    "outcome": "resolved",
}
# Objects of other libraries, whose type is checked where they are used.
_UNCHECKED = {"runtime_manager", "client"}


class WrongType:
    """A type that no parameter accepts."""


def _parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"} | _UNCHECKED]


def _methods(kind: type) -> list[tuple[str, str]]:
    functions = [each for each in inspect.getmembers(kind, inspect.isfunction) if not each[0].startswith("_")]
    return [(method, parameter) for method, function in functions for parameter in _parameters(function)]


def _valid_arguments(function: Any, parameter: str) -> dict[str, Any]:
    names = _parameters(function)
    arguments = {name: value for name, value in _VALID_ARGUMENTS.items() if name in names}
    if parameter == "user_id":
        arguments.pop("user", None)  # either names the user
    return arguments


@pytest.fixture
def memory(tmp_path: Path, nothing_left_behind: None) -> Iterator[MemoAirVoiceMemorySync]:
    arguments: dict[str, Any] = {"runtime_url": "http://127.0.0.1:0", "storage_root": str(tmp_path), "user_id": "ada"}
    with MemoAirVoiceMemorySync(project_id="proj", cloud_base_url=None, **arguments) as made:
        yield made


def _assert_rejected(call: Any, arguments: dict[str, Any], parameter: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        call(**arguments | {parameter: WrongType()})
    assert parameter in str(refused.value)
    assert not psutil.Process().children(), "no process must be started"


@pytest.mark.parametrize(("method", "parameter"), _methods(MemoAirVoiceClientSync))
def test_the_client_rejects_wrong_types(client: MemoAirVoiceClientSync, method: str, parameter: str) -> None:
    function = getattr(client, method)
    _assert_rejected(function, _valid_arguments(function, parameter), parameter)
    assert client.stats()["runtimes"] == []


@pytest.mark.parametrize(("method", "parameter"), _methods(MemoAirVoiceMemorySync))
def test_the_memory_rejects_wrong_types(memory: MemoAirVoiceMemorySync, method: str, parameter: str) -> None:
    function = getattr(memory, method)
    _assert_rejected(function, _valid_arguments(function, parameter), parameter)
    assert memory.runtime_pid is None


def test_a_session_rejects_wrong_types(client: MemoAirVoiceClientSync) -> None:
    messages = dict.fromkeys(_methods(VoiceSessionSync), "")
    for method, parameter in messages:
        with client.session(user_id="ada") as session:
            function = getattr(session, method)
            try:
                function(**_valid_arguments(function, parameter) | {parameter: WrongType()})
            except (TypeError, ValueError) as error:
                messages[method, parameter] = str(error)
    assert messages
    assert [each for each, message in messages.items() if each[1] not in message] == []


def test_the_tool_rejects_wrong_types(memory: MemoAirVoiceMemorySync) -> None:
    tool = memory.search_memory_tool()
    for parameter in _parameters(MemoryToolSync.__call__):
        _assert_rejected(tool, {"query": "boots"}, parameter)


@pytest.mark.parametrize("parameter", _parameters(MemoAirVoiceClientSync.__init__))
def test_the_constructor_of_the_client_rejects_wrong_types(
    nothing_left_behind: None, tmp_path: Path, parameter: str, recwarn: pytest.WarningsRecorder
) -> None:
    _assert_rejected(MemoAirVoiceClientSync, client_arguments(tmp_path), parameter)
    assert [warning.category for warning in recwarn] == ([DeprecationWarning] if parameter == "user_id" else [])


@pytest.mark.parametrize("parameter", _parameters(MemoAirVoiceMemorySync.__init__))
def test_the_constructor_of_the_memory_rejects_wrong_types(
    nothing_left_behind: None, tmp_path: Path, parameter: str
) -> None:
    _assert_rejected(partial(MemoAirVoiceMemorySync, storage_root=str(tmp_path)), _IDENTITY, parameter)


@pytest.mark.parametrize("parameter", _parameters(MemoAirVoiceAgent))
def test_the_agent_rejects_wrong_types(parameter: str) -> None:
    _assert_rejected(MemoAirVoiceAgent, {"api_key": API_KEY, "project_id": "proj", "agent_id": "agent"}, parameter)


@pytest.mark.parametrize("parameter", ["max_concurrent_users", "runtime_idle_ttl_s", "runtime_port_range"])
def test_the_client_validates_the_arguments_of_the_pool(parameter: str) -> None:
    assert parameter in _parameters(RuntimePool)
    assert parameter in _parameters(MemoAirVoiceClientSync)


_IDENTITY = {"project_id": "proj", "user_id": "ada"}
