"""The sync of a runtime without a cloud."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from memoair_runtime.enums import LaneName
from memoair_runtime.storage.events import Event
from memoair_runtime.sync.interface import Versions, health_report
from memoair_runtime.sync.status import SyncState


class NullSync:
    """Nothing is sent anywhere."""

    unsynced_count = 0
    sync_token: str | None = None
    permanent_version: int | None = None

    def start(self) -> None:
        """Nothing begins."""

    def end_startup_delay(self) -> None:
        """Nobody waits."""

    def record_logged(self, events: Sequence[Event]) -> None:
        """They stay here."""

    def pull(self, scopes: Sequence[LaneName], deadline: float) -> tuple[str, Versions]:  # noqa: ARG002
        """There is nobody to ask."""
        return "off", {"profile": None, "permanent": None, "org": None}

    def flush(self, deadline: float) -> int:  # noqa: ARG002
        """Nothing waits."""
        return 0

    def on_erased(self, at: datetime | None) -> None:
        """Nobody needs to know."""

    def health(self) -> dict[str, Any]:
        """That there is no cloud."""
        return health_report(SyncState.OFF, 0, None, 0, has_pulled=False)

    def close(self, deadline: float) -> None:
        """Nothing ends."""
