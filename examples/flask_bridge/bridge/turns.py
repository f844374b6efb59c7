"""From what was said in a call, line by line, to turns: the caller speaks, the agent answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Side(Enum):
    """Who speaks."""

    CALLER = "caller"
    AGENT = "agent"


@dataclass(frozen=True)
class Line:
    """What one side says; ``at`` is when, where the platform tells it."""

    side: Side
    text: str
    at: datetime | None = None


@dataclass(frozen=True)
class Turn:
    """``id`` is the same however often the platform tells of the turn: by it the turn is kept once."""

    id: str
    user_text: str
    assistant_text: str
    at: datetime | None = None


def turns_of(call_id: str, lines: Iterable[Line]) -> list[Turn]:
    """The turns of a call, each named by the call and by the place of its first line.

    A platform adds lines at the end of a transcript only, so the place names a line for good. What an agent says before
    anybody has spoken is a turn in which the caller says nothing.
    """
    groups: list[tuple[int, list[Line]]] = []
    for place, line in enumerate(lines):
        if not line.text.strip():
            continue
        answers = line.side is Side.AGENT
        if not groups or (not answers and groups[-1][1][-1].side is Side.AGENT):
            groups.append((place, []))
        groups[-1][1].append(line)
    return [
        Turn(f"{call_id}:{place}", _said(said, Side.CALLER), _said(said, Side.AGENT), said[0].at)
        for place, said in groups
    ]


def _said(lines: list[Line], side: Side) -> str:
    return " ".join(line.text.strip() for line in lines if line.side is side)
