"""The lease: which process a client may believe to serve a user."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from memoair_protocol.processes import process_start_time
from memoair_runtime.storage import lease
from memoair_runtime.storage.lease import Lease, LeaseRecord, find_holder
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.user_folder import UserFolder


def write_lease(folder: UserFolder, pid: int, create_time: float) -> LeaseRecord:
    record = LeaseRecord(pid, create_time, "127.0.0.1", 7_878, "token", None, None)
    folder.create()
    folder.lease.write_bytes(msgspec.json.encode(record))
    folder.lease.chmod(0o600)
    return record


def test_only_the_process_that_wrote_the_lease_counts_as_its_holder(tmp_path: Path) -> None:
    folder = UserFolder(tmp_path, "proj_test", "caller_42")
    started_at = process_start_time(os.getpid())
    assert started_at is not None
    assert find_holder(folder) is None
    assert write_lease(folder, os.getpid(), started_at) == find_holder(folder)
    write_lease(folder, os.getpid(), started_at - 100)  # another process, which had this number before
    assert find_holder(folder) is None
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead_started_at = process_start_time(dead.pid) or started_at
    dead.wait()
    write_lease(folder, dead.pid, dead_started_at)
    assert find_holder(folder) is None


def test_a_runtime_does_not_send_its_client_to_a_dead_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_HOLDER_TIMEOUT_S", 0.05)
    folder = UserFolder(tmp_path, "proj_test", "caller_42")
    write_lease(folder, os.getpid(), 1.0)  # of a process that has died
    lock = ProcessLock(folder.lock("runtime"))  # its successor has the lock, and has not said yet where it listens
    assert lock.try_acquire()
    try:
        assert Lease(folder).acquire("127.0.0.1", 7_879, None, None) is None
    finally:
        lock.release()
