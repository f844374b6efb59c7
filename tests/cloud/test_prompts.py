"""Prompts of agents: versions without gaps, labels that move, rollbacks, and the audit log of all of it."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from support.clouds import Answer, Client, RunningCloud

from memoair_cloud.prompts import moves
from memoair_cloud.tenancy.access import authenticate
from memoair_cloud.tenancy.grants import Grant, KeyScope

PROMPTS = "/v1/voice-sdk/prompts"
LABELS = "/v1/voice-sdk/prompt-labels"
TEXT = "Greet {{caller}} for {{ shop }}.\n"


def push(client: Client, text: str = TEXT, **more: Any) -> Any:
    return client.ok("POST", PROMPTS, {"text": text, **more})


def push_all(client: Client, *texts: str) -> None:
    for text in texts:
        push(client, text)


def audit(client: Client) -> list[tuple[str, str | None, Any]]:
    """Return the changes of the agent's prompt, oldest first."""
    entries = client.ok("GET", f"/v1/voice-sdk/audit?agentId={client.identity['agent']}")["entries"]
    return [(entry["action"], entry["target"], entry["details"]) for entry in reversed(entries)]


def other_agent(client: Client) -> Client:
    path = f"/v1/projects/{client.identity['project']}/agents"
    return client.with_identity(agent=client.ok("POST", path, {"name": "Other", "agentType": "voice"})["id"])


def run_at_once(calls: Iterable[tuple[Client, str, str, Any]]) -> list[Answer]:
    found = list(calls)
    with ThreadPoolExecutor(len(found)) as pool:
        return list(pool.map(lambda call: call[0].call(*call[1:]), found))


def test_a_version_is_kept_exactly_and_never_changes(client: Client) -> None:
    text = '  Größe {{ a }}\r\n\tsay {"x": {}}\u2028{{b}}{{{{c}} \U0001f600\n\n'
    answer = client.call("POST", PROMPTS, {"text": text, "notes": "shorter"})
    assert answer.status == 201
    assert {**answer.body, "createdAt": ""} == {
        "agentId": client.identity["agent"],
        "version": 1,
        "text": text,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "placeholders": ["a", "b"],
        "notes": "shorter",
        "createdAt": "",
        "createdBy": answer.body["createdBy"],
        "labels": [],
        "isNew": True,
    }
    assert answer.body["createdBy"].startswith("first key (memoair_pk_")
    push(client, "Another.")
    assert {**client.ok("GET", f"{PROMPTS}/1"), "isNew": True} == answer.body
    for method in ("PUT", "PATCH", "DELETE"):
        assert client.error_of(method, f"{PROMPTS}/1") == (405, "cloud.invalid")


def test_the_same_text_is_no_new_version_and_its_labels_move_all_the_same(client: Client) -> None:
    push_all(client, "One.", "Two.")
    again = client.call("POST", PROMPTS, {"text": "Two.", "notes": "late", "labels": ["production"]})
    assert (again.status, again.body["version"], again.body["labels"]) == (200, 2, ["production"])
    assert (again.body["notes"], again.body["isNew"]) == ("", False)
    # A push whose reply was lost is repeated with the version that its sender knew.
    assert client.call("POST", PROMPTS, {"text": "Two.", "expectedVersion": 1}).status == 200
    # The text of an older version is a new version: this is another way back.
    assert client.call("POST", PROMPTS, {"text": "One."}).status == 201
    assert [prompt["version"] for prompt in client.ok("GET", PROMPTS)["prompts"]] == [3, 2, 1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": "x" * 100_001}, "text"),
        ({"text": "a\0"}, "text"),
        ({"text": "Hello {{first name}}"}, "text"),
        ({"text": "x", "notes": "n" * 2_001}, "notes"),
        ({"text": "x", "labels": ["Production"]}, "labels"),
        ({"text": "x", "labels": ["12"]}, "labels"),
        ({"text": "x", "labels": ["x" * 65]}, "labels"),
        ({"text": "x", "labels": [f"l{n}" for n in range(21)]}, "labels"),
        ({"text": "x", "expectedVersion": -1}, "expectedVersion"),
        ({"text": "x", "expectedVersion": "1"}, "expectedVersion"),
        ({}, "text"),
    ],
)
def test_an_invalid_push_is_refused_by_its_field_and_leaves_nothing(client: Client, body: Any, field: str) -> None:
    answer = client.call("POST", PROMPTS, body)
    assert (answer.status, answer.body["error"]["code"]) == (422, "cloud.invalid")
    assert field in answer.body["error"]["message"]
    assert "first name" not in str(answer.body)
    assert client.ok("GET", PROMPTS) == {"prompts": [], "next": None}
    assert audit(client) == []


