"""The lease: which runtime serves a user on this machine, so that several clients share one runtime.

The lease itself is a process lock, which the operating system releases when its holder dies. A file beside it tells
other clients where the holder listens. It contains the token, so only this operating system user may read it.
"""

import os
import time
from contextlib import suppress
from typing import Annotated, Any

import msgspec

from memoair_protocol.addresses import is_loopback
from memoair_protocol.durable import write_file
from memoair_protocol.private_files import UnsafePathError, check_private_file
from memoair_protocol.processes import is_own_process, process_start_time
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.state_file import read_trusted_state
from memoair_runtime.storage.user_folder import UserFolder

# How long a holder may take to say where it listens. It does so within milliseconds, unless it is shutting down.
_HOLDER_TIMEOUT_S = 1.0
_POLL_INTERVAL_S = 0.005
_MAX_RECORD_BYTES = 1 << 16


class LeaseRecord(msgspec.Struct, frozen=True, rename="camel"):
    """The content of ``lease.json``: a runtime that serves a user.

    Attributes:
        pid: The runtime's process id.
        create_time: When that process started; see `process_start_time`.
        host: The address that it listens on.
        port: The port that it listens on.
        token: The bearer token that it expects, if any.
        session_id: The session that its client started it for, if any.
        cloud: Id of its cloud; None if it has none.
    """

    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    create_time: float
    host: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    token: str | None
    session_id: str | None
    cloud: str | msgspec.UnsetType | None = msgspec.UNSET

    def is_alive(self) -> bool:
        """Return whether the process that wrote this record still runs, and not another one with the same id."""
        return process_start_time(self.pid) == self.create_time

    def is_valid(self) -> bool:
        """Return whether the record names a process of this user on this machine, so that it may be sent a token."""
        return is_loopback(self.host) and 0 < self.port < 1 << 16 and is_own_process(self.pid)


_decode_record = msgspec.json.Decoder(LeaseRecord).decode


def find_holder(folder: UserFolder) -> LeaseRecord | None:
    """Return the runtime that serves a user, as far as is known.

    Raises:
        UnsafePathError: Another user of the machine could have written the record.
    """
    holder = read_trusted_state(folder.lease, _decode_record, _MAX_RECORD_BYTES)
    return holder if holder is not None and holder.is_valid() and holder.is_alive() else None


class Lease:
    """The right of one runtime to serve a user.

    Args:
        folder: The user's folder.
        cloud: Id of the runtime's cloud; None without one. It shares a user only with clients of the same cloud: what
            is said without a cloud must not be logged by a runtime that sends it to one.
    """

    def __init__(self, folder: UserFolder, cloud: str | None = None) -> None:
        self._folder = folder
        self._cloud = cloud
        self._lock = ProcessLock(folder.lock("runtime"))
        self._has_written_record = False

    def acquire(self, host: str, port: int, token: str | None, session_id: str | None) -> LeaseRecord | None:
        """Acquire the lease and publish where this runtime listens.

        Args:
            host: The address that this runtime listens on.
            port: The port that it listens on.
            token: The bearer token that it expects, if any.
            session_id: The session that it was started for, if any.

        Returns:
            The runtime that holds the lease, if another one does; else None. Also None if the disk cannot be written,
            if the holder has another cloud, or if it does not say where it listens: two runtimes for one user are
            better than none.

        Raises:
            UnsafePathError: Another user of the machine could have prepared the user's folder, or the record in it.
        """
        try:
            self._folder.create()
            check_private_file(self._folder.lock("runtime"))
        except UnsafePathError:
            raise
        except OSError:
            return None
        deadline = time.monotonic() + _HOLDER_TIMEOUT_S
        while not self._lock.try_acquire():
            holder = find_holder(self._folder)
            if holder is not None:
                return holder if holder.cloud == self._cloud else None
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_INTERVAL_S)
        holder = LeaseRecord(
            os.getpid(), process_start_time(os.getpid()) or 0.0, host, port, token, session_id, self._cloud
        )
        with suppress(OSError):
            write_file(self._folder.lease, msgspec.json.encode(holder), durable=False)
            self._has_written_record = True
        return None

    def release(self) -> None:
        """Release the lease for the next runtime."""
        if self._has_written_record:
            with suppress(OSError):
                self._folder.lease.unlink()
            self._has_written_record = False
        self._lock.release()


def lease_event(holder: LeaseRecord) -> dict[str, Any]:
    """Return the message that tells a client which runtime to use."""
    return {"event": "leased", **msgspec.to_builtins(holder)}
