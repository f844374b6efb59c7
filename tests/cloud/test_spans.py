"""Spans of the server: within the application's own, and without anything that was said."""

from typing import Any

import pytest
from support.clouds import Client, turn
from support.spans import exporting_spans
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync


def ours(spans: Any) -> list[Any]:
    """Return the spans of the server; FastAPI makes some as well."""
    return [span for span in spans.get_finished_spans() if span.instrumentation_scope.name == "memoair_cloud"]


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_request_is_a_span_of_the_clients_trace(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with exporting_spans(monkeypatch) as spans:
        path = "/v1/voice-sdk/users/zanzibarplum/memories"
        assert client.error_of("GET", path, traceparent=PARENT) == (404, "cloud.not_found")
        client.call("POST", "/v1/voice-sdk/events", {"events": [turn("t", said="zanzibarplum")]})
        found, ingested = eventually(lambda: len(ours(spans)) == 2 and ours(spans))
    assert found.name == "GET /v1/voice-sdk/users/{user_id}/memories"
    assert found.kind.name == "SERVER"
    assert dict(found.attributes) == {
        "http.request.method": "GET",
        "http.route": "/v1/voice-sdk/users/{user_id}/memories",
        "http.response.status_code": 404,
        "memoair.project_id": client.identity["project"],
    }
    assert f"{found.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{found.parent.span_id:016x}" == PARENT.split("-")[2]
    assert ingested.parent is None
    assert "zanzibarplum" not in str([span.to_json() for span in (found, ingested)])


def test_the_sdks_requests_are_within_the_applications_span(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with exporting_spans(monkeypatch) as spans:
        from opentelemetry import trace

        sdk = MemoAirVoiceClientSync(
            api_key=str(client.key),
            project_id=client.identity["project"],
            agent_id=client.identity["agent"],
            cloud_base_url=client.url,
        )
        with sdk, trace.get_tracer("app").start_as_current_span("setup") as setup:
            assert sdk.list_indexes() == []
        [listed] = eventually(lambda: [span for span in ours(spans) if span.name == "GET /v1/voice-sdk/index/list"])
    assert listed.parent.span_id == setup.get_span_context().span_id
