"""Suites and cases: what is put is kept, what is copied from a call was known then, and goes with its caller."""

import json
from typing import Any

import pytest
from support.clouds import Client, RunningCloud, turn
from support.evaluations import ROOT, case_of, new_suite, tell_life

from memoair_cloud.evaluation import cases as case_service
from memoair_cloud.evaluation import suites as suite_service


def cases_of(client: Client, suite: str) -> dict[str, Any]:
    return {each["caseId"]: each for each in client.pages(f"{suite}/cases", "cases", limit=3)}


def copy(client: Client, suite: str, event: str = "e4", session: str = "call-2", **more: Any) -> Any:
    body = {"userId": client.identity["user"], "sessionId": session, "eventId": event, **more}
    return client.ok("POST", f"{suite}/cases/from-turn", body)


def actions(client: Client) -> list[tuple[str, str | None]]:
    return [(each["action"], each["target"]) for each in client.ok("GET", "/v1/voice-sdk/audit")["entries"]]


def test_suites_belong_to_an_agent_and_have_unique_names(client: Client) -> None:
    suite = new_suite(client, name="b")
    new_suite(client, name="a")
    project = client.identity["project"]
    other = client.ok("POST", f"/v1/projects/{project}/agents", {"name": "Triage", "agentType": "voice"})["id"]
    colleague = client.with_identity(agent=other)

    assert client.error_of("POST", f"{ROOT}/suites", {"name": "a"}) == (409, "cloud.conflict")
    assert colleague.ok("POST", f"{ROOT}/suites", {"name": "a"})["agentId"] == other
    assert [each["name"] for each in client.pages(f"{ROOT}/suites", "suites", limit=1)] == ["a", "b"]
    assert [each["name"] for each in client.ok("GET", f"{ROOT}/suites?name=b")["suites"]] == ["b"]
    assert client.error_of("PATCH", suite, {"name": "a"}) == (409, "cloud.conflict")
    changed = client.ok("PATCH", suite, {"name": "c", "description": "returns"})
    assert (changed["name"], changed["description"], changed["version"]) == ("c", "returns", 0)
    for method, path, body in [
        ("GET", suite, None),
        ("PATCH", suite, {"name": "x"}),
        ("DELETE", suite, None),
        ("GET", f"{suite}/cases", None),
        ("PUT", f"{suite}/cases", {"cases": [case_of("a")]}),
        ("PUT", f"{suite}/cases/a", case_of("a")),
    ]:
        assert colleague.error_of(method, path, body) == (404, "cloud.not_found"), (method, path)
    nameless = Client(client.url, client.key, project=project)
    assert nameless.error_of("GET", f"{ROOT}/suites") == (422, "cloud.invalid")
    assert nameless.error_of("GET", suite) == (422, "cloud.invalid")
    assert client.ok("DELETE", suite)["name"] == "c"
    assert client.error_of("GET", suite) == (404, "cloud.not_found")
    client.ok("DELETE", f"/v1/projects/{project}/agents/{client.identity['agent']}")
    assert [each["name"] for each in colleague.ok("GET", f"{ROOT}/suites")["suites"]] == ["a"]


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": " a"}, {"name": "a\n"}, {"name": 5}, {"name": "x" * 201}])
def test_an_invalid_suite_is_rejected(client: Client, body: Any) -> None:
    assert client.error_of("POST", f"{ROOT}/suites", body) == (422, "cloud.invalid")


def test_cases_are_added_replaced_and_kept_and_each_change_counts(client: Client) -> None:
    suite = new_suite(client)
    put = [case_of("a"), case_of("b", tags=["boots"]), case_of("c/d #1", given={"facts": ["is allergic to nuts"]})]
    first = client.ok("PUT", f"{suite}/cases", {"cases": put})
    assert first == {"added": 3, "replaced": 0, "kept": 0, "removed": 0, "version": 1}
    again = client.ok("PUT", f"{suite}/cases", {"cases": put})
    assert again == {"added": 0, "replaced": 0, "kept": 3, "removed": 0, "version": 1}
    before = cases_of(client, suite)
    assert list(before) == ["a", "b", "c/d #1"]
    assert before["b"]["content"] == put[1]

    more = [case_of("e"), case_of("b", tags=["shoes"])]
    assert client.ok("PUT", f"{suite}/cases", {"cases": more}) == {
        "added": 1,
        "replaced": 1,
        "kept": 0,
        "removed": 0,
        "version": 2,
    }
    after = cases_of(client, suite)
    assert list(after) == ["a", "b", "c/d #1", "e"]
    assert after["b"]["sha256"] == before["b"]["sha256"], "tags change no score"
    replaced = client.ok("PUT", f"{suite}/cases", {"cases": [case_of("e"), case_of("a", "Why?")], "replaceAll": True})
    assert replaced == {"added": 0, "replaced": 1, "kept": 1, "removed": 2, "version": 3}
    assert [(each["position"], name) for name, each in cases_of(client, suite).items()] == [(0, "e"), (1, "a")]

    one = f"{suite}/cases/c%2Fd%20%231"
    assert client.error_of("GET", one) == (404, "cloud.not_found")
    client.ok("PUT", one, {"question": "And now?"})
    assert client.ok("GET", one)["content"] == {"id": "c/d #1", "question": "And now?"}
    assert client.error_of("PUT", one, case_of("a")) == (422, "cloud.invalid")
    assert client.ok("DELETE", one)["caseId"] == "c/d #1"
    assert client.error_of("DELETE", one) == (404, "cloud.not_found")
    detail = client.ok("GET", suite)
    assert (detail["version"], detail["caseCount"]) == (5, 2)


