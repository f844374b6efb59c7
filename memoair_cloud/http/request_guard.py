"""Refuse requests that could mean two things, or whose body does not arrive, before anything else reads them."""

import asyncio
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memoair_cloud.errors import ApiError, InvalidKeyError, InvalidRequestError, RequestTimeoutError
from memoair_cloud.http.errors import make_error_response

# Of two values, a proxy may check one and the server use the other.
_SINGLE_HEADERS = (
    "Authorization",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Host",
    "If-None-Match",
    "Transfer-Encoding",
    "X-Agent-Id",
    "X-Project-Id",
    "X-Request-Id",
    "X-User-Id",
)
_NAMES = {name.lower().encode(): name for name in _SINGLE_HEADERS}
# The rate below which a body does not arrive in time, however steadily.
_MIN_BYTES_PER_S = 1_000


class SingleHeaders:
    """Middleware that refuses a request with two values of a header that has one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            counts = Counter(name for name, _ in scope["headers"])
            repeated = next((_NAMES[name] for name, count in counts.items() if count > 1 and name in _NAMES), None)
            if repeated is not None:
                await make_error_response(_make_error(repeated))(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyTimeout:
    """Middleware that ends a request whose body does not arrive in time.

    Args:
        app: The application.
        timeout_s: How long to wait for the next part of a body, in seconds. The whole body may take that long and
            another second for each kilobyte.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _TimedBody(receive, send, self._timeout_s)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if not body.is_late or body.has_response:
                raise
        if body.is_late and not body.has_response:
            error = RequestTimeoutError("the body did not arrive in time", timeoutS=self._timeout_s)
            await make_error_response(error)(scope, receive, send)


class _TimedBody:
    """The body of a request. To the application, a late one looks like one whose client is gone."""

    def __init__(self, receive: Receive, send: Send, timeout_s: float) -> None:
        self._receive, self._send = receive, send
        self._timeout_s = timeout_s
        self._started_at = asyncio.get_running_loop().time()
        self._size = 0
        self._is_complete = False
        self.is_late = False
        self.has_response = False

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()  # waits for the client to disconnect, which may take long
        if self.is_late:
            return {"type": "http.disconnect"}
        elapsed_s = asyncio.get_running_loop().time() - self._started_at
        remaining_s = self._timeout_s + self._size / _MIN_BYTES_PER_S - elapsed_s
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, min(self._timeout_s, remaining_s)))
        except asyncio.TimeoutError:
            self.is_late = True
            return {"type": "http.disconnect"}
        self._size += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self.is_late and not self.has_response:
            return  # what the application says of a client that is gone
        self.has_response = True
        await self._send(message)


def _make_error(header: str) -> ApiError:
    if header == "Authorization":
        return InvalidKeyError("Authorization must not be sent more than once")
    return InvalidRequestError(f"{header} must not be sent more than once", field=header)
