"""Helpers for tests of imports: turns, environments, and runs."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cli.event_server import EventServer
from support.clouds import Client
from support.commands import memoair

NewFile = Callable[..., Path]

STARTED_AT = datetime(2026, 3, 2, 9, 30, tzinfo=timezone.utc)


def turn(number: int, user: str = "ana", call: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a turn of a call, one minute after the one before."""
    return {
        "userId": user,
        "sessionId": call or f"{user}-1",
        "turnId": f"t{number}",
        "occurredAt": (STARTED_AT + timedelta(minutes=number)).isoformat(),
        "userText": f"Parcel number {number} is late.",
        "assistantText": "I see.",
        **more,
    }


def cloud_environment(client: Client) -> dict[str, str]:
    """Return the environment for a client's project in a cloud."""
    assert client.key is not None
    return {
        "MEMOAIR_BASE_URL": client.url,
        "MEMOAIR_API_KEY": client.key,
        "MEMOAIR_PROJECT_ID": client.identity["project"],
        "MEMOAIR_AGENT_ID": client.identity["agent"],
    }


def stand_in_environment(server: EventServer) -> dict[str, str]:
    """Return the environment for a stand-in for a cloud."""
    return {"MEMOAIR_BASE_URL": server.url, "MEMOAIR_API_KEY": "memoair_pk_secret", "MEMOAIR_PROJECT_ID": "proj_acme"}


def run_import(*arguments: str | Path, code: int = 0, **environ: Any) -> Any:
    """Run an import and return its summary."""
    return json.loads(memoair("import", *arguments, "--json", code=code, **environ).out)


def turn_ids_of(events: list[dict[str, Any]]) -> list[str]:
    """Return the turn ids of events, in order."""
    return [event["payload"]["turnId"] for event in events if event["type"] == "turn"]
