"""Who may read the metrics: they tell how much a company's customers call, and which projects it has."""

import hmac

from fastapi import Request

from memoair_cloud.errors import InvalidKeyError
from memoair_cloud.http.client_address import is_forwarded, is_from_network
from memoair_cloud.settings import CloudSettings


def check_may_read_metrics(request: Request, settings: CloudSettings) -> None:
    """Check that a request has the token of the metrics, or comes from an address that needs none.

    A request that a proxy forwards needs the token in any case. Such a proxy is often on this machine, so that its
    address, and that of everybody behind it, is loopback.

    Raises:
        InvalidKeyError: If it may not read them.
    """
    wanted = settings.metrics_token.get_secret_value()
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # The header was decoded as Latin-1, so encoding restores its bytes exactly.
    sent = token.strip().encode("latin-1", "replace")
    if wanted and scheme.lower() == "bearer" and hmac.compare_digest(sent, wanted.encode()):
        return
    if is_from_network(request, settings.metrics_networks) and not is_forwarded(request):
        return
    raise InvalidKeyError("the metrics need the token of MEMOAIR_CLOUD_METRICS_TOKEN, or a request from this machine")
