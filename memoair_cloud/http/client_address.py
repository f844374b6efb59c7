"""The address of the client of a request, where need be as a trusted proxy says."""

from ipaddress import IPv6Address, ip_address, ip_network

from fastapi import Request

from memoair_cloud.http.peers import is_from_network, last_value
from memoair_cloud.settings import CloudSettings

# A subscriber to IPv6 gets a network of this size at least, and may take any address of it.
_IPV6_PREFIX = 64


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
