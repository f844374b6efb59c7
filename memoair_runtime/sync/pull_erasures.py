"""Pull of erasures: users that the cloud has erased must be erased on this machine too, whichever runtime served them.

The cloud names users by a digest of project and user id, so the list tells nothing to a reader who does not know the
ids.
"""

import logging
import time
from datetime import datetime

import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.hashes import hash_user_id
from memoair_runtime.storage.erasure import erase_unserved_user
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import invalid_response
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)


class _ErasurePullState(msgspec.Struct, frozen=True):
    """The version up to which erasures were pulled; ``waiting`` are users whose own runtime must erase them."""

    cloud: str
    version: int | None = None
    waiting: dict[str, datetime] = {}


_decode_state = msgspec.json.Decoder(_ErasurePullState).decode


class ErasurePuller:
    """Erases the users that the cloud has erased from this machine, except the one that this runtime serves.

    For one thread.

    Args:
        folder: The project's folder.
        cloud: Identifies the cloud.
        transport: The connection to the cloud.
        own_folder: The folder of the user that this runtime serves.
    """

    def __init__(self, folder: ProjectFolder, cloud: str, transport: CloudTransport, own_folder: UserFolder) -> None:
        self._folder = folder
        self._cloud = cloud
        self._transport = transport
        self._own_folder = own_folder
        self._lock = ProcessLock(folder.lock("org-sync"))

    def pull(self, bootstrap: Bootstrap) -> None:
        """Erase users up to a version of the list. Does nothing if another process is doing so.

        Args:
            bootstrap: The cloud's version of the list.

        Raises:
            CloudError: A request failed.
            OSError: The state cannot be written.
        """
        target_version = bootstrap.forgotten_version
        state = self._read_state()
        if state.version == target_version and not state.waiting:
            return
        if state.version is None and not target_version:
            return
        self._folder.create()
        if not self._lock.try_acquire():
            return  # another process is doing this
        try:
            self._erase_users(self._read_state(), target_version)
        finally:
            self._lock.release()

    def _erase_users(self, state: _ErasurePullState, target_version: int) -> None:
        version, erased_at = state.version, dict(state.waiting)
        has_more = version != target_version
        while has_more:
            since = version
            response = self._transport.fetch_erasures(since, time.monotonic() + CALL_TIMEOUT_S)
            if response is None:
                break
            version, has_more = response.version, response.more
            erased_at |= {user.digest: user.forgotten_at for user in response.users}
            if has_more and version == since:
                raise invalid_response("more data is announced but the version does not advance")
        waiting = {}
        for folder in self._folder.list_users() if erased_at else ():
            digest = hash_user_id(folder.project_id, folder.user_id)
            if digest in erased_at and folder != self._own_folder and not _try_erase(folder, erased_at[digest]):
                waiting[digest] = erased_at[digest]
        new_state = _ErasurePullState(self._cloud, version, waiting)
        if new_state != state:
            write_file(self._folder.erasures, msgspec.json.encode(new_state), durable=False)

    def _read_state(self) -> _ErasurePullState:
        try:
            state = _decode_state(self._folder.erasures.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return _ErasurePullState(self._cloud)
        return state if state.cloud == self._cloud else _ErasurePullState(self._cloud)


def _try_erase(folder: UserFolder, before: datetime) -> bool:
    try:
        return erase_unserved_user(folder, before)
    except OSError as error:
        log.error("cannot delete the data of an erased user: action=erase_failed errno=%s", error.errno)
        return False
