"""Request errors: one class for each error code and HTTP status of the runtime."""

from http import HTTPStatus

from memoair_protocol.errors import ReplyError


class RequestError(ReplyError):
    """An error that is returned to the client."""

    code = "runtime.internal"


class BadRequestError(RequestError):
    """The request is malformed or has an invalid value."""

    code = "runtime.bad_request"


class UnknownPathError(BadRequestError):
    """The path is not an endpoint."""

    status = HTTPStatus.NOT_FOUND


class UnknownMethodError(BadRequestError):
    """The endpoint does not support the method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class LateBodyError(BadRequestError):
    """The body of the request did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class UnauthorizedError(RequestError):
    """The bearer token is missing or invalid."""

    code = "runtime.unauthorized"


class SessionNotFoundError(RequestError):
    """The session has ended."""

    code = "runtime.session_not_found"


class IdentityMismatchError(RequestError):
    """The request names another project or user than the one that this process serves."""

    code = "runtime.identity_mismatch"


class PayloadTooLargeError(RequestError):
    """The body exceeds the size limit."""

    code = "runtime.payload_too_large"


class DrainingError(RequestError):
    """The process is shutting down and accepts no new work."""

    code = "runtime.draining"


class StorageUnavailableError(RequestError):
    """The disk is full, read-only or missing, so the turn was not saved. A retry may succeed."""

    code = "runtime.storage_unavailable"


class InternalError(RequestError):
    """A defect of the runtime."""


class ErasedTurnError(Exception):
    """The turn is from before an erasure of its user. The reply to the request says so; it is no error."""
