"""Groups what was said in a call into turns: the caller speaks, the agent answers."""

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
    """What one side says. ``at`` is the time, if the platform reports it."""

    speaker: Speaker
    text: str
    at: datetime | None = None


@dataclass(frozen=True)
class CallTurn:
    """A turn. Its ``id`` stays the same if the platform sends the turn again, so that it is saved once."""

    id: str
    user_text: str
    assistant_text: str
    at: datetime | None = None


def group_turns(call_id: str, utterances: Iterable[Utterance]) -> list[CallTurn]:
    """Return the turns of a call. The id of a turn consists of the call's id and the position of its first utterance.

    Platforms append to a transcript only at its end, so a position identifies an utterance permanently. What the agent
    says before the caller has spoken is a turn without words of the caller.
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
        CallTurn(
            f"{call_id}:{position}", _join_texts(group, Speaker.CALLER), _join_texts(group, Speaker.AGENT), group[0].at
        )
        for position, group in groups
    ]


def _join_texts(utterances: list[Utterance], speaker: Speaker) -> str:
    return " ".join(utterance.text.strip() for utterance in utterances if utterance.speaker is speaker)
