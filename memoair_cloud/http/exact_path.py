"""Exact request paths: an id may contain a slash, which clients percent-encode and which must not split the path."""

import re
from typing import Annotated
from urllib.parse import unquote, unquote_to_bytes

from fastapi import Path
from pydantic import AfterValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.errors import make_error_response
from memoair_cloud.identifiers import check_identifier

# An encoded slash, and the encoded percent sign that escapes it.
_ENCODED_SLASH_OR_PERCENT = re.compile(rb"%(2[Ff5])")


class ExactPath:
    """Middleware that routes by the path as it was sent, so that encoded slashes stay encoded.

    Servers decode a path before it is routed. Then ``/users/a%2Fsessions/sessions`` would be ambiguous.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%" in raw:
            escaped = _ENCODED_SLASH_OR_PERCENT.sub(rb"%25\1", raw.partition(b"?")[0])
            try:
                scope["path"] = unquote_to_bytes(escaped).decode()
            except UnicodeDecodeError:  # otherwise two undecodable ids would look the same
                await make_error_response(InvalidRequestError("the path is not in UTF-8"))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _decode_identifier(value: str) -> str:
    return check_identifier(unquote(value))


PathId = Annotated[str, Path(min_length=1), AfterValidator(_decode_identifier)]