def test_a_malformed_placeholder_is_named_by_its_place(client: Client) -> None:
    message = client.call("POST", PROMPTS, {"text": "a\nb {{ 1"}).body["error"]["message"]
    assert message.startswith("text: line 2, column 3: ")


def test_the_largest_prompt_is_accepted_in_any_script(client: Client) -> None:
    text = "\U0001f600" * 100_000  # twelve bytes each, as JSON may write them
    assert push(client, text)["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert client.ok("GET", f"{PROMPTS}/1")["text"] == text


def test_a_push_that_does_not_know_the_latest_version_conflicts(client: Client) -> None:
    push(client, "One.", expectedVersion=0)
    answer = client.call("POST", PROMPTS, {"text": "Two.", "expectedVersion": 0, "labels": ["production"]})
    assert (answer.status, answer.body["error"]["code"]) == (409, "cloud.conflict")
    assert answer.body["error"]["details"] == {"version": 1, "expectedVersion": 0}
    assert client.ok("GET", LABELS)["labels"] == []
    assert push(client, "Two.", expectedVersion=1)["version"] == 2


def test_pushes_at_once_get_numbers_without_gaps(client: Client) -> None:
    answers = run_at_once((client, "POST", PROMPTS, {"text": f"Text {n}."}) for n in range(6))
    assert sorted((answer.status, answer.body["version"]) for answer in answers) == [(201, n) for n in range(1, 7)]
    expected = run_at_once((client, "POST", PROMPTS, {"text": f"More {n}.", "expectedVersion": 6}) for n in range(4))
    assert sorted(answer.status for answer in expected) == [201, 409, 409, 409]
    same = run_at_once((client, "POST", PROMPTS, {"text": "The same."}) for _ in range(4))
    assert sorted(answer.status for answer in same) == [200, 200, 200, 201]
    assert {answer.body["version"] for answer in same} == {8}


def test_moves_at_once_are_one_after_another(client: Client) -> None:
    push_all(client, *(f"Text {n}." for n in range(1, 5)))
    assert all(answer.status == 200 for answer in run_at_once(
        (client, "PUT", f"{LABELS}/production", {"version": version}) for version in (1, 2, 3, 4)
    ))  # fmt: skip
    history = client.pages(f"{LABELS}/production/moves", "moves", limit=3)
    assert sorted(move["version"] for move in history) == [1, 2, 3, 4]
    assert [move["replaced"] for move in history] == [*(move["version"] for move in history[1:]), None]
    current = history[0]["version"]
    assert client.ok("GET", f"{LABELS}/production")["version"] == current
    body = {"expectedVersion": current}
    others = [version for version in (1, 2, 3, 4) if version != current]
    answers = run_at_once((client, "PUT", f"{LABELS}/production", {"version": version, **body}) for version in others)
    assert sorted(answer.status for answer in answers) == [200, 409, 409]


def test_a_label_moves_and_rolls_back_further_and_further(client: Client) -> None:
    push_all(client, "One.", "Two.", "Three.")
    path = f"{LABELS}/production"
    for version in (1, 3, 3, 2):
        assert client.ok("PUT", path, {"version": version})["version"] == version
    assert [client.ok("POST", f"{path}/rollback")["version"] for _ in range(2)] == [3, 1]
    assert client.error_of("POST", f"{path}/rollback") == (409, "cloud.conflict")
    assert client.ok("PUT", path, {"version": 2})["version"] == 2
    assert client.ok("POST", f"{path}/rollback")["version"] == 1
    history = client.ok("GET", f"{path}/moves")["moves"]
    assert [(move["version"], move["replaced"], move["isRollback"]) for move in history] == [
        (1, 2, True), (2, 1, False), (1, 3, True), (3, 2, True), (2, 3, False), (3, 1, False), (1, None, False),
    ]  # fmt: skip
    assert history == client.pages(f"{path}/moves", "moves", limit=2)


def test_a_removal_can_be_rolled_back_and_does_not_hide_what_was_before(client: Client) -> None:
    push_all(client, "One.", "Two.")
    path = f"{LABELS}/production"
    client.ok("PUT", path, {"version": 1})
    client.ok("PUT", path, {"version": 2})
    assert client.ok("DELETE", path)["version"] == 2
    assert client.error_of("GET", path) == (404, "cloud.not_found")
    assert client.error_of("DELETE", path) == (404, "cloud.not_found")
    assert client.ok("GET", LABELS)["labels"] == []
    assert client.ok("POST", f"{path}/rollback")["version"] == 2
    client.ok("DELETE", path)
    client.ok("PUT", path, {"version": 2})
    assert client.ok("POST", f"{path}/rollback")["version"] == 1
    assert [move["version"] for move in client.ok("GET", f"{path}/moves")["moves"]] == [1, 2, None, 2, None, 2, 1]


def test_changes_of_a_label_can_expect_where_it_points(client: Client) -> None:
    push_all(client, "One.", "Two.")
    path = f"{LABELS}/production"
    assert client.call("PUT", path, {"version": 1, "expectedVersion": 2}).body["error"]["details"] == {
        "version": 0,
        "expectedVersion": 2,
    }
    client.ok("PUT", path, {"version": 1, "expectedVersion": 0})
    client.ok("PUT", path, {"version": 2, "expectedVersion": 1})
    for method, rest in (("DELETE", ""), ("POST", "/rollback")):
        assert client.error_of(method, f"{path}{rest}?expectedVersion=1") == (409, "cloud.conflict")
    assert client.ok("POST", f"{path}/rollback?expectedVersion=2")["version"] == 1
    assert client.ok("DELETE", f"{path}?expectedVersion=1")["version"] == 1


@pytest.mark.parametrize("name", ["Production", "12", "a%20b", "..%2Fx", "x" * 65])
def test_a_label_with_an_invalid_name_is_refused(client: Client, name: str) -> None:
    push(client)
    assert client.error_of("PUT", f"{LABELS}/{name}", {"version": 1})[0] in (404, 422)
    assert client.error_of("GET", f"{LABELS}/{name}")[0] in (404, 422)
    assert client.ok("GET", LABELS)["labels"] == []


def test_what_does_not_exist_is_not_found(client: Client) -> None:
    push(client)
    not_found = (404, "cloud.not_found")
    assert client.error_of("GET", f"{PROMPTS}/2") == not_found
    assert client.error_of("GET", f"{PROMPTS}/1/diff?against=9") == not_found
    assert client.error_of("PUT", f"{LABELS}/production", {"version": 2}) == not_found
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/moves"), ("POST", "/rollback")):
        assert client.error_of(method, f"{LABELS}/production{path}") == not_found
    assert client.error_of("GET", f"{PROMPTS}/0")[0] == 422
    assert client.error_of("GET", f"{PROMPTS}/{2**63}")[0] == 422
    assert client.error_of("GET", f"{PROMPTS}?cursor=x")[0] == 422
    nowhere = Client(client.url, client.key, project=client.identity["project"])
    answer = nowhere.call("GET", PROMPTS)
    assert (answer.status, answer.body["error"]["details"]) == (422, {"field": "X-Agent-Id"})
    nowhere.close()


def test_agents_of_a_project_have_prompts_of_their_own(client: Client) -> None:
    push(client, "One.", labels=["production"])
    other = other_agent(client)
    assert other.ok("GET", PROMPTS)["prompts"] == other.ok("GET", LABELS)["labels"] == []
    for path in (f"{PROMPTS}/1", f"{LABELS}/production", f"{LABELS}/production/moves"):
        assert other.error_of("GET", path) == (404, "cloud.not_found")
    assert push(other, "Theirs.")["version"] == 1
    assert other.error_of("GET", f"{LABELS}/production") == (404, "cloud.not_found")
    push(other, "Theirs.", labels=["production"])
    assert client.ok("GET", f"{LABELS}/production")["text"] == "One."
    assert audit(other) == [
        ("prompt.pushed", "1", {"from": None, "to": 1}),
        ("prompt.label_moved", "production", {"from": None, "to": 1}),
    ]
    client.ok("DELETE", f"/v1/projects/{client.identity['project']}/agents/{other.identity['agent']}")
    assert other.error_of("GET", PROMPTS) == (404, "cloud.not_found")
    assert audit(client) != []
    [*_, deleted] = client.ok("GET", f"/v1/voice-sdk/audit?agentId={other.identity['agent']}&limit=1")["entries"]
    assert (deleted["action"], deleted["agentId"]) == ("agent.deleted", other.identity["agent"])


def test_two_versions_are_compared(client: Client) -> None:
    push_all(client, "Hello\nBye\n", "Hello\nGoodbye\n")
    diff = "--- version 1\n+++ version 2\n@@ -1,2 +1,2 @@\n Hello\n-Bye\n+Goodbye\n"
    assert client.ok("GET", f"{PROMPTS}/2/diff") == {"from": 1, "to": 2, "diff": diff}
    assert client.ok("GET", f"{PROMPTS}/2/diff?against=2")["diff"] == ""
    assert client.ok("GET", f"{PROMPTS}/1/diff")["diff"].startswith("--- version 0\n+++ version 1\n@@ -0,0 +1,2 @@\n")
    assert "-Goodbye\n+Bye\n" in client.ok("GET", f"{PROMPTS}/1/diff?against=2")["diff"]


def test_a_machine_that_has_a_prompt_does_not_get_it_again(client: Client) -> None:
    push(client, "One.", labels=["production"])
    for path in (f"{LABELS}/production", f"{PROMPTS}/1"):
        first = client.call("GET", path)
        etag = first.headers["etag"]
        for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            again = client.call("GET", path, If_None_Match=known)
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        assert client.call("GET", path, If_None_Match='"x"').body == first.body
    assert client.ok("GET", f"{LABELS}/production")["label"] == "production"
    etag = client.call("GET", f"{LABELS}/production").headers["etag"]
    push(client, "Two.", labels=["production"])
    changed = client.call("GET", f"{LABELS}/production", If_None_Match=etag)
    assert (changed.status, changed.body["text"]) == (200, "Two.")


def test_lists_are_paged(client: Client) -> None:
    names = ["a", "b.1", "c_2", "d-3", "production"]
    for number, name in enumerate(names):
        push(client, f"Text {number}.", labels=[name])
    found = client.pages(PROMPTS, "prompts", limit=2)
    assert [prompt["version"] for prompt in found] == [5, 4, 3, 2, 1]
    assert [prompt["labels"] for prompt in found] == [[name] for name in reversed(names)]
    assert not any("text" in prompt for prompt in found)
    assert [label["name"] for label in client.pages(LABELS, "labels", limit=2)] == names


def test_the_number_of_labels_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "MAX_LABELS", 2)
    push(client, labels=["a", "b"])
    assert client.error_of("PUT", f"{LABELS}/c", {"version": 1}) == (409, "cloud.conflict")
    assert client.error_of("POST", PROMPTS, {"text": "Two.", "labels": ["c"]}) == (409, "cloud.conflict")
    assert len(client.ok("GET", PROMPTS)["prompts"]) == 1, "a push is whole, or nothing"
    client.ok("PUT", f"{LABELS}/b", {"version": 1})


