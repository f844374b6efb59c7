"""The one error that the SDK raises for the memory, and the table of its codes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class ErrorCode(NamedTuple):
    """What a code means: in words, with which HTTP status it comes, and whether trying again may help."""

    meaning: str
    status: int | None
    is_transient: bool


ERROR_CODES = MappingProxyType(
    {
        "runtime.bad_request": ErrorCode("the request can't be understood", 400, False),
        "runtime.unauthorized": ErrorCode("the runtime wants another token", 401, False),
        "runtime.session_not_found": ErrorCode("the session has ended", 404, False),
        "runtime.identity_mismatch": ErrorCode("the runtime serves another project or user", 409, False),
        "runtime.payload_too_large": ErrorCode("the request is over 1 MB", 413, False),
        "runtime.draining": ErrorCode("the runtime is about to end", 503, True),
        "runtime.storage_unavailable": ErrorCode("the disk did not take the turn", 503, True),
        "runtime.projection_unavailable": ErrorCode("what the cloud knows has not arrived yet", 503, True),
        "runtime.bootstrap_failed": ErrorCode("the runtime could not be set up", None, True),
        "runtime.internal": ErrorCode("the runtime failed, or its answer can't be read", 500, True),
        "runtime.timeout": ErrorCode("there was no answer in time", None, True),
        "runtime.not_found": ErrorCode("there is no runtime to start", None, False),
        "runtime.start_failed": ErrorCode("the runtime could not be started or reached", None, False),
        "cloud.unauthorized": ErrorCode("the cloud does not know the API key", 401, False),
        "cloud.not_found": ErrorCode("the cloud has nothing of that name", 404, False),
        "cloud.conflict": ErrorCode("the cloud has something else of that name", 409, False),
        "cloud.batch_too_large": ErrorCode("over 100 documents or 1 MB", 413, False),
        "cloud.invalid": ErrorCode("the cloud can't understand the request", 422, False),
        "cloud.rate_limited": ErrorCode("too many requests", 429, True),
        "cloud.internal": ErrorCode("the cloud failed, or its answer can't be read", 500, True),
        "cloud.unavailable": ErrorCode("the cloud can't serve now", 503, True),
        "cloud.timeout": ErrorCode("the cloud did not answer in time", None, True),
        "cloud.unreachable": ErrorCode("there is no way to the cloud", None, True),
        "redaction.failed": ErrorCode("redact= failed, and the turn was not kept", None, False),
        "pool.exhausted": ErrorCode("every runtime of the pool is in use", None, True),
        "pool.port_exhausted": ErrorCode("every port of the range is in use", None, True),
        "pool.closed": ErrorCode("the client has been closed", None, False),
    }
)


class MemoAirVoiceMemoryError(Exception):
    """Memory could not do what it was asked.

    ``code`` is one of the documented codes (``runtime.timeout``, ...), ``message`` says what happened and never holds
    what a caller said, ``status_code`` is the HTTP status where there was one, ``details`` is what else the envelope
    told.
    """

    code: str
    message: str
    status_code: int | None
    details: dict[str, Any]

    def __init__(
        self, code: str, message: str, status_code: int | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(code, message, status_code, details)  # all of them, so that a pickled error comes back whole
        self.code = code
        self.message = message
        self.status_code = status_code
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def error_from_envelope(envelope: Mapping[str, Any], source: str, status: int) -> MemoAirVoiceMemoryError:
    """The error that an envelope of the ``teller`` ("runtime" or "cloud") tells of."""
    details = envelope.get("details")
    return MemoAirVoiceMemoryError(
        str(envelope.get("code") or f"{source}.internal"),
        str(envelope.get("message") or f"the {source} did not say why"),
        status,
        details if isinstance(details, dict) else {},
    )
