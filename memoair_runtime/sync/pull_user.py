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
from memoair_runtime.sync.errors import CloudError, FailureKind, unreadable
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import LONGEST_CALL_S, CloudTransport

log = logging.getLogger(__name__)

# How long forgetting may wait for logs that are being read.
_LONGEST_ERASE_S = 60.0
_LOOK_S = 0.02


class UserPullState(msgspec.Struct, frozen=True):
    """What the cloud told last, and with which tag to ask for it again; when the caller was forgotten here last."""

    cloud: str
    etag: str | None = None
    bootstrap: Bootstrap | None = None
    forgotten_at: datetime | None = None


_read = msgspec.json.Decoder(UserPullState).decode


class UserPuller:
    """Keeps the copy of one caller up to date. Used by one thread, but for `forgotten`.

    ``on_lost`` is called where the cloud has less than it had: it was put back to an older state.
    """

    def __init__(
        self, folder: UserFolder, cloud: str, keeper: UserStore, transport: CloudTransport, on_lost: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._keeper = keeper
        self._transport = transport
        self._on_lost = on_lost
        self._role = ProcessLock(folder.role("pull"))
        self._noted = UserPullState(cloud)
        self._is_read = False

    @property
    def sync_token(self) -> str | None:
        """What the cloud calls the state that it told last."""
        return self._noted.bootstrap.sync_token if self._noted.bootstrap else None

    def bootstrap(self) -> Bootstrap:
        """Ask for the versions of all there is; raises `CloudError`."""
        if not self._is_read:
            self._read()
        answer = self._transport.bootstrap(self._noted.etag, time.monotonic() + LONGEST_CALL_S)
        if answer is not None:
            bootstrap, etag = answer
            self._noted = msgspec.structs.replace(self._noted, etag=etag, bootstrap=bootstrap)
        if self._noted.bootstrap is None:
            raise unreadable("nothing has changed since nothing")
        return self._noted.bootstrap

    def has_been_forgotten(self, bootstrap: Bootstrap) -> bool:
        """Whether the caller was forgotten in the cloud after he was forgotten here last."""
        told, known = bootstrap.forgotten_at, self._noted.forgotten_at
        return told is not None and (known is None or told > known)

    def forget(self, bootstrap: Bootstrap) -> None:
        """Forget him here, too; raises `memoair_runtime.errors.StorageUnavailableError`."""
        erased = self._keeper.forget(time.monotonic() + _LONGEST_ERASE_S, bootstrap.forgotten_at)
        log.warning("a caller was forgotten: action=forgotten sessions=%d turns=%d", erased.sessions, erased.turns)
        self._noted = msgspec.structs.replace(self._noted, forgotten_at=bootstrap.forgotten_at)
        self.note()

    def forgotten(self, at: datetime | None) -> None:
        """He was forgotten here, and in the cloud at a moment, where that is known."""
        self._noted = UserPullState(self._noted.cloud, forgotten_at=at or self._noted.forgotten_at)
        self.note()

    def pull_profile(self, bootstrap: Bootstrap) -> None:
        """Bring who the caller is; raises `CloudError`, or OSError where the disk refuses."""
        generation, held = self._keeper.generation, self._keeper.profile_version
        if (bootstrap.profile_version or 0) == (held or 0):
            return
        answer = self._transport.profile(held, time.monotonic() + LONGEST_CALL_S)
        if answer is not None:
            self._keeper.take_profile(answer.profile(), generation)

    def pull_permanent(self, bootstrap: Bootstrap, waits_until: float) -> bool:
        """Bring events and facts; False where another process is at it, and has not come so far by ``waits_until``
        (monotonic seconds). Raises `CloudError`, or OSError where the disk refuses.
        """
        self._keeper.catch_up_with_others()
        wanted = bootstrap.permanent_manifest_version or 0
        if wanted == (self._keeper.permanent_version or 0):
            return True
        self._folder.create()
        while not self._role.take():
            if time.monotonic() >= waits_until:
                return False
            time.sleep(_LOOK_S)
            self._keeper.catch_up_with_others()
            if (self._keeper.permanent_version or 0) >= wanted:
                return True
        try:
            self._keeper.catch_up_with_others()
            self._pull_pages()
        finally:
            self._role.leave()
        return True

    def note(self) -> None:
        """Keep what the cloud told last for the next process; what is lost costs a question."""
        if self._folder.path.is_dir():
            with suppress(OSError):
                write_file(self._folder.cloud_state, msgspec.json.encode(self._noted), durable=False)

    def _pull_pages(self) -> None:
        while True:
            generation, since = self._keeper.generation, self._keeper.permanent_version
            answer = self._transport.permanent(since, time.monotonic() + LONGEST_CALL_S)
            if answer is None:
                return
            is_snapshot = answer.mode == "snapshot"
            if since is None and not is_snapshot:
                raise unreadable("changes of nothing")
            if since is not None and answer.version < since:
                log.warning("the cloud has less than it had, all is sent again: action=cloud_lost")
                self._on_lost()
            if answer.more and answer.version == since and not is_snapshot:
                raise unreadable("more of the same")
            self._keeper.take(answer.page(), generation, is_snapshot=is_snapshot)
            if not answer.more or generation != self._keeper.generation:
                return

    def _read(self) -> None:
        self._is_read = True
        try:
            noted = _read(self._folder.cloud_state.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        if noted.cloud == self._noted.cloud:
            self._noted = noted


def no_time_left() -> CloudError:
    """Where another process is at the same pull and does not come to its end."""
    return CloudError(FailureKind.TRANSIENT, "another process is pulling and has not come to its end")
