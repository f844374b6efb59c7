"""What can be wrong with a request: one table from fault to HTTP status and error code."""

from http import HTTPStatus
from typing import Any, ClassVar


class ApiError(Exception):
    """A refusal that the client is told of, in the envelope ``{"error": {"code", "message", "details"}}``.

    The message and the details name fields, types and limits; they never hold what a caller said, nor a key.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "cloud.internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        """The body of the reply."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}

    def headers(self) -> dict[str, str]:
        """What the reply says beside its body."""
        return {}


class InvalidRequestError(ApiError):
    """The request can't be understood, or asks for what can't be."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "cloud.invalid"


class MethodNotAllowedError(InvalidRequestError):
    """The endpoint is called with another method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED

    def headers(self) -> dict[str, str]:
        """The methods that it takes."""
        return {"Allow": str(self.details.get("allow", ""))}


class InvalidKeyError(ApiError):
    """The API key is missing, unknown or revoked."""

    status = HTTPStatus.UNAUTHORIZED
    code = "cloud.unauthorized"

    def headers(self) -> dict[str, str]:
        """The challenge that HTTP asks for with this status."""
        return {"WWW-Authenticate": "Bearer"}


class NotFoundError(ApiError):
    """There is no such thing in what this key may see, whether or not it exists elsewhere."""

    status = HTTPStatus.NOT_FOUND
    code = "cloud.not_found"


class ConflictError(ApiError):
    """The name is taken, or what is named is not one thing."""

    status = HTTPStatus.CONFLICT
    code = "cloud.conflict"


class BatchTooLargeError(ApiError):
    """The request is over a limit; its parts may be sent one after another."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "cloud.batch_too_large"


class DocumentBatchTooLargeError(BatchTooLargeError):
    """`BatchTooLargeError` for documents, in a shape of its own: existing clients look for exactly this."""

    def body(self) -> dict[str, Any]:
        """Flat, without an envelope."""
        return {"error": "batch_too_large", "message": self.message}


class RateLimitedError(ApiError):
    """This key has asked too often; ``retryAfterS`` tells when it may ask again."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "cloud.rate_limited"

    def headers(self) -> dict[str, str]:
        """When to come again, in whole seconds as HTTP has it."""
        return {"Retry-After": str(max(1, round(self.details.get("retryAfterS", 1) + 0.5)))}


class ServiceUnavailableError(ApiError):
    """The database or the blob store does not answer: nothing was kept. Trying again will help."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "cloud.unavailable"


class UserErasedError(ApiError):
    """What was said before its caller was forgotten. Of events only: it stands among those that were rejected."""

    status = HTTPStatus.GONE
    code = "cloud.forgotten"


class InternalServerError(ApiError):
    """A defect of ours."""
