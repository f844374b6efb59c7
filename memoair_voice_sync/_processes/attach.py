"""A runtime that was started elsewhere and is not ended here."""

from memoair_voice_sync._loopback.transport import ConnectionBrokenError, RuntimeTransport, RuntimeUnreachableError
from memoair_voice_sync._processes.process import MEMORY_CLOSED
from memoair_voice_sync.errors import MemoAirVoiceMemoryError


class AttachedRuntime:
    """Access to a runtime at a given address. Its identity is checked before anything is sent to it."""

    def __init__(self, transport: RuntimeTransport, project_id: str, user_id: str, url: str) -> None:
        self._transport = transport
        self._project_id, self._user_id = project_id, user_id
        self._url = url
        self._is_verified = False
        self._is_closed = False

    pid: int | None = None  # the process is not ours

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the transport to the runtime; raise ``runtime.start_failed`` if none listens."""
        if self._is_closed:
            raise MemoAirVoiceMemoryError("pool.closed", MEMORY_CLOSED)
        if not self._is_verified:
            try:
                self._transport.verify_identity(self._project_id, self._user_id, deadline)
            except ConnectionBrokenError as error:
                raise MemoAirVoiceMemoryError("runtime.internal", str(error)) from error
            except RuntimeUnreachableError as error:
                message = f"no runtime listens at {self._url}; start voice-runtime, or set auto_start_runtime=True"
                raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
            self._is_verified = True
        return self._transport

    def mark_unreachable(self, transport: RuntimeTransport) -> None:  # noqa: ARG002 - there is only one
        """Check the identity again before the next call: another runtime may listen there by then."""
        self._is_verified = False

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Do nothing: only the process that started the runtime can replace it."""

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Do nothing."""

    def stop(self, timeout_s: float) -> None:  # noqa: ARG002
        """Close the connections and leave the runtime running."""
        self._is_closed = True
        self._transport.close()
