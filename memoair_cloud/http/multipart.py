"""Files in a request: a limit on the whole body, and temporary files on the disk instead of memory."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from memoair_cloud.errors import BatchTooLargeError, InvalidRequestError
from memoair_cloud.http.dependencies import ProjectTenant, get_services

FIELD = "files"
MAX_FILES_PER_REQUEST = 1_000
_MAX_FIELDS = 20


async def receive_files(request: Request, _: ProjectTenant) -> AsyncIterator[list[UploadFile]]:
    """Yield the files of a request that is authenticated. This is the FastAPI dependency.

    They are temporary files without a name, which the system removes also if this process is killed.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidRequestError(f"expected multipart/form-data with parts named {FIELD}", field="Content-Type")
    limited = limit_body(request, get_services(request).settings.upload_request_bytes)
    try:
        form = await limited.form(max_files=MAX_FILES_PER_REQUEST, max_fields=_MAX_FIELDS)
    except ClientDisconnect:
        raise InvalidRequestError("the body is incomplete") from None
    except HTTPException as error:
        raise InvalidRequestError(f"invalid multipart body: {error.detail}") from None
    try:
        files = [part for part in form.getlist(FIELD) if isinstance(part, UploadFile) and part.filename]
        if not files:
            raise InvalidRequestError(f"the body has no file in a part named {FIELD}", field=FIELD)
        yield files
    finally:
        await form.close()


def limit_body(request: Request, max_bytes: int) -> Request:
    """Return a request whose body raises `BatchTooLargeError` when it exceeds a size in bytes."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise BatchTooLargeError(f"the body exceeds {max_bytes} bytes", limit=max_bytes)
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > max_bytes:
            raise BatchTooLargeError(f"the body exceeds {max_bytes} bytes", limit=max_bytes)
        return message

    return Request(request.scope, receive)


ReceivedFiles = Annotated[list[UploadFile], Depends(receive_files)]
