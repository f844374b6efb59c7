"""From what was said in a call, line by line, to turns: the caller speaks, the agent answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Speaker(Enum):
    """Who speaks."""

    CALLER = "caller"
    AGENT = "agent"


@dataclass(frozen=True)
class Utterance:
    """What one side says; ``at`` is when, where the platform tells it."""

    speaker: Speaker
    text: str
    at: datetime | None = None


@dataclass(frozen=True)
class CallTurn:
    """``id`` is the same however often the platform tells of the turn: by it the turn is kept once."""

    id: str
    user_text: str
    assistant_text: str
    at: datetime | None = None


def group_turns(call_id: str, utterances: Iterable[Utterance]) -> list[CallTurn]:
    """The turns of a call, each named by the call and by the place of its first line.

    A platform adds lines at the end of a transcript only, so the place names a line for good. What an agent says before
    anybody has spoken is a turn in which the caller says nothing.
    """
    groups: list[tuple[int, list[Utterance]]] = []
    for position, utterance in enumerate(utterances):
        if not utterance.text.strip():
            continue
        is_agent = utterance.speaker is Speaker.AGENT
        if not groups or (not is_agent and groups[-1][1][-1].speaker is Speaker.AGENT):
            groups.append((position, []))
        groups[-1][1].append(utterance)
    return [
        CallTurn(f"{call_id}:{place}", _join_texts(said, Speaker.CALLER), _join_texts(said, Speaker.AGENT), said[0].at)
        for place, said in groups
    ]


def _join_texts(utterances: list[Utterance], speaker: Speaker) -> str:
    return " ".join(line.text.strip() for line in utterances if line.speaker is speaker)
