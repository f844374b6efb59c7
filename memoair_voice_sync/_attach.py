"""A runtime that somebody else started and will end."""

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._probe import MEMORY_CLOSED, check_runtime
from memoair_voice_sync._transport import ConnectionBrokenError, RuntimeTransport, RuntimeUnreachableError


class AttachedRuntime:
    """The way to a runtime at a given address; it is asked whom it serves before anything is sent to it."""

    def __init__(self, transport: RuntimeTransport, project_id: str, user_id: str, url: str) -> None:
        self._transport = transport
        self._project_id, self._user_id = project_id, user_id
        self._url = url
        self._is_verified = False
        self._is_closed = False

    pid: int | None = None  # not ours, whatever it is

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the way to the runtime; raises ``runtime.start_failed`` where none listens."""
        if self._is_closed:
            raise MemoAirVoiceMemoryError("pool.closed", MEMORY_CLOSED)
        if not self._is_verified:
            try:
                check_runtime(self._transport, self._project_id, self._user_id, deadline)
            except ConnectionBrokenError as error:
                raise MemoAirVoiceMemoryError("runtime.internal", str(error)) from error
            except RuntimeUnreachableError as error:
                message = f"no runtime listens at {self._url}; start voice-runtime, or leave auto_start_runtime on"
                raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
            self._is_verified = True
        return self._transport

    def mark_unreachable(self, transport: RuntimeTransport) -> None:  # noqa: ARG002 - there is but one
        """Say that the runtime did not take a connection: who listens next may be another."""
        self._is_verified = False

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Say that the runtime did not answer in time; that is for whoever started it to mend."""

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Say that the runtime answered."""

    def stop(self, timeout_s: float) -> None:  # noqa: ARG002
        """Close the connections; the runtime is not ours to end."""
        self._is_closed = True
        self._transport.close()
