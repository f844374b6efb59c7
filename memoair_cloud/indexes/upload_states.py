"""The states of uploads and of their files, and which state follows which."""

from collections.abc import Mapping
from enum import Enum


class UploadState(str, Enum):
    """The state of an upload."""

    RECEIVING = "receiving"  # files are sent
    QUEUED = "queued"  # all files were sent; a worker will read them
    READING = "reading"  # a worker reads them
    CHECKED = "checked"  # a dry run has ended: it shows what would change
    APPLYING = "applying"  # a worker changes the index
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"  # no request came for a day


TRANSITIONS: Mapping[UploadState, frozenset[UploadState]] = {
    UploadState.RECEIVING: frozenset({UploadState.QUEUED, UploadState.CANCELED, UploadState.EXPIRED}),
    UploadState.QUEUED: frozenset({UploadState.READING, UploadState.CANCELED}),
    UploadState.READING: frozenset(
        {UploadState.CHECKED, UploadState.APPLYING, UploadState.FAILED, UploadState.CANCELED}
    ),
    UploadState.CHECKED: frozenset({UploadState.QUEUED, UploadState.CANCELED, UploadState.EXPIRED}),
    UploadState.APPLYING: frozenset({UploadState.DONE, UploadState.FAILED, UploadState.CANCELED}),
    UploadState.DONE: frozenset(),
    UploadState.FAILED: frozenset(),
    UploadState.CANCELED: frozenset(),
    UploadState.EXPIRED: frozenset(),
}
WORKING = (UploadState.QUEUED, UploadState.READING, UploadState.APPLYING)  # what workers look for
WAITING = (UploadState.RECEIVING, UploadState.CHECKED)  # for the one who sends


class FileState(str, Enum):
    """The state of a file of an upload."""

    STORING = "storing"  # its content is not complete yet
    RECEIVED = "received"
    READ = "read"  # its documents are known
    REFUSED = "refused"  # it has no documents; the reason is kept
    SUPERSEDED = "superseded"  # a file with the same name and other content came later


class DocumentAction(str, Enum):
    """What an upload does with a document."""

    ADD = "add"
    REPLACE = "replace"
    KEEP = "keep"  # the index has it already, with the same text and metadata
    DELETE = "delete"


def is_open(state: UploadState) -> bool:
    """Return whether an upload in a state can still change, and occupies its index."""
    return bool(TRANSITIONS[state])
