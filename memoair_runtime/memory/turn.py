"""A turn, and its documents in the index: one for each passage of each side."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import Any

import attrs

from memoair_index import Document, split_passages
from memoair_protocol.enums import EventType
from memoair_protocol.names import name_sides
from memoair_runtime.memory.speaker_names import AGENT, CALLER
from memoair_runtime.storage.events import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@attrs.frozen
class StoredTurn:
    """A turn: the caller spoke, the agent answered.

    Attributes:
        event_id: The event's id.
        session_id: The session.
        ordinal: Position among the turns of the session, from 0.
        turn_id: The id that the application chose.
        caller_name: The name of the caller, for display.
        agent_name: The name of the agent, for display.
        user_text: What the caller said.
        assistant_text: What the caller heard of the agent's answer.
        occurred_at: When the turn was spoken.
        metadata: Metadata from the application.
    """

    event_id: str
    session_id: str
    ordinal: int
    turn_id: str
    caller_name: str
    agent_name: str
    user_text: str
    assistant_text: str
    occurred_at: datetime
    metadata: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Both sides, one line each, with the speaker's name."""
        sides = zip(self.shown_names, (self.user_text, self.assistant_text), strict=True)
        return "\n".join(f"{speaker}: {text}" for speaker, text in sides if text)

    @property
    def shown_names(self) -> tuple[str, str]:
        """The names of caller and agent as they are shown. A file of an earlier release may hold others."""
        return name_sides(self.caller_name, self.agent_name)

    def to_event(self) -> Event:
        """Return an event with what is known of the turn, which is not its tool calls nor what was not heard."""
        payload = {
            "turnId": self.turn_id,
            "userText": self.user_text,
            "assistantText": self.assistant_text,
            "metadata": dict(self.metadata),
        }
        return Event(self.event_id, EventType.TURN, self.session_id, self.ordinal + 1, self.occurred_at, payload)


def from_event(event: Event, ordinal: int, caller_name: str | None, agent_name: str | None) -> StoredTurn:
    """Return the turn of an event.

    Args:
        event: The event of a turn.
        ordinal: Position among the turns of the session, from 0.
        caller_name: The name of the caller, if known.
        agent_name: The name of the agent, if known.
    """
    payload = event.payload
    caller_name, agent_name = name_sides(caller_name, agent_name)
    return StoredTurn(
        event_id=event.event_id,
        session_id=event.session_id,
        ordinal=ordinal,
        turn_id=str(payload.get("turnId")),
        caller_name=caller_name,
        agent_name=agent_name,
        user_text=str(payload.get("userText") or ""),
        assistant_text=str(payload.get("assistantText") or ""),
        occurred_at=event.occurred_at,
        metadata=payload.get("metadata") or {},
    )


def first_document_ids(event_id: str) -> tuple[str, str]:
    """Return two document ids of a turn. If the turn is in the index, at least one of them is."""
    return _document_id(event_id, CALLER, 0), _document_id(event_id, AGENT, 0)


def to_documents(turn: StoredTurn) -> list[Document]:
    """Return the documents of a turn, at least one, in the order in which it was spoken."""
    sides = [(CALLER, turn.user_text), (AGENT, turn.assistant_text)]
    metadata: dict[str, Any] = {
        "number": turn.ordinal,
        "turnId": turn.turn_id,
        CALLER: turn.caller_name,
        AGENT: turn.agent_name,
        "metadata": dict(turn.metadata),
    }
    return [
        Document(
            _document_id(turn.event_id, side, part),
            text,
            turn.session_id,
            speaker=side,
            occurred_at=turn.occurred_at.timestamp(),
            metadata={**metadata, "part": part},
        )
        for side, full_text in ([(side, text) for side, text in sides if text] or sides[:1])
        for part, text in enumerate(split_passages(full_text))
    ]


def event_id_of(document: Document) -> str:
    """Return the event id of the turn that a document belongs to."""
    return document.id.rsplit(":", 2)[0]


def shown_names_of(document: Document) -> tuple[str, str]:
    """Return the names of caller and agent of a turn's document as they are shown; see `StoredTurn.shown_names`."""
    return name_sides(document.metadata[CALLER], document.metadata[AGENT])


def to_turn(documents: Sequence[Document]) -> StoredTurn:
    """Return the turn that some documents belong to. They are all of its documents, in order."""
    first = documents[0]
    texts = {
        side: "".join(document.text for document in documents if document.speaker == side) for side in (CALLER, AGENT)
    }
    metadata = first.metadata
    return StoredTurn(
        event_id=event_id_of(first),
        session_id=first.group,
        ordinal=metadata["number"],
        turn_id=metadata["turnId"],
        caller_name=metadata[CALLER],
        agent_name=metadata[AGENT],
        user_text=texts[CALLER],
        assistant_text=texts[AGENT],
        occurred_at=from_timestamp(first.occurred_at or 0.0),
        metadata=metadata["metadata"],
    )


def to_turns(documents: Iterable[Document]) -> list[StoredTurn]:
    """Return the turns of documents that are in the order in which they were spoken."""
    return [to_turn(list(turn_documents)) for _, turn_documents in groupby(documents, key=event_id_of)]


def _document_id(event_id: str, side: str, part: int) -> str:
    return f"{event_id}:{side}:{part}"


def from_timestamp(timestamp: float) -> datetime:
    """Convert seconds since the epoch to a time in UTC, on every platform, including times before the epoch."""
    try:
        return _EPOCH + timedelta(seconds=timestamp)
    except OverflowError:  # rounding may exceed the last year
        return datetime.max.replace(tzinfo=timezone.utc)
