"""A socket with one deadline for a whole read, and with the bytes that were read before its thread began."""

import socket
import time
from typing import Any


class TimedSocket(socket.socket):
    """A socket with one deadline for a whole read, unlike a timeout, which restarts with every byte.

    Attributes:
        deadline: The deadline, in seconds of the monotonic clock.
        received: Bytes that were received already. The next reads return them first.
    """

    deadline = 0.0
    received: bytes | bytearray = b""

    def start_timeout(self, seconds: float) -> None:
        """Set the deadline to this many seconds from now."""
        self.deadline = time.monotonic() + seconds

    def recv_into(self, buffer: Any, *arguments: Any, **options: Any) -> int:
        """Receive bytes by the deadline; raise TimeoutError after it."""
        if self.received:
            view = memoryview(buffer).cast("B")
            count = min(len(view), len(self.received))
            view[:count] = self.received[:count]
            self.received = self.received[count:]
            return count
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the client did not send its request in time")
        self.settimeout(remaining_s)
        return super().recv_into(buffer, *arguments, **options)
