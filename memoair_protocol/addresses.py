"""Addresses: which hosts are this machine, and which URLs name a cloud."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    """Return whether a host, without a port, is this machine: ``localhost`` or a loopback address."""
    if host is None:
        return False
    name = host.removeprefix("[").removesuffix("]").lower()
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_loopback_url(url: str) -> bool:
    """Return whether a URL leads to this machine."""
    try:
        return is_loopback(urlsplit(url).hostname)
    except ValueError:
        return False


def parse_base_url(url: str) -> str | None:
    """Return the URL of a cloud without a trailing slash, or None if it is invalid."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    if not is_valid or parts.username or parts.query or parts.fragment:
        return None
    return url.rstrip("/")
