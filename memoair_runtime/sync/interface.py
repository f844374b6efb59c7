"""What every kind of cloud sync offers: the methods, and the report of its health."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from memoair_runtime.enums import LaneName
from memoair_runtime.storage.events import Event
from memoair_runtime.sync.status import SyncState

Versions = dict[str, int | None]


class SyncInterface(Protocol):
    """The talk with the cloud, behind the requests. Safe to use from any thread; nothing waits for the network."""

    def start(self) -> None:
        """Begin."""

    def end_startup_delay(self) -> None:
        """Somebody has been answered: what waited for that may go on."""

    def record_logged(self, events: Sequence[Event]) -> None:
        """Events have been logged."""

    def pull(self, scopes: Sequence[LaneName], deadline: float) -> tuple[str, Versions]:
        """Ask the cloud now; return when what it had can be searched, or at the deadline (monotonic seconds)."""

    def flush(self, deadline: float) -> int:
        """Send what waits, by the deadline (monotonic seconds); return how many events still wait."""

    def on_erased(self, at: datetime | None) -> None:
        """The caller has been forgotten here, and in the cloud at a moment, where that is known."""

    def health(self) -> dict[str, Any]:
        """How it goes."""

    @property
    def unsynced_count(self) -> int:
        """How many events are not in the cloud."""

    @property
    def sync_token(self) -> str | None:
        """What the cloud calls the state that it told last."""

    @property
    def permanent_version(self) -> int | None:
        """Up to which version events and facts were pulled; None where none were."""

    def close(self, deadline: float) -> None:
        """End, after one more try to send what waits, by the deadline (monotonic seconds)."""


def health_report(
    state: SyncState, unsynced_count: int, oldest_ms: int | None, rejected_count: int, *, has_pulled: bool
) -> dict[str, Any]:
    """The ``sync`` of a health report."""
    return {
        "state": state.value,
        "unsynced": unsynced_count,
        "oldestUnsyncedMs": oldest_ms,
        "refused": rejected_count,
        "hasPulled": has_pulled,
    }
