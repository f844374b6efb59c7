"""Erases the data of the user that this runtime serves, while calls go on."""

from collections.abc import Callable
from datetime import datetime

from memoair_protocol.erasure_marks import DeviceTime
from memoair_runtime.memory.reranker import BackgroundReranker
from memoair_runtime.memory.session_writer import SessionWriter
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.storage import erasure
from memoair_runtime.storage.erasure import ErasedCounts
from memoair_runtime.storage.erasure_record import CloudErasure
from memoair_runtime.storage.retention import DroppedTurns, drop_old_turns
from memoair_runtime.storage.session_log import storage_error


class Eraser:
    """Erases a user's data: the files, and what is in memory. Thread-safe.

    Args:
        store: The user's store.
        writer: Writes the user's sessions; it waits during an erasure.
        reranker: Its vectors are erased as well.
        drop_traces: Drops the recall traces that are not written yet.
    """

    def __init__(
        self,
        store: UserStore,
        writer: SessionWriter,
        reranker: BackgroundReranker,
        drop_traces: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._writer = writer
        self._reranker = reranker
        self._drop_traces = drop_traces

    def erase(
        self,
        deadline: float,
        erased_at: datetime,
        *,
        keeps_later: bool = False,
        in_cloud: CloudErasure | None = None,
        clock: DeviceTime | None = None,
    ) -> ErasedCounts:
        """Erase the user's data on this machine.

        Args:
            deadline: How long to wait for logs that are being read, in monotonic seconds.
            erased_at: The time of the erasure, by the clock of this machine.
            keeps_later: Whether to keep the sessions in which every event is after this time.
            in_cloud: The erasure in the cloud, if that is known. What is logged from now on gets its mark.
            clock: The time of the erasure by the clock that cannot be set, if known.

        Returns:
            How much was deleted.

        Raises:
            StorageUnavailableError: Something could not be deleted, or the deadline has passed.
        """
        try:
            with self._store.exclusive(deadline), self._writer.exclusive():
                try:
                    self._drop_traces()
                    return erasure.erase(
                        self._store.folder, erased_at, keeps_later=keeps_later, in_cloud=in_cloud, clock=clock
                    )
                finally:
                    self._store.reset()
                    self._reranker.erase()
        except OSError as error:
            raise storage_error("cannot delete all data of the user", error) from error

    def drop_old_turns(self, deadline: float, cutoff: datetime) -> DroppedTurns:
        """Drop the user's turns from before a time, as far as they need not be sent any more.

        Args:
            deadline: How long to wait for logs that are being read, in monotonic seconds.
            cutoff: The time.

        Raises:
            StorageUnavailableError: Something could not be deleted, or the deadline has passed.
        """
        try:
            with self._store.exclusive(deadline), self._writer.exclusive():
                dropped = drop_old_turns(self._store.folder, cutoff)
                if dropped.event_ids:
                    self._store.remove_dropped(dropped.event_ids)
                    self._reranker.erase()
                return dropped
        except OSError as error:
            raise storage_error("cannot drop old turns of the user", error) from error

    def remove_folder_if_empty(self) -> None:
        """Delete the user's folder if the user was erased and has not spoken since. To be called last."""
        if self._store.generation:
            erasure.remove_if_empty(self._store.folder)
