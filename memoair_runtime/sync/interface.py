"""The interface of cloud sync, its health report, and the sync of a runtime without a cloud."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from memoair_protocol.enums import LaneName
from memoair_runtime.storage.events import Event
from memoair_runtime.sync.status import SyncState


class SyncInterface(Protocol):
    """Sync of one runtime with its cloud, in the background. Thread-safe.

    Only `pull`, `flush` and `close` wait, and never beyond their deadline.
    """

    def start(self) -> None:
        """Start syncing. Calling it again has no effect."""

    def end_startup_delay(self) -> None:
        """Allow the first request to the cloud: a search or session start has been answered."""

    def record_logged(self, events: Sequence[Event]) -> None:
        """Take note of events that were appended to a session log."""

    def on_traces_written(self) -> None:
        """Take note that recall traces were written, which are sent behind the events."""

    def pull_user_soon(self) -> None:
        """Pull the user's data as soon as possible, without waiting for it."""

    def follow_call(self, *, is_known_elsewhere: bool) -> None:
        """Pull the user's data more often for a while, because the next turn of a call may reach another machine.

        Args:
            is_known_elsewhere: Whether turns of the call have been saved on another machine already.
        """

    def pull(self, scopes: Sequence[LaneName], deadline: float) -> str:
        """Pull now, and wait until the data can be searched.

        Args:
            scopes: The lanes to pull: profile, permanent, org.
            deadline: When to stop waiting, in monotonic seconds.

        Returns:
            The status for the reply: ``ok``, ``partial`` or ``off``.
        """

    def flush(self, deadline: float) -> int:
        """Push now, and wait until every event has been sent.

        Args:
            deadline: When to stop waiting, in monotonic seconds.

        Returns:
            The number of events that have not been sent.
        """

    def on_erased(self, at: datetime | None, mark: str | None) -> None:
        """Take note that the user's data on this machine was erased.

        Args:
            at: When the cloud erased its data, if known.
            mark: The mark of that erasure, if the cloud gives one.
        """

    def health(self) -> dict[str, Any]:
        """Return the ``sync`` part of the health report. Uses neither disk nor network."""

    @property
    def rejection(self) -> dict[str, Any] | None:
        """Why the cloud rejects this runtime, ``{"part", "message"}``; None if it does not."""

    @property
    def project_trace_mode(self) -> str | None:
        """What the project says is to be kept of searches; None if it is not known."""

    @property
    def sync_token(self) -> str | None:
        """The cloud's token for the state that it reported last."""

    def close(self, deadline: float) -> None:
        """Stop syncing, after one more attempt to push.

        Args:
            deadline: When to give up, in monotonic seconds.
        """


def health_report(
    state: SyncState,
    unsynced_count: int,
    oldest_ms: int | None,
    rejected_count: int,
    *,
    has_pulled: bool,
    rejection: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the ``sync`` part of a health report.

    Args:
        state: The state of the sync.
        unsynced_count: Number of events that the cloud has not acknowledged.
        oldest_ms: Age of the oldest of them, in milliseconds.
        rejected_count: Number of events that the cloud has permanently rejected.
        has_pulled: Whether everything has been pulled at least once.
        rejection: Why the cloud rejects this runtime, if it does.
    """
    return {
        "state": state.value,
        "unsynced": unsynced_count,
        "oldestUnsyncedMs": oldest_ms,
        "refused": rejected_count,
        "hasPulled": has_pulled,
        **({} if rejection is None else {"rejection": rejection}),
    }


class NullSync:
    """No sync, for a runtime without a cloud: every method does nothing."""

    sync_token: str | None = None
    rejection: dict[str, Any] | None = None
    project_trace_mode: str | None = None

    def start(self) -> None:
        """Do nothing."""

    def end_startup_delay(self) -> None:
        """Do nothing."""

    def record_logged(self, events: Sequence[Event]) -> None:
        """Do nothing: the events stay on this machine."""

    def on_traces_written(self) -> None:
        """Do nothing: the traces stay on this machine."""

    def pull_user_soon(self) -> None:
        """Do nothing."""

    def follow_call(self, *, is_known_elsewhere: bool) -> None:
        """Do nothing."""

    def pull(self, scopes: Sequence[LaneName], deadline: float) -> str:  # noqa: ARG002
        """Return the status ``off``."""
        return "off"

    def flush(self, deadline: float) -> int:  # noqa: ARG002
        """Return 0: no event waits for a cloud."""
        return 0

    def on_erased(self, at: datetime | None, mark: str | None) -> None:
        """Do nothing."""

    def health(self) -> dict[str, Any]:
        """Report the state ``off``."""
        return health_report(SyncState.OFF, 0, None, 0, has_pulled=False)

    def close(self, deadline: float) -> None:
        """Do nothing."""
