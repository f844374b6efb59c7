"""A bridge in this process with its own memory, and the requests that platforms send to it."""

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
METRICS_TOKEN = "metrics-token-of-the-tests"


def make_environ(storage_root: Path, **overrides: str) -> dict[str, str]:
    """Return the environment of a bridge, with ``overrides`` in place of the defaults."""
    first, last = free_ports()
    return {
        **SECRETS,
        "BRIDGE_CALLER_SALT": SALT,
        "BRIDGE_PUBLIC_URL": PUBLIC_URL + "/",
        "BRIDGE_STORAGE_ROOT": str(storage_root),
        "BRIDGE_RUNTIME_PORTS": f"{first}-{last}",
        "BRIDGE_RECALL_MS": "10000",  # deadlines have tests of their own
        "BRIDGE_KEEP_MS": "10000",
        "BRIDGE_METRICS_TOKEN": METRICS_TOKEN,
        "MEMOAIR_PROJECT_ID": PROJECT,
        **overrides,
    }


class Bridge:
    """The application, and the requests that the platforms send to it."""

    def __init__(self, storage_root: Path, **overrides: str) -> None:
        self.storage_root = storage_root
        self.app = create_app(BridgeSettings.from_environ(make_environ(storage_root, **overrides)))
        self.http: FlaskClient = self.app.test_client()

    def close(self) -> None:
        self.app.extensions["memory"].close()
        if "model" in self.app.extensions:
            self.app.extensions["model"].close()

    def post_twilio(self, path: str, form: dict[str, str], **headers: str) -> TestResponse:
        """Send a webhook of Twilio, signed for the public URL, to the internal address behind the proxy."""
        signature = headers or twilio_signature(path, form)
        return self.http.post(path, data=form, headers=signature, base_url="http://10.0.0.7:8000")

    def say(self, call: str, turn: int, text: str, number: str = NUMBER) -> str:
        """Say something in a call through Twilio, and return the answer as TwiML."""
        reply = self.post_twilio(f"/twilio/turn?n={turn}", twilio_form(call, text, number))
        assert (reply.status_code, reply.mimetype) == (200, "text/xml")
        return reply.text

    def post_vapi(self, body: Any, **headers: str) -> TestResponse:
        return self._post_signed("/vapi", body, headers, vapi_signature)

    def post_retell(self, path: str, body: Any, **headers: str) -> TestResponse:
        return self._post_signed(f"/retell/{path}", body, headers, retell_signature)

    def post_elevenlabs(self, body: Any, **headers: str) -> TestResponse:
        return self._post_signed("/elevenlabs/post-call", body, headers, elevenlabs_signature)

    def call_tool(
        self, query: str, number: str | None = NUMBER, secret: str = SECRETS["ELEVENLABS_TOOL_SECRET"]
    ) -> Any:
        body = {"query": query, "caller_id": number}
        reply = self.http.post("/elevenlabs/tool", json=body, headers={"Authorization": f"Bearer {secret}"})
        assert reply.status_code == 200
        return reply.json["memory"] if reply.json else None

    def count(self, metric: str = "bridge_events_total", **labels: str) -> int:
        """Return the value of a counter of this process."""
        reply = self.http.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
        assert reply.status_code == 200
        wanted = {f'{name}="{value}"' for name, value in labels.items()}
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in reply.text.splitlines()
            if line.startswith(metric + "{") and wanted <= set(line.partition("{")[2].partition("}")[0].split(","))
        )

    def read_end_reasons(self, call: str, caller: str = NUMBER) -> list[str]:
        """Return the reasons of the ends of a call on disk."""
        return [
            event["payload"]["reason"] for event in self._read_events(call, caller) if event["type"] == "session_end"
        ]

    def read_saved_turns(self, call: str, number: str = NUMBER) -> list[tuple[str, str, str, str]]:
        """Return the turns of a call on disk, as corrected: id, user text, assistant text and the time of the turn."""
        events = [event for event in self._read_events(call, number) if event["type"] == "turn"]
        latest = {event["payload"]["turnId"]: event for event in events}
        return [
            (turn_id, event["payload"]["userText"], event["payload"]["assistantText"], event["occurredAt"])
            for turn_id, event in latest.items()
        ]

    def count_saved_events(self, call: str, number: str = NUMBER) -> int:
        """Return how many turns and corrections of turns a call has on disk."""
        return sum(event["type"] == "turn" for event in self._read_events(call, number))

    def _read_events(self, call: str, number: str) -> list[dict[str, Any]]:
        caller = make_caller_id(SALT.encode(), number)
        assert caller is not None
        log = UserFolder(self.storage_root, PROJECT, caller).session(call).log
        return [json.loads(line) for line in log.read_bytes().splitlines()] if log.is_file() else []

    def _post_signed(
        self, path: str, body: Any, headers: dict[str, str], sign: Callable[[bytes], dict[str, str]]
    ) -> TestResponse:
        content = body if isinstance(body, bytes) else encoded(body)
        return self.http.post(path, data=content, content_type="application/json", headers=headers or sign(content))


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One bridge for all tests of a module; each test uses its own calls."""
    with checking_for_leaks():
        bridge = Bridge(tmp_path_factory.mktemp("bridge"))
        yield bridge
        bridge.close()


@pytest.fixture
def make_bridge(tmp_path: Path, nothing_left_behind: None) -> Iterator[Callable[..., Bridge]]:
    """Return a function that creates bridges with other settings; all are closed after the test."""
    bridges: list[Bridge] = []

    def make(**overrides: str) -> Bridge:
        bridges.append(Bridge(tmp_path / "storage", **overrides))
        return bridges[-1]

    yield make
    for bridge in bridges:
        bridge.close()


@pytest.fixture(autouse=True)
def log_contains_no_secrets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail any test that logs a phone number or a secret."""
    caplog.set_level(logging.DEBUG)
    yield
    logged = "".join(record.getMessage() + str(record.exc_info or "") for record in caplog.records)
    assert not [secret for secret in (NUMBER, *SECRETS.values(), SALT) if secret in logged]
