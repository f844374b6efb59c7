"""What all endpoints have in common: errors, limits, ids, health, metrics and logs."""

import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import urllib3
from hypothesis import HealthCheck, given, settings
from sqlalchemy.exc import OperationalError
from support.clouds import Client, RunningCloud, running, turn
from support.waiting import eventually

from memoair_cloud.errors import RateLimitedError
from memoair_cloud.http.rate_limit import RateLimit
from memoair_cloud.indexes import documents
from memoair_cloud.logs import JsonLines


def test_unknown_endpoints_and_methods_are_reported_in_the_envelope(client: Client) -> None:
    assert client.error_of("GET", "/v1/nothing") == (404, "cloud.not_found")
    assert client.error_of("GET", "/v1/projects/") == (404, "cloud.not_found")
    answer = client.call("PUT", "/v1/voice-sdk/events")
    assert (answer.status, answer.body["error"]["code"]) == (405, "cloud.invalid")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "headers", [{"X_Project_Id": "a\tb"}, {"X_Agent_Id": "x" * 513}, {"X_User_Id": ""}, {"X_User_Id": ".."}]
)
def test_an_invalid_identifier_in_a_header_is_rejected(client: Client, headers: dict[str, str]) -> None:
    assert client.error_of("GET", "/v1/voice-sdk/users", **headers) == (422, "cloud.invalid")


def test_a_repeated_identity_header_is_rejected(client: Client) -> None:
    headers = urllib3.HTTPHeaderDict(
        {"Authorization": f"Bearer {client.key}", "X-Project-Id": client.identity["project"]}
    )
    headers.add("X-User-Id", "one")
    headers.add("X-User-Id", "other")
    answer = urllib3.request("GET", client.url + "/v1/voice-sdk/projections/profile", headers=headers, retries=False)
    assert (answer.status, answer.json()["error"]["code"]) == (422, "cloud.invalid")


@pytest.mark.parametrize("user", ["%FF", "%20x", "x%20", "%2E%2E", "a%00b"])
def test_an_invalid_user_id_in_a_path_is_rejected(client: Client, user: str) -> None:
    with socket.create_connection(("127.0.0.1", int(client.url.rpartition(":")[2])), timeout=10) as connection:
        head = f"DELETE /v1/voice-sdk/users/{user} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        connection.sendall(
            f"{head}Authorization: Bearer {client.key}\r\nX-Project-Id: {client.identity['project']}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"cloud.invalid" in answer


def test_the_project_header_is_required(client: Client) -> None:
    without_project = Client(client.url, client.key)

    assert without_project.error_of("GET", "/v1/voice-sdk/users") == (422, "cloud.invalid")


def test_a_user_id_may_be_any_text(client: Client) -> None:
    ana = Client(client.url, client.key, project=client.identity["project"])
    ana.ok("POST", "/v1/voice-sdk/events", {"events": [turn("x")]}, X_User_Id="Änä 名".encode())  # type: ignore[arg-type]

    assert [user["userId"] for user in client.ok("GET", "/v1/voice-sdk/users")["users"]] == ["Änä 名"]


def test_every_error_of_every_endpoint_is_documented(cloud: RunningCloud) -> None:
    spec = cloud.account().ok("GET", "/openapi.json")
    for path, methods in spec["paths"].items():
        for operation in methods.values():
            errors = {int(status) for status in operation["responses"] if int(status) >= 400}
            wanted = {401, 422, 429, 500, 503} if path.startswith("/v1/") else {500}
            assert wanted <= errors, path
            assert operation["summary"], path
            for status in errors:
                schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]["$ref"]
                flat = status == 413 and path.endswith("/index/create")
                assert schema.endswith("FlatError" if flat else "ErrorEnvelope"), path
    assert cloud.account().call("GET", "/docs").status == 200


def test_health_and_metrics_need_no_key(cloud: RunningCloud, client: Client) -> None:
    stranger = Client(cloud.url)
    client.send(turn("one"), turn("one"), {})

    assert stranger.ok("GET", "/healthz") == stranger.ok("GET", "/readyz") == {"status": "ok"}
    metrics = stranger.ok("GET", "/metrics").decode()
    assert 'memoair_cloud_requests_total{method="POST",route="/v1/voice-sdk/events",status="200"}' in metrics
    for outcome in ("accepted", "duplicate", "rejected"):
        assert f'memoair_cloud_events_total{{outcome="{outcome}"}}' in metrics


def test_unknown_requests_do_not_add_metrics(cloud: RunningCloud) -> None:
    stranger = Client(cloud.url)
    for number in range(3):
        stranger.call(f"ODD{number}", f"/v1/odd{number}")
        stranger.call(f"ODD{number}", "/healthz")
    metrics = stranger.ok("GET", "/metrics").decode()

    assert "odd" not in metrics.lower()
    assert 'memoair_cloud_requests_total{method="unknown",route="unknown",status="404"}' in metrics


