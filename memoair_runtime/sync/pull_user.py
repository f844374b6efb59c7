"""Pull of what the cloud knows of the caller: versions first, then only what has changed."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import msgspec

from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import CloudError, FailureKind, invalid_response
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)

# How long forgetting may wait for logs that are being read.
_ERASE_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.02


class UserPullState(msgspec.Struct, frozen=True):
    """What the cloud told last, and with which tag to ask for it again; when the caller was forgotten here last."""

    cloud: str
    etag: str | None = None
    bootstrap: Bootstrap | None = None
    forgotten_at: datetime | None = None


_decode_state = msgspec.json.Decoder(UserPullState).decode


class UserPuller:
    """Keeps the copy of one caller up to date. Used by one thread, but for `forgotten`.

    ``on_lost`` is called where the cloud has less than it had: it was put back to an older state.
    """

    def __init__(
        self,
        folder: UserFolder,
        cloud: str,
        store: UserStore,
        transport: CloudTransport,
        on_data_loss: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._store = store
        self._transport = transport
        self._on_data_loss = on_data_loss
        self._lock = ProcessLock(folder.lock("pull"))
        self._state = UserPullState(cloud)
        self._is_state_loaded = False

    @property
    def sync_token(self) -> str | None:
        """What the cloud calls the state that it told last."""
        return self._state.bootstrap.sync_token if self._state.bootstrap else None

    def fetch_bootstrap(self) -> Bootstrap:
        """Ask for the versions of all there is; raises `CloudError`."""
        if not self._is_state_loaded:
            self._load_state()
        response = self._transport.fetch_bootstrap(self._state.etag, time.monotonic() + CALL_TIMEOUT_S)
        if response is not None:
            bootstrap, etag = response
            self._state = msgspec.structs.replace(self._state, etag=etag, bootstrap=bootstrap)
        if self._state.bootstrap is None:
            raise invalid_response("nothing has changed since nothing")
        return self._state.bootstrap

    def is_erasure_due(self, bootstrap: Bootstrap) -> bool:
        """Whether the caller was forgotten in the cloud after he was forgotten here last."""
        cloud_erased_at, local_erased_at = bootstrap.forgotten_at, self._state.forgotten_at
        return cloud_erased_at is not None and (local_erased_at is None or cloud_erased_at > local_erased_at)

    def erase(self, bootstrap: Bootstrap) -> None:
        """Forget him here, too; raises `memoair_runtime.errors.StorageUnavailableError`."""
        erased = self._store.erase(time.monotonic() + _ERASE_TIMEOUT_S, bootstrap.forgotten_at)
        log.warning("a caller was forgotten: action=forgotten sessions=%d turns=%d", erased.sessions, erased.turns)
        self._state = msgspec.structs.replace(self._state, forgotten_at=bootstrap.forgotten_at)
        self.save_state()

    def record_erasure(self, at: datetime | None) -> None:
        """He was forgotten here, and in the cloud at a moment, where that is known."""
        self._state = UserPullState(self._state.cloud, forgotten_at=at or self._state.forgotten_at)
        self.save_state()

    def pull_profile(self, bootstrap: Bootstrap) -> None:
        """Bring who the caller is; raises `CloudError`, or OSError where the disk refuses."""
        generation, known_version = self._store.generation, self._store.profile_version
        if (bootstrap.profile_version or 0) == (known_version or 0):
            return
        response = self._transport.fetch_profile(known_version, time.monotonic() + CALL_TIMEOUT_S)
        if response is not None:
            self._store.store_profile(response.to_profile(), generation)

    def pull_permanent(self, bootstrap: Bootstrap, lock_deadline: float) -> bool:
        """Bring events and facts; False where another process is at it, and has not come so far by ``waits_until``
        (monotonic seconds). Raises `CloudError`, or OSError where the disk refuses.
        """
        self._store.refresh_replica()
        target_version = bootstrap.permanent_manifest_version or 0
        if target_version == (self._store.permanent_version or 0):
            return True
        self._folder.create()
        while not self._lock.try_acquire():
            if time.monotonic() >= lock_deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
            self._store.refresh_replica()
            if (self._store.permanent_version or 0) >= target_version:
                return True
        try:
            self._store.refresh_replica()
            self._pull_pages()
        finally:
            self._lock.release()
        return True

    def save_state(self) -> None:
        """Keep what the cloud told last for the next process; what is lost costs a question."""
        if self._folder.path.is_dir():
            with suppress(OSError):
                write_file(self._folder.pull_state, msgspec.json.encode(self._state), durable=False)

    def _pull_pages(self) -> None:
        while True:
            generation, since = self._store.generation, self._store.permanent_version
            response = self._transport.fetch_permanent(since, time.monotonic() + CALL_TIMEOUT_S)
            if response is None:
                return
            is_snapshot = response.mode == "snapshot"
            if since is None and not is_snapshot:
                raise invalid_response("changes of nothing")
            if since is not None and response.version < since:
                log.warning("the cloud has less than it had, all is sent again: action=cloud_lost")
                self._on_data_loss()
            if response.more and response.version == since and not is_snapshot:
                raise invalid_response("more of the same")
            self._store.store_page(response.to_page(), generation, is_snapshot=is_snapshot)
            if not response.more or generation != self._store.generation:
                return

    def _load_state(self) -> None:
        self._is_state_loaded = True
        try:
            state = _decode_state(self._folder.pull_state.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        if state.cloud == self._state.cloud:
            self._state = state


def no_time_left() -> CloudError:
    """Where another process is at the same pull and does not come to its end."""
    return CloudError(FailureKind.TRANSIENT, "another process is pulling and has not come to its end")
