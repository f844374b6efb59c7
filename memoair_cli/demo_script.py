"""The scripted calls of the demo, which ship with the package."""

import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import attrs

_FOLDER = files("memoair_cli") / "transcripts"


@attrs.frozen
class DemoTurn:
    """What the caller says and the agent answers.

    Attributes:
        turn_id: The id of the turn.
        occurred_at: When it took place, in ISO 8601.
        user_text: What the caller says.
        assistant_text: What the agent answers.
        recalls: Words of an earlier call that the answer needs.
        recalls_org: Ids of documents that the answer needs.
    """

    turn_id: str
    occurred_at: str
    user_text: str
    assistant_text: str
    recalls: tuple[str, ...]
    recalls_org: tuple[str, ...]


@attrs.frozen
class DemoCall:
    """One call: who calls which phone line, and its turns."""

    session_id: str
    phone_line: str
    project_id: str
    agent_id: str
    assistant_name: str
    user: dict[str, Any]
    turns: tuple[DemoTurn, ...]


@attrs.frozen
class DemoScenario:
    """Two calls of one caller to the same phone line, and the organization's documents."""

    first: DemoCall
    second: DemoCall
    documents: Path


def demo_scenarios() -> list[DemoScenario]:
    """Return the scenarios of the demo."""
    return [
        DemoScenario(_read_call("returns-call-1"), _read_call("returns-call-2"), _path("organization-shop")),
        DemoScenario(_read_call("clinic-call-1"), _read_call("clinic-call-2"), _path("organization-clinic")),
    ]


def _path(name: str) -> Path:
    with as_file(_FOLDER / f"{name}.jsonl") as path:  # the file outlives the block: an installed package is a folder
        return path


def _read_call(name: str) -> DemoCall:
    header, *turns = map(json.loads, (_FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return DemoCall(
        session_id=header["sessionId"],
        phone_line=header["line"],
        project_id=header["projectId"],
        agent_id=header["agentId"],
        assistant_name=header["assistantName"],
        user=header["user"],
        turns=tuple(
            DemoTurn(
                turn_id=f"turn-{ordinal}",
                occurred_at=turn["occurredAt"],
                user_text=turn["userText"],
                assistant_text=turn["assistantText"],
                recalls=tuple(turn.get("recalls", ())),
                recalls_org=tuple(turn.get("recallsOrg", ())),
            )
            for ordinal, turn in enumerate(turns, 1)
        ),
    )
