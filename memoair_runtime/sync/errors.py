"""The error for a failed cloud request, classified by what to do next."""

from enum import Enum


class FailureKind(Enum):
    """What to do about a failed request."""

    TRANSIENT = "transient"  # network, timeout, server error, unreadable response: retry
    ONE_REQUEST = "one_request"  # this request only: others may succeed, this one is repeated less often
    REJECTED = "rejected"  # key, project or user, or a server without this endpoint: a person has to fix it
    INVALID = "invalid"  # the content is too large or malformed: the same content will never be accepted


class IdentityPart(str, Enum):
    """The part of the identity that a cloud does not accept."""

    KEY = "key"
    PROJECT = "project"
    AGENT = "agent"


_REJECTIONS = {
    IdentityPart.KEY: "the cloud does not accept the API key, which is unknown or revoked; check api_key",
    IdentityPart.PROJECT: "the cloud has no such project for this API key; check project_id",
    IdentityPart.AGENT: "the cloud has no such agent in the project; check agent_id",
}


class CloudError(Exception):
    """A request that the cloud did not accept.

    The message names kinds and numbers, never keys, ids or what was said.

    Attributes:
        kind: What to do about it.
        message: The message.
        status: The HTTP status; 0 if there was no response.
        retry_after_s: Seconds to wait, if the cloud asked for that.
        rejected_part: The part of the identity that the cloud rejects, if it says so.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int = 0,
        retry_after_s: float | None = None,
        rejected_part: IdentityPart | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.rejected_part = rejected_part

    def without_traceback(self) -> "CloudError":
        """Return a copy that can be kept: a traceback would keep the connection and its buffers alive."""
        return CloudError(
            self.kind,
            self.message,
            status=self.status,
            retry_after_s=self.retry_after_s,
            rejected_part=self.rejected_part,
        )


def rejected_identity(part: IdentityPart, status: int) -> CloudError:
    """Create the error for a part of the identity that the cloud does not accept."""
    return CloudError(FailureKind.REJECTED, _REJECTIONS[part], status=status, rejected_part=part)


def invalid_response(reason: str) -> CloudError:
    """Create the error for a malformed response. It is transient, because the next response may be correct."""
    return CloudError(FailureKind.TRANSIENT, f"invalid response from the cloud: {reason}")