def test_an_invalid_case_is_named_by_its_place_and_never_by_its_words(client: Client) -> None:
    suite = new_suite(client)
    invalid: list[tuple[list[Any], str]] = [
        ([case_of("a"), case_of("b", must=[{"fact": "x", "document": "secret"}])], "cases[1].must[0]"),
        ([case_of("a"), case_of("a")], "cases[1].id"),
        ([{"id": "a"}], "cases[0].question"),
        ([case_of("a", secret="secret")], "cases[0].secret"),
        ([case_of("a", given={"turns": [{"user": "secret", "occurredAt": "secret"}]})], "cases[0].given.turns[0]"),
        ([case_of("a\n")], "cases[0].id"),
        (["secret"], "body.cases.0"),
    ]
    for cases, field in invalid:
        answer = client.call("PUT", f"{suite}/cases", {"cases": cases})
        assert answer.status == 422
        assert field in answer.body["error"]["message"]
        assert "secret" not in answer.body["error"]["message"].removeprefix("cases[0].secret")
    many = [case_of(f"c{number}") for number in range(1_001)]
    assert client.error_of("PUT", f"{suite}/cases", {"cases": many}) == (413, "cloud.batch_too_large")
    assert client.ok("GET", suite)["caseCount"] == 0


def test_a_suite_has_limits(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = new_suite(client, case_of("a"))
    monkeypatch.setattr(case_service, "MAX_SUITE_CASES", 2)
    too_many = {"cases": [case_of("b"), case_of("c")]}
    assert client.error_of("PUT", f"{suite}/cases", too_many) == (413, "cloud.batch_too_large")
    assert list(cases_of(client, suite)) == ["a"]
    monkeypatch.setattr(case_service, "MAX_SUITE_BYTES", 200)
    large = {"cases": [case_of("b", "x" * 200)]}
    assert client.error_of("PUT", f"{suite}/cases", large) == (413, "cloud.batch_too_large")
    monkeypatch.setattr(suite_service, "MAX_SUITES", 1)
    assert client.error_of("POST", f"{ROOT}/suites", {"name": "x"}) == (413, "cloud.batch_too_large")


def test_a_copied_case_has_what_was_known_then_without_numbers(cloud: RunningCloud, client: Client) -> None:
    tell_life(client)
    cloud.run_tasks()
    suite = new_suite(client)
    must = [{"turn": "e1"}, {"turn": "t-2", "session": "call-2"}, {"text": "030 901820"}]
    copied = copy(client, suite, caseId="where", must=must, expectedAnswer="In Lisbon.", tags=["home"])

    assert (copied["userId"], copied["source"]) == ("0xab12", {"sessionId": "call-2", "eventId": "e4"})
    content = copied["content"]
    assert (content["id"], content["at"]) == ("where", "2026-03-02T09:02:00Z")
    assert content["question"] == "Where do I live? Call [phone number]."
    assert [each["user"] for each in content["given"]["turns"]] == ["I live in Lisbon.", "My number is [phone number]."]
    assert [each["user"] for each in content["talk"]] == ["It is about my red boots."]
    assert content["must"] == [{"turn": "turn-1"}, {"turn": "turn-3"}, {"text": "[phone number]"}]
    assert [(each["turnId"], each["sessionId"]) for each in content["given"]["turns"]] == [
        ("turn-1", "call-1"),
        ("turn-2", "call-1"),
    ]
    facts = [each["text"] for each in content["given"]["facts"]]
    assert any("Lisbon" in fact for fact in facts)
    profile = content["given"]["profile"]
    assert (profile["name"], profile["metadata"]) == ("Ana", {"tenant": "acme"})
    assert "Lisbon" in profile["summary"]
    text = json.dumps(content)
    assert not [word for word in ("Oslo", "nuts", "901820") if word in text]
    assert copied["leftOut"] == 0
    assert cases_of(client, suite)["where"]["content"] == content
    assert actions(client)[:2] == [("call.read", "call-2"), ("case.copied", "call-2")]


def test_a_copied_case_has_no_facts_of_its_own_call(cloud: RunningCloud, client: Client) -> None:
    client.send_call("call-1", "I live in Lisbon.", "Where do I live?")
    cloud.run_tasks()
    copied = copy(client, new_suite(client), event="call-1-3", session="call-1")["content"]
    assert [each["user"] for each in copied["talk"]] == ["I live in Lisbon."]
    assert copied["given"] == {"profile": {"name": "Ana", "metadata": {"tenant": "acme"}}}


def test_a_copied_case_goes_with_its_caller_unless_its_text_is_kept(cloud: RunningCloud, client: Client) -> None:
    tell_life(client)
    cloud.run_tasks()
    suite = new_suite(client, case_of("given"))
    copy(client, suite, caseId="tied", must=[{"turn": "e1"}])
    kept = copy(client, suite, caseId="kept", keepText=True)
    assert (kept["userId"], kept["source"], kept["content"]["given"]["profile"]["name"]) == (None, None, "Ana")
    assert not [word for word in ("0xab12", "call-2", '"e1"', "acme") if word in json.dumps(kept)]
    client.ok("PUT", f"{suite}/cases/tied", case_of("tied", "Something else?"))
    assert client.ok("GET", f"{suite}/cases/tied")["userId"] == "0xab12", "an edited copy is still a copy"
    assert client.ok("GET", client.path)["counts"]["evaluationCases"] == 1
    export = client.ok("GET", f"{client.path}/export")
    assert [each["id"] for each in export["evaluationCases"]] == ["tied"]
    version = client.ok("GET", suite)["version"]

    receipt = client.ok("DELETE", client.path)
    assert receipt["removed"]["evaluationCases"] == 1
    assert list(cases_of(client, suite)) == ["given", "kept"]
    assert client.ok("GET", suite)["version"] == version + 1
    assert "call-2" not in json.dumps(client.ok("GET", "/v1/voice-sdk/audit"))


def test_only_turns_of_the_caller_in_the_project_can_be_copied(cloud: RunningCloud, client: Client) -> None:
    tell_life(client)
    client.send(turn("silent", "call-2", 5, ""), turn("fixed", "call-2", 6, "Where is it?"))
    other = client.with_identity(user="other")
    other.send(turn("theirs", "call-9"))
    suite = new_suite(client, case_of("taken"))

    def refusal(**changes: Any) -> tuple[int, str]:
        body = {"userId": "0xab12", "sessionId": "call-2", "eventId": "e4", **changes}
        return client.error_of("POST", f"{suite}/cases/from-turn", body)

    assert refusal(eventId="no") == refusal(userId="nobody") == refusal(sessionId="call-1") == (404, "cloud.not_found")
    assert refusal(userId="other") == refusal(eventId="s2") == refusal(eventId="theirs") == (404, "cloud.not_found")
    assert refusal(eventId="silent") == (422, "cloud.invalid")
    assert refusal(must=[{"turn": "e5"}]) == refusal(must=[{"nothing": 1}]) == (422, "cloud.invalid")
    assert refusal(caseId="taken") == (409, "cloud.conflict")
    stranger = cloud.tenant()
    body = {"userId": "0xab12", "sessionId": "call-2", "eventId": "e4"}
    path = f"{new_suite(stranger)}/cases/from-turn"
    assert stranger.error_of("POST", path, body) == (404, "cloud.not_found")
    correction = turn("right", "call-2", 7, "Where is my parcel?")
    correction["payload"]["corrects"] = "fixed"
    client.send(correction)
    assert refusal(eventId="fixed") == (409, "cloud.conflict")
    assert copy(client, suite, event="right")["content"]["question"] == "Where is my parcel?"
    assert list(cases_of(client, suite))[:1] == ["taken"]


def test_the_oldest_turns_are_left_out_of_a_case_that_would_be_too_large(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.send(*(turn(f"l{number}", "long", number, f"{number} " + "word " * 40_000) for number in range(1, 8)))
    client.send(turn("ask", "call-2", 2, "What did I say?", occurredAt="2026-03-05T09:00:00Z"))
    copied = copy(client, new_suite(client), event="ask")
    assert copied["leftOut"] == 3
    assert [each["user"].split()[0] for each in copied["content"]["given"]["turns"]] == ["4", "5", "6", "7"]