def test_every_change_is_in_the_audit_log_with_who_and_from_which_version(client: Client) -> None:
    path = f"{LABELS}/production"
    push(client, "One.", labels=["production"], notes="secret notes")
    push(client, "Two.")
    push(client, "Two.")  # changes nothing
    client.ok("PUT", path, {"version": 2})
    client.ok("PUT", path, {"version": 2})  # changes nothing
    client.ok("POST", f"{path}/rollback")
    client.ok("DELETE", path)
    assert audit(client) == [
        ("prompt.pushed", "1", {"from": None, "to": 1}),
        ("prompt.label_moved", "production", {"from": None, "to": 1}),
        ("prompt.pushed", "2", {"from": 1, "to": 2}),
        ("prompt.label_moved", "production", {"from": 1, "to": 2}),
        ("prompt.label_rolled_back", "production", {"from": 2, "to": 1}),
        ("prompt.label_removed", "production", {"from": 1, "to": None}),
    ]
    entries = client.ok("GET", "/v1/voice-sdk/audit")["entries"]
    assert {(entry["actorKind"], entry["userId"], entry["userDigest"]) for entry in entries} == {("key", None, None)}
    assert all(entry["actorName"].startswith("first key") for entry in entries)
    assert "secret notes" not in str(entries)
    assert client.ok("GET", "/v1/voice-sdk/audit?userId=somebody")["entries"] == []


