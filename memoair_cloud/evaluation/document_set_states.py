"""The states of a document set, and which one can follow which."""

from collections.abc import Mapping
from enum import Enum


class DocumentSetState(str, Enum):
    """The state of a document set."""

    RECEIVING = "receiving"  # documents are sent
    BUILDING = "building"  # a worker builds its index file, or copies that of the present documents
    READY = "ready"  # runs can search it; it never changes
    FAILED = "failed"
    REMOVED = "removed"  # its files are removed, and then its row


TRANSITIONS: Mapping[DocumentSetState, frozenset[DocumentSetState]] = {
    DocumentSetState.RECEIVING: frozenset({DocumentSetState.BUILDING, DocumentSetState.REMOVED}),
    DocumentSetState.BUILDING: frozenset({DocumentSetState.READY, DocumentSetState.FAILED, DocumentSetState.REMOVED}),
    DocumentSetState.READY: frozenset({DocumentSetState.REMOVED}),
    DocumentSetState.FAILED: frozenset({DocumentSetState.REMOVED}),
    DocumentSetState.REMOVED: frozenset(),
}
