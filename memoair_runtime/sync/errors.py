"""The error for a failed cloud request, classified by what to do next."""

from enum import Enum


class FailureKind(Enum):
    """What to do about a failed request."""

    TRANSIENT = "transient"  # network, timeout, server error, unreadable response: retry
    REJECTED = "rejected"  # key, project or user, or a server without this endpoint: a person has to fix it
    INVALID = "invalid"  # the content is too large or malformed: the same content will never be accepted


class CloudError(Exception):
    """A request that the cloud did not accept.

    The message names kinds and numbers, never keys, ids or what was said.

    Attributes:
        kind: What to do about it.
        message: The message.
        status: The HTTP status; 0 if there was no response.
        retry_after_s: Seconds to wait, if the cloud asked for that.
    """

    def __init__(self, kind: FailureKind, message: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s

    def without_traceback(self) -> "CloudError":
        """Return a copy that can be kept: a traceback would keep the connection and its buffers alive."""
        return CloudError(self.kind, self.message, status=self.status, retry_after_s=self.retry_after_s)


def invalid_response(reason: str) -> CloudError:
    """Create the error for a malformed response. It is transient, because the next response may be correct."""
    return CloudError(FailureKind.TRANSIENT, f"invalid response from the cloud: {reason}")
