"""What can be wrong with a request: one table from fault to HTTP status and error code."""

from http import HTTPStatus
from typing import Any, ClassVar


class RequestError(Exception):
    """A refusal that the caller is told of, in the envelope ``{"error": {"code", "message", "details"}}``.

    The message and the details name fields, types and sizes; they never hold what a caller said.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "runtime.internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def envelope(self) -> dict[str, Any]:
        """The body of the reply."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


class BadRequestError(RequestError):
    """The request can't be understood, or asks for what can't be."""

    status = HTTPStatus.BAD_REQUEST
    code = "runtime.bad_request"


class UnknownPathError(BadRequestError):
    """There is no such endpoint."""

    status = HTTPStatus.NOT_FOUND


class UnknownMethodError(BadRequestError):
    """The endpoint is called with another method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""

    status = HTTPStatus.UNAUTHORIZED
    code = "runtime.unauthorized"


class SessionNotFoundError(RequestError):
    """The session has ended."""

    status = HTTPStatus.NOT_FOUND
    code = "runtime.session_not_found"


class IdentityMismatchError(RequestError):
    """The request names another project or user than the one that this process serves."""

    status = HTTPStatus.CONFLICT
    code = "runtime.identity_mismatch"


class PayloadTooLargeError(RequestError):
    """The body is over the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "runtime.payload_too_large"


class DrainingError(RequestError):
    """The process is about to end and takes nothing new."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "runtime.draining"


class StorageUnavailableError(RequestError):
    """The disk is full, read-only or gone: the turn was not kept. Trying again may help."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "runtime.storage_unavailable"


class InternalError(RequestError):
    """A defect of ours."""
