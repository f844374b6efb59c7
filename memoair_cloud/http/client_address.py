"""Where a request comes from: the address of its connection, and of its client where a trusted proxy says it."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from fastapi import Request

from memoair_cloud.settings import CloudSettings

# A subscriber to IPv6 gets a network of this size at least, and may take any address of it.
_IPV6_PREFIX = 64
# What proxies add about the client. Its content is not read here: anyone may send it.
_FORWARDING_HEADERS = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
)


def is_from_network(request: Request, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Return whether the connection of a request is from one of these networks."""
    peer = _find_peer(request)
    return peer is not None and any(peer in network for network in networks)


def is_forwarded(request: Request) -> bool:
    """Return whether a proxy says that it forwards a request. Then the address of the connection is the proxy's."""
    return any(name in request.headers for name in _FORWARDING_HEADERS)


def last_value(request: Request, header: str) -> str:
    """Return the last value of a header that proxies add to: those before it, anyone may have written.

    A proxy may add to the header that the client sent, or send another one after it.
    """
    return ",".join(request.headers.getlist(header)).rpartition(",")[2].strip()


def is_from_proxy(request: Request, settings: CloudSettings) -> bool:
    """Return whether a trusted proxy has sent a request."""
    return is_from_network(request, settings.trusted_proxies)


def find_client(request: Request, settings: CloudSettings) -> str:
    """Return the address of the client, to count by; of IPv6 its network.

    Of a trusted proxy, that is the last address in ``X-Forwarded-For``: those before it anyone may have written.
    """
    address = request.client.host if request.client else ""
    if is_from_proxy(request, settings):
        address = last_value(request, "x-forwarded-for") or address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
    return str(parsed)


def _find_peer(request: Request) -> IPv4Address | IPv6Address | None:
    try:
        peer = ip_address(request.client.host if request.client else "")
    except ValueError:
        return None
    # A server that listens on all addresses of IPv6 gets those of IPv4 in this form.
    return getattr(peer, "ipv4_mapped", None) or peer
