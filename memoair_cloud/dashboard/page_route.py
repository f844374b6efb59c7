"""Routes that answer with pages: admit the visitor, check forms, show errors as pages, and set security headers."""

import hashlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from memoair_cloud.dashboard.rendering import render
from memoair_cloud.dashboard.signing import SignatureError
from memoair_cloud.dashboard.visitor import Gatekeeper, SignInRequiredError
from memoair_cloud.errors import (
    ApiError,
    BatchTooLargeError,
    ForbiddenError,
    InternalServerError,
    InvalidRequestError,
)
from memoair_cloud.http.errors import find_outage

log = logging.getLogger(__name__)

# No inline scripts and styles, and nothing from other hosts: what a caller said cannot become code.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",  # also after signing out, going back must not show what callers said
    "Cross-Origin-Opener-Policy": "same-origin",
}
FORM_FIELD = "form_token"
FORM_HEADER = "X-Form-Token"
FORM_COOKIE = "memoair_form"
_FORM_MAX_AGE_S = 43_200.0
MAX_FORM_BYTES = 64 << 10
_SAFE_METHODS = frozenset({"GET", "HEAD"})

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def gatekeeper_of(request: Request) -> Gatekeeper:
    """Return the gatekeeper of the application that handles a request."""
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    return gatekeeper


def sign_form(gatekeeper: Gatekeeper, form_key: str) -> str:
    """Return the token that a form carries, to show that it comes from a page of this person."""
    return gatekeeper.signer.sign("form", hashlib.sha256(form_key.encode()).hexdigest())


class PageRoute(APIRoute):
    """A route for visitors who have signed in."""

    requires_visitor = True
    max_form_bytes = MAX_FORM_BYTES

    def get_route_handler(self) -> Handler:
        """Return a handler that answers with a page, whatever happens."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                if self.requires_visitor:
                    gatekeeper = gatekeeper_of(request)
                    visitor = await run_in_threadpool(gatekeeper.admit, request)
                    request.state.make_form_token = partial(sign_form, gatekeeper, visitor.form_key)
                if request.method not in _SAFE_METHODS:
                    await self._check_form(request)
                response = await handler(request)
            except SignInRequiredError as error:
                response = _redirect_to_sign_in(request, error)
            except Exception as error:  # noqa: BLE001 - a person needs a page, also after a fault
                response = await run_in_threadpool(render_error, request, _to_api_error(error))
            finally:
                await request.close()  # the temporary files of a form that was refused, too
            for name, value in SECURITY_HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handle

    async def _check_form(self, request: Request) -> None:
        """Raise unless a form comes from a page that this server gave to this person."""
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise InvalidRequestError("the form has no Content-Length")
        if int(length) > self.max_form_bytes:
            raise BatchTooLargeError(f"the form exceeds {self.max_form_bytes} bytes")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise ForbiddenError("the form comes from another site", reason="form")
        sent = request.headers.get(FORM_HEADER) or await self._read_token(request)
        gatekeeper, form_key = gatekeeper_of(request), self._form_key(request)
        try:
            digest = await run_in_threadpool(gatekeeper.signer.verify, "form", sent, _FORM_MAX_AGE_S)
        except SignatureError:
            digest = ""
        if not form_key or digest != hashlib.sha256(form_key.encode()).hexdigest():
            message = "the form is too old, or not from this dashboard: go back, load the page again and repeat"
            raise ForbiddenError(message, reason="form")

    async def _read_token(self, request: Request) -> str:
        try:
            return str((await request.form()).get(FORM_FIELD) or "")
        except HTTPException as error:  # of the parser: too many fields, for example
            raise InvalidRequestError(f"invalid form: {error.detail}") from None
        except ClientDisconnect:
            raise InvalidRequestError("the form is incomplete") from None

    def _form_key(self, request: Request) -> str:
        form_key: str = request.state.visitor.form_key
        return form_key


class PublicPageRoute(PageRoute):
    """A route for everyone: the page to sign in. Its form is bound to a cookie."""

    requires_visitor = False

    def _form_key(self, request: Request) -> str:
        return request.cookies.get(FORM_COOKIE, "")


def render_error(request: Request, error: ApiError) -> Response:
    """Return the page for an error."""
    return render(request, "error.html", {"error": error}, error.status)


def _to_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        # Where and what, not what was sent.
        first = error.errors()[0]
        return InvalidRequestError(f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")
    outage = find_outage(error)
    if outage is not None:
        return outage
    log.error("a page failed", exc_info=error, extra={"action": "page_failed"})
    return InternalServerError("the page failed; the server's log has the reason")


def _redirect_to_sign_in(request: Request, error: SignInRequiredError) -> Response:
    # A form cannot be sent again after signing in: it leads to the page where it was.
    path = request.url.path if request.method in _SAFE_METHODS else "/dashboard"
    raw_path = request.scope.get("raw_path")
    if raw_path and request.method in _SAFE_METHODS:
        path = raw_path.decode("ascii", "replace").partition("?")[0]  # with its encoded slashes
    query = f"?{request.url.query}" if request.url.query and request.method in _SAFE_METHODS else ""
    expired = "&expired=1" if error.has_expired else ""
    location = f"/dashboard/sign-in?next={quote(path + query, safe='')}{expired}"
    if request.headers.get("hx-request"):  # htmx would put the page into a part of this one
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": location})
    return RedirectResponse(location, HTTPStatus.SEE_OTHER)
