"""Connections whose whole reply must arrive by a deadline, however slowly the peer sends."""

import socket
import threading
import time
from typing import Any

import urllib3
import urllib3.connection

# The deadline (monotonic seconds) of the call that this thread is making.
_thread_state = threading.local()


def set_deadline(deadline: float) -> None:
    """Set the deadline of the calls that this thread makes from now on."""
    _thread_state.deadline = deadline


class _DeadlineSocket(socket.socket):
    """A socket that waits for data until the deadline. A plain timeout would begin again with each byte."""

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
    """A connection pool whose connections obey the deadline of `set_deadline`."""

    ConnectionCls = _DeadlineConnection
