"""A turn, and how it lies in the index: a document for each passage of each side."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import Any

import attrs

from memoair_index import Document, split_passages
from memoair_runtime.memory.speaker_names import AGENT, CALLER

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@attrs.frozen
class StoredTurn:
    """The caller spoke, the agent answered. ``number`` counts the session's turns from 0."""

    event_id: str
    session_id: str
    number: int
    turn_id: str
    caller: str
    agent: str
    user_text: str
    assistant_text: str
    occurred_at: datetime
    metadata: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Both sides, a line each, with the speaker's name."""
        sides = ((self.caller, self.user_text), (self.agent, self.assistant_text))
        return "\n".join(f"{speaker}: {text}" for speaker, text in sides if text)


def first_ids(event_id: str) -> tuple[str, str]:
    """The ids of which a turn that is in the index has at least one."""
    return _id(event_id, CALLER, 0), _id(event_id, AGENT, 0)


def to_documents(turn: StoredTurn) -> list[Document]:
    """A turn's documents, in the order in which it was spoken; at least one."""
    sides = [(CALLER, turn.user_text), (AGENT, turn.assistant_text)]
    kept: dict[str, Any] = {
        "number": turn.number,
        "turnId": turn.turn_id,
        CALLER: turn.caller,
        AGENT: turn.agent,
        "metadata": dict(turn.metadata),
    }
    return [
        Document(
            _id(turn.event_id, side, part),
            text,
            turn.session_id,
            speaker=side,
            occurred_at=turn.occurred_at.timestamp(),
            metadata={**kept, "part": part},
        )
        for side, whole in ([each for each in sides if each[1]] or sides[:1])
        for part, text in enumerate(split_passages(whole))
    ]


def event_of(document: Document) -> str:
    """The event id of the turn that a document is of."""
    return document.id.rsplit(":", 2)[0]


def to_turn(documents: Sequence[Document]) -> StoredTurn:
    """The turn whose documents these are."""
    first = documents[0]
    said = {side: "".join(each.text for each in documents if each.speaker == side) for side in (CALLER, AGENT)}
    kept = first.metadata
    return StoredTurn(
        event_id=event_of(first),
        session_id=first.group,
        number=kept["number"],
        turn_id=kept["turnId"],
        caller=kept[CALLER],
        agent=kept[AGENT],
        user_text=said[CALLER],
        assistant_text=said[AGENT],
        occurred_at=moment(first.occurred_at or 0.0),
        metadata=kept["metadata"],
    )


def to_turns(documents: Iterable[Document]) -> list[StoredTurn]:
    """The turns of documents that stand in the order in which they were spoken."""
    return [to_turn(list(together)) for _, together in groupby(documents, key=event_of)]


def _id(event_id: str, side: str, part: int) -> str:
    return f"{event_id}:{side}:{part}"


def moment(at: float) -> datetime:
    """The moment of a number of seconds since the epoch, on every platform, also long before it."""
    try:
        return _EPOCH + timedelta(seconds=at)
    except OverflowError:  # a second of the last year may have been rounded up
        return datetime.max.replace(tzinfo=timezone.utc)
