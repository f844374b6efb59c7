"""Whom the cloud was told to forget: this machine must know nothing of him either, whoever his runtime was.

The cloud names callers by a digest of project and id, so who does not know them learns nothing.
"""

import hashlib
import logging
import time
from datetime import datetime

import msgspec

from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.erasure import erase_unattended
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import unreadable
from memoair_runtime.sync.transport import LONGEST_CALL_S, CloudTransport

log = logging.getLogger(__name__)


class _ErasurePullState(msgspec.Struct, frozen=True):
    """Up to which version it was looked, and who could not be forgotten yet: his runtime lives, and does so itself."""

    cloud: str
    version: int | None = None
    waiting: dict[str, datetime] = {}


_read = msgspec.json.Decoder(_ErasurePullState).decode


def digest_of(project_id: str, user_id: str) -> str:
    """The name of a caller among those who were forgotten."""
    return hashlib.sha256(f"{project_id}\0{user_id}".encode()).hexdigest()


class ErasurePuller:
    """Deletes what lies on this machine of forgotten callers; not of ``own``, whose runtime this is. For one thread."""

    def __init__(self, folder: ProjectFolder, cloud: str, transport: CloudTransport, own: UserFolder) -> None:
        self._folder = folder
        self._cloud = cloud
        self._transport = transport
        self._own = own
        self._role = ProcessLock(folder.role("org-sync"))

    def pull(self, wanted: int) -> None:
        """Forget whom the cloud forgot, up to its version ``wanted``. Raises `CloudError`, or OSError."""
        noted = self._noted()
        if noted.version == wanted and not noted.waiting:
            return
        if noted.version is None and not wanted:
            return
        self._folder.create()
        if not self._role.take():
            return  # another process is at it
        try:
            self._forget(self._noted(), wanted)
        finally:
            self._role.leave()

    def _forget(self, noted: _ErasurePullState, wanted: int) -> None:
        version, named = noted.version, dict(noted.waiting)
        asks = version != wanted
        while asks:
            since = version
            answer = self._transport.forgotten(since, time.monotonic() + LONGEST_CALL_S)
            if answer is None:
                break
            version, asks = answer.version, answer.more
            named |= {each.digest: each.forgotten_at for each in answer.users}
            if asks and version == since:
                raise unreadable("more of the same")
        waiting = {}
        for folder in self._folder.callers() if named else ():
            digest = digest_of(folder.project_id, folder.user_id)
            if digest in named and folder != self._own and not _erased(folder, named[digest]):
                waiting[digest] = named[digest]
        now = _ErasurePullState(self._cloud, version, waiting)
        if now != noted:
            write_file(self._folder.forgotten, msgspec.json.encode(now), durable=False)

    def _noted(self) -> _ErasurePullState:
        try:
            noted = _read(self._folder.forgotten.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return _ErasurePullState(self._cloud)
        return noted if noted.cloud == self._cloud else _ErasurePullState(self._cloud)


def _erased(folder: UserFolder, before: datetime) -> bool:
    try:
        return erase_unattended(folder, before)
    except OSError as error:
        log.error("a forgotten caller could not be deleted: action=erase_failed errno=%s", error.errno)
        return False
