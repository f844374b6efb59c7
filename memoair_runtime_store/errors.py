"""Errors of pulling a runtime."""

from memoair_protocol.errors import MemoAirVoiceMemoryError


class RuntimeStoreError(Exception):
    """A pull failed.

    Attributes:
        message: What went wrong. It completes "the runtime X could not be pulled: ...".
        code: The code of the error that the application sees.
        retryable: Whether an immediate retry may help: a network failure, or a busy server.
    """

    def __init__(self, message: str, *, code: str = "runtime.start_failed", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable


class PullCancelledError(Exception):
    """The pull was cancelled."""


def not_found(message: str) -> RuntimeStoreError:
    """Return an error for a runtime that does not exist or is not accessible."""
    return RuntimeStoreError(message, code="runtime.not_found")


def to_public_error(error: RuntimeStoreError | OSError, reference: str) -> MemoAirVoiceMemoryError:
    """Return the error that the application sees, naming the reference that could not be pulled."""
    if isinstance(error, RuntimeStoreError):
        return MemoAirVoiceMemoryError(error.code, f"the runtime {reference} could not be pulled: {error.message}")
    reason = error.strerror or type(error).__name__
    return MemoAirVoiceMemoryError("runtime.start_failed", f"the runtime {reference} could not be pulled: {reason}")
