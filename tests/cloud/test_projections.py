"""Projections: after any sequence of pulls, a machine holds what the project knows."""

import hashlib
import json
import random
from functools import partial
from typing import Any

import pytest
from support.clouds import Client, RunningCloud, turn

from memoair_cloud.http.routes import projections as routes
from memoair_cloud.projections import paging
from memoair_cloud.projections.org import build_org_projection
from memoair_cloud.projections.users import build_permanent_projection

ORG = "/v1/voice-sdk/projections/org"


class OrgDevice:
    """A device's copy of the project's documents."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.documents: dict[tuple[str, str], Any] = {}
        self.version: int | None = None
        self.more = False

    def pull(self) -> str:
        answer = self.client.call("GET", ORG if self.version is None else f"{ORG}?since={self.version}")
        if answer.status == 304:
            return "unchanged"
        body = answer.body
        assert answer.headers["etag"] == f'"org-{body["version"]}"'
        hashed = [
            [[item[name] for name in ("indexName", "id", "text", "metadata")] for item in body["documents"]],
            [[item["indexName"], item["id"]] for item in body["removed"]],
        ]
        canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
        assert body["contentHash"] == hashlib.sha256(canonical.encode()).hexdigest()
        if body["mode"] == "snapshot":
            self.documents = {}
        for item in body["removed"]:
            self.documents.pop((item["indexName"], item["id"]), None)
        for item in body["documents"]:
            self.documents[item["indexName"], item["id"]] = (item["text"], item["metadata"])
        self.version, self.more = body["version"], body["more"]
        return str(body["mode"])


def test_a_device_has_all_documents_however_rarely_it_pulls(client: Client) -> None:
    often, seldom, dice = OrgDevice(client), OrgDevice(client), random.Random(3)
    truth: dict[tuple[str, str], Any] = {}
    assert often.pull() == "snapshot"
    assert seldom.pull() == "snapshot"

    for step in range(25):
        name, document_id = dice.choice(["faq", "site"]), f"d/{dice.randrange(5)}"
        if (name, document_id) in truth and dice.random() < 0.4:
            client.ok("DELETE", f"/v1/voice-sdk/index/{name}/documents/{document_id}")
            del truth[name, document_id]
        elif dice.random() < 0.1 and any(key[0] == name for key in truth):
            client.ok("DELETE", f"/v1/voice-sdk/index/{name}")
            truth = {key: value for key, value in truth.items() if key[0] != name}
        else:
            document = {"id": document_id, "text": f"Text é {step}.", "metadata": {"step": f"{step}"}}
            client.ok("POST", "/v1/voice-sdk/index/create", {"name": name, "documents": [document]})
            truth[name, document_id] = (document["text"], document["metadata"])
        assert often.pull() == "delta"
        assert often.documents == truth

    assert seldom.pull() == "delta"
    assert seldom.documents == truth
    newcomer = OrgDevice(client)
    assert newcomer.pull() == "snapshot"
    assert newcomer.documents == truth
    assert (newcomer.version, newcomer.pull()) == (often.version, "unchanged")


def test_a_current_etag_is_answered_with_not_modified(client: Client) -> None:
    document = {"id": "d", "text": "We open at nine."}
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    etag = client.call("GET", ORG).headers["etag"]

    assert client.call("GET", ORG, If_None_Match=etag).status == 304
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    for header in (etag, '"nonsense"', "*"):
        assert client.ok("GET", ORG, If_None_Match=header)["mode"] == "snapshot"


def test_a_version_from_before_a_restore_gets_a_snapshot(client: Client) -> None:
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [{"id": "d", "text": "Nine."}]})

    body = client.ok("GET", f"{ORG}?since=99")
    assert (body["mode"], body["version"], len(body["documents"])) == ("snapshot", 1, 1)
    assert client.error_of("GET", f"{ORG}?since=-1") == (422, "cloud.invalid")


@pytest.mark.parametrize("rows", [1, 3])
def test_pages_end_where_a_version_ends(client: Client, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for number in range(4):
        documents = [{"id": f"{number}-{n}", "text": "Nine."} for n in range(number)]
        client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": documents})
    client.ok("DELETE", "/v1/voice-sdk/index/faq/documents/3-1")
    snapshot = client.ok("GET", ORG)
    assert (snapshot["version"], snapshot["more"]) == (5, False)
    monkeypatch.setattr(routes, "build_org_projection", partial(build_org_projection, max_rows=rows))
    device = OrgDevice(client)
    modes = [device.pull()]
    while device.more:
        modes.append(device.pull())
    assert modes == ["snapshot", *["delta"] * (len(modes) - 1)]
    assert len(modes) > 1
    assert device.documents == {
        (item["indexName"], item["id"]): (item["text"], item["metadata"]) for item in snapshot["documents"]
    }
    assert device.pull() == "unchanged"


class UserDevice:
    """A device's copy of a user's turns and facts."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.version: int | None = None
        self.events: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}

    def catch_up(self) -> list[str]:
        """Pull until there is no more; return the modes of the responses."""
        modes = []
        while True:
            since = "" if self.version is None else f"?since={self.version}"
            answer = self.client.call("GET", f"/v1/voice-sdk/projections/permanent{since}")
            if answer.status == 304:
                return modes
            body = answer.body
            hashed = [body["events"], body["facts"], body["removed"]]
            canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
            assert body["contentHash"] == hashlib.sha256(canonical.encode()).hexdigest()
            assert answer.headers["etag"] == f'"permanent-{body["version"]}"'
            if body["mode"] == "snapshot":
                self.events, self.facts = {}, {}
            self.events |= {event["eventId"]: event for event in body["events"]}
            for fact_id in body["removed"]:
                self.facts.pop(fact_id, None)
            self.facts |= {fact["id"]: fact["text"] for fact in body["facts"]}
            assert self.version is None or body["mode"] == "snapshot" or body["version"] > self.version
            self.version = body["version"]
            modes.append(body["mode"])
            if not body["more"]:
                return modes


