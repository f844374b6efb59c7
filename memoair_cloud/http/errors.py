"""Every error in one envelope, also those that the framework finds before it asks us."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from memoair_cloud.errors import (
    ApiError,
    InternalServerError,
    InvalidKeyError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RateLimitedError,
    ServiceUnavailableError,
)

_MOST_FIELDS = 10


class ErrorPart(BaseModel):
    """What went wrong: a code for programs, a message for people."""

    model_config = ConfigDict(extra="forbid")

    code: str
    message: str
    details: dict[str, Any]


class ErrorEnvelope(BaseModel):
    """The body of every error but one."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorPart


class FlatError(BaseModel):
    """The body of the one error that clients read without an envelope."""

    model_config = ConfigDict(extra="forbid")

    error: str
    message: str


EVERYWHERE: tuple[type[ApiError], ...] = (
    InvalidKeyError,
    InvalidRequestError,
    RateLimitedError,
    InternalServerError,
    ServiceUnavailableError,
)
IN_A_PROJECT = (*EVERYWHERE, NotFoundError)


def documented(faults: Iterable[type[ApiError]], *more: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI is told of the errors of an endpoint."""
    told: dict[int | str, dict[str, Any]] = {}
    for fault in sorted({*faults, *more}, key=lambda each: each.status):
        summary = (fault.__doc__ or "").partition("\n")[0]
        told[int(fault.status)] = {"model": ErrorEnvelope, "description": f"`{fault.code}`: {summary}"}
    return told


def add_error_handlers(app: FastAPI) -> None:
    """Let every error be answered in the envelope."""
    app.add_exception_handler(
        ApiError, lambda _, error: reply(error) if isinstance(error, ApiError) else reply(InternalServerError(""))
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_the_framework)
    for kind in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(kind, _database_gone)


def reply(fault: ApiError) -> JSONResponse:
    """The answer to a request that went wrong."""
    return JSONResponse(fault.body(), int(fault.status), fault.headers())


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what the handler is registered for
    # Where and what, but not what was sent: neither input nor context nor the values in a path.
    fields = [{"field": ".".join(map(str, each["loc"])), "problem": each["msg"]} for each in error.errors()]
    first = fields[0]
    return reply(InvalidRequestError(f"{first['field']}: {first['problem']}", fields=fields[:_MOST_FIELDS]))


def _of_the_framework(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what the handler is registered for
    if error.status_code == NotFoundError.status:
        return reply(NotFoundError("there is no such endpoint"))
    if error.status_code == MethodNotAllowedError.status:
        allow = (error.headers or {}).get("Allow", "")
        return reply(MethodNotAllowedError(f"this endpoint takes {allow}", allow=allow))
    return reply(InvalidRequestError("the request can't be understood"))


def _database_gone(_: Request, __: Exception) -> JSONResponse:
    return reply(ServiceUnavailableError("the database does not answer", store="database"))
