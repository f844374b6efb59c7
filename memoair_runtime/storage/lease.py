"""The lease: which runtime serves a caller on this machine, so that several clients use one instead of rivals.

The right to serve is a lock that dies with its holder; the file beside it says where the holder listens, for whoever
comes second. It holds the token, so only the user himself may read it.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil

from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.user_folder import UserFolder

# How long a holder has to say where it listens: it does so within milliseconds, and may be on its way out.
_HOLDER_TIMEOUT_S = 1.0
_POLL_INTERVAL_S = 0.005
_HAS_PROC = Path("/proc/self/stat").is_file()


class LeaseRecord(msgspec.Struct, frozen=True, rename="camel"):
    """A runtime that serves a caller. ``session_id`` is the call that its client opened it for."""

    pid: int
    create_time: float  # see `birth_of`
    host: str
    port: int
    token: str | None
    session_id: str | None

    def is_alive(self) -> bool:
        """Whether the very process that wrote this still runs."""
        return process_start_time(self.pid) == self.create_time


def process_start_time(pid: int) -> float | None:
    """When a process was born, by a clock that nobody sets, if the system has one; None where there is no such process.

    As `memoair_voice_sync._runtimes` reads it.
    """
    try:
        if _HAS_PROC:  # in ticks since the boot; psutil adds a moment to it that moves with the clock
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return psutil.Process(pid).create_time()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


_decode_record = msgspec.json.Decoder(LeaseRecord).decode


class Lease:
    """The right of one runtime to serve a caller."""

    def __init__(self, folder: UserFolder) -> None:
        self._folder = folder
        self._lock = ProcessLock(folder.lock("runtime"))
        self._has_written_record = False

    def acquire(self, host: str, port: int, token: str | None, session_id: str | None) -> LeaseRecord | None:
        """Take the lease, and tell where we listen; or return who else holds it.

        Returns None also where the disk can't be written, or where the holder is stuck: two runtimes of one caller are
        better than none.
        """
        try:
            self._folder.create()
        except OSError:
            return None
        deadline = time.monotonic() + _HOLDER_TIMEOUT_S
        while not self._lock.try_acquire():
            holder = self._read_holder()
            if holder is not None:
                return holder
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_INTERVAL_S)
        holder = LeaseRecord(os.getpid(), process_start_time(os.getpid()) or 0.0, host, port, token, session_id)
        with suppress(OSError):
            write_file(self._folder.lease, msgspec.json.encode(holder), durable=False)
            self._has_written_record = True
        return None

    def release(self) -> None:
        """Let the next one have it."""
        if self._has_written_record:
            with suppress(OSError):
                self._folder.lease.unlink()
            self._has_written_record = False
        self._lock.release()

    def _read_holder(self) -> LeaseRecord | None:
        try:
            holder = _decode_record(self._folder.lease.read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None
        return holder if holder.is_alive() else None


def lease_event(holder: LeaseRecord) -> dict[str, Any]:
    """A holder as it is told to a client."""
    return {"event": "leased", **msgspec.to_builtins(holder)}
