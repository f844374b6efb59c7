"""What devices pull: after any pulls, what a device holds is what the project knows."""

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


class Device:
    """What a device holds, pull after pull."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.held: dict[tuple[str, str], Any] = {}
        self.version: int | None = None
        self.more = False

    def pull(self) -> str:
        answer = self.client.call("GET", ORG if self.version is None else f"{ORG}?since={self.version}")
        if answer.status == 304:
            return "unchanged"
        told = answer.body
        assert answer.headers["etag"] == f'"org-{told["version"]}"'
        hashed = [
            [[each[name] for name in ("indexName", "id", "text", "metadata")] for each in told["documents"]],
            [[each["indexName"], each["id"]] for each in told["removed"]],
        ]
        canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
        assert told["contentHash"] == hashlib.sha256(canonical.encode()).hexdigest()
        if told["mode"] == "snapshot":
            self.held = {}
        for each in told["removed"]:
            self.held.pop((each["indexName"], each["id"]), None)
        for each in told["documents"]:
            self.held[each["indexName"], each["id"]] = (each["text"], each["metadata"])
        self.version, self.more = told["version"], told["more"]
        return str(told["mode"])


def test_a_device_holds_what_the_project_knows_however_seldom_it_pulls(client: Client) -> None:
    often, seldom, dice = Device(client), Device(client), random.Random(3)
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
        assert often.held == truth

    assert seldom.pull() == "delta"
    assert seldom.held == truth
    newcomer = Device(client)
    assert newcomer.pull() == "snapshot"
    assert newcomer.held == truth
    assert (newcomer.version, newcomer.pull()) == (often.version, "unchanged")


def test_an_etag_that_still_holds_is_told_that_nothing_has_changed(client: Client) -> None:
    document = {"id": "d", "text": "We open at nine."}
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    etag = client.call("GET", ORG).headers["etag"]

    assert client.call("GET", ORG, If_None_Match=etag).status == 304
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    for header in (etag, '"nonsense"', "*"):
        assert client.ok("GET", ORG, If_None_Match=header)["mode"] == "snapshot"


def test_a_version_of_another_life_gets_everything(client: Client) -> None:
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [{"id": "d", "text": "Nine."}]})

    told = client.ok("GET", f"{ORG}?since=99")
    assert (told["mode"], told["version"], len(told["documents"])) == ("snapshot", 1, 1)
    assert client.refused("GET", f"{ORG}?since=-1") == (422, "cloud.invalid")


@pytest.mark.parametrize("rows", [1, 3])
def test_much_comes_in_pages_that_end_where_a_version_ends(
    client: Client, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    for number in range(4):
        documents = [{"id": f"{number}-{each}", "text": "Nine."} for each in range(number)]
        client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": documents})
    client.ok("DELETE", "/v1/voice-sdk/index/faq/documents/3-1")
    everything = client.ok("GET", ORG)
    assert (everything["version"], everything["more"]) == (5, False)
    monkeypatch.setattr(routes, "build_org_projection", partial(build_org_projection, max_rows=rows))
    device = Device(client)
    modes = [device.pull()]
    while device.more:
        modes.append(device.pull())
    assert modes == ["snapshot", *["delta"] * (len(modes) - 1)]
    assert len(modes) > 1
    assert device.held == {
        (each["indexName"], each["id"]): (each["text"], each["metadata"]) for each in everything["documents"]
    }
    assert device.pull() == "unchanged"


class CallersDevice:
    """What a device holds of a caller, pull after pull."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.version: int | None = None
        self.events: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}

    def catch_up(self) -> list[str]:
        """Pull as long as there is more, which must be one round."""
        modes = []
        while True:
            since = "" if self.version is None else f"?since={self.version}"
            answer = self.client.call("GET", f"/v1/voice-sdk/projections/permanent{since}")
            if answer.status == 304:
                return modes
            told = answer.body
            hashed = [told["events"], told["facts"], told["removed"]]
            canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
            assert told["contentHash"] == hashlib.sha256(canonical.encode()).hexdigest()
            assert answer.headers["etag"] == f'"permanent-{told["version"]}"'
            if told["mode"] == "snapshot":
                self.events, self.facts = {}, {}
            self.events |= {event["eventId"]: event for event in told["events"]}
            for fact_id in told["removed"]:
                self.facts.pop(fact_id, None)
            self.facts |= {fact["id"]: fact["text"] for fact in told["facts"]}
            assert self.version is None or told["mode"] == "snapshot" or told["version"] > self.version
            self.version = told["version"]
            modes.append(told["mode"])
            if not told["more"]:
                return modes


