"""Errors: the table of codes, the error that a server replies with, and the error that the SDK raises."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple


class ErrorCode(NamedTuple):
    """The meaning of a code, the HTTP status that it comes with, and whether trying again may help."""

    meaning: str
    status: int | None
    is_transient: bool


ERROR_CODES: Mapping[str, ErrorCode] = MappingProxyType(
    {
        "runtime.bad_request": ErrorCode("the request is invalid", 400, False),
        "runtime.unauthorized": ErrorCode("the token is missing or wrong", 401, False),
        "runtime.session_not_found": ErrorCode("the session has ended", 404, False),
        "runtime.identity_mismatch": ErrorCode("the runtime serves another project or user", 409, False),
        "runtime.payload_too_large": ErrorCode("the request is larger than 1 MB", 413, False),
        "runtime.draining": ErrorCode("the runtime is shutting down", 503, True),
        "runtime.storage_unavailable": ErrorCode("the turn could not be written to the disk", 503, True),
        "runtime.projection_unavailable": ErrorCode("what the cloud knows has not arrived yet", 503, True),
        "runtime.bootstrap_failed": ErrorCode("the runtime could not be set up", None, True),
        "runtime.internal": ErrorCode("the runtime failed, or its reply is invalid", 500, True),
        "runtime.timeout": ErrorCode("the runtime did not answer in time", None, True),
        "runtime.not_found": ErrorCode("no runtime was found to start", None, False),
        "runtime.start_failed": ErrorCode("the runtime could not be started or reached", None, False),
        "cloud.unauthorized": ErrorCode("the cloud does not know the API key", 401, False),
        "cloud.forbidden": ErrorCode("the scope of the API key does not allow this", 403, False),
        "cloud.not_found": ErrorCode("the cloud has no resource of that name", 404, False),
        "cloud.conflict": ErrorCode("the cloud has another resource of that name", 409, False),
        "cloud.legal_hold": ErrorCode("a legal hold forbids to erase the data", 409, False),
        "cloud.batch_too_large": ErrorCode("more than 100 documents or 1 MB", 413, False),
        "cloud.invalid": ErrorCode("the request is invalid", 422, False),
        "cloud.rate_limited": ErrorCode("too many requests", 429, True),
        "cloud.internal": ErrorCode("the cloud failed, or its reply is invalid", 500, True),
        "cloud.unavailable": ErrorCode("the cloud is unavailable", 503, True),
        "cloud.timeout": ErrorCode("the cloud did not answer in time", None, True),
        "cloud.unreachable": ErrorCode("the cloud cannot be reached, or the client has none", None, True),
        "redaction.failed": ErrorCode("redact= failed, and the turn was not saved", None, False),
        "pool.exhausted": ErrorCode("every runtime of the pool is in use", None, True),
        "pool.port_exhausted": ErrorCode("every port of the range is in use", None, True),
        "pool.outbox_full": ErrorCode("too many turns wait to be saved", None, True),
        "pool.closed": ErrorCode("the client has been closed", None, False),
    }
)


class ReplyError(Exception):
    """An error that a server replies with, in the envelope ``{"error": {"code", "message", "details"}}``.

    Each server has a subclass of its own, with a subclass for each code. A subclass that sets no ``status`` has the one
    of its code in `ERROR_CODES`. Messages and details name fields, types, sizes and limits. They never contain what a
    caller said, or a key.

    Attributes:
        status: The HTTP status of the reply.
        code: The code of the envelope.
        message: What happened, for people.
        details: A JSON object with facts for programs, such as the name of a field.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "code" in cls.__dict__ and "status" not in cls.__dict__:
            cls.status = HTTPStatus(ERROR_CODES[cls.code].status or HTTPStatus.INTERNAL_SERVER_ERROR)

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def envelope(self) -> dict[str, Any]:
        """Return the body of the reply."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


class MemoAirVoiceMemoryError(Exception):
    """A failure of the memory.

    Attributes:
        code: One of the documented codes, such as ``runtime.timeout``.
        message: What happened. It never contains what a caller said.
        status_code: The HTTP status of the reply, or None if there was none.
        details: Further information about the failure, such as the output of a runtime that did not start.
    """

    code: str
    message: str
    status_code: int | None
    details: dict[str, Any]

    def __init__(
        self, code: str, message: str, status_code: int | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(code, message, status_code, details)  # all of them, so that unpickling restores each
        self.code = code
        self.message = message
        self.status_code = status_code
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def error_from_envelope(envelope: Mapping[str, Any], source: str, status: int) -> MemoAirVoiceMemoryError:
    """Return the error of an error envelope, which came from the ``source`` ("runtime" or "cloud")."""
    details = envelope.get("details")
    return MemoAirVoiceMemoryError(
        str(envelope.get("code") or f"{source}.internal"),
        str(envelope.get("message") or f"the {source} gave no reason"),
        status,
        details if isinstance(details, dict) else {},
    )
