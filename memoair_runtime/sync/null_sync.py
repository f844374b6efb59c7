"""Sync for a runtime without a cloud: every method does nothing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from memoair_protocol.enums import LaneName
from memoair_runtime.storage.events import Event
from memoair_runtime.sync.interface import Versions, health_report
from memoair_runtime.sync.status import SyncState


class NullSync:
    """No sync; see `memoair_runtime.sync.interface.SyncInterface`."""

    unsynced_count = 0
    sync_token: str | None = None
    permanent_version: int | None = None

    def start(self) -> None:
        """Do nothing."""

    def end_startup_delay(self) -> None:
        """Do nothing."""

    def record_logged(self, events: Sequence[Event]) -> None:
        """Do nothing: the events stay on this machine."""

    def pull(self, scopes: Sequence[LaneName], deadline: float) -> tuple[str, Versions]:  # noqa: ARG002
        """Return the status ``off`` and no versions."""
        return "off", {"profile": None, "permanent": None, "org": None}

    def flush(self, deadline: float) -> int:  # noqa: ARG002
        """Return 0: no event waits for a cloud."""
        return 0

    def on_erased(self, at: datetime | None) -> None:
        """Do nothing."""

    def health(self) -> dict[str, Any]:
        """Report the state ``off``."""
        return health_report(SyncState.OFF, 0, None, 0, has_pulled=False)

    def close(self, deadline: float) -> None:
        """Do nothing."""
