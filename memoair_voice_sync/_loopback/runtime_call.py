"""One call to a runtime, repeated on its successor where the runtime has died."""

import time
from typing import Any

from memoair_protocol.limits import MAX_TIMEOUT_MS
from memoair_voice_sync._loopback.transport import ConnectionBrokenError, RuntimeUnreachableError, encode_body
from memoair_voice_sync._processes.process import RuntimeManager
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The share of a call's time that is kept for the way back of the reply: a runtime composes at its own deadline what
# has arrived by then, and must not answer too late.
RETURN_MARGIN = 0.1
_MAX_BROKEN_CONNECTIONS = 2


def call_runtime(
    manager: RuntimeManager, path: str, body: dict[str, Any], timeout_s: float, *, sends_timeout: bool = False
) -> dict[str, Any]:
    """Call the runtime and return its reply; start it, or another one where it has died, until the time is up.

    With ``sends_timeout`` the request tells the runtime how much of the time it may use itself.
    """
    deadline = time.monotonic() + timeout_s
    content = encode_body(body)
    draining_error: MemoAirVoiceMemoryError | None = None  # why the last runtime did not answer
    broken_connections = 0
    while True:
        try:
            transport = manager.ensure_running(deadline)
        except MemoAirVoiceMemoryError as error:
            if error.code == "runtime.timeout" and draining_error is not None:
                raise draining_error from error
            raise
        request = _with_timeout(content, deadline) if sends_timeout else content
        try:
            reply = transport.call("POST", f"/v1/runtime/{path}", request, deadline)
        except ConnectionBrokenError as error:  # the runtime was killed, or it breaks at this very call
            broken_connections += 1
            if broken_connections > _MAX_BROKEN_CONNECTIONS:
                raise MemoAirVoiceMemoryError("runtime.internal", str(error)) from error
        except RuntimeUnreachableError:
            draining_error = None
        except MemoAirVoiceMemoryError as error:
            if error.code == "runtime.timeout":
                manager.mark_timed_out(transport)
                message = f"the runtime did not answer {path} within {timeout_s * 1e3:.0f} ms"
                raise MemoAirVoiceMemoryError(error.code, message) from error
            if error.code != "runtime.draining":
                manager.mark_responsive(transport)
                raise
            draining_error = error
        else:
            manager.mark_responsive(transport)
            return reply
        manager.mark_unreachable(transport)


def _with_timeout(content: bytes, deadline: float) -> bytes:
    timeout_ms = (deadline - time.monotonic()) * 1e3 * (1 - RETURN_MARGIN)
    return content[:-1] + b', "timeoutMs": %.3f}' % min(max(1.0, timeout_ms), MAX_TIMEOUT_MS)