@pytest.mark.parametrize("rows", [2, 2_000])
def test_an_offline_device_catches_up_in_one_round(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(routes, "build_permanent_projection", partial(build_permanent_projection, max_rows=rows))
    often, seldom, dice = UserDevice(client), UserDevice(client), random.Random(rows)
    towns = ["Lisbon", "Oslo", "Rome", "Paris"]
    assert often.catch_up() == seldom.catch_up() == ["snapshot"]
    for step in range(20):
        session_id = f"call-{dice.randrange(4)}"
        match dice.randrange(5):
            case 0 | 1:
                said = f"I live in {dice.choice(towns)}."
                client.send_call(session_id, said, "I like tea.", day=f"2026-03-{step + 1:02}")
            case 2:
                cloud.run_tasks()
            case _ if known := client.ok("GET", f"{client.path}/memories")["memories"] if step > 5 else []:
                path = f"{client.path}/memories/{dice.choice(known)['memoryId']}"
                if dice.random() < 0.5:
                    client.ok("PATCH", path, {"text": f"Ana lives in {dice.choice(towns)} by hand {step}."})
                else:
                    client.ok("DELETE", path)
        often.catch_up()
    seldom.catch_up()
    newcomer = UserDevice(client)
    assert newcomer.catch_up()[0] == "snapshot"
    truth = {memory["memoryId"]: memory["text"] for memory in client.memories()}
    said = {
        event["eventId"]
        for session in client.ok("GET", f"{client.path}/sessions")["sessions"]
        for event in client.events(session["sessionId"])
        if event["type"] != "session_end"
    }
    for device in (often, seldom, newcomer):
        assert device.facts == truth
        assert set(device.events) == said
        assert device.catch_up() == []


def test_bootstrap_returns_all_current_versions(cloud: RunningCloud, client: Client) -> None:
    path = "/v1/voice-sdk/bootstrap"
    without_user = client.with_identity()
    without_user.identity.pop("user")
    empty = client.call("GET", path)
    assert empty.body == {
        "profileVersion": 0,
        "permanentManifestVersion": 0,
        "orgManifestVersion": 0,
        "epoch": empty.body["epoch"],
        "retentionVersion": 0,
        "forgottenVersion": 0,
        "forgottenAt": None,
        "erasure": f"{empty.body['epoch']}:0",
        "orgFile": None,
        "budgets": {
            "contextCharCap": 8_000,
            "perLaneCharCap": 2_400,
            "topKPermanent": 6,
            "topKOrg": 4,
            "topKWorking": 4,
        },
        "recallTraces": None,
        "syncToken": empty.body["syncToken"],
    }
    assert empty.headers["etag"] == f'"{empty.body["syncToken"]}"'
    assert client.call("GET", path, If_None_Match=empty.headers["etag"]).status == 304
    bootstrap = without_user.ok("GET", path)
    assert (bootstrap["profileVersion"], bootstrap["permanentManifestVersion"], bootstrap["orgManifestVersion"]) == (
        None,
        None,
        0,
    )

    client.send_call("one", "I live in Lisbon.")
    document = {"id": "d", "text": "Nine."}
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    cloud.run_tasks()
    changed = client.call("GET", path, If_None_Match=empty.headers["etag"])
    versions = ("profileVersion", "permanentManifestVersion", "orgManifestVersion")
    assert [changed.body[name] for name in versions] == [2, 2, 1]
    assert changed.body["orgFile"]["version"] == 1
    other = client.with_identity(user="other").ok("GET", path)
    assert [other[name] for name in versions] == [0, 0, 1]


@pytest.mark.parametrize("projection", ["profile", "permanent"])
def test_a_user_projection_requires_a_user(client: Client, projection: str) -> None:
    path = f"/v1/voice-sdk/projections/{projection}"
    assert client.call("GET", path).status == 200
    assert client.call("GET", f"{path}?since=0").status == 304
    assert client.call("GET", path, If_None_Match=f'"{projection}-0"').status == 304
    without_user = client.with_identity()
    without_user.identity.pop("user")
    assert without_user.error_of("GET", path) == (422, "cloud.invalid")


def test_large_turns_make_pages_with_fewer_rows(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_PAGE_CHARS", 10_000)
    for number in range(6):
        client.send(turn(f"e{number}", seq=number, said="x" * 4_000))
    device = UserDevice(client)
    assert device.catch_up() == ["snapshot", "delta", "delta"]
    assert len(device.events) == 6
