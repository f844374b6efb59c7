"""The server's protocol with the time-outs that uvicorn lacks, behind a bound of connections.

Uvicorn ends connections that idle between two requests. It waits without end for the head of a request, for the rest of
a body that is not read, and for a client that does not read its response.
"""

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from memoair_cloud.http.connection_gate import ConnectionGate, Phase

# How long the head of a request may take, from the connection or from its first byte; also the rest of a body whose
# request is answered already. The body of a request that is not answered yet is the application's.
HEAD_TIMEOUT_S = 10.0
# How long a client may read nothing of a response that is ready.
SEND_TIMEOUT_S = 30.0


class GuardedProtocol(H11Protocol):
    """One connection of a server. Used by the thread of the event loop only.

    Attributes:
        address: The address of the client.
        phase: What the connection does.
        since: Since when, in seconds of the monotonic clock.
    """

    def __init__(self, *, gate: ConnectionGate, head_timeout_s: float = HEAD_TIMEOUT_S, **options: Any) -> None:
        super().__init__(**options)
        self._gate = gate
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._was_proven = False
        self.address = ""
        self.phase, self.since = Phase.HEAD, time.monotonic()

    @property
    def is_proven(self) -> bool:
        """Whether the client has shown a valid key."""
        # The application notes the account when it admits a request.
        scope: Any = self.scope  # None before the first request
        self._was_proven = self._was_proven or (scope is not None and "account_id" in scope["state"])
        return self._was_proven

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection, and expect its first request."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._update()
        self._gate.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        super().connection_lost(exc)
        self._gate.remove(self)
        self._cancel_head_timer()
        self._cancel_send_timer()

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self.is_proven  # noqa: B018 - read it before the scope is that of the next request
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Expect the client to read."""
        super().pause_writing()
        self._start_send_timer()
        self._update()

    def resume_writing(self) -> None:
        """Go on with the response."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._cancel_send_timer()
            self._update()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._update()

    def _update(self) -> None:
        """Find out what the connection does now, and set the timers for that."""
        if self.transport.is_closing():
            self._cancel_head_timer()
            self._start_send_timer()  # a closed connection stays until its response is read
            return
        phase = self._find_phase()
        if phase is not self.phase:
            self.phase, self.since = phase, time.monotonic()
        if phase is not Phase.HEAD:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_timeout_s, self.abort)

    def _find_phase(self) -> Phase:
        if self.flow.write_paused:
            return Phase.SENDING
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            return Phase.BODY if cycle.more_body else Phase.ANSWERING
        is_between = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if cycle is None or not is_between:
            return Phase.HEAD
        if self.timeout_keep_alive_task is None:  # it ended with the rest of a body
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        return Phase.IDLE

    def _start_send_timer(self) -> None:
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(SEND_TIMEOUT_S, self.abort)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
