"""Error responses: all errors in one envelope, including those that the framework raises before a route runs."""

import errno
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from memoair_cloud.errors import (
    ApiError,
    ForbiddenError,
    InternalServerError,
    InvalidKeyError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceUnavailableError,
)

_MAX_FIELDS = 10
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_READ_ONLY_STATE = "25006"  # PostgreSQL: the database is read-only, such as one that takes over from another


class ErrorPart(BaseModel):
    """What went wrong: a code for programs, a message for people."""

    model_config = ConfigDict(extra="forbid")

    code: str
    message: str
    details: dict[str, Any]


class ErrorEnvelope(BaseModel):
    """The body of every error response except `FlatError`."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorPart


class FlatError(BaseModel):
    """The body of the one error that existing clients expect without an envelope."""

    model_config = ConfigDict(extra="forbid")

    error: str
    message: str


COMMON_ERRORS: tuple[type[ApiError], ...] = (
    InvalidKeyError,
    ForbiddenError,
    InvalidRequestError,
    RequestTimeoutError,
    RateLimitedError,
    InternalServerError,
    ServiceUnavailableError,
)
PROJECT_ERRORS = (*COMMON_ERRORS, NotFoundError)


def error_responses(errors: Iterable[type[ApiError]], *more: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of an endpoint's errors."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error_type in sorted({*errors, *more}, key=lambda error: error.status):
        summary = (error_type.__doc__ or "").partition("\n")[0]
        responses[int(error_type.status)] = {"model": ErrorEnvelope, "description": f"`{error_type.code}`: {summary}"}
    return responses


def add_error_handlers(app: FastAPI) -> None:
    """Make the application answer every error in the envelope."""
    app.add_exception_handler(
        ApiError,
        lambda _, error: (
            make_error_response(error) if isinstance(error, ApiError) else make_error_response(InternalServerError(""))
        ),
    )
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    for error_type in (OperationalError, InterfaceError, InternalError, PoolTimeoutError, OSError):
        app.add_exception_handler(error_type, _handle_outage)


def find_outage(error: Exception) -> ServiceUnavailableError | None:
    """Return the error to report if what a request needs is not available for now; None for other errors."""
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
    if isinstance(error, InternalError) and sqlstate == _READ_ONLY_STATE:
        return ServiceUnavailableError("the database is read-only", store="database")
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeoutError)):
        return ServiceUnavailableError("the database does not respond", store="database")
    if isinstance(error, OSError) and error.errno in _FULL:
        return ServiceUnavailableError("the server has no space on its disk", store="disk")
    return None


def make_error_response(error: ApiError) -> JSONResponse:
    """Return the response for an error."""
    return JSONResponse(error.envelope(), int(error.status), error.headers())


def _handle_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - guaranteed by the registration
    # Report where and what, but not what was sent: neither input nor context nor path values.
    fields = [{"field": ".".join(map(str, item["loc"])), "problem": item["msg"]} for item in error.errors()]
    first = fields[0]
    return make_error_response(
        InvalidRequestError(f"{first['field']}: {first['problem']}", fields=fields[:_MAX_FIELDS])
    )


def _handle_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - guaranteed by the registration
    if error.status_code == NotFoundError.status:
        return make_error_response(NotFoundError("unknown endpoint"))
    if error.status_code == MethodNotAllowedError.status:
        allow = (error.headers or {}).get("Allow", "")
        return make_error_response(MethodNotAllowedError(f"this endpoint supports only {allow}", allow=allow))
    return make_error_response(InvalidRequestError("invalid HTTP request"))


def _handle_outage(_: Request, error: Exception) -> JSONResponse:
    outage = find_outage(error)
    if outage is None:
        raise error
    return make_error_response(outage)
