"""What a client and a runtime process agree on: variables, exit codes, and the identity of a process."""

import os
from pathlib import Path

from memoair_protocol.starvation import raise_if_starved

# The prefix of the variables that configure a runtime.
ENV_PREFIX = "MEMOAIR_RUNTIME_"
# The exit code of a runtime whose port is taken.
EXIT_PORT_TAKEN = 3
_UNLIMITED_DESCRIPTORS = 1 << 20
_HAS_PROC = Path("/proc/self/stat").is_file()


def is_own_process(pid: int) -> bool:
    """Return whether a process exists and runs as this operating system user, on Windows whether it exists."""
    if pid <= 0:
        return False
    if not hasattr(os, "geteuid"):
        return process_start_time(pid) is not None
    if _HAS_PROC:  # the owner of the folder is the superuser for some processes of other users
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            return int(status.partition("\nUid:")[2].split(maxsplit=2)[1]) == os.geteuid()
        except (OSError, ValueError, IndexError):
            return False
    import psutil

    try:
        return psutil.Process(pid).uids().effective == os.geteuid()
    except psutil.Error:
        return False


def process_start_time(pid: int) -> float | None:
    """Return when a process started, or None if there is no such process; with its id, that identifies it.

    On Linux the value is in clock ticks since boot, so that it does not change when the clock is set; elsewhere it is
    in seconds since the epoch. Compare it only with other values of this function.

    Raises:
        OSError: If this process is out of descriptors or memory, and cannot look.
    """
    if _HAS_PROC:  # psutil adds the boot time, which changes with the clock
        try:
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        except (OSError, ValueError, IndexError) as error:
            raise_if_starved(error)
            return None
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def max_descriptors() -> int:
    """Return how many files and sockets this process may have open at a time."""
    try:
        import resource
    except ImportError:  # Windows, where memory is the limit
        return _UNLIMITED_DESCRIPTORS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED_DESCRIPTORS if limit == resource.RLIM_INFINITY else limit
