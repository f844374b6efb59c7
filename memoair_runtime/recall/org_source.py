"""Where the organisation's documents come from, as the lane that searches them sees it."""

from typing import Protocol

import attrs

from memoair_index import Index

VersionKey = tuple[int, ...]  # of a file: times, sizes, numbers; what tells whether it was written since


@attrs.frozen
class LoadedOrgIndex:
    """An index of documents, as it was at a moment. ``version`` grows with every change of them.

    ``base`` names the content of the file that is mapped, where that is known: the same need not be verified again.
    """

    index: Index
    version: int
    base_sha256: str | None = None


class OrgSource(Protocol):
    """Documents that change. Used by one thread at a time."""

    @property
    def description(self) -> str:
        """What they are, for who has to mend them."""

    @property
    def poll_interval_s(self) -> float | None:
        """How often a search looks whether they have changed; None: only a call that begins does."""

    def version_key(self) -> VersionKey | None:
        """What tells whether they have changed; None where there are none yet. Raises OSError."""

    def load_index(self) -> LoadedOrgIndex:
        """Their index, ready to be searched; raises OSError or ValueError."""

    def rebuild(self) -> LoadedOrgIndex:
        """The same, because what was kept is damaged; raises OSError or ValueError."""
