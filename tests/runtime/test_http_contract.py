"""The runtime's API, v1: every endpoint replies with exactly the documented names and types."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.runtimes import PATIENT_MS, PROJECT, USER, RunningRuntime
from support.timing import least
from support.waiting import eventually

from memoair_runtime.storage.project_folder import ProjectFolder

NUMBER = (int, float)
LANES = ("profile", "working", "permanent", "org")
DOCUMENTS = [
    {
        "id": "returns",
        "text": "Boots can be returned within thirty days.",
        "metadata": {"topic": "returns", "year": 2025},
    },
    {"id": "hours", "text": "The shop opens at nine, also for boots.", "metadata": {"topic": "hours", "year": 2024}},
    *({"id": f"boots-{number}", "text": f"Boots, model {number}.", "metadata": {}} for number in range(8)),
]


@pytest.fixture(scope="module")
def org_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("org") / "org.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    return path


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory, org_file: Path) -> Iterator[RunningRuntime]:
    """Start one process for the module, with an earlier session and documents; each test uses its own sessions."""
    with closing(RunningRuntime(tmp_path_factory.mktemp("contract"), ORG_FILE=str(org_file))) as runtime:
        runtime.start("earlier", name="Dana", user={"metadata": {"tier": "gold"}})
        for number in range(9):
            runtime.save("earlier", f"t{number}", f"I asked about boots, question {number}.", "Noted.", topic="boots")
        runtime.wait_until_loaded()
        yield runtime


@pytest.fixture(scope="module")
def org_only(tmp_path_factory: pytest.TempPathFactory, org_file: Path) -> Iterator[RunningRuntime]:
    with closing(
        RunningRuntime(tmp_path_factory.mktemp("org-only") / "root", MODE="org_only", ORG_FILE=str(org_file))
    ) as runtime:
        runtime.wait_until_loaded()
        yield runtime


def shape(value: Any) -> Any:
    """Return the types of a value, key by key; a list has the shape of its first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return float if type(value) in NUMBER else type(value)


def assert_utc_timestamp(text: str) -> datetime:
    assert text.endswith("Z"), "not in UTC"
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# Health


def test_health_reports_the_identity_and_the_state_of_the_lanes(runtime: RunningRuntime) -> None:
    health = runtime.health()

    assert shape(health) == {
        "status": str,
        "version": str,
        "active_sessions": float,
        "uptime_ms": float,
        "workspaceId": str,
        "userId": str,
        "lanes": dict.fromkeys(LANES, str),
        "sync": {
            "state": str,
            "unsynced": float,
            "oldestUnsyncedMs": type(None),
            "refused": float,
            "hasPulled": bool,
        },
    }
    assert health["sync"]["state"] == "off"
    assert (health["status"], health["workspaceId"], health["userId"]) == ("ok", PROJECT, USER)
    assert set(health["lanes"].values()) == {"ready"}
    assert type(health["uptime_ms"]) is int


def test_health_counts_open_sessions(runtime: RunningRuntime) -> None:
    before = runtime.health()["active_sessions"]
    runtime.start("counted")
    assert runtime.health()["active_sessions"] == before + 1
    runtime.post("session/end", sessionId="counted", reason="completed")
    assert runtime.health()["active_sessions"] == before


def test_health_ignores_a_query_string_and_a_body(runtime: RunningRuntime) -> None:
    assert runtime.request("GET", "health?probe=1")[0] == 200
    assert runtime.request("GET", "health", b'{"ignored": true}')[0] == 200


# Sessions


