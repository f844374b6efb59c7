"""Why the cloud did not take a call, as far as it matters for what to do next."""

from enum import Enum


class FailureKind(Enum):
    """What to do about it."""

    TRANSIENT = "passing"  # network, time-out, a fault of the server, an answer that can't be read: try again
    REJECTED = "refused"  # key, project, caller, or a server that has no such call: somebody has to mend it
    INVALID = "unfit"  # what was sent is too large or makes no sense: the same will never be taken


class CloudError(Exception):
    """A call that the cloud did not take. The message names kinds and numbers, never keys, ids or words."""

    def __init__(self, kind: FailureKind, message: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s

    def without_traceback(self) -> "CloudError":
        """The same without the stack that it came by, to be kept."""
        return CloudError(self.kind, self.message, status=self.status, retry_after_s=self.retry_after_s)


def invalid_response(reason: str) -> CloudError:
    """An answer that is not what it should be: the next one may be."""
    return CloudError(FailureKind.TRANSIENT, f"the cloud's answer can't be used: {reason}")
