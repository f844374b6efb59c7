"""Invalid arguments, which the client rejects before it starts anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import PATIENT_MS, NewClient, is_alive, pid_of


def invalid(error: type[Exception], match: str, **user_arguments: Any) -> Any:
    return pytest.param(user_arguments, error, match, id=repr(user_arguments))


@pytest.mark.parametrize(
    ("user_arguments", "error", "match"),
    [
        invalid(ValueError, "user"),
        invalid(ValueError, "id", user={}),
        invalid(ValueError, "id", user={"name": "Dana"}),
        invalid(ValueError, "different users", user={"id": "ada"}, user_id="bob"),
        invalid(ValueError, "empty", user={"id": ""}),
        invalid(ValueError, "empty", user_id=""),
        invalid(ValueError, "null", user_id="a\0b"),
        invalid(ValueError, "longer", user_id="a" * 1_025),
        invalid(ValueError, "Unicode", user_id="\ud800"),
        invalid(TypeError, "user", user="ada"),
        invalid(TypeError, "id", user={"id": 42}),
        invalid(TypeError, "id", user={"id": None}),
        invalid(TypeError, "user_id", user={"id": "ada"}, user_id=42),
        invalid(TypeError, "name", user={"id": "ada", "name": 42}),
        invalid(TypeError, "metadata", user={"id": "ada", "metadata": "premium"}),
    ],
)
def test_an_invalid_user_is_rejected_before_anything_starts(
    new_client: NewClient, user_arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    client = new_client()
    calls: list[Callable[[], object]] = [
        lambda: client.search_memory("hello", timeout_ms=PATIENT_MS, **user_arguments),
        lambda: client.save_response(user_text="hello", assistant_text="", **user_arguments),
        lambda: client.session(**user_arguments),
        lambda: client.load_index(**user_arguments),
    ]
    for call in calls:
        with pytest.raises(error, match=match):
            call()
    assert client.stats()["runtimes"] == []
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        invalid(TypeError, "query", query=42),
        invalid(TypeError, "query", query=None),
        invalid(ValueError, "timeout_ms", timeout_ms=0),
        invalid(ValueError, "timeout_ms", timeout_ms=-1),
        invalid(ValueError, "timeout_ms", timeout_ms=float("nan")),
        invalid(ValueError, "timeout_ms", timeout_ms=float("inf")),
        invalid(TypeError, "timeout_ms", timeout_ms="250"),
        invalid(TypeError, "timeout_ms", timeout_ms=True),
        invalid(ValueError, "lanes", lanes=["nowhere"]),
        invalid(ValueError, "lanes", lanes="org"),
        invalid(TypeError, "top_k", top_k=6),
        invalid(TypeError, "filter", filter="topic"),
        invalid(ValueError, "min_confidence", min_confidence=1.5),
        invalid(ValueError, "min_confidence", min_confidence=-0.1),
        invalid(ValueError, "min_confidence", min_confidence=float("nan")),
        invalid(TypeError, "min_confidence", min_confidence="high"),
        invalid(TypeError, "min_confidence", min_confidence=True),
        invalid(TypeError, "say_nothing_found", say_nothing_found=1),
        invalid(TypeError, "JSON", filter={"topic": object}),
    ],
)
def test_invalid_search_arguments_are_rejected_before_anything_starts(
    new_client: NewClient, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    client = new_client()
    with pytest.raises(error, match=match):
        client.search_memory(**{"query": "hello", "user_id": "ada", "timeout_ms": PATIENT_MS, **options})
    assert client.stats()["runtimes"] == []
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        invalid(TypeError, "user_text", user_text=None),
        invalid(TypeError, "assistant_text", assistant_text=b"hello"),
        invalid(ValueError, "turn_id", turn_id=""),
        invalid(TypeError, "turn_id", turn_id=7),
        invalid(TypeError, "tool_calls", tool_calls=["search_memory"]),
        invalid(TypeError, "metadata", metadata="livekit"),
        invalid(TypeError, "JSON", metadata={"at": object}),
        invalid(ValueError, "JSON", metadata={"score": float("nan")}),
    ],
)
def test_invalid_save_arguments_are_rejected_before_anything_starts(
    new_client: NewClient, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    client = new_client()
    with pytest.raises(error, match=match):
        client.save_response(**{"user_text": "hello", "assistant_text": "", "user_id": "ada", **options})
    assert client.stats()["runtimes"] == []
    assert client.stats()["pending_saves"] == 0
    assert not psutil.Process().children()


def test_user_metadata_that_json_cannot_hold_is_rejected_before_anything_starts(new_client: NewClient) -> None:
    client = new_client()
    user = {"id": "ada", "metadata": {"since": object()}}
    with pytest.raises(TypeError):
        client.search_memory("hello", user=user, timeout_ms=PATIENT_MS)
    with pytest.raises(TypeError):
        client.save_response(user_text="hello", assistant_text="", user=user)
    assert client.stats()["runtimes"] == []
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        *(invalid(ValueError, name, **{name: ""}) for name in ("api_key", "project_id", "agent_id")),
        *(invalid(TypeError, name, **{name: None}) for name in ("api_key", "project_id", "agent_id")),
        *(
            invalid(ValueError, "runtime_port_range", runtime_port_range=ports)
            for ports in [(9_000, 8_999), (0, 10), (65_000, 65_536), ("a", "b"), (9_000,), 9_000]
        ),
        *(invalid(ValueError, "max_concurrent_users", max_concurrent_users=number) for number in (0, -1)),
        *(invalid(TypeError, "max_concurrent_users", max_concurrent_users=number) for number in ("20", 2.5, True)),
        *(invalid(ValueError, "runtime_idle_ttl_s", runtime_idle_ttl_s=ttl) for ttl in (0, -1, float("nan"))),
        invalid(TypeError, "runtime_idle_ttl_s", runtime_idle_ttl_s="300"),
        invalid(ValueError, "runtime_memory_limit_mb", runtime_memory_limit_mb=0),
        invalid(TypeError, "runtime_memory_limit_mb", runtime_memory_limit_mb="512"),
        invalid(ValueError, "org_file", org_file="/no/such/file"),
        invalid(TypeError, "storage_root", storage_root=42),
        invalid(TypeError, "cloud_base_url", cloud_base_url=42),
        *(
            invalid(ValueError, "cloud_base_url", cloud_base_url=url)
            for url in ("", "cloud", "ftp://cloud", "https://a:b@c")
        ),
    ],
)
def test_invalid_client_arguments_are_rejected(
    new_client: NewClient, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        new_client(**options)


def test_an_unused_client_starts_no_process(new_client: NewClient, tmp_path: Path) -> None:
    with new_client() as client:
        assert client.stats()["runtimes"] == []
        assert not psutil.Process().children()
    assert not (tmp_path / "storage").exists()


def test_a_with_block_that_raises_ends_all_processes(new_client: NewClient) -> None:
    pids: list[int] = []

    def fails_in_the_middle() -> None:
        with new_client() as client:
            client.load_index(user_id="ada")
            pids.append(pid_of(client, "ada"))
            raise LookupError

    with pytest.raises(LookupError):
        fails_in_the_middle()
    assert not is_alive(pids[0])
    assert not psutil.Process().children()
