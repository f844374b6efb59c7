"""Pull of erasures: users that the cloud has erased must be erased on this machine too, whichever runtime served them.

The cloud names users by a digest of project and user id, so the list tells nothing to a reader who does not know the
ids. The machine keeps the list, and reports to a cloud that was restored from an older backup what it has lost.
"""

import itertools
import logging
import time
from datetime import datetime, timezone
from http import HTTPStatus

import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.limits import MAX_ERASURES
from memoair_protocol.private_files import read_private_file
from memoair_runtime.storage.erasure import erase_unserved_user
from memoair_runtime.storage.erasure_record import CloudErasure, find_cloud_erasures
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import CloudError, invalid_response
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)

_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


class _ErasurePullState(msgspec.Struct, frozen=True):
    """The version up to which erasures were pulled, and the epoch of the cloud that it belongs to.

    ``waiting`` are users whose own runtime must erase them. ``users`` are all that the cloud has ever reported; None in
    a file of a version that did not keep them.
    """

    cloud: str
    version: int | None = None
    waiting: dict[str, datetime] = {}
    epoch: str | None = None
    users: dict[str, datetime] | None = None


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
        if not _is_due(self._read_state(), bootstrap):
            return
        self._folder.create()
        if not self._lock.try_acquire():
            return  # another process is doing this
        try:
            state = self._read_state()
            if _is_due(state, bootstrap):
                self._erase_users(state, bootstrap)
        finally:
            self._lock.release()

    def is_epoch_new(self, bootstrap: Bootstrap) -> bool:
        """Return whether the cloud may have lost erasures that this machine knows."""
        return _has_new_epoch(self._read_state(), bootstrap)

    def _erase_users(self, state: _ErasurePullState, bootstrap: Bootstrap) -> None:
        known = state.users
        if known is None:  # a file of an earlier version, which has erased all of them up to its version
            known = {} if state.version is None else self._fetch(None)[1]
        known = {**known, **find_cloud_erasures(self._folder.path, self._cloud)}
        version, pulled = state.version, dict[str, datetime]()
        if _has_new_epoch(state, bootstrap):  # its versions say nothing about what this machine has
            version, everything = self._fetch(None)
            pulled = {digest: at for digest, at in everything.items() if known.get(digest) != at}
            self._report({digest: at for digest, at in known.items() if everything.get(digest, _LONG_AGO) < at})
        elif version != bootstrap.forgotten_version:
            version, pulled = self._fetch(version)
        erased_at = {**state.waiting, **pulled}
        waiting = {}
        for folder in self._folder.list_users() if erased_at else ():
            digest = hash_user_id(folder.project_id, folder.user_id)
            if digest in erased_at and folder != self._own_folder and not self._try_erase(folder, erased_at[digest]):
                waiting[digest] = erased_at[digest]
        users = {**known, **{digest: max(at, known.get(digest, at)) for digest, at in pulled.items()}}
        new_state = _ErasurePullState(self._cloud, version, waiting, bootstrap.epoch or state.epoch, users)
        if new_state != state:
            write_file(self._folder.erasures, msgspec.json.encode(new_state), durable=False)

    def _fetch(self, version: int | None) -> tuple[int | None, dict[str, datetime]]:
        """Return the version of the list, and the erasures since a version."""
        erasures: dict[str, datetime] = {}
        has_more = True
        while has_more:
            since = version
            response = self._transport.fetch_erasures(since, time.monotonic() + CALL_TIMEOUT_S)
            if response is None:
                break
            version, has_more = response.version, response.more
            erasures |= {user.digest: user.forgotten_at for user in response.users}
            if has_more and version == since:
                raise invalid_response("more data is announced but the version does not advance")
        return version, erasures

    def _report(self, lost: dict[str, datetime]) -> None:
        """Report to the cloud the erasures that it has lost. One without the endpoint goes on without them."""
        erasures = iter(lost.items())
        while batch := dict(itertools.islice(erasures, MAX_ERASURES)):
            try:
                self._transport.report_erasures(batch, time.monotonic() + CALL_TIMEOUT_S)
            except CloudError as error:
                if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                    raise
                log.error("the cloud has lost erasures and cannot take them: action=erasures_lost")
                return
            log.warning("reported erasures that the cloud has lost: action=erasures_reported users=%d", len(batch))

    def _try_erase(self, folder: UserFolder, before: datetime) -> bool:
        try:
            return erase_unserved_user(folder, CloudErasure(self._cloud, before))
        except OSError as error:
            log.error("cannot delete the data of an erased user: action=erase_failed errno=%s", error.errno)
            return False

    def _read_state(self) -> _ErasurePullState:
        try:
            state = _decode_state(read_private_file(self._folder.erasures))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _ErasurePullState(self._cloud)
        return state if state.cloud == self._cloud else _ErasurePullState(self._cloud)


def _is_due(state: _ErasurePullState, bootstrap: Bootstrap) -> bool:
    if _has_new_epoch(state, bootstrap):
        return True
    if state.version is None:
        return bootstrap.forgotten_version > 0
    return state.version != bootstrap.forgotten_version or bool(state.waiting) or state.users is None


def _has_new_epoch(state: _ErasurePullState, bootstrap: Bootstrap) -> bool:
    return bootstrap.epoch not in (None, state.epoch)