def test_a_session_start_returns_versions_budgets_and_paths(runtime: RunningRuntime) -> None:
    reply = runtime.start("shaped")

    assert set(reply) == {"sessionId", "bootstrap", "paths"}
    assert reply["sessionId"] == "shaped"
    bootstrap = reply["bootstrap"]
    assert set(bootstrap) == {
        "profileVersion",
        "permanentManifestVersion",
        "orgManifestVersion",
        "syncToken",
        "budgets",
    }
    assert bootstrap["budgets"] == {
        "contextCharCap": 8000,
        "perLaneCharCap": 2400,
        "topKPermanent": 6,
        "topKOrg": 4,
        "topKWorking": 4,
    }
    assert shape(reply["paths"]) == {"sessionJsonl": str, "workingBrief": str}
    for name in ("profileVersion", "permanentManifestVersion", "orgManifestVersion"):
        assert type(bootstrap[name]) is int, name


def test_the_paths_are_in_the_users_folder_and_exist_after_a_turn(runtime: RunningRuntime) -> None:
    paths = runtime.start("pathed")["paths"]
    runtime.save("pathed", "t1", "hello", "good morning")

    log, brief = Path(paths["sessionJsonl"]), Path(paths["workingBrief"])
    assert log == runtime.storage_root / PROJECT / USER / "pathed" / "session.jsonl"
    assert brief == log.with_name("working_brief.json")
    assert log.is_file()
    eventually(brief.is_file)
    assert log.stat().st_mode & 0o777 == 0o600
    assert brief.stat().st_mode & 0o777 == 0o600
    for folder in (log.parent, *list(log.parents)[1:4]):
        if folder != runtime.storage_root.parent:
            assert folder.stat().st_mode & 0o077 == 0, folder


def test_the_working_brief_summarizes_the_session(runtime: RunningRuntime) -> None:
    brief = Path(runtime.start("briefed")["paths"]["workingBrief"])
    for number in range(7):
        runtime.save("briefed", f"t{number}", f"question {number}", f"answer {number}")
    assert runtime.post("sync/flush", deadlineMs=PATIENT_MS)[1] == {"status": "ok", "pending": 0}

    content = json.loads(brief.read_bytes())
    assert (content["sessionId"], content["turnCount"], content["openedWith"]) == ("briefed", 7, "question 0")
    assert [turn["turnId"] for turn in content["lastTurns"]] == ["t3", "t4", "t5", "t6"]


def test_optional_fields_may_be_null(runtime: RunningRuntime) -> None:
    nulls: dict[str, dict[str, Any]] = {
        "session/start": {
            "workspaceId": PROJECT,
            "userId": USER,
            "satham": None,
            "metadata": None,
            "mode": None,
            "projectId": None,
        },
        "search_memory": {
            "query": "boots",
            "turnId": None,
            "intent": None,
            "includeSources": None,
            "lanes": None,
            "topK": None,
            "timeoutMs": None,
            "filter": None,
            "minConfidence": None,
            "sayNothingFound": None,
            "workspaceId": None,
            "userId": None,
        },
        "turn/after": {"turnId": "t1", "userText": "", "assistantText": "", "toolCalls": None, "metadata": None},
        "session/end": {"reason": None},
    }
    for path, fields in nulls.items():
        assert runtime.post(path, sessionId="nulls", **fields)[0] == 200, path
    assert runtime.post("sync/flush", deadlineMs=None)[0] == 200
    assert runtime.post("search_memory", sessionId="n2", query="boots", topK=dict.fromkeys(LANES))[0] == 200
    user = {"id": None, "name": None, "metadata": None}
    status, _ = runtime.post(
        "session/start",
        sessionId="n3",
        workspaceId=PROJECT,
        userId=USER,
        metadata={"user": user, "assistantName": None},
    )
    assert status == 200


def test_requests_of_existing_clients_are_accepted(runtime: RunningRuntime) -> None:
    status, _ = runtime.post(
        "session/start",
        sessionId="existing",
        workspaceId=PROJECT,
        userId=USER,
        satham={"variant": "small", "embedDim": 384},
        metadata={"user": {"id": USER, "name": "Dana", "metadata": {"tier": "gold"}}, "room": "r1"},
        unknownField={"of": ["a later version"]},
    )
    assert status == 200
    status, _ = runtime.post("search_memory", sessionId="existing", query="boots", lanes=list(LANES), later=1)
    assert status == 200


