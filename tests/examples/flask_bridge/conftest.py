"""A bridge in this process, over a memory of its own, and platforms that call it."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bridge import BridgeSettings, create_app
from bridge.callers import make_caller_id
from flask.testing import FlaskClient
from support.clients import PROJECT, checking_for_leaks, free_ports
from support.webhooks import (
    NUMBER,
    PUBLIC_URL,
    SECRETS,
    elevenlabs_signature,
    encoded,
    retell_signature,
    twilio_form,
    twilio_signature,
    vapi_signature,
)
from werkzeug.test import TestResponse

from memoair_runtime.storage.user_folder import UserFolder

SALT = "salt-of-the-tests-of-the-bridge"


def environment(storage_root: Path, **more: str) -> dict[str, str]:
    """What a bridge is told, unless a test says otherwise."""
    first, last = free_ports()
    return {
        **SECRETS,
        "BRIDGE_CALLER_SALT": SALT,
        "BRIDGE_PUBLIC_URL": PUBLIC_URL + "/",
        "BRIDGE_STORAGE_ROOT": str(storage_root),
        "BRIDGE_RUNTIME_PORTS": f"{first}-{last}",
        "BRIDGE_RECALL_MS": "10000",  # what a deadline does is tested by itself
        "BRIDGE_KEEP_MS": "10000",
        "MEMOAIR_PROJECT_ID": PROJECT,
        **more,
    }


class Bridge:
    """The application, called as the platforms call it."""

    def __init__(self, storage_root: Path, **more: str) -> None:
        self.storage_root = storage_root
        self.app = create_app(BridgeSettings.from_environ(environment(storage_root, **more)))
        self.http: FlaskClient = self.app.test_client()

    def close(self) -> None:
        self.app.extensions["memory"].close()

    def twilio(self, path: str, form: dict[str, str], **headers: str) -> TestResponse:
        """A webhook of Twilio's, which knows us by our public address alone."""
        signed = headers or twilio_signature(path, form)
        return self.http.post(path, data=form, headers=signed, base_url="http://10.0.0.7:8000")

    def says(self, call: str, turn: int, said: str, number: str = NUMBER) -> str:
        """What the caller is answered in a call through Twilio."""
        answered = self.twilio(f"/twilio/turn?n={turn}", twilio_form(call, said, number))
        assert (answered.status_code, answered.mimetype) == (200, "text/xml")
        return answered.text

    def vapi(self, body: Any, **headers: str) -> TestResponse:
        return self._post("/vapi", body, headers, vapi_signature)

    def retell(self, path: str, body: Any, **headers: str) -> TestResponse:
        return self._post(f"/retell/{path}", body, headers, retell_signature)

    def elevenlabs(self, body: Any, **headers: str) -> TestResponse:
        return self._post("/elevenlabs/post-call", body, headers, elevenlabs_signature)

    def tool(self, query: str, number: str | None = NUMBER, secret: str = SECRETS["ELEVENLABS_TOOL_SECRET"]) -> Any:
        body = {"query": query, "caller_id": number}
        told = self.http.post("/elevenlabs/tool", json=body, headers={"Authorization": f"Bearer {secret}"})
        assert told.status_code == 200
        return told.json["memory"] if told.json else None

    def kept(self, call: str, number: str = NUMBER) -> list[tuple[str, str, str, str]]:
        """The turns of a call as they lie on the disk: id, both sides' words, and when they were said."""
        caller = make_caller_id(SALT.encode(), number)
        assert caller is not None
        log = UserFolder(self.storage_root, PROJECT, caller).session(call).log
        events = [json.loads(line) for line in log.read_bytes().splitlines()] if log.is_file() else []
        return [
            (told["turnId"], told["userText"], told["assistantText"], event["occurredAt"])
            for event in events
            if event["type"] == "turn"
            for told in [event["payload"]]
        ]

    def _post(
        self, path: str, body: Any, headers: dict[str, str], sign: Callable[[bytes], dict[str, str]]
    ) -> TestResponse:
        content = body if isinstance(body, bytes) else encoded(body)
        return self.http.post(path, data=content, content_type="application/json", headers=headers or sign(content))


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One bridge for all tests of a module; each has calls of its own."""
    with checking_for_leaks():
        made = Bridge(tmp_path_factory.mktemp("bridge"))
        yield made
        made.close()


@pytest.fixture
def new_bridge(tmp_path: Path, nothing_left_behind: None) -> Iterator[Callable[..., Bridge]]:
    """Make bridges with other settings."""
    made: list[Bridge] = []

    def make(**more: str) -> Bridge:
        made.append(Bridge(tmp_path / "storage", **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def no_word_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither a number nor a secret is in a log, whatever a test does."""
    caplog.set_level(logging.DEBUG)
    yield
    told = "".join(record.getMessage() + str(record.exc_info or "") for record in caplog.records)
    assert not [each for each in (NUMBER, *SECRETS.values(), SALT) if each in told]
