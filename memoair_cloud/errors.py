"""Errors of the API: one class for each HTTP status and error code."""

from http import HTTPStatus
from typing import Any

from memoair_protocol.errors import ReplyError


class ApiError(ReplyError):
    """An error that is reported to the client."""

    code = "cloud.internal"

    def headers(self) -> dict[str, str]:
        """Return additional headers of the response."""
        return {}


class InvalidRequestError(ApiError):
    """The request is malformed or asks for something impossible."""

    code = "cloud.invalid"


class RequestTimeoutError(ApiError):
    """The body of the request did not arrive in time. Nothing was saved; send it again."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "cloud.timeout"

    def headers(self) -> dict[str, str]:
        """Return the header that ends the connection: the rest of the body may still arrive on it."""
        return {"Connection": "close"}


class MethodNotAllowedError(InvalidRequestError):
    """The endpoint does not support this HTTP method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED

    def headers(self) -> dict[str, str]:
        """Return the ``Allow`` header with the supported methods."""
        return {"Allow": str(self.details.get("allow", ""))}


class InvalidKeyError(ApiError):
    """The API key is missing, unknown or revoked."""

    code = "cloud.unauthorized"

    def headers(self) -> dict[str, str]:
        """Return the challenge that HTTP requires with this status."""
        return {"WWW-Authenticate": "Bearer"}


class ForbiddenError(ApiError):
    """The scope of the key does not allow this; ``scope`` and ``action`` in the details say what."""

    code = "cloud.forbidden"


class NotFoundError(ApiError):
    """The key has no access to such a resource, whether or not it exists in another account."""

    code = "cloud.not_found"


class ConflictError(ApiError):
    """The name is taken, or it is ambiguous."""

    code = "cloud.conflict"


class LegalHoldError(ApiError):
    """A legal hold forbids to erase the data. Lift it first."""

    code = "cloud.legal_hold"


class BatchTooLargeError(ApiError):
    """The request exceeds a limit; send it in smaller parts."""

    code = "cloud.batch_too_large"


class DocumentBatchTooLargeError(BatchTooLargeError):
    """A `BatchTooLargeError` for documents. Existing clients expect exactly this flat body."""

    def envelope(self) -> dict[str, Any]:
        """Return the body without the error envelope."""
        return {"error": "batch_too_large", "message": self.message}


class RateLimitedError(ApiError):
    """The key sends requests too often; ``retryAfterS`` is the number of seconds to wait."""

    code = "cloud.rate_limited"

    def headers(self) -> dict[str, str]:
        """Return the ``Retry-After`` header, in whole seconds as HTTP requires."""
        return {"Retry-After": str(max(1, round(self.details.get("retryAfterS", 1) + 0.5)))}


class ServiceUnavailableError(ApiError):
    """The database or the blob store does not respond. Nothing was saved; try again later."""

    code = "cloud.unavailable"


class UserErasedError(ApiError):
    """The event happened before its caller was erased.

    It occurs only for single events: in the ``rejected`` list of a batch.
    """

    status = HTTPStatus.GONE
    code = "cloud.forgotten"


class InternalServerError(ApiError):
    """An unexpected error on the server."""
