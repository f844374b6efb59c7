"""The pages to sign in and out."""

import secrets
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from memoair_cloud.dashboard.one_time_links import OneTimeLinks
from memoair_cloud.dashboard.page_route import FORM_COOKIE, PageRoute, PublicPageRoute, gatekeeper_of, sign_form
from memoair_cloud.dashboard.rendering import render
from memoair_cloud.dashboard.visitor import COOKIE_PATH, SESSION_COOKIE
from memoair_cloud.errors import InvalidKeyError, RateLimitedError
from memoair_cloud.tenancy.grants import Action

router = APIRouter(route_class=PublicPageRoute)
signed_in_router = APIRouter(route_class=PageRoute)

_HOME = "/dashboard"
Next = Annotated[str, Query(alias="next", max_length=4_096)]


@router.get("/sign-in")
def show_sign_in(request: Request, next_path: Next = _HOME, expired: bool = False) -> Response:
    """Show the form for a key."""
    message = "Your session has ended. Sign in again: you come back to the page where you were." if expired else ""
    return _show_form(request, next_path, message)


@router.post("/sign-in")
def sign_in(
    request: Request,
    key: Annotated[str, Form(max_length=1_000)] = "",
    next_path: Annotated[str, Form(alias="next", max_length=4_096)] = _HOME,
) -> Response:
    """Start a session with a key."""
    gatekeeper = gatekeeper_of(request)
    try:
        token, credentials = gatekeeper.sign_in(request, key.strip())
    except RateLimitedError as error:
        wait_s = max(1, round(error.details.get("retryAfterS", 1)))
        message = f"Too many attempts from this address. Wait {wait_s} seconds, then try again."
        return _show_form(request, next_path, message, error.status, is_problem=True)
    except InvalidKeyError:
        message = "This key is unknown or revoked. Keys begin with memoair_pk_; `memoair cloud keys` lists them."
        return _show_form(request, next_path, message, HTTPStatus.UNAUTHORIZED, is_problem=True)
    if not credentials.grant.allows(Action.READ):
        gatekeeper.sessions.sign_out(token)
        message = "This key can only send calls. The dashboard needs a key with the scope everything or read."
        return _show_form(request, next_path, message, HTTPStatus.FORBIDDEN, is_problem=True)
    response = RedirectResponse(_local_path(next_path), HTTPStatus.SEE_OTHER)
    _set_cookie(request, response, SESSION_COOKIE, gatekeeper.signer.sign("session", token))
    return response


@router.get("/link/{token}")
def follow_link(request: Request, token: Annotated[str, Path(max_length=200)]) -> Response:
    """Start a session with a link that this server has issued. A link is good for one use."""
    if "prefetch" in request.headers.get("sec-purpose", ""):  # by a browser that guesses: it would use the link up
        return Response(status_code=HTTPStatus.NO_CONTENT)
    gatekeeper = gatekeeper_of(request)
    links: OneTimeLinks = request.app.state.one_time_links
    target = links.redeem(token)
    if target is None:
        message = "This link was used before, or is too old. Sign in with a key, or get a new link from its program."
        return _show_form(request, _HOME, message, HTTPStatus.FORBIDDEN, is_problem=True)
    session_token, _ = gatekeeper.sessions.sign_in(target.key)
    response = RedirectResponse(_local_path(target.path), HTTPStatus.SEE_OTHER)
    _set_cookie(request, response, SESSION_COOKIE, gatekeeper.signer.sign("session", session_token))
    return response


@signed_in_router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """End the session."""
    gatekeeper = gatekeeper_of(request)
    token = gatekeeper.read_token(request)
    if token is not None:
        gatekeeper.sessions.sign_out(token)
    response = RedirectResponse(f"{_HOME}/sign-in", HTTPStatus.SEE_OTHER)
    response.delete_cookie(SESSION_COOKIE, path=COOKIE_PATH)
    return response


def _show_form(
    request: Request, next_path: str, message: str, status: int = HTTPStatus.OK, *, is_problem: bool = False
) -> Response:
    form_key = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(16)
    request.state.make_form_token = lambda: sign_form(gatekeeper_of(request), form_key)
    values = {"next_path": _local_path(next_path), "message": message, "is_problem": is_problem}
    response = render(request, "sign_in.html", values, status)
    _set_cookie(request, response, FORM_COOKIE, form_key)
    return response


def _set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    gatekeeper = gatekeeper_of(request)
    response.set_cookie(
        name,
        value,
        max_age=int(gatekeeper.settings.dashboard_session_s),
        path=COOKIE_PATH,
        secure=gatekeeper.is_secure(request),
        httponly=True,
        # Not "strict": with it, a link that a colleague sent would open without the cookie, and ask for the key again.
        samesite="lax",
    )


def _local_path(path: str) -> str:
    """Return a path of the dashboard; the home page for any other address."""
    parts = urlsplit(path.replace("\\", "/"))
    is_local = not parts.scheme and not parts.netloc and not any(char < " " for char in path)
    is_page = parts.path == _HOME or parts.path.startswith(f"{_HOME}/")
    return path if is_local and is_page and not parts.path.startswith(f"{_HOME}/sign-") else _HOME