def test_the_end_of_a_session_returns_what_was_flushed(runtime: RunningRuntime) -> None:
    runtime.start("ended")
    runtime.save("ended", "t1", "hello")

    assert runtime.post("session/end", sessionId="ended", reason="completed") == (
        200,
        {"status": "ok", "flushed": {"turns": 1}},
    )
    assert [line["type"] for line in ended_log(runtime)] == ["session_start", "turn", "session_end"]
    assert runtime.post("session/end", sessionId="ended", reason="completed")[0] == 200, "a second end must do no harm"
    assert runtime.post("session/end", sessionId="never-heard-of", reason="completed")[0] == 200


def ended_log(runtime: RunningRuntime) -> list[dict[str, Any]]:
    path = runtime.storage_root / PROJECT / USER / "ended" / "session.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_flush_and_shutdown_reply_as_documented(tmp_path: Path) -> None:
    with closing(RunningRuntime(tmp_path)) as runtime:
        runtime.save("call-1", "t1", "hello")
        assert runtime.post("sync/flush", deadlineMs=PATIENT_MS) == (200, {"status": "ok", "pending": 0})
        status, body = runtime.post("shutdown", deadlineMs=2000)
        assert (status, body["status"]) == (202, "draining")
        assert runtime.process.wait(30) == 0


# Turns


def test_a_turn_is_logged_with_the_event_id_of_the_reply(runtime: RunningRuntime) -> None:
    runtime.start("logged", user={"metadata": {"tier": "gold"}}, room="r1")
    tool_calls = [{"name": "look_up", "arguments": {"order": 7}}]
    status, body = runtime.post(
        "turn/after",
        sessionId="logged",
        turnId="t1",
        userText="Where is order seven?",
        assistantText="On its way.",
        toolCalls=tool_calls,
        metadata={"topic": "orders"},
    )
    assert status == 200
    assert shape(body) == {"localEventId": str}

    start, turn = runtime.log_lines("logged")[:2]
    for seq, line in enumerate((start, turn), 1):
        fields = {"eventId", "type", "sessionId", "seq", "occurredAt", "payload", "cloud"}
        assert set(line) == fields | {"erasure", "clock"}  # by which it is ordered against erasures
        assert (line["sessionId"], line["seq"]) == ("logged", seq)
        assert_utc_timestamp(line["occurredAt"])
    assert turn["eventId"] == body["localEventId"]
    assert turn["payload"] == {
        "turnId": "t1",
        "userText": "Where is order seven?",
        "assistantText": "On its way.",
        "toolCalls": tool_calls,
        "metadata": {"topic": "orders"},
    }
    assert start["payload"] == {
        "user": {"id": USER, "metadata": {"tier": "gold"}},
        "metadata": {"room": "r1"},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-03-04T05:06:07Z", "2021-03-04T05:06:07+00:00"),
        ("2021-03-04T05:06:07.250+02:00", "2021-03-04T03:06:07.250+00:00"),
        ("2021-03-04T05:06:07", "2021-03-04T05:06:07+00:00"),
        ("2021-03-04", "2021-03-04T00:00:00+00:00"),
    ],
)
def test_an_imported_turn_keeps_its_timestamp(runtime: RunningRuntime, text: str, expected: str) -> None:
    session = f"old-{text}"
    runtime.save(session, "t1", "The kumquats came late.", occurredAt=text)

    found = runtime.search("asks-about-old", "kumquats", lanes=["permanent"], topK={"permanent": 50})

    hit = next(hit for hit in found["permanent"] if hit["source"]["sessionId"] == session)
    assert assert_utc_timestamp(hit["source"]["createdAt"]) == datetime.fromisoformat(expected)
    assert "4 March 2021" in found["contextText"]


