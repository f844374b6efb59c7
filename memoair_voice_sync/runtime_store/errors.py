"""What can go wrong while a runtime is pulled."""

from memoair_voice_sync._errors import MemoAirVoiceMemoryError


class RuntimeStoreError(Exception):
    """A pull came to nothing. ``code`` is that of the error which the application sees."""

    def __init__(self, message: str, *, code: str = "runtime.start_failed", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable  # whether to try again at once may help: the network, or a server that is busy


class PullCancelledError(Exception):
    """Nobody wants it any more."""


def not_found(message: str) -> RuntimeStoreError:
    """What was named does not exist, or not for us."""
    return RuntimeStoreError(message, code="runtime.not_found")


def to_public_error(error: RuntimeStoreError | OSError, reference: str) -> MemoAirVoiceMemoryError:
    """The error that the application sees; ``shown`` is what was to be pulled."""
    if isinstance(error, RuntimeStoreError):
        return MemoAirVoiceMemoryError(error.code, f"the runtime {reference} could not be pulled: {error.message}")
    reason = error.strerror or type(error).__name__
    return MemoAirVoiceMemoryError("runtime.start_failed", f"the runtime {reference} could not be pulled: {reason}")
