"""The interface of the org lane to a source of the organization's documents."""

from typing import Protocol

import attrs

from memoair_index import Index

VersionKey = tuple[int, ...]  # of a file: times, size, inode; it changes with every write


@attrs.frozen
class LoadedOrgIndex:
    """An index of the documents as they were when it was loaded.

    Attributes:
        index: The index.
        version: Version of the documents; it grows with every change.
        base_sha256: Content hash of the mapped index file, or None without such a file or if its hash is unknown. An
            index file with the same hash need not be verified again.
    """

    index: Index
    version: int
    base_sha256: str | None = None


class OrgSource(Protocol):
    """A source of documents that may change. Used by one thread at a time."""

    @property
    def description(self) -> str:
        """The source for error messages, such as a path."""

    @property
    def poll_interval_s(self) -> float | None:
        """Seconds after which a search checks for changes again; None if only a session start checks."""

    def version_key(self) -> VersionKey | None:
        """Return a key that differs once the documents have changed, or None if there are none yet.

        Raises:
            OSError: If the source is not available.
        """

    def load_index(self) -> LoadedOrgIndex:
        """Return the index of the documents.

        Raises:
            OSError: If the source is not available.
            ValueError: If it is invalid.
        """

    def rebuild(self) -> LoadedOrgIndex:
        """Discard the stored index, which is damaged, and return a new one; raises as `load_index`."""