@pytest.mark.parametrize("rows", [2, 2_000])
def test_a_device_that_was_away_holds_what_was_said_and_learned_everywhere_after_one_round(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(routes, "build_permanent_projection", partial(build_permanent_projection, max_rows=rows))
    often, seldom, dice = CallersDevice(client), CallersDevice(client), random.Random(rows)
    towns = ["Lisbon", "Oslo", "Rome", "Paris"]
    assert often.catch_up() == seldom.catch_up() == ["snapshot"]
    for step in range(20):
        session_id = f"call-{dice.randrange(4)}"
        match dice.randrange(5):
            case 0 | 1:
                said = f"I live in {dice.choice(towns)}."
                client.call_of(session_id, said, "I like tea.", day=f"2026-03-{step + 1:02}")
            case 2:
                cloud.work()
            case _ if known := client.ok("GET", f"{client.path}/memories")["memories"] if step > 5 else []:
                path = f"{client.path}/memories/{dice.choice(known)['memoryId']}"
                if dice.random() < 0.5:
                    client.ok("PATCH", path, {"text": f"Ana lives in {dice.choice(towns)} by hand {step}."})
                else:
                    client.ok("DELETE", path)
        often.catch_up()
    seldom.catch_up()
    newcomer = CallersDevice(client)
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


def test_what_a_device_is_told_first_is_how_far_everything_has_come(cloud: RunningCloud, client: Client) -> None:
    path = "/v1/voice-sdk/bootstrap"
    nobody = client.with_()
    nobody.identity.pop("user")
    empty = client.call("GET", path)
    assert empty.body == {
        "profileVersion": 0,
        "permanentManifestVersion": 0,
        "orgManifestVersion": 0,
        "forgottenVersion": 0,
        "forgottenAt": None,
        "orgFile": None,
        "budgets": {
            "contextCharCap": 8_000,
            "perLaneCharCap": 2_400,
            "topKPermanent": 6,
            "topKOrg": 4,
            "topKWorking": 4,
        },
        "syncToken": empty.body["syncToken"],
    }
    assert empty.headers["etag"] == f'"{empty.body["syncToken"]}"'
    assert client.call("GET", path, If_None_Match=empty.headers["etag"]).status == 304
    told = nobody.ok("GET", path)
    assert (told["profileVersion"], told["permanentManifestVersion"], told["orgManifestVersion"]) == (None, None, 0)

    client.call_of("one", "I live in Lisbon.")
    document = {"id": "d", "text": "Nine."}
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
    cloud.work()
    changed = client.call("GET", path, If_None_Match=empty.headers["etag"])
    versions = ("profileVersion", "permanentManifestVersion", "orgManifestVersion")
    assert [changed.body[name] for name in versions] == [2, 2, 1]
    assert changed.body["orgFile"]["version"] == 1
    other = client.with_(user="other").ok("GET", path)
    assert [other[name] for name in versions] == [0, 0, 1]


@pytest.mark.parametrize("what", ["profile", "permanent"])
def test_a_callers_projection_has_to_say_whose_it_is(client: Client, what: str) -> None:
    path = f"/v1/voice-sdk/projections/{what}"
    assert client.call("GET", path).status == 200
    assert client.call("GET", f"{path}?since=0").status == 304
    assert client.call("GET", path, If_None_Match=f'"{what}-0"').status == 304
    nobody = client.with_()
    nobody.identity.pop("user")
    assert nobody.refused("GET", path) == (422, "cloud.invalid")


def test_pages_end_where_they_are_large_enough_however_few_turns_that_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MAX_PAGE_CHARS", 10_000)
    for number in range(6):
        client.send(turn(f"e{number}", seq=number, said="x" * 4_000))
    device = CallersDevice(client)
    assert device.catch_up() == ["snapshot", "delta", "delta"]
    assert len(device.events) == 6
