"""What is never learned: numbers that were redacted, and the kinds that a project excludes."""

import json
from typing import Any, get_args

import pytest
from support.clouds import Client, RunningCloud
from support.commands import memoair

from memoair_cloud.consolidation import FactKind
from memoair_cloud.http.schemas.projects import DataKind, ExcludableKind
from memoair_redaction import KINDS

WORDS = "My phone number is four one five, five five five, oh one two three."
DIGITS = "My phone number is 415-555-0123."


def exclude(client: Client, *kinds: str) -> Any:
    path = f"/v1/projects/{client.identity['project']}"
    return client.ok("PATCH", path, {"excludedKinds": list(kinds)})


def learn(cloud: RunningCloud, client: Client, *said: str, call: str = "call-1") -> str:
    """Save a call with these turns, consolidate it, and return everything that is known of the caller."""
    client.send_call(call, *said)
    cloud.run_tasks()
    return json.dumps([client.memories(), client.ok("GET", "/v1/voice-sdk/projections/profile")])


@pytest.mark.parametrize("said", [WORDS, DIGITS])
def test_a_project_that_excludes_a_kind_of_data_never_learns_it(cloud: RunningCloud, client: Client, said: str) -> None:
    assert exclude(client, "phone")["excludedKinds"] == ["phone"]
    known = learn(cloud, client, said, "I live in Lisbon.")

    assert "Lisbon" in known
    assert "0123" not in known


def test_without_an_exclusion_a_phone_number_is_learned(cloud: RunningCloud, client: Client) -> None:
    assert "0123" in learn(cloud, client, WORDS)


def test_what_was_redacted_in_one_turn_of_a_call_is_not_learned_from_another(
    cloud: RunningCloud, client: Client
) -> None:
    known = learn(cloud, client, "My phone number is [phone number].", WORDS, "I live in Lisbon.")
    assert "Lisbon" in known
    assert "0123" not in known
    assert "[phone number]" not in known
    assert "0123" in learn(cloud, client, WORDS, call="call-2"), "other calls are not affected"


def test_a_project_that_excludes_a_kind_of_facts_never_learns_them(cloud: RunningCloud, client: Client) -> None:
    exclude(client, "identity")
    known = learn(cloud, client, "I live in Lisbon.", "I love olives.")
    assert "Lisbon" not in known
    assert "olives" in known


def test_what_was_learned_before_is_removed_with_its_history(cloud: RunningCloud, client: Client) -> None:
    assert "0123" in learn(cloud, client, DIGITS, "I live in Lisbon.")
    [phone] = [memory for memory in client.memories() if "0123" in memory["text"]]
    exclude(client, "phone", "email")
    cloud.run_tasks()

    known = json.dumps([client.memories(), client.ok("GET", "/v1/voice-sdk/projections/profile")])
    assert "Lisbon" in known
    assert "0123" not in known
    history = client.ok("GET", f"/v1/voice-sdk/users/0xab12/memories/{phone['memoryId']}/history")
    assert "0123" not in json.dumps(history)
    exclude(client)
    cloud.run_tasks()
    assert "0123" not in json.dumps(client.memories()), "what was removed is gone"
    assert "0123" in learn(cloud, client, DIGITS, call="call-2")


def test_by_default_cards_accounts_and_security_codes_are_excluded(client: Client) -> None:
    project = client.ok("GET", f"/v1/projects/{client.identity['project']}")
    assert project["excludedKinds"] == ["iban", "card", "security_code"]


def test_unknown_kinds_and_projects_of_others_are_rejected(cloud: RunningCloud, client: Client) -> None:
    path = f"/v1/projects/{client.identity['project']}"
    assert client.error_of("PATCH", path, {"excludedKinds": ["phones"]}) == (422, "cloud.invalid")
    assert cloud.tenant().error_of("PATCH", path, {"excludedKinds": []}) == (404, "cloud.not_found")


def test_every_kind_can_be_excluded() -> None:
    assert get_args(DataKind) == KINDS
    kinds = [value for part in get_args(ExcludableKind) for value in get_args(part)]
    assert set(kinds) - set(KINDS) == {kind.value for kind in FactKind}


def test_the_command_line_sets_what_is_excluded(cloud: RunningCloud, client: Client) -> None:
    def run(*arguments: str) -> Any:
        options = ["--api-key", str(client.key), "--base-url", cloud.url, "--json"]
        return json.loads(memoair("project", "set", client.identity["project"], *arguments, *options).out)

    assert run("--exclude", "phone", "--exclude", "identity")["excludedKinds"] == ["phone", "identity"]
    assert run("--exclude-nothing")["excludedKinds"] == []
    changed = run("--recall-traces", "text", "--keep-traces", "7")
    assert (changed["recallTraces"], changed["retention"]["tracesDays"], changed["excludedKinds"]) == ("text", 7, [])
    assert run("--recall-traces", "default")["recallTraces"] is None
    options = ["--api-key", str(client.key), "--base-url", cloud.url]
    assert "--exclude" in memoair("project", "set", client.identity["project"], *options, code=1).err