def test_a_label_keeps_its_order_if_the_clock_goes_back(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    push_all(client, "One.", "Two.")
    client.ok("PUT", f"{LABELS}/production", {"version": 1})
    monkeypatch.setattr(moves, "utc_now", lambda: datetime.now(timezone.utc) - timedelta(hours=1))
    client.ok("PUT", f"{LABELS}/production", {"version": 2})
    assert [move["version"] for move in client.ok("GET", f"{LABELS}/production/moves")["moves"]] == [2, 1]
    assert client.ok("POST", f"{LABELS}/production/rollback")["version"] == 1


def test_the_scope_of_a_key_says_what_it_may_do(cloud: RunningCloud, client: Client) -> None:
    push(client, "One.", labels=["production"])
    account_id = authenticate(cloud.services.engine, str(client.key)).account_id
    project = client.identity["project"]
    elsewhere = client.ok("POST", "/v1/projects", {"name": "Other", "slug": "other"})["id"]
    keys = {
        scope: Client(client.url, cloud.accounts.issue_key(account_id, "scoped", grant).key, **client.identity)
        for scope, grant in {
            "read": Grant(KeyScope.READ),
            "ingest": Grant(KeyScope.INGEST, project),
            "elsewhere": Grant(KeyScope.EVERYTHING, elsewhere),
        }.items()
    }
    reads = [PROMPTS, f"{PROMPTS}/1", f"{PROMPTS}/1/diff", LABELS, f"{LABELS}/production/moves"]
    label = f"{LABELS}/production"
    changes = [
        ("POST", PROMPTS, {"text": "Two."}),
        ("PUT", label, {"version": 1}),
        ("POST", f"{label}/rollback", None),
        ("DELETE", label, None),
    ]
    # A machine that only records its calls gets what its agent has to say, and nothing else.
    assert keys["ingest"].ok("GET", label)["text"] == keys["read"].ok("GET", label)["text"] == "One."
    assert keys["elsewhere"].error_of("GET", label) == (403, "cloud.forbidden")
    for path in reads:
        assert keys["read"].call("GET", path).status == 200
        for scope in ("ingest", "elsewhere"):
            assert keys[scope].error_of("GET", path) == (403, "cloud.forbidden"), path
    for method, path, body in changes:
        for key in keys.values():
            assert key.error_of(method, path, body) == (403, "cloud.forbidden"), path
    for key in keys.values():
        key.close()
