"""How an event is ordered against an erasure of its user, whatever a wall clock says.

An erasure has a number, which the cloud gives it. A machine that has carried it out marks what it logs from then on
with the number: that was said after the erasure. For what a machine logged before it knew, the age is measured by a
clock of the machine that cannot be set, from its start on. Without either, it cannot be known.
"""

import hashlib
import os
import time
import uuid
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from memoair_protocol.timestamps import format_utc, parse_timestamp, utc_now

DEVICE_CLOCK_HEADER = "X-Device-Clock"
SERVER_TIME_HEADER = "X-Server-Time"
_MAX_UPTIME_S = 1e10
_MAX_MARK_CHARS = 200


class ErasureMark(NamedTuple):
    """A number of erasures of one user in a cloud, and the epoch of the cloud that it belongs to."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.number}"

    @classmethod
    def parse(cls, text: object) -> "ErasureMark | None":
        """Return the mark of a text; None for another text, as of an event that was logged before one was known."""
        if not isinstance(text, str) or len(text) > _MAX_MARK_CHARS:
            return None
        epoch, separator, number = text.rpartition(":")
        if not separator or not (number.isascii() and number.isdigit() and len(number) <= 16):
            return None
        return cls(epoch, int(number))

    def includes(self, other: "ErasureMark") -> bool:
        """Return whether what has this mark was certainly logged after an erasure with the other one."""
        return self.epoch == other.epoch and self.number >= other.number


class DeviceTime(NamedTuple):
    """A time by a clock that runs from the start of a machine, also while it sleeps, and that cannot be set.

    Attributes:
        boot: Identifies the run of the machine, or of the process where the machine's is unknown. Times of different
            ones cannot be compared.
        uptime_s: Seconds since the clock began.
    """

    boot: str
    uptime_s: float

    def __str__(self) -> str:
        return f"{self.boot}:{self.uptime_s:.3f}"

    @classmethod
    def now(cls) -> "DeviceTime":
        """Return the present time of this machine."""
        return cls(_boot_id(os.getpid()), _read_clock())

    @classmethod
    def parse(cls, text: object) -> "DeviceTime | None":
        """Return the time of a text; None for another text."""
        if not isinstance(text, str):
            return None
        boot, separator, uptime = text.partition(":")
        try:
            uptime_s = float(uptime)
        except ValueError:
            return None
        return cls(boot, uptime_s) if boot and separator and 0 <= uptime_s <= _MAX_UPTIME_S else None

    def seconds_since(self, earlier: "DeviceTime") -> float | None:
        """Return the seconds since an earlier time of the same machine; None if they cannot be compared."""
        return self.uptime_s - earlier.uptime_s if self.boot == earlier.boot else None


class DeviceClock(NamedTuple):
    """Both clocks of a machine at one moment, as it sends them with its events.

    Attributes:
        time: The clock that cannot be set.
        wall: The clock that its events have their times from.
    """

    time: DeviceTime
    wall: datetime

    @classmethod
    def now(cls) -> "DeviceClock":
        """Return the present time of this machine."""
        return cls(DeviceTime.now(), utc_now())

    def to_header(self) -> str:
        """Return the value of the header `DEVICE_CLOCK_HEADER`."""
        return f"{self.time} {format_utc(self.wall)}"

    @classmethod
    def from_header(cls, value: str | None) -> "DeviceClock | None":
        """Return the clocks of a header; None if it is missing or invalid."""
        device_text, _, wall_text = (value or "").partition(" ")
        device_time = DeviceTime.parse(device_text)
        try:
            return None if device_time is None else cls(device_time, parse_timestamp(wall_text))
        except ValueError:
            return None


def _read_clock() -> float:
    # On Linux and macOS, the clock of `time.monotonic` stands still during sleep; these do not.
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@lru_cache(maxsize=4)
def _boot_id(pid: int) -> str:  # noqa: ARG001 - a forked process must not share what identifies a process
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot_id = uuid.uuid4().hex
    return hashlib.sha256(boot_id.encode()).hexdigest()[:16]
