"""Recall traces in the cloud: saved once, linked to their turns, listed, counted, erased, and kept for a while."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from support.clouds import Client, RunningCloud, recall_trace, session_start, turn

from memoair_cloud.recall_traces import figures, queries
from memoair_cloud.tenancy.access import Tenant, authenticate
from memoair_cloud.tenancy.scoped import Scope
from memoair_protocol.enums import LaneName
from memoair_protocol.timestamps import utc_now

TRACES = "/v1/voice-sdk/recall-traces"
OF_CALL = "/v1/voice-sdk/sessions/call-1/recall-traces"


def tenant_of(cloud: RunningCloud, client: Client, user_id: str | None = None) -> Tenant:
    credentials = authenticate(cloud.services.engine, str(client.key))
    return Tenant(cloud.services.engine, Scope(credentials.account_id, client.identity["project"], user_id=user_id))


def traces_of(client: Client, path: str = OF_CALL) -> list[dict[str, Any]]:
    return client.pages(path, "traces", limit=2)


def days_ago(days: float) -> str:
    return (utc_now() - timedelta(days=days)).isoformat()


def with_status(trace_id: str, status: str, **more: Any) -> Any:
    lanes = {"org": {"status": status, "ms": 3.0, "hits": 0, "items": []}}
    return recall_trace(trace_id, lanes=lanes, degraded=status != "ok", **more)


def test_a_trace_is_saved_once_and_comes_back(client: Client) -> None:
    sent = recall_trace("one", turnId="t-2", promptVersion=5, newField={"of": "a later version"})
    assert client.send_traces(sent, sent)["duplicate"] == ["one"]
    assert client.send_traces(sent) == {"accepted": [], "duplicate": ["one"], "rejected": []}

    [trace] = traces_of(client)
    assert trace == client.ok("GET", f"{TRACES}/one")
    expected = {
        "traceId": "one",
        "userId": "0xab12",
        "sessionId": "call-1",
        "turnId": "t-2",
        "turnEventId": None,
        "agentId": client.identity["agent"],
        "mode": "ids",
        "origin": "hook",
        "intent": "answer_current_user",
        "totalMs": 1.25,
        "deadlineMs": 250,
        "degraded": False,
        "prefetched": False,
        "foundCount": 2,
        "contextChars": 40,
        "confidence": 0.75,
        "orgVersion": 3,
        "memoryVersion": 7,
        "promptVersion": 5,
    }
    assert {name: trace[name] for name in expected} == expected
    assert trace["lanes"]["org"] == {"status": "ok", "ms": 0.5, "hits": 1, "chars": 40, "confidence": 0.75}
    assert trace["details"]["hits"]["org"] == sent["lanes"]["org"]["items"]
    assert datetime.fromisoformat(trace["occurredAt"].replace("Z", "+00:00")) == datetime.fromisoformat(
        sent["occurredAt"]
    )


def test_traces_without_a_user_are_of_the_organizations_documents(client: Client) -> None:
    lobby = Client(client.url, client.key, project=client.identity["project"])
    assert lobby.send_traces(recall_trace("org", "lobby"))["accepted"] == ["org"]

    [trace] = traces_of(lobby, "/v1/voice-sdk/sessions/lobby/recall-traces")
    assert (trace["userId"], trace["agentId"]) == (None, None)
    assert client.error_of("GET", f"{TRACES}/org") == (404, "cloud.not_found"), "a user sees only their own"
    assert client.ok("GET", "/v1/voice-sdk/users")["users"] == []


@pytest.mark.parametrize("first", ["trace", "turn"])
def test_a_trace_is_linked_to_its_turn_whichever_arrives_first(client: Client, first: str) -> None:
    steps = {
        "trace": lambda: client.send_traces(recall_trace("one", turnId="t-2"), recall_trace("other", turnId="t-9")),
        "turn": lambda: client.send(session_start("s"), turn("e2", seq=2), turn("e3", seq=3)),
    }
    for name in (first, *({*steps} - {first})):
        steps[name]()

    linked = {trace["traceId"]: trace["turnEventId"] for trace in traces_of(client)}
    assert linked == {"one": "e2", "other": None}
    assert [trace["traceId"] for trace in traces_of(client, OF_CALL + "?turn=t-2&x=")] == ["one"]


def test_a_correction_does_not_take_the_traces_of_its_turn(client: Client) -> None:
    correction = turn("e3", seq=3)
    correction["payload"] |= {"turnId": "t-2", "corrects": "e2"}
    client.send(session_start("s"), turn("e2", seq=2), correction)
    client.send_traces(recall_trace("one", turnId="t-2"))
    assert traces_of(client)[0]["turnEventId"] == "e2"


def test_an_invalid_trace_does_not_block_the_others(client: Client) -> None:
    invalid = {
        "mode": recall_trace("mode", mode="all my secrets"),
        "lane": recall_trace("lane", lanes={"kitchen": {"status": "ok"}}),
        "time": recall_trace("time", occurredAt="yesterday"),
        "size": recall_trace("size", mode="text", query="x" * 70_000),
        "old": recall_trace("old", occurredAt=days_ago(31)),
        "off": recall_trace("off", mode="off"),
        "prompt": recall_trace("prompt", promptVersion=0),
    }
    receipt = client.send_traces(recall_trace("good"), *invalid.values(), "not a trace")
    assert receipt["accepted"] == ["good"]
    rejected = {rejection["traceId"]: rejection for rejection in receipt["rejected"]}
    assert set(rejected) == {*invalid, None}
    assert "secrets" not in str(receipt)
    assert client.error_of("POST", TRACES, {"traces": [recall_trace(str(number)) for number in range(201)]}) == (
        413,
        "cloud.batch_too_large",
    )


def test_words_are_kept_only_in_the_mode_text(client: Client) -> None:
    words = {"query": "my parcel", "contextText": "## org\nparcel"}
    lanes = {"org": {"status": "ok", "items": [{"id": "d", "score": 2.0, "terms": {"parcel": 2.0, "around": 1.0}}]}}
    client.send_traces(recall_trace("ids", lanes=lanes, **words), recall_trace("t", mode="text", lanes=lanes, **words))

    by_id = {trace["traceId"]: trace["details"] for trace in traces_of(client)}
    assert "parcel" not in str(by_id["ids"])
    assert by_id["ids"]["hits"]["org"][0]["terms"] == {"around": 1.0}
    assert {name: by_id["t"][name] for name in words} == words
    assert by_id["t"]["hits"]["org"][0]["terms"] == {"parcel": 2.0, "around": 1.0}


def test_a_deleted_memory_leaves_no_words_in_traces(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.")
    cloud.run_tasks()
    [memory] = client.memories()
    hit = {"id": memory["memoryId"], "score": 1.0, "terms": {"lisbon": 1.0}}
    of_memory = {"permanent": {"status": "ok", "hits": 1, "items": [hit]}}
    text = {"mode": "text", "query": "am I in Lisbon", "contextText": "Ana lives in Lisbon."}
    client.send_traces(recall_trace("with", lanes=of_memory, **text), recall_trace("without", **text))
    client.ok("DELETE", f"{client.path}/memories/{memory['memoryId']}")

    by_id = {trace["traceId"]: trace for trace in traces_of(client)}
    assert "isbon" not in str(by_id["with"])
    assert by_id["with"]["mode"] == "ids"
    assert "Lisbon" in str(by_id["without"])


def test_traces_are_erased_with_their_user_and_do_not_come_back(cloud: RunningCloud, client: Client) -> None:
    other = client.with_identity(user="other")
    for caller in (client, other):
        caller.send(session_start("s"), turn("e2"))
        caller.send_traces(recall_trace(f"{caller.identity['user']} a"), recall_trace(f"{caller.identity['user']} b"))
    before = recall_trace("late", "call-2")
    receipt = client.ok("DELETE", client.path)
    assert receipt["removed"]["recallTraces"] == 2

    assert client.error_of("GET", OF_CALL) == (404, "cloud.not_found")
    assert len(traces_of(other)) == 2
    tenant = tenant_of(cloud, client)
    found = queries.list_document_recalls(tenant, "faq", "d", None, 10).rows
    assert {row.trace_id for row in found} == {"other a", "other b"}
    ahead = (utc_now() + timedelta(hours=1)).isoformat()
    rejections = client.send_traces(before, recall_trace("known", "call-1", occurredAt=ahead))["rejected"]
    assert [rejection["code"] for rejection in rejections] == ["cloud.forgotten"] * 2
    assert client.send_traces(recall_trace("new", "call-3", occurredAt=ahead))["accepted"] == ["new"]


def test_an_erasure_that_machines_report_erases_traces_up_to_it(client: Client) -> None:
    import hashlib

    client.send(session_start("s", occurredAt=days_ago(3)), turn("e2", occurredAt=days_ago(3)))
    client.send(turn("e9", "call-9", occurredAt=days_ago(1)))
    client.send_traces(recall_trace("before", occurredAt=days_ago(3)))
    client.send_traces(recall_trace("after", "call-9", occurredAt=days_ago(1)))
    digest = hashlib.sha256(b"\0".join([client.identity["project"].encode(), b"0xab12"])).hexdigest()
    client.ok("POST", "/v1/voice-sdk/erasures", {"users": [{"digest": digest, "forgottenAt": days_ago(2)}]})

    assert client.error_of("GET", OF_CALL) == (404, "cloud.not_found")
    assert [trace["traceId"] for trace in traces_of(client, "/v1/voice-sdk/sessions/call-9/recall-traces")] == ["after"]


def test_traces_are_kept_as_long_as_the_project_says(cloud: RunningCloud, client: Client) -> None:
    project = f"/v1/projects/{client.identity['project']}"
    ages = (0, 2, 8, 20)
    client.send_traces(*(recall_trace(f"{age}", occurredAt=days_ago(age)) for age in ages))
    cloud.services.queue.sweep()
    assert len(traces_of(client)) == 4

    changed = client.ok("PATCH", project, {"retention": {"tracesDays": 7}})
    assert changed["retention"]["tracesDays"] == 7
    cloud.run_tasks()
    assert [trace["traceId"] for trace in traces_of(client)] == ["2", "0"]
    for invalid in ({"retention": {"tracesDays": 0}}, {"recallTraces": "everything"}):
        assert client.error_of("PATCH", project, invalid) == (422, "cloud.invalid")


def test_a_project_sets_the_mode_of_machines_that_set_none(client: Client) -> None:
    project = f"/v1/projects/{client.identity['project']}"
    assert client.ok("GET", "/v1/voice-sdk/bootstrap")["recallTraces"] is None
    kinds = client.ok("GET", project)["excludedKinds"]
    token = client.ok("GET", "/v1/voice-sdk/bootstrap")["syncToken"]
    assert client.ok("PATCH", project, {"recallTraces": "off"})["recallTraces"] == "off"
    bootstrap = client.ok("GET", "/v1/voice-sdk/bootstrap")
    assert bootstrap["recallTraces"] == "off"
    assert bootstrap["syncToken"] != token, "machines notice the change"
    assert client.ok("PATCH", project, {"excludedKinds": ["phone"]})["recallTraces"] == "off"
    changed = client.ok("PATCH", project, {"recallTraces": None})
    assert (changed["recallTraces"], changed["excludedKinds"]) == (None, ["phone"])
    assert kinds != ["phone"]


def test_figures_of_a_period_by_agent(cloud: RunningCloud, client: Client) -> None:
    project = client.identity["project"]
    other = client.ok("POST", f"/v1/projects/{project}/agents", {"name": "Sales", "agentType": "voice"})["id"]
    client.send_traces(*(recall_trace(f"fast {number}", totalMs=number / 10) for number in range(1, 98)))
    client.send_traces(
        with_status("late", "late", totalMs=250.0),
        with_status("error", "error", totalMs=20.0),
        with_status("empty", "ok", totalMs=30.0),
    )
    client.with_identity(agent=other).send_traces(with_status("skipped", "skipped", totalMs=1.0))
    client.send_traces(recall_trace("earlier", occurredAt=days_ago(2)))
    tenant, now = tenant_of(cloud, client), datetime.now(timezone.utc)
    since, until = now - timedelta(days=1), now + timedelta(minutes=1)

    tallies = {key.agent_id: tally for key, tally in figures.tally_by_prompt(tenant, since, until).items()}
    by_agent = {agent: tally.to_figures() for agent, tally in tallies.items()}
    assert {agent: found.count for agent, found in by_agent.items()} == {client.identity["agent"]: 100, other: 1}
    mine = by_agent[client.identity["agent"]]
    assert mine.median_ms == pytest.approx(5.0, abs=0.1)
    assert mine.p95_ms == pytest.approx(9.5, abs=0.1)
    assert mine.p99_ms == pytest.approx(30.0, abs=0.1)
    assert (mine.nothing_found, mine.degraded) == (3, 2)
    assert mine.lanes["org"] == figures.LaneFigures(asked=100, late=1, missed=2)
    assert mine.lanes["permanent"].missed_share == 0
    assert "org" not in by_agent[other].lanes
    tallies[other].merge(tallies[client.identity["agent"]])
    assert tallies[other].to_figures().count == 101
    assert figures.tally_by_prompt(tenant, until, until) == {}
    nothing = figures.RecallTally().to_figures()
    assert (nothing.count, nothing.median_ms, nothing.degraded_share, nothing.lanes) == (0, None, 0.0, {})


def test_each_figure_leads_to_its_searches(cloud: RunningCloud, client: Client) -> None:
    client.send_traces(recall_trace("fine"), with_status("late", "late", totalMs=250.0), with_status("empty", "ok"))
    client.with_identity(user="other").send_traces(recall_trace("theirs"))
    tenant, now = tenant_of(cloud, client), datetime.now(timezone.utc)

    def listed(**conditions: Any) -> set[str]:
        trace_filter = queries.TraceFilter(now - timedelta(days=1), now + timedelta(minutes=1), **conditions)
        first = queries.list_traces(tenant, trace_filter, None, 2)
        rest = queries.list_traces(tenant, trace_filter, first.next_cursor, 9).rows if first.next_cursor else ()
        return {trace.id for trace in (*first.rows, *rest)}

    assert listed() == {"fine", "late", "empty", "theirs"}
    assert listed(missed_lane=LaneName.ORG) == {"late"}
    assert listed(missed_lane=LaneName.PERMANENT) == set()
    assert listed(has_found=False) == {"late", "empty"}
    assert listed(has_found=True, user_id="other") == {"theirs"}
    assert listed(is_degraded=True) == listed(min_ms=250.0) == {"late"}
    assert listed(agent_id="agent_x") == set()
    assert len(queries.list_user_traces(tenant, "0xab12", None, 10).rows) == 3
    assert {row.trace_id for row in queries.list_document_recalls(tenant, "faq", "d", None, 9).rows} == {
        "fine",
        "theirs",
    }


def test_the_traces_of_a_page_of_turns_are_found_together(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("e2", seq=2), turn("e3", seq=3))
    client.send_traces(
        recall_trace("a", turnId="t-2"), recall_trace("b", turnId="t-2"), recall_trace("c", turnId="t-3")
    )
    found = queries.list_traces_of_turns(tenant_of(cloud, client, "0xab12"), "call-1", ["e2", "e3", "e4"])
    assert {event: [trace.id for trace in traces] for event, traces in found.items()} == {"e2": ["a", "b"], "e3": ["c"]}


def test_a_session_of_several_users_needs_the_user(client: Client) -> None:
    client.send_traces(recall_trace("one"))
    client.with_identity(user="other").send_traces(recall_trace("two"))
    lobby = Client(client.url, client.key, project=client.identity["project"])
    assert lobby.error_of("GET", OF_CALL) == (409, "cloud.conflict")
    assert [trace["traceId"] for trace in traces_of(client)] == ["one"]