def test_the_context_names_the_agent_that_spoke(runtime: RunningRuntime) -> None:
    runtime.start("named", name="Dana", assistantName="Robin")
    runtime.save("named", "t1", "Do you sell rhubarb?", "Rhubarb we do.")
    runtime.save("named", "t2", "And quince?", "Quince, too.", assistantName="Kim")

    context = runtime.search("named", "rhubarb quince", lanes=["working"])["contextText"]

    for line in ("Dana: Do you sell rhubarb?", "Robin: Rhubarb we do.", "Dana: And quince?", "Kim: Quince, too."):
        assert line in context


# Search

SOURCE = {"lane": str, "id": str, "kind": str}
TURN_SOURCE = {**SOURCE, "sessionId": str, "turnId": str, "createdAt": str}
LANE_TRACE = {"status": str, "ms": float, "hits": float}
SEARCHED_LANE_TRACE = {**LANE_TRACE, "confidence": float, "nothingFound": bool}


def test_a_search_returns_context_hits_sources_and_trace(runtime: RunningRuntime) -> None:
    runtime.start("asking", name="Dana")
    runtime.save("asking", "t1", "I call about boots again.", "Yes?", topic="boots")

    found = runtime.search("asking", "boots", turnId="t2", intent="answer_current_user", includeSources=True)

    assert set(found) == {"contextText", "profile", "working", "permanent", "org", "sources", "trace"}
    assert [line[3:] for line in found["contextText"].splitlines() if line.startswith("## ")] == list(LANES)
    hit_shape = {"id": str, "text": str, "score": float, "confidence": float, "lane": str, "metadata": {"topic": str}}
    for lane in ("working", "permanent"):
        assert shape(found[lane]) == [{**hit_shape, "source": TURN_SOURCE}]
        assert {hit["source"]["kind"] for hit in found[lane]} == {"turn"}
    assert shape(found["org"][0]["source"]) == {**SOURCE, "documentId": str}
    assert {hit["source"]["kind"] for hit in found["org"]} == {"document"}
    for lane in ("working", "permanent", "org"):
        assert {hit["lane"] for hit in found[lane]} == {hit["source"]["lane"] for hit in found[lane]} == {lane}
        assert all(hit["source"]["id"] == hit["id"] for hit in found[lane])
    hits = [hit for lane in ("working", "permanent", "org") for hit in found[lane]]
    assert found["sources"] == [hit["source"] for hit in hits]


def test_the_profile_of_a_search_has_a_version_and_a_summary(runtime: RunningRuntime) -> None:
    profile = runtime.search("asking-who", "who is it?")["profile"]

    assert {"version": type(profile["version"]), "summary": type(profile["summary"])} == {
        "version": int,
        "summary": str,
    }
    assert profile["version"] >= 1
    assert "Dana" in profile["summary"]
    assert "gold" in profile["summary"]


def test_the_trace_has_each_lane_and_the_time(runtime: RunningRuntime) -> None:
    trace = runtime.search_in_time("traced", "boots", timeout_ms=2_000)["trace"]

    assert {"degraded", "totalMs", "deadlineMs", "lanes"} <= set(trace)
    assert trace["degraded"] is False
    assert trace["deadlineMs"] == 2_000
    assert 0 < trace["totalMs"] < 2_000
    assert list(trace["lanes"]) == list(LANES)
    assert shape(trace["lanes"].pop("profile")) == LANE_TRACE
    assert all(shape(lane) == SEARCHED_LANE_TRACE for lane in trace["lanes"].values())
    assert {lane["status"] for lane in trace["lanes"].values()} == {"ok"}
    assert trace["lanes"]["permanent"]["hits"] == 6


def test_a_search_without_a_timeout_has_the_default(runtime: RunningRuntime) -> None:
    status, found = runtime.post("search_memory", sessionId="undated", query="boots")
    assert status == 200
    assert 0 < found["trace"]["deadlineMs"] <= 1_000


