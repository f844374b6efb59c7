"""What devices pull: after any pulls, what a device holds is what the project knows."""

import hashlib
import json
import random
from typing import Any

from support.clouds import Client

ORG = "/v1/voice-sdk/projections/org"


class Device:
    """What a device holds, pull after pull."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.held: dict[tuple[str, str], Any] = {}
        self.version: int | None = None

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
        self.version = told["version"]
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
