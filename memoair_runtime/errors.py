"""Request errors: the one table that maps each error to its HTTP status and error code."""

from http import HTTPStatus
from typing import Any, ClassVar


class RequestError(Exception):
    """An error that is returned to the client in the envelope ``{"error": {"code", "message", "details"}}``.

    The message and the details name fields, types and sizes. They never contain what the user said.

    Attributes:
        status: HTTP status of the reply.
        code: Error code of the envelope, part of the wire protocol.
        message: What happened, for people.
        details: JSON object with machine-readable facts, such as the name of a field.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "runtime.internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def envelope(self) -> dict[str, Any]:
        """Return the body of the reply."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


class BadRequestError(RequestError):
    """The request is malformed or has an invalid value."""

    status = HTTPStatus.BAD_REQUEST
    code = "runtime.bad_request"


class UnknownPathError(BadRequestError):
    """The path is not an endpoint."""

    status = HTTPStatus.NOT_FOUND


class UnknownMethodError(BadRequestError):
    """The endpoint does not support the method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class UnauthorizedError(RequestError):
    """The bearer token is missing or invalid."""

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
    """The body exceeds the size limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "runtime.payload_too_large"


class DrainingError(RequestError):
    """The process is shutting down and accepts no new work."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "runtime.draining"


class StorageUnavailableError(RequestError):
    """The disk is full, read-only or missing, so the turn was not saved. A retry may succeed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "runtime.storage_unavailable"


class InternalError(RequestError):
    """A defect of the runtime."""