@pytest.mark.parametrize("intent", ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"])
def test_a_known_intent_adds_no_note(runtime: RunningRuntime, intent: str) -> None:
    runtime.start("intending")
    assert not any("intent" in note for note in runtime.search("intending", "boots", intent=intent)["trace"]["notes"])


@pytest.mark.parametrize("intent", ["sell_boots", "ANSWER_CURRENT_USER", "x" * 5_000])
def test_an_unknown_intent_is_replaced_by_the_default_with_a_note(runtime: RunningRuntime, intent: str) -> None:
    runtime.start("intending")
    runtime.save("intending", "t1", "Boots, please.")

    found = runtime.search("intending", "boots", intent=intent)

    assert any("intent" in note for note in found["trace"]["notes"])
    assert intent not in json.dumps(found["trace"]), "a note must not quote the request"
    assert found["contextText"] == runtime.search("intending", "boots")["contextText"]


def test_include_sources_false_omits_sources_but_not_hits(runtime: RunningRuntime) -> None:
    found = runtime.search("unsourced", "boots", includeSources=False)

    assert found["sources"] == []
    assert found["permanent"]
    assert found["org"]


@pytest.mark.parametrize("lanes", [[], ["org"], ["profile"], ["permanent", "working"], ["org", "org"], list(LANES)])
def test_lanes_that_are_not_requested_are_skipped(runtime: RunningRuntime, lanes: list[str]) -> None:
    found = runtime.search("lanes", "boots", lanes=lanes)

    status = {name: lane["status"] for name, lane in found["trace"]["lanes"].items()}
    assert status == {name: "ok" if name in lanes else "skipped" for name in LANES}
    assert found["trace"]["degraded"] is False, "skipped lanes must not degrade the search"
    sections = re.findall(r"^## (\w+)$", found["contextText"], re.MULTILINE)
    assert sections == [name for name in LANES if name in lanes and name != "working"]
    assert (found["profile"] is None) == ("profile" not in lanes)
    for name in ("working", "permanent", "org"):
        assert name in lanes or found[name] == []


@pytest.mark.parametrize("limit", [0, 1, 3, 8, 1_000])
def test_top_k_limits_the_hits_of_a_lane(runtime: RunningRuntime, limit: int) -> None:
    found = runtime.search("limited", "boots", topK={"permanent": limit, "org": limit})

    assert len(found["permanent"]) == min(limit, 9) or limit == 1_000
    assert len(found["org"]) == min(limit, len(DOCUMENTS))
    assert ("## permanent" in found["contextText"]) == (limit > 0)
    assert found["trace"]["degraded"] is False


def test_a_lane_without_top_k_has_the_default(runtime: RunningRuntime) -> None:
    found = runtime.search("limited", "boots", topK={"org": 1})

    assert (len(found["org"]), len(found["permanent"])) == (1, 6)
    assert len(runtime.search("limited", "boots")["org"]) == 4


def test_the_context_stays_within_its_budgets(tmp_path: Path) -> None:
    org_file = tmp_path / "org.jsonl"
    words = "Boots are made of leather, and leather is made of patience. " * 60
    org_file.write_text("".join(json.dumps({"id": str(n), "text": f"Number {n}. {words}"}) + "\n" for n in range(9)))
    with closing(RunningRuntime(tmp_path / "storage", ORG_FILE=str(org_file))) as runtime:
        runtime.start("before", name="Dana", user={"metadata": {"notes": words}})
        for number in range(12):
            runtime.save("before", f"t{number}", f"{number}. {words}", words)
            runtime.save("now", f"t{number}", f"Now {number}. {words}", f"So be it, {number}. {words}")
        runtime.wait_until_loaded()
        top_k = dict.fromkeys(LANES, 100)
        context = runtime.search("now", "boots leather patience", topK=top_k)["contextText"]

    sections = re.split(r"\n\n(?=## )", context)
    assert len(sections) == 4
    assert len(context) <= 8_000
    assert all(len(section) <= 2_400 for section in sections)
    assert len(context) > 7_000, "the budget is not used"


@pytest.mark.parametrize(
    ("filter_", "documents"),
    [
        ({"topic": "returns"}, {"returns"}),
        ({"year": {"$gt": 2024}}, {"returns"}),
        ({"year": {"$lt": 2025}}, {"hours"}),
        ({"topic": {"$in": ["returns", "hours"]}}, {"returns", "hours"}),
        ({"$or": [{"topic": "hours"}, {"year": 2025}]}, {"returns", "hours"}),
        ({"$and": [{"topic": "hours"}, {"year": 2025}]}, set()),
        ({"topic": "returns", "year": 2025}, {"returns"}),
        ({"topic": "nothing of ours"}, set()),
    ],
)
def test_a_filter_applies_to_every_hit(runtime: RunningRuntime, filter_: dict[str, Any], documents: set[str]) -> None:
    found = runtime.search("filtered", "boots", filter=filter_)

    assert {hit["id"] for hit in found["org"]} == documents
    assert found["permanent"] == []
    assert ("boots-" in json.dumps(found)) is False


def test_a_filter_applies_to_turns_and_their_surroundings(runtime: RunningRuntime) -> None:
    runtime.save("mixed", "t1", "The elderberries are for Anna.", "Noted.", topic="fruit")
    runtime.save("mixed", "t2", "The elderberry vase is for Ben.", "Noted as well.", topic="vases")

    found = runtime.search("asks-mixed", "elderberry", filter={"topic": "vases"}, lanes=["permanent"])

    assert [hit["metadata"] for hit in found["permanent"]] == [{"topic": "vases"}]
    assert "Anna" not in found["contextText"]


# Identity


@pytest.mark.parametrize(
    "path", ["session/start", "search_memory", "turn/after", "session/end", "sync/flush", "shutdown"]
)
@pytest.mark.parametrize("named", [{"workspaceId": "proj_other"}, {"projectId": "proj_other"}, {"userId": "other"}])
def test_another_identity_is_rejected_and_nothing_is_written(
    runtime: RunningRuntime, path: str, named: dict[str, str]
) -> None:
    runtime.post("sync/flush", deadlineMs=PATIENT_MS)  # what earlier tests have left to be written
    before = sorted(runtime.storage_root.rglob("*"))
    body = {"sessionId": "stolen", "workspaceId": PROJECT, "userId": USER, "query": "boots", "turnId": "t1"}

    status, reply = runtime.post(path, **{**body, "userText": "a", "assistantText": "b", **named})

    assert (status, reply["error"]["code"]) == (409, "runtime.identity_mismatch")
    assert "other" not in reply["error"]["message"].replace("another", "")
    assert sorted(runtime.storage_root.rglob("*")) == before
    assert runtime.health()["status"] == "ok"


def test_another_user_in_the_metadata_is_rejected(runtime: RunningRuntime) -> None:
    user = {"id": "other", "name": "Eve"}
    status, reply = runtime.post(
        "session/start", sessionId="stolen", workspaceId=PROJECT, userId=USER, metadata={"user": user}
    )

    assert (status, reply["error"]["code"]) == (409, "runtime.identity_mismatch")
    assert not (runtime.storage_root / PROJECT / USER / "stolen").exists()
    assert "Eve" not in json.dumps(runtime.search("asking-who", "who?")["profile"])


# Org


def test_org_only_mode_saves_nothing_and_finds_only_documents(org_only: RunningRuntime) -> None:
    assert org_only.health()["userId"] == "__org__"
    status, _ = org_only.post("session/start", sessionId="call-1", workspaceId=PROJECT, userId="__org__", metadata={})
    assert status == 200
    status, reply = org_only.post(
        "turn/after", sessionId="call-1", turnId="t1", userText="I like boots.", assistantText="Good."
    )
    assert (status, set(reply)) == (200, {"localEventId"})

    found = org_only.search("call-1", "boots")

    assert {name: lane["status"] for name, lane in found["trace"]["lanes"].items()} == {
        "profile": "skipped",
        "working": "skipped",
        "permanent": "skipped",
        "org": "ok",
    }
    assert (found["profile"], found["working"], found["permanent"]) == (None, [], [])
    assert len(found["org"]) == 4
    assert org_only.post("sync/flush", deadlineMs=1000)[0] == 200
    assert org_only.post("session/end", sessionId="call-1", reason="completed")[0] == 200
    stored = [path for path in org_only.storage_root.rglob("*") if path.is_file()]
    assert {path.suffix for path in stored} <= {".index", ".lock"}, "only the documents' index may be stored"
    assert not any(b"I like boots" in path.read_bytes() for path in stored)


def test_one_session_of_a_user_can_be_org_only(runtime: RunningRuntime) -> None:
    status, _ = runtime.post(
        "session/start", sessionId="anonymous", workspaceId=PROJECT, userId=USER, metadata={}, mode="org_only"
    )
    assert status == 200
    status, _ = runtime.post("turn/after", sessionId="anonymous", turnId="t1", userText="mangosteen", assistantText="")
    assert status == 200

    found = runtime.search("anonymous", "boots mangosteen")

    assert found["org"]
    assert (found["profile"], found["working"], found["permanent"]) == (None, [], [])
    assert not (runtime.storage_root / PROJECT / USER / "anonymous").exists()


def test_changed_documents_are_found_from_the_next_session_on(tmp_path: Path) -> None:
    org_file = tmp_path / "org.jsonl"
    org_file.write_text('{"id": "old", "text": "Boots cost ten."}\n')
    with closing(RunningRuntime(tmp_path / "storage", ORG_FILE=str(org_file))) as runtime:
        runtime.wait_until_loaded()
        before = runtime.start("call-1")["bootstrap"]["orgManifestVersion"]
        assert [hit["id"] for hit in runtime.search("call-1", "boots")["org"]] == ["old"]

        (tmp_path / "new").write_text('{"id": "new", "text": "Boots cost twelve."}\n')
        (tmp_path / "new").replace(org_file)
        runtime.start("call-2")

        eventually(lambda: [hit["id"] for hit in runtime.search("call-2", "boots")["org"]] == ["new"])
        assert runtime.start("call-3")["bootstrap"]["orgManifestVersion"] > before


def test_invalid_lines_are_skipped_and_valid_documents_found(tmp_path: Path) -> None:
    org_file = tmp_path / "org.jsonl"
    org_file.write_bytes(
        b'\n{"id": "good", "text": "Boots cost ten."}\nsecretword\n\xff\n'
        b'{"id": "", "text": "secretword"}\n{"id": "x"}\n'
        b'{"id": "big", "text": "Boots", "metadata": {"n": 999999999999999999999}}\n'
        b'{"id": "last", "text": "Boots."}'
    )
    with closing(RunningRuntime(tmp_path / "storage", ORG_FILE=str(org_file))) as runtime:
        runtime.wait_until_loaded()
        found = {hit["id"] for hit in runtime.search("call-1", "boots")["org"]}
        assert {"good", "last"} <= found
        assert "lines=" in runtime.output(), "the log must mention the skipped lines"
        assert "secretword" not in runtime.output()


def test_missing_documents_cost_only_their_lane(tmp_path: Path) -> None:
    with closing(RunningRuntime(tmp_path / "storage", ORG_FILE=str(tmp_path / "missing.jsonl"))) as runtime:
        runtime.wait_until_loaded()
        assert runtime.health()["lanes"]["org"] == "error"
        runtime.save("call-1", "t1", "I like boots.")
        found = runtime.search("call-2", "boots")
        assert found["permanent"]
        assert found["trace"]["lanes"]["org"]["status"] == "error"
        assert found["trace"]["degraded"] is True


# Profile


def test_the_profile_comes_from_the_session_start_and_survives_a_crash(tmp_path: Path) -> None:
    with closing(RunningRuntime(tmp_path)) as first:
        assert first.search("call-0", "who is it?")["profile"] is None, "the user is unknown so far"
        empty = first.start("call-0")["bootstrap"]["profileVersion"]
        first.start("call-1", name="Dana", user={"metadata": {"tier": "gold", "likes": ["boots"]}})
        profile = first.search("call-1", "who is it?")["profile"]
        assert first.start("call-1", name="Dana")["bootstrap"]["profileVersion"] == profile["version"] > empty
        assert "Dana" in first.search("call-1", "who?", lanes=["profile"])["contextText"]
        first.kill()

    with closing(RunningRuntime(tmp_path)) as second:
        second.wait_until_loaded()
        known = second.search("call-2", "who is it?")["profile"]
        assert (known["name"], known["metadata"]) == ("Dana", {"tier": "gold", "likes": ["boots"]})
        assert known["version"] >= profile["version"], "a version must never decrease"

        second.start("call-3", name="Dana Smith")
        renamed = second.search("call-3", "who is it?")["profile"]
        assert renamed["version"] > known["version"]
        assert (renamed["name"], renamed["metadata"]["tier"]) == ("Dana Smith", "gold")


# Metrics


def test_metrics_are_prometheus_text_without_ids_or_speech(runtime: RunningRuntime) -> None:
    runtime.start("metered-session", name="Wilhelmina")
    runtime.save("metered-session", "metered-turn", "gooseberry", "blackcurrant")
    runtime.search("metered-session", "gooseberry")
    runtime.http.request("GET", "/gooseberry")
    runtime.http.request("GET", "/v1/runtime/gooseberry")

    response = runtime.http.request("GET", "/v1/runtime/metrics")

    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain")
    text = response.data.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families
    assert all(name.startswith("memoair_runtime_") for name in families)
    assert all(family.documentation for family in families.values())
    for word in ("gooseberry", "blackcurrant", "Wilhelmina", "metered", USER, PROJECT, str(runtime.storage_root)):
        assert word not in text


def test_metrics_count_requests_searches_and_turns(runtime: RunningRuntime) -> None:
    def count(name: str, **labels: str) -> float:
        text = runtime.http.request("GET", "/v1/runtime/metrics").data.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    searched = {"endpoint": "/v1/runtime/search_memory", "status": "200"}
    before = [
        count("memoair_runtime_requests_total", **searched),
        count("memoair_runtime_search_seconds_count"),
        count("memoair_runtime_turns_kept_total"),
    ]
    runtime.search("metered", "boots")
    runtime.save("metered", "t1", "boots")
    after = [
        count("memoair_runtime_requests_total", **searched),
        count("memoair_runtime_search_seconds_count"),
        count("memoair_runtime_turns_kept_total"),
    ]

    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1]
    missed = count("memoair_runtime_requests_total", endpoint="unknown", status="404")
    runtime.request("GET", "nowhere")
    assert count("memoair_runtime_requests_total", endpoint="unknown", status="404") == missed + 1


def test_a_lane_that_is_still_loading_is_reported_and_the_others_answer(tmp_path: Path, org_file: Path) -> None:
    """Another process seems to index the documents for a long time: the lane keeps loading."""
    folder = ProjectFolder(tmp_path / "storage", PROJECT)
    folder.create()
    lock = filelock.FileLock(folder.org_file_index(org_file).with_suffix(".lock"))
    with lock, closing(RunningRuntime(folder.root, ORG_FILE=str(org_file))) as runtime:
        runtime.save("call-1", "t1", "I like boots.")
        eventually(lambda: runtime.health()["lanes"]["permanent"] == "ready")

        def seconds_until_other_lanes_answer() -> float:
            found = runtime.search("call-2", "boots", timeoutMs=60)
            assert found["org"] == []
            assert found["trace"]["lanes"]["org"]["status"] == "loading"
            assert found["trace"]["degraded"] is True
            assert found["trace"]["totalMs"] >= 50
            return float(found["trace"]["totalMs"]) / 1e3 if found["permanent"] else float("inf")

        assert least(seconds_until_other_lanes_answer, 1.0) < 1.0
        assert runtime.terminate() == 0, "a lane that hangs must not delay the stop"