def test_a_server_is_not_ready_without_its_tables_or_its_blobs(folder: Path, tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", folder) as cloud:
        stranger = Client(cloud.url)
        assert stranger.ok("GET", "/readyz") == {"status": "ok"}
        blobs = folder / "blobs"
        blobs.rmdir()
        blobs.write_text("in the way")
        assert stranger.error_of("GET", "/readyz") == (503, "cloud.unavailable")
        blobs.unlink()
        with cloud.services.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'x'")
        assert stranger.error_of("GET", "/readyz") == (503, "cloud.unavailable")
        assert stranger.ok("GET", "/healthz") == {"status": "ok"}


def test_a_request_id_is_taken_from_the_client_or_generated(client: Client) -> None:
    sent_id = client.call("GET", "/v1/projects", X_Request_Id="call-7").headers["x-request-id"]
    generated_id = client.call("GET", "/v1/projects", X_Request_Id='a "b"').headers["x-request-id"]

    assert sent_id == "call-7"
    assert len(generated_id) == 32


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("My parcel is late"), 500, "cloud.internal"),
        (OperationalError("SELECT", {}, Exception("My parcel is late")), 503, "cloud.unavailable"),
    ],
)
def test_an_unexpected_error_uses_the_envelope_and_is_logged_without_callers_words(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    code: str,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(documents, "list_indexes", fail)
    with caplog.at_level(logging.INFO):
        assert client.error_of("GET", "/v1/voice-sdk/index/list") == (status, code)
        # The log line of the request may still be on its way.
        eventually(lambda: [record for record in caplog.records if "/index/list" in str(getattr(record, "fields", ""))])
    lines = [JsonLines().format(record) for record in caplog.records]

    assert "parcel" not in "".join(lines)
    entries = [json.loads(line) for line in lines]
    answered = next(line for line in entries if line.get("route") == "/v1/voice-sdk/index/list")
    assert (answered["action"], answered["status"]) == ("request", status)
    assert answered["accountId"].startswith("acct_")
    failed = [line for line in entries if line.get("action") == "request_failed"]
    assert [bool(line["places"]) for line in failed] == ([True] if status == 500 else [])


def test_logs_contain_no_words_no_user_ids_and_no_keys(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.send(turn("one", said="My parcel is late."), turn("two", said="parcel", seq="x"))
        client.events("call-1")
        client.error_of("POST", "/v1/voice-sdk/index/create", {"name": "parcel", "documents": ["parcel"]})
        client.ok("GET", "/v1/voice-sdk/users/0xab12/sessions")
        # A request is logged after its response.
        eventually(lambda: [record for record in caplog.records if "/users/" in str(getattr(record, "fields", ""))])
    logs = "".join(JsonLines().format(record) for record in caplog.records if record.name.startswith("memoair"))

    assert '"action": "request"' in logs
    for secret in ("parcel", "0xab12", "call-1", str(client.key)):
        assert secret not in logs


def test_the_rate_limit_applies_to_each_key_alone(tmp_path: Path, folder: Path) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", folder, requests_per_s=0.001, requests_at_once=3) as cloud:
        busy, idle = cloud.account(), cloud.account()
        answers = [busy.call("GET", "/v1/projects") for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].body["error"]["code"] == "cloud.rate_limited"
        assert int(answers[-1].headers["retry-after"]) > 100
        assert idle.call("GET", "/v1/projects").status == 200


def test_a_rate_limit_refills() -> None:
    limit = RateLimit(rate_per_s=2, burst=2)
    for _ in range(2):
        limit.acquire("key", now=100.0)
    with pytest.raises(RateLimitedError) as raised:
        limit.acquire("key", now=100.0)
    assert raised.value.details == {"retryAfterS": 0.5}
    limit.acquire("key", now=100.5)
    with pytest.raises(RateLimitedError):
        limit.acquire("key", now=100.6)
    for _ in range(2):
        limit.acquire("key", now=200.0)
    with pytest.raises(RateLimitedError):
        limit.acquire("key", now=200.0)


@pytest.mark.extended_on("sqlite")
@pytest.mark.timeout(600)
def test_generated_requests_get_documented_responses(cloud: RunningCloud, client: Client) -> None:
    headers = {"Authorization": f"Bearer {client.key}", "X-Project-Id": client.identity["project"]}
    headers |= {"X-Agent-Id": client.identity["agent"], "X-User-Id": "fuzz"}
    spec = schemathesis.openapi.from_dict(client.ok("GET", "/openapi.json"))
    checks = schemathesis.checks
    enabled_checks = [checks.not_a_server_error, checks.status_code_conformance, checks.response_schema_conformance]
    request_count = 0
    # What is parsed does not depend on the database; what is stored does.
    max_examples = 25 if cloud.services.engine.dialect.name == "sqlite" else 10

    for operation in spec.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(
            max_examples=max_examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def send_case(case: schemathesis.Case) -> None:
            nonlocal request_count
            request_count += 1
            case.call_and_validate(base_url=cloud.url, headers=headers, checks=enabled_checks)

        send_case()
    assert request_count > 150
