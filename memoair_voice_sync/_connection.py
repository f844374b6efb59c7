"""Connections whose answers have to come by a deadline, however slowly the other side sends."""

import socket
import threading
import time
from typing import Any

import urllib3
import urllib3.connection

# By which moment (monotonic seconds) the call that this thread is making must be over.
_thread_state = threading.local()


def set_deadline(deadline: float) -> None:
    """Say by when the calls that this thread makes from now on must be over."""
    _thread_state.deadline = deadline


class _DeadlineSocket(socket.socket):
    """A socket that waits for data until the deadline, and not for so long from each byte to the next."""

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        remaining_s = _thread_state.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(remaining_s)
        return super().recv_into(*arguments, **options)


class _DeadlineConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        timeout = plain.gettimeout()
        connection = _DeadlineSocket(plain.family, plain.type, plain.proto, plain.detach())
        connection.settimeout(timeout)
        return connection


class DeadlinePool(urllib3.HTTPConnectionPool):
    """A connection pool that keeps the deadline of `set_deadline`."""

    ConnectionCls = _DeadlineConnection
