"""Signatures of webhooks: HMACs over the bytes of the body, compared in constant time, valid for a limited time.

Each function returns whether a request is authentic. ``now`` is in seconds since 1970, and ``body`` comes in parts, so
that a large one need not be in memory.
"""

import hmac
from collections.abc import Iterable
from itertools import chain

RETELL_WINDOW_S = 5 * 60.0
VAPI_WINDOW_S = 5 * 60.0
ELEVENLABS_WINDOW_S = 30 * 60.0
_MIN_MILLISECONDS = 100_000_000_000  # larger timestamps are in milliseconds; in seconds this would be the year 5138


def is_signed_by_retell(body: Iterable[bytes], header: str, api_key: bytes, now: float) -> bool:
    """Check ``X-Retell-Signature: v=MILLISECONDS,d=HEX``, an HMAC over the body followed by the time."""
    fields = _parse_fields(header)
    timestamp = fields.get("v", [""])[0]
    return _is_recent(timestamp, now, RETELL_WINDOW_S) and _matches_signature(
        api_key, chain(body, [timestamp.encode()]), fields.get("d", [])
    )


def is_signed_by_elevenlabs(body: Iterable[bytes], header: str, secret: bytes, now: float) -> bool:
    """Check ``ElevenLabs-Signature: t=SECONDS,v0=HEX``, an HMAC over the time, a dot and the body.

    There are several ``v0`` while a key is being replaced.
    """
    fields = _parse_fields(header)
    timestamp = fields.get("t", [""])[0]
    signed = chain([timestamp.encode() + b"."], body)
    return _is_recent(timestamp, now, ELEVENLABS_WINDOW_S) and _matches_signature(secret, signed, fields.get("v0", []))


def is_signed_by_vapi(body: Iterable[bytes], signature: str, timestamp: str, secret: bytes, now: float) -> bool:
    """Check a credential of Vapi's type HMAC: SHA-256 in hex over ``{timestamp}.{body}``.

    Signatures over the body alone are not accepted, because they would be valid forever.
    """
    signed = chain([timestamp.encode() + b"."], body)
    return _is_recent(timestamp, now, VAPI_WINDOW_S) and _matches_signature(
        secret, signed, [signature.removeprefix("sha256=")]
    )


def matches_secret(candidate: str, secret: bytes) -> bool:
    """Compare a shared secret from a header. An empty secret never matches."""
    return bool(secret) and hmac.compare_digest(candidate.encode(), secret)


def _parse_fields(header: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for part in header.split(",")[:8]:
        name, _, value = part.strip().partition("=")
        fields.setdefault(name, []).append(value)
    return fields


def _is_recent(timestamp: str, now: float, window_s: float) -> bool:
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 16):
        return False
    seconds = int(timestamp)
    return abs(now - (seconds / 1e3 if seconds >= _MIN_MILLISECONDS else seconds)) <= window_s


def _matches_signature(secret: bytes, signed: Iterable[bytes], signatures: list[str]) -> bool:
    if not secret:
        return False
    digest = hmac.new(secret, digestmod="sha256")
    for part in signed:
        digest.update(part)
    expected = digest.hexdigest().encode()
    # Compare bytes: with a str that is not ASCII, compare_digest raises.
    return any(hmac.compare_digest(expected, signature.encode()) for signature in signatures)
