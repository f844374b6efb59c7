"""Who visits the dashboard: a person who signed in with a key, or one that a trusted proxy has authenticated."""

from contextlib import suppress
from datetime import timedelta

import attrs
from fastapi import Request

from memoair_cloud.dashboard.sessions import SessionStore
from memoair_cloud.dashboard.signing import SignatureError, Signer
from memoair_cloud.http.client_address import find_client, is_from_proxy, last_value
from memoair_cloud.http.dependencies import Services
from memoair_cloud.http.rate_limit import RateLimit
from memoair_cloud.settings import CloudSettings
from memoair_cloud.tenancy.access import Credentials, Tenant, make_tenant
from memoair_cloud.tenancy.grants import Grant
from memoair_cloud.tenancy.scoped import Actor

SESSION_COOKIE = "memoair_session"
COOKIE_PATH = "/dashboard"
_MAX_PROXY_NAME_CHARS = 200
# Wrong keys to sign in, from one address. A key cannot be guessed: this stops the noise of those who try.
_SIGN_INS_PER_S = 0.2


class SignInRequiredError(Exception):
    """The page requires a visitor who has signed in."""

    def __init__(self, *, has_expired: bool) -> None:
        super().__init__("sign in")
        self.has_expired = has_expired


@attrs.frozen
class Visitor:
    """A person who may see the dashboard.

    Attributes:
        tenant: What they may access.
        name: Their name: that of the key, or the one that the proxy gave.
        form_key: What their forms are bound to.
        has_session: Whether they have a session that they can end.
    """

    tenant: Tenant
    name: str
    form_key: str
    has_session: bool

    @property
    def can_write(self) -> bool:
        """Whether they may change data. Pages show no form to others, and services reject theirs."""
        return self.tenant.grant.can_write


@attrs.define
class Gatekeeper:
    """Decides who visits. One for each application; thread-safe.

    Attributes:
        services: The services of the application.
        signer: Signs cookies and forms.
        sessions: The sessions of people who signed in with a key.
        sign_ins: Limits attempts to sign in with a wrong key, by address.
    """

    services: Services
    signer: Signer
    sessions: SessionStore
    sign_ins: RateLimit

    @classmethod
    def of(cls, services: Services) -> "Gatekeeper":
        """Return the gatekeeper of an application."""
        settings = services.settings
        idle, longest = timedelta(seconds=settings.dashboard_idle_s), timedelta(seconds=settings.dashboard_session_s)
        sign_ins = RateLimit(_SIGN_INS_PER_S, settings.dashboard_sign_ins_at_once)
        sessions = SessionStore(services.engine, services.deferred, idle, longest)
        return cls(services, Signer(services.engine, services.deferred), sessions, sign_ins)

    @property
    def settings(self) -> CloudSettings:
        """The settings of the server."""
        return self.services.settings

    def admit(self, request: Request) -> Visitor:
        """Return the visitor of a request.

        Raises:
            SignInRequiredError: If the request has no valid session.
            RateLimitedError: If they send requests too often.
        """
        visitor = self._find_proxy_user(request) or self._find_signed_in(request)
        request.state.account_id = visitor.tenant.scope.account_id
        request.state.visitor = visitor
        return visitor

    def read_token(self, request: Request) -> str | None:
        """Return the token of the request's session, if its cookie is valid."""
        signed = request.cookies.get(SESSION_COOKIE, "")
        with suppress(SignatureError):
            return self.signer.verify("session", signed, self.settings.dashboard_session_s)
        return None

    def is_from_proxy(self, request: Request) -> bool:
        """Return whether a trusted proxy has sent a request."""
        return is_from_proxy(request, self.settings)

    def is_secure(self, request: Request) -> bool:
        """Return whether the person's browser uses HTTPS, if need be as a trusted proxy says."""
        if self.is_from_proxy(request) and (scheme := last_value(request, "x-forwarded-proto")):
            return scheme.lower() == "https"
        return request.url.scheme == "https"

    def sign_in(self, request: Request, key: str) -> tuple[str, Credentials]:
        """Start a session with a key, as `SessionStore.sign_in` does.

        Raises:
            InvalidKeyError: If the key is unknown or revoked.
            RateLimitedError: If too many wrong keys came from the address.
        """
        address = find_client(request, self.settings)
        with self.services.key_throttle.guarding(key, address, self.sign_ins):
            return self.sessions.sign_in(key)

    def _find_signed_in(self, request: Request) -> Visitor:
        if SESSION_COOKIE not in request.cookies:
            raise SignInRequiredError(has_expired=False)
        token = self.read_token(request)
        credentials = None if token is None else self.sessions.resume(token)
        if token is None or credentials is None:
            raise SignInRequiredError(has_expired=True)
        self.services.rate_limit.acquire(credentials.key_id)
        return Visitor(credentials.make_tenant(self.services.engine), credentials.label, token, has_session=True)

    def _find_proxy_user(self, request: Request) -> Visitor | None:
        settings = self.settings
        if settings.dashboard_proxy_header is None or settings.dashboard_proxy_account is None:
            return None
        values = request.headers.getlist(settings.dashboard_proxy_header)
        if len(values) != 1 or not values[0].strip() or not self.is_from_proxy(request):
            return None
        name = values[0].strip()[:_MAX_PROXY_NAME_CHARS]
        self.services.rate_limit.acquire(f"proxy {name}")
        grant, actor = Grant(settings.dashboard_proxy_scope), Actor("proxy", name)
        tenant = make_tenant(self.services.engine, settings.dashboard_proxy_account, grant, actor)
        return Visitor(tenant, name, f"proxy {name}", has_session=False)
