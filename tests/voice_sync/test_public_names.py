"""The public interface: names, signatures, fields."""

import dataclasses
import inspect
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from types import ModuleType
from typing import Any

import pytest

import memoair_voice
import memoair_voice_sync
from memoair_voice_sync import (
    IndexBuildResult,
    IndexLoadResult,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    RuntimePool,
    SearchResult,
)
from memoair_voice_sync._processes.spec import RuntimeSpec

SYNC_NAMES = {
    "IndexBuildResult",
    "IndexLoadResult",
    "MemoAirVoiceClientSync",
    "MemoAirVoiceMemoryError",
    "MemoAirVoiceMemorySync",
    "MemoryToolSync",
    "Prompt",
    "RecallRecord",
    "RuntimeHandle",
    "RuntimePool",
    "SearchResult",
    "VoiceSessionSync",
}
PACKAGES = [memoair_voice_sync, memoair_voice]

_NO_DEFAULT = inspect.Parameter.empty


def parameters(function: Any) -> dict[str, Any]:
    """Return the parameters of a method by name, with their defaults."""
    found = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    found.pop("self")
    return found


def test_the_packages_export_exactly_the_documented_names() -> None:
    assert set(memoair_voice_sync.__all__) == SYNC_NAMES | {"MemoAirVoiceAgent"}
    assert set(memoair_voice.__all__) == SYNC_NAMES | {
        "MemoAirVoiceAgent",
        "MemoAirVoiceClient",
        "MemoAirVoiceMemory",
        "MemoryTool",
        "VoiceSession",
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists_and_is_documented(package: ModuleType) -> None:
    assert sorted(package.__all__) == list(package.__all__)
    for name in package.__all__:
        assert inspect.getdoc(getattr(package, name)), name


def test_both_packages_offer_the_same_objects() -> None:
    for name in SYNC_NAMES:
        assert getattr(memoair_voice, name) is getattr(memoair_voice_sync, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed_and_knows_its_version(package: ModuleType) -> None:
    assert files(package).joinpath("py.typed").is_file()
    assert package.__version__ == version("memoair-voice")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


@pytest.mark.parametrize("package", PACKAGES)
def test_a_star_import_imports_exactly_the_public_names(package: ModuleType) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from {package.__name__} import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(package.__all__)


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (SearchResult, ["contextText", "profile", "working", "permanent", "org", "sources", "trace"]),
        (IndexBuildResult, ["index_name", "chunk_count", "version"]),
        (
            IndexLoadResult,
            [
                "session_id",
                "profile_version",
                "permanent_manifest_version",
                "org_manifest_version",
                "scopes_loaded",
            ],
        ),
    ],
)
def test_a_result_is_a_frozen_dataclass_with_the_documented_fields(result: Any, fields: list[str]) -> None:
    assert [field.name for field in dataclasses.fields(result)] == fields
    made = result(**dict.fromkeys(fields))
    assert dataclasses.asdict(made) == dict.fromkeys(fields)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, fields[0], "changed")


def test_the_constructor_has_the_documented_keyword_only_parameters() -> None:
    signature = inspect.signature(MemoAirVoiceMemorySync)
    documented = {
        "project_id": _NO_DEFAULT,
        "user_id": _NO_DEFAULT,
        "api_key": None,
        "internal_token": None,
        "runtime_url": "http://127.0.0.1:7878",
        "runtime_token": None,
        "session_id": None,
        "satham": None,
        "auto_start_runtime": True,
        "runtime_binary": None,
        "cloud_base_url": "https://backend.memoair.space",
        "storage_root": None,
        "runtime_version": None,
        "runtime_repo": None,
        "runtime_cache_dir": None,
        "client": None,
        "runtime_manager": None,
    }
    taken = {name: parameter.default for name, parameter in signature.parameters.items()}
    assert {name: taken.get(name, "missing") for name in documented} == documented
    assert {parameter.kind for parameter in signature.parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(taken[name] is not _NO_DEFAULT for name in set(taken) - set(documented)), (
        "our parameters must be optional"
    )


@pytest.mark.parametrize(
    ("method", "documented"),
    [
        ("start_session", {"metadata": None, "timeout_s": 5.0, "prompt": None}),
        ("end_session", {"reason": "completed", "timeout_s": 5.0}),
        ("search_memory_tool", {"search_memory_timeout_ms": None}),
        (
            "after_turn",
            {
                "user_text": _NO_DEFAULT,
                "assistant_text": _NO_DEFAULT,
                "turn_id": _NO_DEFAULT,
                "tool_calls": None,
                "metadata": None,
                "timeout_s": 1.0,
            },
        ),
        ("to_openai_function", {"api": "chat", "strict": False}),
        ("to_livekit_tool", {"search_memory_timeout_ms": None}),
        ("to_pipecat_tool", {"search_memory_timeout_ms": None}),
        ("to_langchain_tool", {"search_memory_timeout_ms": None}),
        ("close", {}),
    ],
)
def test_methods_have_the_documented_parameters(method: str, documented: dict[str, Any]) -> None:
    function = getattr(MemoAirVoiceMemorySync, method)
    assert parameters(function) == documented
    assert list(parameters(function)) == list(documented), "they can be passed by position"


def test_the_error_is_an_exception_with_the_documented_attributes() -> None:
    assert MemoAirVoiceMemoryError.__mro__[1] is Exception
    assert set(MemoAirVoiceMemoryError.__annotations__) >= {"code", "message", "status_code", "details"}


def test_the_sync_package_does_not_need_the_async_one() -> None:
    script = "import sys; sys.modules['anyio'] = sys.modules['memoair_voice'] = None; import memoair_voice_sync"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_runtime_handle_is_read_only() -> None:
    handle = RuntimePool(RuntimeSpec("proj", "ada")).acquire("ada")
    shown = [name for name in dir(handle) if not name.startswith("_") and not callable(getattr(handle, name))]

    assert shown == ["pid", "restarts", "runtime", "session_id", "state", "user_id"]
    for name in shown:
        with pytest.raises(AttributeError):
            setattr(handle, name, None)
