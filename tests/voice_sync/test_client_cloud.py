"""Calls to the cloud: what is sent, returned and retried, and what is never sent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from support.clients import NewClient
from urllib3 import HTTPResponse

from memoair_protocol import cloud_http
from memoair_voice_sync import IndexBuildResult, MemoAirVoiceClientSync, MemoAirVoiceMemoryError

BASE = "https://cloud.example"
CREATE, LIST = f"{BASE}/v1/voice-sdk/index/create", f"{BASE}/v1/voice-sdk/index/list"
BUILT = {"indexName": "agent-memory", "chunkCount": 3, "version": 7}
DOCUMENT = {"id": "returns", "text": "Thirty days, with a receipt.", "metadata": {"topic": "returns"}}


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[responses.RequestsMock]:
    """Replace the network, and skip the pauses between retries."""
    monkeypatch.setattr(cloud_http._BoundedRetry, "sleep", lambda *_: None)
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def client(new_client: NewClient, org_file: Path) -> MemoAirVoiceClientSync:
    """Make a client whose runtimes have their own documents, so that they do not pull those of the cloud."""
    return new_client(
        cloud_base_url=f"{BASE}/", api_key="memoair_pk_secret", agent_id="agent_returns", org_file=str(org_file)
    )


def error_envelope(code: str, **details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"it is {code}", "details": details}}


def test_create_index_sends_the_identity_in_the_headers(
    client: MemoAirVoiceClientSync, wire: responses.RequestsMock
) -> None:
    wire.post(CREATE, json=BUILT)
    result = client.create_index("agent-memory", [DOCUMENT], metadata={"source": "handbook"})

    assert result == IndexBuildResult("agent-memory", 3, 7)
    [call] = wire.calls
    assert json.loads(call.request.body or b"") == {
        "name": "agent-memory",
        "documents": [DOCUMENT],
        "metadata": {"source": "handbook"},
    }
    assert call.request.headers["Authorization"] == "Bearer memoair_pk_secret"
    assert call.request.headers["X-Project-Id"] == client._project_id
    assert call.request.headers["X-Agent-Id"] == "agent_returns"
    assert client.stats()["runtimes"] == []


def test_indexes_are_listed_read_and_deleted(client: MemoAirVoiceClientSync, wire: responses.RequestsMock) -> None:
    one = {"name": "a b", "version": 2, "chunkCount": 5}
    wire.get(LIST, json={"indexes": [one]})
    wire.get(f"{BASE}/v1/voice-sdk/index/a%20b", json=one)
    wire.delete(f"{BASE}/v1/voice-sdk/index/a%20b/documents/x%2F..%2Fy", json={"version": 3})
    wire.delete(f"{BASE}/v1/voice-sdk/index/a%20b", status=204)

    assert client.list_indexes() == [one]
    assert client.get_index("a b") == one
    assert client.delete_document("a b", "x/../y") == {"version": 3}
    assert client.delete_index("a b") == {}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_failures_are_retried(
    client: MemoAirVoiceClientSync, wire: responses.RequestsMock, status: int
) -> None:
    wire.post(CREATE, status=status, json=error_envelope("cloud.unavailable"), headers={"Retry-After": "1"})
    wire.post(CREATE, json=BUILT)
    assert client.create_index("agent-memory", [DOCUMENT]).version == 7
    assert len(wire.calls) == 2


def test_a_persistent_failure_raises_the_error_of_the_last_reply(
    client: MemoAirVoiceClientSync, wire: responses.RequestsMock
) -> None:
    wire.get(LIST, status=503, json=error_envelope("cloud.unavailable", waiting=9))
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.list_indexes()
    assert (raised.value.code, raised.value.status_code) == ("cloud.unavailable", 503)
    assert raised.value.details == {"waiting": 9}
    assert len(wire.calls) == 4


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, error_envelope("cloud.unauthorized"), "cloud.unauthorized"),
        (404, error_envelope("cloud.not_found"), "cloud.not_found"),
        (422, error_envelope("cloud.invalid"), "cloud.invalid"),
        (413, {"error": "batch_too_large", "message": "it is too large"}, "cloud.batch_too_large"),
        (302, {}, "cloud.internal"),
        (200, ["no", "index"], "cloud.internal"),
        (200, {"indexName": "agent-memory"}, "cloud.internal"),
    ],
)
def test_permanent_failures_are_raised_without_a_retry(
    client: MemoAirVoiceClientSync, wire: responses.RequestsMock, status: int, body: Any, code: str
) -> None:
    wire.post(CREATE, status=status, json=body)
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.create_index("agent-memory", [DOCUMENT])
    assert (raised.value.code, raised.value.status_code) == (code, status)
    assert len(wire.calls) == 1
    assert "memoair_pk_secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "code"), [(requests.ConnectionError(), "cloud.unreachable"), (requests.ReadTimeout(), "cloud.timeout")]
)
def test_an_unreachable_cloud_raises_its_error_code(
    client: MemoAirVoiceClientSync, wire: responses.RequestsMock, error: Exception, code: str
) -> None:
    wire.get(LIST, body=error)
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.list_indexes()
    assert raised.value.code == code


@pytest.mark.parametrize(
    "documents",
    [
        pytest.param([{"id": str(number), "text": "x"} for number in range(101)], id="a hundred and one"),
        pytest.param([{"id": "1", "text": "x" * (1 << 20)}], id="a megabyte"),
        pytest.param([{"id": "1", "text": "\N{SNOWMAN}" * 350_000}], id="a megabyte as the wire counts it"),
    ],
)
def test_a_batch_that_is_too_large_is_not_sent(
    client: MemoAirVoiceClientSync, wire: responses.RequestsMock, documents: list[dict[str, Any]]
) -> None:
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.create_index("agent-memory", documents)
    assert (raised.value.code, raised.value.status_code) == ("cloud.batch_too_large", 413)
    assert len(wire.calls) == 0


@pytest.mark.parametrize(
    ("name", "documents", "error"),
    [
        ("", [DOCUMENT], ValueError),
        (None, [DOCUMENT], TypeError),
        ("a", DOCUMENT, TypeError),
        ("a", ["text"], TypeError),
        ("a", [{"text": "no id"}], TypeError),
        ("a", [{"id": "1", "text": None}], TypeError),
        ("a", [{"id": "1", "text": "x", "metadata": {"at": object()}}], TypeError),
        ("a", [{"id": "1", "text": "x", "metadata": {"at": float("nan")}}], ValueError),
    ],
)
def test_invalid_documents_are_rejected_before_they_are_sent(
    client: MemoAirVoiceClientSync, wire: responses.RequestsMock, name: Any, documents: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.create_index(name, documents)
    assert len(wire.calls) == 0


def test_retry_after_is_limited() -> None:
    response = HTTPResponse(headers={"Retry-After": "3600"})
    assert cloud_http._BoundedRetry(3).get_retry_after(response) == cloud_http._MAX_BACKOFF_S
