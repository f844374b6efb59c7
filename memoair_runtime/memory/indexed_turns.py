"""Turns in an index: all documents of a turn together, which are neighbors in their session."""

from memoair_index import Index
from memoair_runtime.memory.turn import StoredTurn, event_id_of, first_document_ids, to_turns

_RECENT_DOCUMENTS = 8  # most corrections are of a recent turn


def is_indexed(index: Index, event_id: str) -> bool:
    """Return whether the turn of an event is in the index."""
    return any(document_id in index for document_id in first_document_ids(event_id))


def remove_turn(index: Index, event_id: str) -> None:
    """Remove the turn of an event, if it is in the index."""
    document_ids = [
        document.id
        for first in first_document_ids(event_id)
        for document in index.contiguous_run(first, lambda other: event_id_of(other) == event_id)
    ]
    index.remove(set(document_ids))


def take_turns_from(index: Index, session_id: str, event_id: str) -> list[StoredTurn]:
    """Remove a turn and all later ones of its session, and return them in order; none if the turn is not there."""
    last = _RECENT_DOCUMENTS
    documents = index.group_documents(session_id, last=last)
    # The first turn of a part of the group may be incomplete.
    while last < len(index) and event_id not in {turn.event_id for turn in to_turns(documents)[1:]}:
        last *= 4
        documents = index.group_documents(session_id, last=last)
    start = next((at for at, document in enumerate(documents) if event_id_of(document) == event_id), len(documents))
    turns = to_turns(documents[start:])
    index.remove([document.id for document in documents[start:]])
    return turns
